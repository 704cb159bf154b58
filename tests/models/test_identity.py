"""dlib's network: parity with dlib, invariances, gradients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vidswap import weights
from vidswap.errors import WeightsError
from vidswap.models.identity import DlibIdentity


@pytest.fixture(scope="module")
def identity(weights_home: Path) -> DlibIdentity:
    return DlibIdentity.load(weights.locate("dlib-resnet"))


# dlib.face_recognition_model_v1 (dlib 20.0) on the chips of `chips()` below: the first four
# numbers of each embedding and its length; printed by tools/parity.py --identity-golden.
GOLDEN = Path(__file__).parent.parent / "golden" / "dlib_identity.npz"


def chips() -> np.ndarray:
    """Three fixed pictures ``[3, 150, 150, 3]`` uint8: noise, a gradient, and blobs like a face."""
    random = np.random.default_rng(7)
    noise = random.integers(0, 256, (150, 150, 3), dtype=np.uint8)
    y, x = np.mgrid[0:150, 0:150]
    gradient = np.stack([x * 255 // 149, y * 255 // 149, (x + y) * 255 // 298], -1).astype(np.uint8)
    face = np.full((150, 150, 3), 60.0)
    face += 130 * np.exp(-(((x - 75) / 45.0) ** 2 + ((y - 80) / 60.0) ** 2))[..., None]
    for cx, cy, size in ((52, 60, 8), (98, 60, 8), (75, 115, 14)):
        face -= 90 * np.exp(-(((x - cx) / size) ** 2 + ((y - cy) / (0.6 * size)) ** 2))[..., None]
    return np.stack([noise, gradient, face.clip(0, 255).astype(np.uint8)])


def embed(identity: DlibIdentity, pictures: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return identity(torch.from_numpy(pictures).permute(0, 3, 1, 2).float()).numpy()


def test_embeddings_are_those_of_dlib(identity: DlibIdentity) -> None:
    wanted = np.load(GOLDEN)["embeddings"]
    np.testing.assert_allclose(embed(identity, chips()), wanted, atol=1e-4)


def test_a_batch_gives_what_single_chips_give(identity: DlibIdentity) -> None:
    together = embed(identity, chips())
    alone = np.concatenate([embed(identity, chip[None]) for chip in chips()])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_aligned_pictures_of_any_size_agree(identity: DlibIdentity) -> None:
    smooth = torch.nn.functional.interpolate(torch.randn(1, 3, 12, 12), (512, 512), mode="bicubic")
    small = torch.nn.functional.avg_pool2d(smooth, 2)
    with torch.no_grad():
        away = (identity.embed_aligned(smooth) - identity.embed_aligned(small)).norm()
    assert float(away) < 0.03


def test_gradients_reach_the_picture(identity: DlibIdentity) -> None:
    image = torch.rand(1, 3, 128, 128).requires_grad_(True)
    identity.embed_aligned(image).square().sum().backward()
    inside = image.grad[:, :, 40:110, 30:100].abs().mean()
    assert float(inside) > 0
    assert float(image.grad[:, :, :20].abs().max()) == 0  # outside the chip nothing counts


def test_wrong_shapes_are_named(identity: DlibIdentity) -> None:
    with pytest.raises(ValueError, match="150"):
        identity(torch.zeros(1, 3, 128, 128))


def test_other_weights_are_refused(weights_home: Path) -> None:
    with pytest.raises(WeightsError, match="not dlib"):
        DlibIdentity.load(weights.locate("mobilestylegan"))

"""The generator: parity with the packaged graph, windows, heads, shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vidswap import weights
from vidswap.errors import WeightsError
from vidswap.models import load_generator
from vidswap.models.mobile_stylegan import MobileStyleGAN, inverse_haar
from vidswap.training.heads import evaluate_heads


@pytest.fixture(scope="module")
def generator(weights_home: Path) -> MobileStyleGAN:
    return load_generator("mobilestylegan", weights.locate)


def code(generator: MobileStyleGAN, seed: int) -> torch.Tensor:
    return generator.sample(seed)[:, None].repeat(1, generator.n_styles, 1)


def reference_inverse_haar(x: np.ndarray) -> np.ndarray:
    """Slow twin: each 2x2 block from its four bands, one at a time."""
    channels, height, width = x.shape[0] // 4, x.shape[1], x.shape[2]
    out = np.zeros((channels, 2 * height, 2 * width), x.dtype)
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                lo = x[c, i, j]
                lh, hl, hh = (x[channels + 3 * c + band, i, j] for band in range(3))
                out[c, 2 * i, 2 * j] = (lo + lh + hl + hh) / 2
                out[c, 2 * i, 2 * j + 1] = (lo + lh - hl - hh) / 2
                out[c, 2 * i + 1, 2 * j] = (lo - lh + hl - hh) / 2
                out[c, 2 * i + 1, 2 * j + 1] = (lo - lh - hl + hh) / 2
    return out


def test_inverse_haar_equals_its_slow_twin() -> None:
    x = torch.randn(2, 12, 3, 5)
    made = inverse_haar(x)
    for image, wanted in zip(made, x, strict=True):
        np.testing.assert_allclose(image.numpy(), reference_inverse_haar(wanted.numpy()), atol=1e-6)


@torch.no_grad()
def test_the_heads_show_what_the_full_picture_shows(generator: MobileStyleGAN) -> None:
    figures = evaluate_heads(generator, generator.heads, count=3)
    assert set(figures) == {128, 256}
    assert min(figures.values()) > 33


def test_inverse_haar_keeps_energy() -> None:
    x = torch.randn(1, 8, 4, 4)
    assert float(inverse_haar(x).square().sum()) == pytest.approx(float(x.square().sum()), rel=1e-5)


def test_parity_with_openvino_on_the_packaged_graph(generator: MobileStyleGAN) -> None:
    """Every 16th pixel of two pictures as OpenVINO (f32) draws them; tools/parity.py wrote them.

    The tool compares whole pictures, of 32 latents.
    """
    golden = np.load(Path(__file__).parent.parent / "golden" / "mobilestylegan.npz")
    for w, pixels in zip(golden["w"], golden["pixels"], strict=True):
        with torch.no_grad():
            image = generator.synthesize(torch.from_numpy(w)[None, None].repeat(1, 23, 1))
        np.testing.assert_allclose(image[0, :, ::16, ::16].numpy(), pixels, atol=1e-3)


def test_a_window_is_exactly_that_part_of_the_picture(generator: MobileStyleGAN) -> None:
    w_plus = code(generator, 3)
    with torch.no_grad():
        whole = generator.synthesize(w_plus)
        for window in [(24, 40, 104, 124), (0, 60, 50, 128)]:
            part = generator.synthesize(w_plus, window=window)
            left, top, right, bottom = (8 * edge for edge in window)
            assert torch.equal(part, whole[:, :, top:bottom, left:right])


def test_a_batch_gives_what_single_images_give(generator: MobileStyleGAN) -> None:
    codes = torch.cat([code(generator, 1), code(generator, 2)])
    with torch.no_grad():
        both = generator.synthesize(codes, size=128)
        alone = torch.cat([generator.synthesize(one[None], size=128) for one in codes])
    assert float((both - alone).abs().max()) < 1e-3


def test_the_head_shows_the_picture_of_the_full_network(generator: MobileStyleGAN) -> None:
    errors = []
    for seed in range(4):
        with torch.no_grad():
            full = torch.nn.functional.avg_pool2d(generator.synthesize(code(generator, seed)), 8)
            errors.append((generator.synthesize(code(generator, seed), size=128) - full).square().mean())
    assert -10 * np.log10(float(torch.stack(errors).mean()) / 4) > 27


def test_samples_are_the_same_people_every_time(generator: MobileStyleGAN) -> None:
    assert torch.equal(generator.sample(5), generator.sample(5))
    assert not torch.equal(generator.sample(5), generator.sample(6))


def test_gradients_reach_every_style(generator: MobileStyleGAN) -> None:
    w_plus = code(generator, 1).requires_grad_(True)
    generator.synthesize(w_plus, size=128).square().mean().backward()
    assert (w_plus.grad.abs().amax((0, 2)) > 0).all()


@pytest.mark.parametrize("shape", [(1, 512), (1, 18, 512), (1, 23, 256)])
def test_wrong_shapes_are_named(generator: MobileStyleGAN, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        generator.synthesize(torch.zeros(shape))


def test_unknown_sizes_and_windows_are_refused(generator: MobileStyleGAN) -> None:
    with pytest.raises(ValueError, match="size"):
        generator.synthesize(code(generator, 1), size=300)
    with pytest.raises(ValueError, match="window"):
        generator.synthesize(code(generator, 1), window=(10, 10, 5, 20))


def test_other_weights_are_refused(weights_home: Path) -> None:
    with pytest.raises(WeightsError, match="not MobileStyleGAN"):
        MobileStyleGAN.load(weights.locate("dlib-resnet"))


def test_half_the_size_is_the_picture_area_downsampled(generator: MobileStyleGAN) -> None:
    with torch.no_grad():
        whole = torch.nn.functional.avg_pool2d(generator.synthesize(code(generator, 5)), 2)
        half = generator.synthesize(code(generator, 5), size=512)
        part = generator.synthesize(code(generator, 5), size=512, window=(32, 24, 96, 120))
    assert half.shape == (1, 3, 512, 512)
    torch.testing.assert_close(half, whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(part, half[:, :, 96:480, 128:384], atol=1e-5, rtol=0)

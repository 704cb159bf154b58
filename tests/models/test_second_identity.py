"""The second identity network: what it looks at, its file, and that the packaged one tells people apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from vidswap import weights
from vidswap.errors import WeightsError
from vidswap.models.mobile_stylegan import MobileStyleGAN
from vidswap.models.second_identity import (
    BOX,
    CHIP_SIZE,
    SecondIdentity,
    load_second_identity,
    second_identity_metadata,
)

SMALL = (8, 8, 16, 16)


def saved(net: SecondIdentity, path: Path) -> Path:
    kept = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file(kept, path, second_identity_metadata(net, steps=3))
    return path


def test_a_saved_network_says_the_same_and_is_frozen(tmp_path: Path) -> None:
    torch.manual_seed(3)
    net = SecondIdentity(SMALL)
    for _ in range(3):  # its normalisations have seen something
        net(torch.rand(4, 3, CHIP_SIZE, CHIP_SIZE))
    loaded = load_second_identity(saved(net.eval(), tmp_path / "net.safetensors"))
    images = torch.rand(2, 3, 128, 128, requires_grad=True)
    found = loaded.embed_aligned(images)
    assert torch.allclose(found, net.embed_aligned(images), atol=1e-5)
    assert torch.allclose(found.norm(dim=1), torch.ones(2), atol=1e-5)
    assert not any(weight.requires_grad for weight in loaded.parameters())
    found[:, 0].sum().backward()  # gradients reach the picture
    assert float(images.grad.abs().sum()) > 0


@pytest.mark.parametrize("side", [128, 512])
def test_it_looks_at_the_box_of_its_teacher(side: int) -> None:
    axis = (torch.arange(side) + 0.5) / side
    places = torch.stack(torch.meshgrid(axis, axis, indexing="xy"))[None]  # x, y of each pixel, in [0, 1]
    chip = SecondIdentity(SMALL).chips(torch.cat((places, places[:, :1]), 1))[0]
    step = (torch.arange(CHIP_SIZE) + 0.5) / CHIP_SIZE
    left, top, right, bottom = BOX
    assert torch.allclose(chip[0, 0], left + step * (right - left), atol=1e-3)
    assert torch.allclose(chip[1, :, 0], top + step * (bottom - top), atol=1e-3)


def test_a_mirroring_move_mirrors_the_chip() -> None:
    net, images = SecondIdentity(SMALL), torch.rand(1, 3, 128, 128)
    mirrored = net.chips(images.flip(3), torch.tensor([[[-1.0, 0, 0], [0, 1.0, 0]]]))
    # The box lies a thousandth of the face beside the middle.
    assert float((mirrored - net.chips(images)).abs().mean()) < 0.2 * float(
        (net.chips(images.flip(3)) - net.chips(images)).abs().mean()
    )


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot read"):
        load_second_identity(tmp_path / "none.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors", {"kind": "occlusion"})
    with pytest.raises(WeightsError, match="not a second identity network"):
        load_second_identity(tmp_path / "other.safetensors")

@torch.no_grad()
def test_the_packaged_network_knows_a_person_again(weights_home: Path) -> None:
    """Blurred, moved and in other light, a face is nearer to itself than to any of eleven others."""
    generator = MobileStyleGAN.load(weights.locate("mobilestylegan"), heads=weights.locate("rgb-heads"))
    net = load_second_identity(weights.locate("second-identity"))
    codes = [generator.sample(5000 + i)[:, None].expand(1, generator.n_styles, -1) for i in range(12)]
    faces = torch.cat([generator.synthesize(code, size=128) for code in codes]).clamp(-1, 1)
    small = functional.interpolate(faces, (64, 64), mode="area")
    others = functional.interpolate(small, (128, 128), mode="bilinear").roll((2, -3), (2, 3)) * 0.8 - 0.05
    likeness = net.embed_aligned(faces) @ net.embed_aligned(others).T
    assert torch.equal(likeness.argmax(1), torch.arange(12))
    strangers = likeness[~torch.eye(12, dtype=torch.bool)]
    assert float(likeness.diagonal().min()) > float(strangers.mean()) + 2 * float(strangers.std())

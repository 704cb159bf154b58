"""Second identity network: an aligned face to an embedding, besides dlib's.

Who is refined through one identity network alone comes nearer to the source in what that network sees, and in
part by nothing that another one (or a person) sees. Two that learned differently leave less room for that.
This one is a small residual network (He et al., 1512.03385) that says of the generator's faces what its
teacher ``mobileface`` says of them; see :mod:`vidswap.training.identity`. It never saw a photo, so compare
what the generator draws: a source's inversion, not its photo.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from vidswap.errors import WeightsError
from vidswap.models import channels_last
from vidswap.models.judge_tfjs import RECIPES

CHIP_SIZE = 96
"""Side of what the network looks at."""
BOX = RECIPES["mobileface"].box
"""Its place in an aligned face, the teacher's: left, top, right, bottom, as fractions of the side."""
WIDTHS = (24, 48, 96, 160)
"""Channels at 1/2, 1/4, 1/8 and 1/16 of the chip's side."""
_DEPTHS = (1, 2, 2, 2)
_HEAD = 512
DIMENSIONS = 256
"""Of the teacher's embeddings."""


def _conv(entering: int, leaving: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(entering, leaving, kernel, stride=stride, padding=kernel // 2 - (stride > 1), bias=False),
        nn.BatchNorm2d(leaving),
    )


class _Block(nn.Module):
    """Two convolutions, added to their input; silent at the start of the training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv(width, width, 3), _conv(width, width, 3)
        self.second.get_parameter("1.weight").data.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(x + self.second(functional.silu(self.first(x))))


class _Down(nn.Module):
    """Half the size: four pixels become channels."""

    def __init__(self, entering: int, leaving: int) -> None:
        super().__init__()
        self.mix = _conv(4 * entering, leaving, 1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(self.mix(functional.pixel_unshuffle(x, 2)))


class SecondIdentity(nn.Module):
    """FFHQ-aligned images ``[B, 3, S, S]`` RGB in [-1, 1] to embeddings ``[B, 256]`` of length one."""

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.widths = tuple(widths)
        layers: list[nn.Module] = [_conv(3, self.widths[0], 4, stride=2), nn.SiLU()]
        for level, (width, depth) in enumerate(zip(self.widths, _DEPTHS, strict=True)):
            if level:
                layers.append(_Down(self.widths[level - 1], width))
            layers += [_Block(width) for _ in range(depth)]
        self.body = nn.Sequential(*layers, _conv(self.widths[-1], _HEAD, 1), nn.SiLU())
        side = CHIP_SIZE // 2 ** len(self.widths)
        # Each channel weighs the places of the face for itself, as MobileFaceNets do (1804.07573).
        self.places = nn.Conv2d(_HEAD, _HEAD, side, groups=_HEAD, bias=False)
        self.say = nn.Sequential(nn.BatchNorm1d(_HEAD), nn.Linear(_HEAD, DIMENSIONS))

    def chips(self, images: Tensor, moves: Tensor | None = None) -> Tensor:
        """What the network looks at, ``[B, 3, 96, 96]``.

        :param moves: ``[B, 2, 3]`` affine moves of the chip, in the coordinates of ``affine_grid``.
        """
        left, top, right, bottom = BOX
        size = [images.shape[0], 3, CHIP_SIZE, CHIP_SIZE]
        # Bilinear sampling sees two neighbours; more pixels than that would alias.
        while images.shape[-1] * (right - left) > 2 * CHIP_SIZE and images.shape[-1] % 2 == 0:
            images = functional.avg_pool2d(images, 2)
        scale = images.new_tensor([right - left, bottom - top])
        middle = images.new_tensor([left + right - 1, top + bottom - 1])
        if moves is None:
            moves = torch.eye(2, 3).to(images).expand(size[0], 2, 3)
        grid = functional.affine_grid(moves, size, align_corners=False) * scale + middle
        return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def forward(self, chips: Tensor) -> Tensor:
        """Embeddings ``[B, 256]`` of chips ``[B, 3, 96, 96]``."""
        return functional.normalize(self.say(self.places(self.body(chips)).flatten(1)))

    def embed_aligned(self, images: Tensor) -> Tensor:
        """Embeddings ``[B, 256]`` of length one, of aligned images of any even size."""
        return self(self.chips(images))


def second_identity_metadata(net: SecondIdentity, **more: object) -> dict[str, str]:
    """Metadata of a weights file from which :func:`load_second_identity` builds the network again."""
    facts = {"widths": json.dumps(net.widths), **{key: str(value) for key, value in more.items()}}
    return {"kind": "second-identity", **facts}


def load_second_identity(path: Path) -> SecondIdentity:
    """Read the network, frozen.

    :raises WeightsError: when the file is missing, damaged or holds something else.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot read {path.name} ({error}); install vidswap again") from error
    if metadata.get("kind") != "second-identity":
        raise WeightsError(f"{path.name}: not a second identity network; run 'vidswap weights list'")
    net = SecondIdentity(json.loads(metadata["widths"]))
    counters = {k: v for k, v in net.state_dict().items() if k.endswith("num_batches_tracked")}
    net.load_state_dict({**counters, **{key: value.float() for key, value in tensors.items()}})
    return channels_last(net.eval().requires_grad_(False))

"""Occlusion network: an aligned face to the probability that each pixel is not the face.

A small U-Net (Ronneberger et al., 1505.04597) of depthwise separable convolutions (Howard et al., 1704.04861)
that works at half of its input's size and says four pixels at a time. Trained on generated faces with drawn
occluders, see :mod:`vidswap.training.occlusion`; outside the face its answer means nothing.
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

INPUT_SIZE = 192
WIDTHS = (16, 32, 64, 128, 192)
"""Channels at 1/2, 1/4, 1/8, 1/16 and 1/32 of the input's side."""
GLASSES_SIZE = 256
"""Side of the picture in which the network of the same kind that sees glasses looks for their frames."""
GLASSES_WIDTHS = (12, 24, 48, 96, 128)
"""Its channels."""
_STEPS = 2 ** len(WIDTHS)


def _pointwise(entering: int, leaving: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(entering, leaving, 1, bias=False), nn.BatchNorm2d(leaving))


class _Block(nn.Module):
    """Depthwise convolution, then two pointwise ones; added to its input."""

    def __init__(self, width: int, kernel: int, growth: int = 2) -> None:
        super().__init__()
        self.depthwise = nn.Sequential(
            nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width, bias=False),
            nn.BatchNorm2d(width),
        )
        self.widen = _pointwise(width, growth * width)
        self.narrow = _pointwise(growth * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.narrow(functional.relu(self.widen(self.depthwise(x))))


class _Down(nn.Module):
    """Half the size: four pixels become channels."""

    def __init__(self, entering: int, leaving: int) -> None:
        super().__init__()
        self.mix = _pointwise(4 * entering, leaving)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.mix(functional.pixel_unshuffle(x, 2)))


class OcclusionNet(nn.Module):
    """``[B, 3, S, S]`` RGB in [-1, 1] to logits ``[B, 1, S, S]``; S a multiple of 32, trained at 192."""

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.widths = tuple(widths)
        first = self.widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(3, first, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(first), nn.ReLU()
        )
        depths = (1, 1, 2, 2, 3)
        self.encode = nn.ModuleList(
            nn.Sequential(*(_Block(width, 3 if level < 2 else 5, min(2, 1 + level)) for _ in range(depth)))
            for level, (width, depth) in enumerate(zip(self.widths, depths, strict=True))
        )
        pairs = list(zip(self.widths[:-1], self.widths[1:], strict=True))
        self.down = nn.ModuleList(_Down(fine, coarse) for fine, coarse in pairs)
        # What the whole picture is like (its skin, its light) is told to every place of the coarsest map.
        self.whole = nn.Linear(self.widths[-1], self.widths[-1])
        self.up = nn.ModuleList(_pointwise(coarse, fine) for fine, coarse in pairs)
        self.decode = nn.ModuleList(_Block(fine, 3, 1) for fine in self.widths[:-1])
        self.say = nn.Conv2d(first, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] != 3 or any(side % _STEPS for side in images.shape[2:]):
            raise ValueError(
                f"images: expected [B, 3, H, W] with sides a multiple of {_STEPS}, got {list(images.shape)}"
            )
        x = self.stem(images)
        seen = []
        for level, encode in enumerate(self.encode):
            x = encode(x)
            if level < len(self.down):
                seen.append(x)
                x = self.down[level](x)
        x = functional.relu(x + self.whole(x.mean((2, 3)))[..., None, None])
        for level in reversed(range(len(self.up))):
            rough = functional.interpolate(self.up[level](x), scale_factor=2, mode="nearest")
            x = self.decode[level](functional.relu(rough + seen[level]))
        return functional.pixel_shuffle(self.say(x), 2)

    @torch.no_grad()
    def occluded(self, images: Tensor, size: int = INPUT_SIZE) -> Tensor:
        """Probability ``[B, 1, size, size]`` that a pixel shows what the network was taught to see.

        :param images: ``[B, 3, S, S]`` aligned faces of any size, RGB in [-1, 1].
        :param size: side of the pictures that it was trained on.
        """
        if images.shape[-1] != size:
            images = functional.interpolate(
                images, (size, size), mode="bilinear", align_corners=False, antialias=True
            )
        return torch.sigmoid(self(images.contiguous(memory_format=torch.channels_last)))


def occlusion_metadata(net: OcclusionNet, **more: object) -> dict[str, str]:
    """Metadata of a weights file from which :func:`load_occlusion_net` builds the network again."""
    return {"kind": "occlusion", "widths": json.dumps(net.widths), **{k: str(v) for k, v in more.items()}}


def load_occlusion_net(path: Path) -> OcclusionNet:
    """Read the network, frozen, its normalisations folded into the convolutions.

    :raises WeightsError: when the file is missing, damaged or holds something else.
    """
    net, _ = read_occlusion_net(path)
    _fold(net.eval())
    return channels_last(net.requires_grad_(False))


def read_occlusion_net(path: Path) -> tuple[OcclusionNet, dict[str, str]]:
    """The network as it was trained, and what its file says of it.

    :raises WeightsError: when the file is missing, damaged or holds something else.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot read {path.name} ({error}); install vidswap again") from error
    if metadata.get("kind") != "occlusion":
        raise WeightsError(f"{path.name}: not an occlusion network's weights; run 'vidswap weights list'")
    net = OcclusionNet(json.loads(metadata["widths"]))
    counters = {k: v for k, v in net.state_dict().items() if k.endswith("num_batches_tracked")}
    net.load_state_dict({**counters, **{key: value.float() for key, value in tensors.items()}})
    return net, metadata


def _fold(module: nn.Module) -> None:
    """Convolutions take over the normalisation that follows them."""
    for name, child in module.named_children():
        parts = list(child) if isinstance(child, nn.Sequential) else []
        if len(parts) > 1 and isinstance(parts[0], nn.Conv2d) and isinstance(parts[1], nn.BatchNorm2d):
            fused = nn.utils.fuse_conv_bn_eval(parts[0], parts[1])
            setattr(module, name, nn.Sequential(fused, *parts[2:]))
        else:
            _fold(child)

"""Small heads that decode intermediate generator features to a picture.

The packaged generator has no per-resolution outputs. A head sees the features of a stage and the
styles of the stages that it stands in for (they set colour and fine contrast), so that fitting and
training at 128 or 256 px cost a tenth or a third of a full pass. Distilled against the
area-downsampled full picture by ``vidswap train heads``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class RgbHead(nn.Module):
    """Features ``[B, C, S, S]`` and the remaining modulations ``[B, M]`` to RGB ``[B, 3, S, S]``.

    A hidden layer is modulated by what the remaining stages would be modulated by (their channel scales,
    through a low-rank map), twice, and so is the colour of the result.
    """

    center: Tensor
    spread: Tensor

    def __init__(self, channels: int, modulations: int, hidden: int = 48, rank: int = 96) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(modulations))
        self.register_buffer("spread", torch.ones(modulations))
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.squeeze = nn.Linear(modulations, rank)
        self.style = nn.Linear(rank, 4 * hidden + 12)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.mix2 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.out = nn.Conv2d(hidden, 3, 1)
        self.skip = nn.Conv2d(channels, 3, 1)
        nn.init.zeros_(self.style.weight)
        nn.init.zeros_(self.style.bias)

    def forward(self, features: Tensor, modulations: Tensor) -> Tensor:
        """:param modulations: channel scales of the remaining stages, ``[B, M]``."""
        hidden = self.mix.in_channels
        codes = self.squeeze((modulations - self.center) / self.spread)
        codes = self.style(functional.leaky_relu(codes, 0.2))
        gain, shift, gain2, shift2, color = codes.split([hidden] * 4 + [12], dim=1)
        x, direct = self._entered(features)
        x = x * (1 + gain[:, :, None, None]) + shift[:, :, None, None]
        x = functional.leaky_relu(x, 0.2)
        x = x + functional.leaky_relu(self.mix(x), 0.2)
        x = x * (1 + gain2[:, :, None, None]) + shift2[:, :, None, None]
        x = x + functional.leaky_relu(self.mix2(x), 0.2)
        rgb = self.out(x) + direct
        matrix = torch.eye(3, device=rgb.device, dtype=rgb.dtype) + color[:, :9].reshape(-1, 3, 3)
        return torch.einsum("bij,bjhw->bihw", matrix, rgb) + color[:, 9:, None, None]

    def _entered(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """What ``reduce`` and ``skip`` say of features, float32, by one matrix product in their precision."""
        layers = self.reduce, self.skip
        weight = torch.cat([layer.weight[:, :, 0, 0] for layer in layers]).to(features.dtype)
        bias = torch.cat([layer.get_parameter("bias") for layer in layers])
        found = functional.linear(features.permute(0, 2, 3, 1), weight).float() + bias
        hidden, direct = found.permute(0, 3, 1, 2).split([self.reduce.out_channels, 3], dim=1)
        return hidden, direct


def area_downsample(images: Tensor, size: int) -> Tensor:
    """Area-downsample square images ``[B, C, S, S]`` to ``size`` (S a multiple of it); smaller ones, such as
    masks, are enlarged linearly."""
    if images.shape[-1] == size:
        return images
    if images.shape[-1] < size:
        return functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    return functional.avg_pool2d(images, images.shape[-1] // size)


__all__ = ["RgbHead", "area_downsample"]

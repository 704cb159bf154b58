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
    """Features ``[B, C, S, S]`` and the remaining styles ``[B, n_rest, 512]`` to RGB ``[B, 3, S, S]``.

    A hidden layer is modulated by the remaining styles (through a low-rank map, relative to the mean
    style), twice, as the stages that it stands in for would be.
    """

    def __init__(self, channels: int, n_rest: int, w_dim: int, hidden: int = 48, rank: int = 64) -> None:
        super().__init__()
        self.n_rest = n_rest
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.squeeze = nn.Linear(n_rest * w_dim, rank, bias=False)
        self.style = nn.Linear(rank, 4 * hidden + 12)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.mix2 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.out = nn.Conv2d(hidden, 3, 1)
        self.skip = nn.Conv2d(channels, 3, 1)
        nn.init.zeros_(self.style.weight)
        nn.init.zeros_(self.style.bias)

    def forward(self, features: Tensor, styles: Tensor) -> Tensor:
        """:param styles: remaining styles minus ``w_avg``."""
        hidden = self.mix.in_channels
        codes = self.style(torch.tanh(self.squeeze(styles.flatten(1))))
        gain, shift, gain2, shift2, color = codes.split([hidden] * 4 + [12], dim=1)
        x = self.reduce(features) * (1 + gain[:, :, None, None]) + shift[:, :, None, None]
        x = functional.leaky_relu(x, 0.2)
        x = x + functional.leaky_relu(self.mix(x), 0.2)
        x = x * (1 + gain2[:, :, None, None]) + shift2[:, :, None, None]
        x = x + functional.leaky_relu(self.mix2(x), 0.2)
        rgb = self.out(x) + self.skip(features)
        matrix = torch.eye(3, device=rgb.device, dtype=rgb.dtype) + color[:, :9].reshape(-1, 3, 3)
        return torch.einsum("bij,bjhw->bihw", matrix, rgb) + color[:, 9:, None, None]


def area_downsample(images: Tensor, size: int) -> Tensor:
    """Area-downsample square images ``[B, 3, S, S]`` to ``size`` (S a multiple of it)."""
    if images.shape[-1] == size:
        return images
    return functional.avg_pool2d(images, images.shape[-1] // size)


__all__ = ["RgbHead", "area_downsample"]

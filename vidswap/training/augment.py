"""What footage does to a face and the generator does not.

Blur, noise, compression, colour, misalignment, occluders.
"""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional


def augment(image: Tensor, random: torch.Generator) -> Tensor:
    """Degrade an aligned face ``[1, 3, S, S]`` in [-1, 1]; each fault by chance and in random strength."""

    def chance(probability: float) -> bool:
        return float(torch.rand((), generator=random)) < probability

    def between(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=random))

    size = image.shape[-1]
    if chance(0.6):
        image = _moved(image, between(-3, 3), between(0.96, 1.04), between(-0.02, 0.02), between(-0.02, 0.02))
    if chance(0.5):
        gain = 1 + 0.12 * torch.randn(1, 3, 1, 1, generator=random)
        image = (image * gain * between(0.8, 1.15) + 0.08 * between(-1, 1)).clamp(-1, 1)
    if chance(0.15):
        image = _occluded(image, random, between)
    if chance(0.4):
        small = int(size * between(0.4, 0.9))
        image = functional.interpolate(image, (small, small), mode="area")
        image = functional.interpolate(image, (size, size), mode="bicubic", align_corners=False)
    if chance(0.4):
        image = image + between(0.01, 0.08) * torch.randn(image.shape, generator=random)
    if chance(0.4):
        image = _compressed(image, int(between(25, 90)))
    return image.clamp(-1, 1)


def _moved(image: Tensor, degrees: float, scale: float, dx: float, dy: float) -> Tensor:
    angle = math.radians(degrees)
    c, s = math.cos(angle) / scale, math.sin(angle) / scale
    theta = torch.tensor([[[c, -s, 2 * dx], [s, c, 2 * dy]]])
    grid = functional.affine_grid(theta, list(image.shape), align_corners=False)
    return functional.grid_sample(image, grid, padding_mode="reflection", align_corners=False)


def _occluded(image: Tensor, random: torch.Generator, between) -> Tensor:
    """A soft bar or blob of one colour with texture, as a hand or microphone would be."""
    size = image.shape[-1]
    axis = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    angle = between(0, math.pi)
    u = (x - between(0.25, 0.75)) * math.cos(angle) + (y - between(0.3, 0.9)) * math.sin(angle)
    v = -(x - 0.5) * math.sin(angle) + (y - 0.6) * math.cos(angle)
    inside = torch.sigmoid((between(0.05, 0.16) - u.abs()) * 60)
    inside = inside * torch.sigmoid((between(0.15, 0.5) - v.abs()) * 60)
    color = torch.rand(1, 3, 1, 1, generator=random) * 2 - 1
    texture = color + 0.1 * torch.randn(1, 3, size, size, generator=random)
    return torch.lerp(image, texture, inside[None, None])


def _compressed(image: Tensor, quality: int) -> Tensor:
    array = ((image[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=quality)
    read = np.asarray(Image.open(buffer).convert("RGB"))
    return torch.from_numpy(read.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1

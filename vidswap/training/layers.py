"""What occluders are drawn with: pictures with a cover, and the brushes for them.

Lengths are in pixels of a 256 px aligned crop, in which a face is about 130 px wide and a finger about 16.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

SIZE = 256
Random = np.random.Generator
FINE = 2
"""Lines and outlines are drawn this many times larger and reduced."""


@dataclass(frozen=True)
class Layer:
    """Something in front of the face."""

    color: np.ndarray
    """``[256, 256, 3]`` RGB in [0, 1]."""
    alpha: np.ndarray
    """``[256, 256]`` in [0, 1], 1 where it covers."""
    casts: float = 0.0
    """How dark a shadow it throws on the face, in [0, 1]."""


@dataclass(frozen=True)
class Setting:
    """What an occluder is made to fit to."""

    face: np.ndarray
    """``[256, 256, 3]`` the picture to be covered."""
    mesh_xy: np.ndarray
    """``[468, 2]`` pixels."""
    other: np.ndarray
    """``[256, 256, 3]`` the picture of somebody else."""
    other_mesh_xy: np.ndarray


def blur(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of ``[n, n]`` or ``[n, n, c]``; the border repeats."""
    if sigma < 0.2:
        return values
    if sigma > 3.0:  # at half of the size, for a quarter of the work
        tensor = torch.from_numpy(np.ascontiguousarray(np.atleast_3d(values), np.float32))
        tensor = tensor.permute(2, 0, 1)[None]
        half = functional.avg_pool2d(tensor, 2)[0].permute(1, 2, 0).numpy()
        half = blur(half[..., 0] if values.ndim == 2 else half, sigma / 2)
        tensor = torch.from_numpy(np.ascontiguousarray(np.atleast_3d(half))).permute(2, 0, 1)[None]
        full = functional.interpolate(tensor, scale_factor=2, mode="bilinear", align_corners=False)[0]
        return full[0].numpy() if values.ndim == 2 else full.permute(1, 2, 0).numpy()
    radius = max(1, math.ceil(2.5 * sigma))
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).float()
    tensor = torch.from_numpy(np.ascontiguousarray(values, np.float32))
    tensor = tensor[None, None] if values.ndim == 2 else tensor.permute(2, 0, 1)[:, None]
    tensor = functional.pad(tensor, (radius, radius, 0, 0), mode="replicate")
    tensor = functional.conv2d(tensor, taps.view(1, 1, 1, -1))
    tensor = functional.pad(tensor, (0, 0, radius, radius), mode="replicate")
    tensor = functional.conv2d(tensor, taps.view(1, 1, -1, 1))
    return (tensor[0, 0] if values.ndim == 2 else tensor[:, 0].permute(1, 2, 0)).numpy()


def noise(random: Random, cell: float, channels: int = 1) -> np.ndarray:
    """Smooth noise ``[256, 256]`` (or with channels) of unit variance whose bumps are ``cell`` pixels."""
    count = max(2, round(SIZE / cell))
    grid = torch.from_numpy(random.standard_normal((1, channels, count, count)).astype(np.float32))
    full = functional.interpolate(grid, (SIZE, SIZE), mode="bicubic", align_corners=False)[0]
    return full[0].numpy() if channels == 1 else full.permute(1, 2, 0).numpy()


def upward_of(mesh_xy: np.ndarray) -> tuple[np.ndarray, float]:
    """Direction ``[2]`` from the chin to the forehead of a mesh, and how far apart they are in its unit."""
    up = mesh_xy[10] - mesh_xy[152]
    height = float(np.hypot(*up)) + 1e-6
    return up / height, height


def skin_color(picture: np.ndarray, mesh_xy: np.ndarray, random: Random) -> np.ndarray:
    """Colour of a few spots of a face's cheeks and forehead, ``[3]``."""
    spots = mesh_xy[[50, 280, 205, 425, 151, 117, 346]]
    x, y = np.clip(spots[random.permutation(7)[:3]].astype(int), 1, SIZE - 2).T
    return np.median(picture[y, x], axis=0)


def canvas(channels: int) -> Image.Image:
    return Image.new("RGB" if channels == 3 else "L", (SIZE * FINE, SIZE * FINE))


def drawn(layer: Image.Image, cover: Image.Image, random: Random, *, casts: float) -> Layer:
    """A fine drawing as a layer: colours are those of what is covered, also at soft edges."""
    alpha = reduced(cover)
    color = np.asarray(layer.reduce(FINE), np.float32) / 255
    return Layer(np.clip(color / np.maximum(alpha, 0.02)[..., None], 0, 1), alpha, casts)


def reduced(picture: Image.Image) -> np.ndarray:
    """A fine drawing at the picture's size, in [0, 1]."""
    return np.asarray(picture.reduce(FINE), np.float32) / 255

"""Dense optical flow: Lucas-Kanade (1981), coarse to fine with warping (Bouguet 2001), in torch.

Made for face crops of some 256 px that are already brought into a common frame, so that motion
is small and the surface smooth. Per pixel, the flow in a Gaussian window is refined by the
least-squares step of the brightness residual; a small ridge keeps flat skin from wandering and a
smoothing of the flow between levels carries it into places without texture.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

_WINDOW_SIGMA = 2.0
_SMOOTH_SIGMA = 1.5
# Added to the diagonal of the structure tensor: gradients of luma (in [0, 1]) below about the
# square root of it, per pixel, are noise and do not move the flow.
_RIDGE = 2e-5
_MAX_STEP_PX = 1.5


def optical_flow(first: Tensor, second: Tensor, *, levels: int = 5, iterations: int = 3) -> Tensor:
    """Flow from ``first`` to ``second``: ``first(x) = second(x + flow(x))``.

    :param first: ``[B, 1, H, W]`` luma in [0, 1]; ``second`` alike.
    :param levels: pyramid levels, each half the size of the one below; fewer where the smallest
        side would fall under 16 pixels.
    :param iterations: warps and steps a level.
    :return: ``[B, 2, H, W]`` x and y in pixels.
    :raises ValueError: when shapes differ or are not ``[B, 1, H, W]``.
    """
    if first.shape != second.shape or first.ndim != 4 or first.shape[1] != 1:
        raise ValueError(
            f"expected two [B, 1, H, W], got {list(first.shape)} and {list(second.shape)}"
        )
    pyramid = [(first, second)]
    while len(pyramid) < levels and min(pyramid[-1][0].shape[2:]) >= 32:
        pyramid.append(tuple(_half(image) for image in pyramid[-1]))
    flow = first.new_zeros(first.shape[0], 2, *pyramid[-1][0].shape[2:])
    for a, b in reversed(pyramid):
        if flow.shape[2:] != a.shape[2:]:
            factor = torch.tensor(
                [a.shape[3] / flow.shape[3], a.shape[2] / flow.shape[2]], dtype=flow.dtype
            ).to(flow)
            flow = F.interpolate(flow, a.shape[2:], mode="bilinear", align_corners=False)
            flow = flow * factor[:, None, None]
        flow = _refine(a, b, flow, iterations)
    return flow


def _refine(first: Tensor, second: Tensor, flow: Tensor, iterations: int) -> Tensor:
    """Lucas-Kanade steps on one level; the gradients are those of ``first`` (Baker, Matthews)."""
    gx, gy = _gradient(first)
    products = _blur(torch.cat([gx * gx, gx * gy, gy * gy], 1), _WINDOW_SIGMA)
    xx, xy, yy = (products + products.new_tensor([_RIDGE, 0.0, _RIDGE])[:, None, None]).split(1, 1)
    determinant = xx * yy - xy * xy
    for _ in range(iterations):
        residual = first - warp(second, flow)
        right = _blur(torch.cat([gx * residual, gy * residual], 1), _WINDOW_SIGMA)
        rx, ry = right.split(1, 1)
        step = torch.cat([yy * rx - xy * ry, xx * ry - xy * rx], 1) / determinant
        flow = flow + step.clamp(-_MAX_STEP_PX, _MAX_STEP_PX)
    return _blur(flow, _SMOOTH_SIGMA)


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """``image(x + flow(x))`` by bilinear sampling, edges repeated; ``[B, C, H, W]``."""
    height, width = image.shape[2:]
    base_x, base_y = _base(height, width, image.device, image.dtype)
    x = (base_x + flow[:, 0]) * (2 / width) - 1
    y = (base_y + flow[:, 1]) * (2 / height) - 1
    grid = torch.stack([x, y], -1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


def visible(forward: Tensor, backward: Tensor) -> Tensor:
    """Forward-backward check of Ruder et al. (1604.08610, section 5): 1 where the flow is there.

    A pixel is hidden in the other picture (or its flow is wrong) where going there and back does
    not return to it, ``|f + b(x + f)|^2 > 0.01 (|f|^2 + |b|^2) + 0.5``, or leads out of the
    picture.

    :param forward: ``[B, 2, H, W]`` flow of the picture; ``backward`` that of the other one.
    :return: ``[B, 1, H, W]`` 0 or 1.
    """
    back = warp(backward, forward)
    loop = (forward + back).square().sum(1, keepdim=True)
    size = forward.square().sum(1, keepdim=True) + back.square().sum(1, keepdim=True)
    height, width = forward.shape[2:]
    base_x, base_y = _base(height, width, forward.device, forward.dtype)
    x, y = base_x + forward[:, 0], base_y + forward[:, 1]
    inside = (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
    return ((loop <= 0.01 * size + 0.5) & inside[:, None]).to(forward.dtype)


@functools.lru_cache(maxsize=16)
def _base(
    height: int, width: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Pixel centres ``[1, W]`` and ``[H, 1]``."""
    x = torch.arange(width, device=device, dtype=dtype)[None] + 0.5
    y = torch.arange(height, device=device, dtype=dtype)[:, None] + 0.5
    return x, y


@functools.lru_cache(maxsize=8)
def _kernel(sigma: float) -> NDArray[Any]:
    radius = int(np.ceil(2.5 * sigma))
    kernel = np.exp(-0.5 * np.square(np.arange(-radius, radius + 1) / sigma))
    return kernel / kernel.sum()


def _blur(x: Tensor, sigma: float) -> Tensor:
    """Separable Gaussian blur, edges repeated."""
    kernel = torch.as_tensor(_kernel(sigma), dtype=x.dtype, device=x.device)
    radius = len(kernel) // 2
    batch, channels, height, width = x.shape
    x = x.reshape(batch * channels, 1, height, width)
    x = F.conv2d(F.pad(x, (radius, radius, 0, 0), mode="replicate"), kernel.view(1, 1, 1, -1))
    x = F.conv2d(F.pad(x, (0, 0, radius, radius), mode="replicate"), kernel.view(1, 1, -1, 1))
    return x.reshape(batch, channels, height, width)


def _half(image: Tensor) -> Tensor:
    return F.avg_pool2d(_blur(image, 0.7), 2, ceil_mode=True, count_include_pad=False)


def _gradient(image: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences in x and y, edges repeated."""
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    gx = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
    gy = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
    return gx, gy

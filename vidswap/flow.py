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
_MATRIX_SIDE = 112
"""Side of a level up to which a blur is a product of matrices."""


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
        first, second = pyramid[-1]
        pyramid.append((_half(first), _half(second)))
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
    gradient = _gradient(first)
    gx, gy = gradient.split(1, 1)
    products = _blur(torch.cat([gradient * gx, gy * gy], 1), _WINDOW_SIGMA)
    xx, xy, yy = products.split(1, 1)
    xx, yy = xx + _RIDGE, yy + _RIDGE
    determinant = xx * yy - xy * xy
    # The inverse of the structure tensor: its first and its second column.
    columns = [torch.cat(pair, 1) / determinant for pair in ((yy, -xy), (-xy, xx))]
    for _ in range(iterations):
        residual = first - warp(second, flow)
        rx, ry = _blur(gradient * residual, _WINDOW_SIGMA).split(1, 1)
        step = (columns[0] * rx).addcmul_(columns[1], ry)
        flow = step.clamp_(-_MAX_STEP_PX, _MAX_STEP_PX).add_(flow)
    return _blur(flow, _SMOOTH_SIGMA)


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """``image(x + flow(x))`` by bilinear sampling, edges repeated; ``[B, C, H, W]``."""
    height, width = image.shape[2:]
    base_x, base_y = _base(height, width, image.device, image.dtype)
    x = torch.add(base_x * (2 / width) - 1, flow[:, 0], alpha=2 / width)
    y = torch.add(base_y * (2 / height) - 1, flow[:, 1], alpha=2 / height)
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
    height, width = x.shape[2:]
    if max(height, width) <= _MATRIX_SIDE:
        # On the small levels calls cost more than numbers: one product an axis.
        down, across = (_blur_matrix(side, sigma, x.device, x.dtype) for side in (height, width))
        return down @ x @ across.T
    weights = [float(weight) for weight in _kernel(sigma)]
    radius = len(weights) // 2
    for axis, pad in ((2, (0, 0, radius, radius)), (3, (radius, radius, 0, 0))):
        padded, length = F.pad(x, pad, mode="replicate"), x.shape[axis]
        # Symmetric sums: torch's convolution of single channels takes some fifteen times as long.
        x = padded.narrow(axis, radius, length) * weights[radius]
        for step in range(1, radius + 1):
            pair = padded.narrow(axis, radius - step, length) + padded.narrow(axis, radius + step, length)
            x.add_(pair, alpha=weights[radius + step])
    return x


@functools.lru_cache(maxsize=32)
def _blur_matrix(side: int, sigma: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The blur of an axis with its repeated ends, ``[side, side]``."""
    kernel, rows, matrix = _kernel(sigma), np.arange(side), np.zeros((side, side))
    for step, weight in enumerate(kernel, -(len(kernel) // 2)):
        np.add.at(matrix, (rows, np.clip(rows + step, 0, side - 1)), weight)
    return torch.as_tensor(matrix, dtype=dtype, device=device)


def _half(image: Tensor) -> Tensor:
    return F.avg_pool2d(_blur(image, 0.7), 2, ceil_mode=True, count_include_pad=False)


def _gradient(image: Tensor) -> Tensor:
    """Central differences in x and y of ``[B, 1, H, W]``, edges repeated: ``[B, 2, H, W]``."""
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    gx = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    gy = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    return torch.cat([gx, gy], 1).mul_(0.5)

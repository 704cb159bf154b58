"""Small shared helpers of this room: numpy images to kornia tensors and back, resizing."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from vidswap.records import FloatArray

_MATRIX_SIDE = 160
"""Side of a map up to which a blur is a product of matrices."""
_BROAD = 12
"""Radii in a side up to which it is one on larger maps as well."""
_MATRIX_MOST = 512


def smoothstep(value: NDArray[np.floating]) -> FloatArray:
    """Cubic step, 0 below 0 and 1 above 1, flat at both ends."""
    t = np.clip(value, 0.0, 1.0).astype(np.float32, copy=False)
    return t * t * (3.0 - 2.0 * t)


def to_tensor(image: NDArray[np.floating]) -> torch.Tensor:
    """``[H, W]`` or ``[H, W, C]`` to float32 ``[1, C, H, W]`` without copying where possible.

    Pictures of this room are ``[H, W, C]`` whose channels mostly lie one after the other in memory, as torch
    likes them.
    """
    array = np.asarray(image, dtype=np.float32)
    if array.ndim == 3 and array.transpose(2, 0, 1).flags.c_contiguous:
        return torch.from_numpy(array.transpose(2, 0, 1))[None]
    array = np.ascontiguousarray(array)
    if array.ndim == 2:
        return torch.from_numpy(array)[None, None]
    return torch.from_numpy(array).permute(2, 0, 1)[None]


def to_array(tensor: torch.Tensor) -> FloatArray:
    """``[1, C, H, W]`` to ``[H, W, C]``, or to ``[H, W]`` when C is 1; of the same memory."""
    return tensor[0, 0].numpy() if tensor.shape[1] == 1 else tensor[0].permute(1, 2, 0).numpy()


def resize(tensor: torch.Tensor, size: int) -> torch.Tensor:
    """Square resize by pixel centres: area average when shrinking, bilinear when growing."""
    height, width = tensor.shape[-2:]
    if height == size and width == size:
        return tensor
    if size < height and height % size == 0 and width == height:
        return F.avg_pool2d(tensor, height // size)
    if size < height:
        return F.interpolate(
            tensor, size=(size, size), mode="bilinear", align_corners=False, antialias=True
        )
    return F.interpolate(tensor, size=(size, size), mode="bilinear", align_corners=False)


def resize_map(values: NDArray[np.floating], size: int) -> FloatArray:
    """Resize a ``[n, n]`` map or ``[n, n, c]`` image to ``size``; see :func:`resize`."""
    return to_array(resize(to_tensor(values), size))


def enlarged(tensor: torch.Tensor, like: torch.Tensor | FloatArray) -> torch.Tensor:
    """Bilinear enlargement to the height and width, the last two axes, of another."""
    return F.interpolate(tensor, tuple(like.shape[-2:]), mode="bilinear", align_corners=False)


def enlarged_part(field: torch.Tensor, size: int, inner: tuple[slice, slice]) -> torch.Tensor:
    """Rows and columns ``inner`` of a field enlarged to ``size``."""
    cells = field.shape[-1]
    rows, columns = inner
    if size % cells:
        return resize(field, size)[..., rows, columns]
    step = size // cells
    # One cell more on each side, so that the cut is not taken for the field's edge.
    low = [max(0, span.start // step - 1) for span in inner]
    high = [min(cells, -(-span.stop // step) + 1) for span in inner]
    part = field[..., low[0] : high[0], low[1] : high[1]]
    part = F.interpolate(part, scale_factor=step, mode="bilinear", align_corners=False)
    rows, columns = (
        slice(span.start - first * step, span.stop - first * step)
        for span, first in zip(inner, low, strict=True)
    )
    return part[..., rows, columns]


def gaussian_blur(tensor: torch.Tensor, sigma: float, *, every: int = 1) -> torch.Tensor:
    """Separable Gaussian with mirrored borders; ``sigma`` in pixels, 0 returns the input.

    :param every: only each so many-th row is worked out, from the first, and returned.
    """
    if sigma < 0.15:
        return tensor[..., ::every, :]
    height, width = tensor.shape[-2:]
    radius = min(max(1, int(np.ceil(3.0 * sigma))), min(height, width) - 1)
    if max(height, width) <= max(_MATRIX_SIDE, min(_BROAD * radius, _MATRIX_MOST)):
        # On small maps, and for broad blurs, one matrix an axis costs less than its taps one by one.
        down, across = (_blur_matrix(side, radius, float(sigma)) for side in (height, width))
        return down[::every] @ tensor.contiguous() @ across.T
    weights = _gaussian(radius, float(sigma))
    for axis, pad in ((2, (0, 0, radius, radius)), (3, (radius, radius, 0, 0))):
        padded = F.pad(tensor, pad, mode="reflect").contiguous()
        length, step_rows = tensor.shape[axis], every if axis == 2 else 1
        # Symmetric sums are several times faster than torch's convolution of single channels.
        shifted = [
            padded.narrow(axis, shift, length)[:, :, ::step_rows] for shift in range(2 * radius + 1)
        ]
        out = shifted[radius] * float(weights[radius])
        for step in range(1, radius + 1):
            pair = shifted[radius - step] + shifted[radius + step]
            out.add_(pair, alpha=float(weights[radius + step]))
        tensor = out
    return tensor


def _gaussian(radius: int, sigma: float) -> NDArray[np.float64]:
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return taps / taps.sum()


@lru_cache(maxsize=64)
def _blur_matrix(side: int, radius: int, sigma: float) -> torch.Tensor:
    """The blur of an axis with its mirrored ends, ``[side, side]``."""
    matrix = np.zeros((side, side))
    row = np.arange(side)
    for step, weight in zip(range(-radius, radius + 1), _gaussian(radius, sigma), strict=True):
        place = np.abs(row + step)
        np.add.at(matrix, (row, np.minimum(place, 2 * (side - 1) - place)), weight)
    return torch.from_numpy(matrix.astype(np.float32))


def widest(values: NDArray[np.floating | np.bool_], reach: int) -> FloatArray:
    """The largest value of a map ``[h, w]`` within ``reach`` pixels in rows and columns."""
    out = np.array(values, dtype=np.float32)
    for axis in (0, 1):
        lines, room = out.shape[axis], min(reach, out.shape[axis] - 1)
        if room < 1:
            continue
        shape = [length + 2 * room if one == axis else length for one, length in enumerate(out.shape)]
        best = np.full(shape, -np.inf, np.float32)
        _cut(best, axis, room, room + lines)[...] = out
        # Windows of 2, 4, 8...; two of the largest that fit make up the whole one.
        width, whole = 1, 2 * room + 1
        while 2 * width <= whole:
            best = np.maximum(_cut(best, axis, 0, -width), _cut(best, axis, width, None))
            width *= 2
        rest = whole - width
        out = np.maximum(_cut(best, axis, 0, lines), _cut(best, axis, rest, rest + lines))
    return out


def _cut(values: FloatArray, axis: int, start: int, stop: int | None) -> FloatArray:
    return values[start:stop] if axis == 0 else values[:, start:stop]


def grown(seeds: NDArray[np.floating], limit: NDArray[np.floating], steps: int) -> FloatArray:
    """Grey geodesic dilation of ``seeds`` under ``limit``, both ``[h, w]``, by at most ``steps`` pixels."""
    height, width = np.shape(seeds)
    held = np.full((height + 2, width + 2), -np.inf, np.float32)
    now = held[1:-1, 1:-1]
    now[...] = seeds
    for _ in range(steps):
        rows = np.maximum(held[:-2], held[2:])
        np.maximum(rows, held[1:-1], out=rows)
        wider = np.maximum(rows[:, :-2], rows[:, 2:])
        np.maximum(wider, rows[:, 1:-1], out=wider)
        wider = np.minimum(wider, limit, dtype=np.float32)
        if np.array_equal(wider, now):
            break
        now[...] = wider
    return now.copy()


def luma(tensor: torch.Tensor) -> torch.Tensor:
    """Rec. 709 weighted grey ``[B, 1, H, W]`` of gamma-encoded RGB."""
    return F.conv2d(tensor, tensor.new_tensor([0.2126, 0.7152, 0.0722]).view(1, 3, 1, 1))


def span_of(seen: NDArray[np.bool_], *, room: int, cell: int = 1) -> tuple[slice, slice]:
    """Rows and columns of a map ``[h, w]`` that hold all that is True, which must be something.

    :param room: pixels around it. :param cell: both ends are moved outwards to multiples of this.
    """
    spans = []
    for axis, length in ((1, seen.shape[0]), (0, seen.shape[1])):
        found = np.flatnonzero(seen.any(axis=axis))
        low, high = max(0, int(found[0]) - room), min(length, int(found[-1]) + 1 + room)
        spans.append(slice(low // cell * cell, min(length, -(-high // cell) * cell)))
    return spans[0], spans[1]


def scaled_span(spans: tuple[slice, slice], scale: float) -> tuple[slice, slice]:
    """Rows and columns in a picture that is ``scale`` times as large."""
    rows, columns = (slice(round(span.start * scale), round(span.stop * scale)) for span in spans)
    return rows, columns


def with_added(image: FloatArray, change: FloatArray, part: tuple[slice, slice]) -> FloatArray:
    """A picture ``[H, W, 3]`` with a change ``[h, w, 1 or 3]`` added in a part, which stays in [0, 1]."""
    out = np.array(image, dtype=np.float32)
    inner = out[part]
    inner += change
    np.clip(inner, 0.0, 1.0, out=inner)
    return out

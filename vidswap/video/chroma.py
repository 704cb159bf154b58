"""Bilinear chroma upsampling, and the downsampling that is its exact inverse.

Chroma sample ``k`` of a plane subsampled by ``f`` sits at luma position ``f k`` (*left*, or *top*)
or ``f k + (f - 1) / 2`` (*center*). Upsampling ``U`` is linear interpolation at these places, with
the edge repeated. Downsampling ``D`` is its least-squares inverse, ``(U^T U)^-1 U^T``: the chroma
that, shown by linear interpolation, comes closest to the wanted picture. So ``D U`` is the
identity, and a picture that is read and written back unchanged stays as it was. ``U^T U`` is
tridiagonal; two sweeps solve it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class AxisGrid:
    """Chroma samples ``first .. first + count`` of one axis, and the luma positions they cover."""

    factor: int
    """Luma samples a chroma sample, 1, 2 or 4."""
    centered: bool
    luma_size: int
    """Length of the whole luma axis."""
    first: int
    count: int

    @classmethod
    def covering(
        cls, start: int, stop: int, *, factor: int, centered: bool, luma_size: int
    ) -> AxisGrid:
        """The smallest grid whose blocks hold the luma positions ``start .. stop``."""
        first = start // factor
        return cls(factor, centered, luma_size, first, -(-stop // factor) - first)

    @property
    def plane_size(self) -> int:
        return -(-self.luma_size // self.factor)

    @property
    def luma_start(self) -> int:
        return self.first * self.factor

    @property
    def luma_count(self) -> int:
        """Positions of whole blocks; the last may lie beyond an odd-sized picture."""
        return self.count * self.factor

    def phase(self, index: int) -> tuple[int, float]:
        """Offset of the lower neighbour and weight of the upper one, for position ``index``
        of each block."""
        place = (index + 0.5) / self.factor - 0.5 if self.centered else index / self.factor
        lower = int(np.floor(place))
        return lower, place - lower

    def neighbours(self) -> NDArray[np.intp]:
        """Indices of the samples and one more on either side, repeated at the plane's edges."""
        return np.clip(np.arange(self.first - 1, self.first + self.count + 1), 0,
                       self.plane_size - 1)  # fmt: skip


def upsample(samples: FloatArray, grid: AxisGrid, axis: int) -> FloatArray:
    """Linear interpolation along an axis.

    :param samples: chroma with ``grid.count + 2`` samples along ``axis`` (see ``neighbours``).
    :return: ``grid.luma_count`` samples along ``axis``.
    """

    def part(first: int) -> FloatArray:
        return samples[(slice(None),) * axis + (slice(first, first + grid.count),)]

    if grid.factor == 1:
        return part(1).copy()
    before, after = samples.shape[:axis], samples.shape[axis + 1 :]
    out = np.empty((*before, grid.count, grid.factor, *after), np.float32)
    for index in range(grid.factor):
        lower, weight = grid.phase(index)
        target = out[(slice(None),) * (axis + 1) + (index,)]
        base = part(1 + lower)
        if weight == 0:
            target[...] = base
            continue
        step = part(2 + lower) - base
        step *= np.float32(weight)
        np.add(step, base, out=target)
    return out.reshape(*before, grid.luma_count, *after)


def _weights(grid: AxisGrid, index: int) -> tuple[int, NDArray[np.float32], NDArray[np.float32]]:
    """Weights of each block's position ``index`` on its lower and upper neighbour: 0 for
    positions beyond the picture, folded onto the edge sample where the neighbour is missing."""
    lower, weight = grid.phase(index)
    position = (np.arange(grid.count) + grid.first) * grid.factor + index
    inside = (position < grid.luma_size).astype(np.float32)
    low, high = inside * np.float32(1 - weight), inside * np.float32(weight)
    sample = np.arange(grid.count) + grid.first + lower
    beyond = sample + 1 > grid.plane_size - 1
    low[beyond] += high[beyond]
    high[beyond] = 0
    before = sample < 0
    high[before] += low[before]
    low[before] = 0
    return lower, low, high


def downsample(values: FloatArray, grid: AxisGrid, axis: int) -> FloatArray:
    """Least-squares inverse of :func:`upsample` along an axis; what lies outside stays fixed.

    :param values: ``grid.luma_count`` differences along ``axis`` (0 beyond the picture).
    :return: ``grid.count`` differences of the chroma samples.
    """
    if grid.factor == 1:
        return values
    source = np.moveaxis(values, axis, 0)
    blocks = source.reshape(grid.count, grid.factor, *source.shape[1:])
    count = grid.count
    right = np.zeros((count, *source.shape[1:]), np.float32)
    diagonal, beside = np.zeros(count), np.zeros(count)
    column = (slice(None),) + (None,) * (source.ndim - 1)
    for index in range(grid.factor):
        lower, low, high = _weights(grid, index)
        for shift, weight in ((lower, low), (lower + 1, high)):
            if not weight.any():
                continue
            take = slice(max(0, -shift), count - max(0, shift))
            put = slice(max(0, shift), count + min(0, shift))
            right[put] += weight[take][column] * blocks[take, index]
            diagonal[put] += weight[take] ** 2
        product = low * high
        if lower == 0:
            beside[:-1] += product[:-1]
        else:  # the pair (k - 1, k) is kept at k - 1
            beside[:-1] += product[1:]
    return np.moveaxis(_solve_tridiagonal(diagonal, beside, right), 0, axis)


def _solve_tridiagonal(
    diagonal: NDArray[np.float64], beside: NDArray[np.float64], right: FloatArray
) -> FloatArray:
    """Solve a symmetric tridiagonal system for many right-hand sides, in place.

    :param beside: ``[n]`` element ``(k, k + 1)`` at ``k``; the last is unused.
    :param right: ``[n, ...]``, overwritten with the solution.
    """
    count = len(diagonal)
    ratio = np.zeros(count)
    pivot = diagonal[0]
    scale = [1 / pivot]
    for k in range(1, count):
        ratio[k - 1] = beside[k - 1] / pivot
        pivot = diagonal[k] - beside[k - 1] * ratio[k - 1]
        scale.append(1 / pivot)
    scratch = np.empty_like(right[0])
    for k in range(1, count):
        np.multiply(right[k - 1], np.float32(ratio[k - 1]), out=scratch)
        right[k] -= scratch
    right[-1] *= np.float32(scale[-1])
    for k in range(count - 2, -1, -1):
        right[k] *= np.float32(scale[k])
        np.multiply(right[k + 1], np.float32(ratio[k]), out=scratch)
        right[k] -= scratch
    return right

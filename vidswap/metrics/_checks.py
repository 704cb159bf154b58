"""Shape checks at the doors of the metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def picture(name: str, value: Array) -> NDArray[np.float32]:
    """A picture ``[H, W, 3]`` as float32 in [0, 1]; uint8 is divided by 255."""
    array = np.asarray(value)
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"{name}: expected [H, W, 3], got {list(array.shape)}")
    if array.dtype == np.uint8:
        return array.astype(np.float32) / np.float32(255)
    return array.astype(np.float32, copy=False)


def same_shape(first: Array, second: Array) -> None:
    if first.shape != second.shape:
        raise ValueError(
            f"pictures must have one size, got {list(first.shape)} and {list(second.shape)}"
        )


def mask_for(shape_hw: tuple[int, ...], mask: Array | None) -> NDArray[np.float32]:
    """The mask ``[H, W]`` as float32 weights; ones when None."""
    if mask is None:
        return np.ones(shape_hw[:2], np.float32)
    array = np.asarray(mask)
    if array.shape != tuple(shape_hw[:2]):
        raise ValueError(f"mask: expected {list(shape_hw[:2])}, got {list(array.shape)}")
    return array.astype(np.float32)


def rows(name: str, value: Array, *, least: int = 1) -> NDArray[np.float64]:
    """Vectors ``[N, D]`` as float64."""
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] < least:
        raise ValueError(f"{name}: expected [N, D] with N >= {least}, got {list(array.shape)}")
    return array

"""Quads and projective maps, with the one pixel-centre rule of the tool.

A picture of ``W x H`` pixels spans ``[0, W] x [0, H]``; the centre of pixel ``(row i, column j)``
is ``(j + 0.5, i + 0.5)``. Crop and paste both go through :func:`quad_to_homography`, so a crop
pasted back untouched lands on itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def unit_corners() -> Array:
    """Corners TL, BL, BR, TR of the unit square, ``[4, 2]``."""
    return np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])


def quad_to_homography(quad_xy: NDArray[np.floating]) -> Array:
    """Homography from the unit square (crop, TL, BL, BR, TR) to a quad.

    :param quad_xy: ``[4, 2]`` corners TL, BL, BR, TR.
    :return: ``[3, 3]`` with ``H[2, 2] = 1``; exactly affine for a parallelogram.
    :raises ValueError: when the shape is wrong or three corners lie on a line.
    """
    quad = np.asarray(quad_xy, dtype=np.float64)
    if quad.shape != (4, 2) or not np.isfinite(quad).all():
        raise ValueError(f"quad_xy: expected [4, 2] finite numbers, got {quad.tolist()}")
    rows = []
    values = []
    for (u, v), (x, y) in zip(unit_corners(), quad, strict=True):
        rows.append([u, v, 1, 0, 0, 0, -u * x, -v * x])
        rows.append([0, 0, 0, u, v, 1, -u * y, -v * y])
        values += [x, y]
    try:
        solution = np.linalg.solve(np.array(rows), np.array(values))
    except np.linalg.LinAlgError as error:
        raise ValueError(f"quad_xy: degenerate quad {quad.tolist()}") from error
    return np.append(solution, 1.0).reshape(3, 3)


def apply_homography(matrix: NDArray[np.floating], points_xy: NDArray[np.floating]) -> Array:
    """Map points ``[..., 2]`` through a ``[3, 3]`` homography."""
    points = np.asarray(points_xy, dtype=np.float64)
    m = np.asarray(matrix, dtype=np.float64)
    mapped = points @ m[:, :2].T + m[:, 2]
    return mapped[..., :2] / mapped[..., 2:]


def quad_size_px(quad_xy: NDArray[np.floating]) -> float:
    """Side of the square with the quad's area, in pixels."""
    x, y = np.asarray(quad_xy, dtype=np.float64).T
    area = 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))
    return float(np.sqrt(area))


def quad_box(
    quad_xy: NDArray[np.floating], size_wh: tuple[int, int], *, margin: int = 0, multiple: int = 1
) -> tuple[int, int, int, int] | None:
    """Smallest pixel box around a quad, clipped to a picture.

    :param size_wh: size of the picture.
    :param margin: pixels added on each side.
    :param multiple: edges are moved outwards to multiples of this (2 for 4:2:0 chroma),
        never beyond the picture.
    :return: ``(left, top, right, bottom)`` or None when nothing of the quad is inside.
    """
    quad = np.asarray(quad_xy, dtype=np.float64)
    low = np.floor((quad.min(axis=0) - margin) / multiple) * multiple
    high = np.ceil((quad.max(axis=0) + margin) / multiple) * multiple
    left, top = (int(max(value, 0)) for value in low)
    right, bottom = (int(min(value, limit)) for value, limit in zip(high, size_wh, strict=True))
    if left >= right or top >= bottom:
        return None
    return left, top, right, bottom

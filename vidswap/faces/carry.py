"""A face carried on by its picture where the mesh network loses it: in a blur.

The face as it was last seen well is laid over the next pictures by a turn and a shift (Lucas and
Kanade 1981, in the inverse compositional form of Baker and Matthews 2004), both low-passed, so that a blur
changes little of either. What is in front of a face changes it altogether: the two then do not agree.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vidswap.faces.mesh import crop_square

Array = NDArray[np.float32]

_SIDE = 32
_BLUR = 2.0
"""Standard deviation of the low-pass in pixels of the patch."""
_STEPS = 20
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_AXIS = (np.arange(_SIDE, dtype=np.float64) + 0.5) / _SIDE - 0.5
_X, _Y = np.meshgrid(_AXIS, _AXIS)
_WINDOW = np.exp(-((_X**2 + _Y**2) / (2 * 0.27**2)))


def patch_of(rgb: NDArray[np.uint8], quad: Array) -> Array:
    """Low-passed luma ``[32, 32]`` under a square, in [0, 1].

    :param rgb: ``[H, W, 3]`` uint8. :param quad: ``[4, 2]`` a square in pixels of it.
    """
    luma = crop_square(rgb, quad, _SIDE) @ _LUMA
    return _lowpass(luma).astype(np.float32)


def agreement(a: Array, b: Array) -> float:
    """Correlation of two patches under a window around the face, -1..1."""
    first, second = _normal(a), _normal(b)
    return float((_WINDOW * first * second).sum())


def carry(rgb: NDArray[np.uint8], patch: Array, quad: Array) -> tuple[Array, float]:
    """Find a patch again near where it was.

    :param patch: as :func:`patch_of` gave it. :param quad: where to begin, ``[4, 2]``.
    :return: the square where it was found, and how well it agrees there.
    """
    template = _normal(patch)
    gy, gx = np.gradient(template, 1 / _SIDE)
    # Turn, shift right, shift down, in sides of the square. No scale: a strong blur draws the dark of the
    # hair into the face, which a free scale followed by 5 % where the face itself stayed as large as it was.
    steep = np.stack([gy * _X - gx * _Y, gx, gy]).reshape(3, -1)
    weighted = steep * _WINDOW.ravel()
    inverse = np.linalg.pinv(weighted @ steep.T)
    matrix, shift = np.eye(2), np.zeros(2)  # of the unit square, around its centre
    for _ in range(_STEPS):
        now = _normal(patch_of(rgb, _placed(quad, matrix, shift)))
        turn, right, down = inverse @ (weighted @ (now - template).ravel())
        step = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        # The step moves the template; the square goes the other way.
        matrix = matrix @ step.T
        shift = shift - matrix @ np.array([right, down])
        if max(abs(right), abs(down)) < 2e-4 and abs(turn) < 5e-4:
            break
    found = _placed(quad, matrix, shift)
    return found, agreement(patch, patch_of(rgb, found))


def _placed(quad: Array, matrix: NDArray[np.float64], shift: NDArray[np.float64]) -> Array:
    """The square of ``quad``, moved within its own coordinates."""
    corners = np.array([[-0.5, -0.5], [-0.5, 0.5], [0.5, 0.5], [0.5, -0.5]]) @ matrix.T + shift
    across, down = quad[3] - quad[0], quad[1] - quad[0]
    return (quad.mean(0) + corners[:, :1] * across + corners[:, 1:] * down).astype(np.float32)


def moved(points: Array, before: Array, after: Array) -> Array:
    """Points ``[N, 2]`` or ``[N, 3]`` of one square in the other; z is scaled with it."""
    basis = np.stack([before[3] - before[0], before[1] - before[0]]).astype(np.float64)
    local = (points[:, :2] - before[0]) @ np.linalg.inv(basis)
    made = np.array(points, dtype=np.float32)
    made[:, :2] = after[0] + local @ np.stack([after[3] - after[0], after[1] - after[0]])
    if points.shape[1] == 3:
        made[:, 2] *= np.linalg.norm(after[3] - after[0]) / max(float(np.linalg.norm(basis[0])), 1e-6)
    return made


def _lowpass(picture: Array) -> NDArray[np.float64]:
    radius = int(3 * _BLUR)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / _BLUR) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(picture.astype(np.float64), radius, mode="edge")
    rows = sum(k * padded[i : i + _SIDE] for i, k in enumerate(kernel))
    return sum(k * rows[:, i : i + _SIDE] for i, k in enumerate(kernel))


def _normal(patch: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean 0 and unit energy under the window: light and contrast do not matter."""
    share = _WINDOW / _WINDOW.sum()
    centred = patch - (share * patch).sum()
    return centred / max(float(np.sqrt((_WINDOW * centred**2).sum())), 1e-6)

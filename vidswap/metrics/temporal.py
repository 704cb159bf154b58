"""Steadiness in time of landmarks and colour."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_BINOMIAL = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16


def second_difference(before: Array, here: Array, after: Array, scale: float) -> float:
    """Jitter of landmarks at one frame: mean length of ``after - 2 here + before`` over ``scale``.

    :param before: ``[P, 2]`` landmarks of the frame before; ``here`` and ``after`` alike. Even
        motion cancels, a still face with trembling landmarks does not.
    :param scale: inter-ocular distance in the same unit, so that the figure has none.
    """
    stack = [np.asarray(points, dtype=np.float64) for points in (before, here, after)]
    if stack[0].ndim != 2 or stack[0].shape[1] != 2 or len({x.shape for x in stack}) != 1:
        raise ValueError(f"landmarks: expected three [P, 2], got {[x.shape for x in stack]}")
    if not scale > 0:
        raise ValueError(f"scale: expected > 0, got {scale}")
    return float(np.linalg.norm(stack[2] - 2 * stack[1] + stack[0], axis=1).mean() / scale)


class LandmarkJitter:
    """:func:`second_difference` of a stream, with three frames held."""

    def __init__(self) -> None:
        self._recent: deque[tuple[NDArray[np.float64], float]] = deque(maxlen=3)

    def add(self, landmarks_xy: Array | None, scale: float = 1.0) -> float:
        """The next frame; None where no face was found (the run of frames is broken).

        :return: the jitter at the frame before this one, NaN until three follow each other.
        """
        if landmarks_xy is None:
            self._recent.clear()
            return float("nan")
        self._recent.append((np.asarray(landmarks_xy, dtype=np.float64), scale))
        if len(self._recent) < 3:
            return float("nan")
        (before, _), (here, middle_scale), (after, _) = self._recent
        return second_difference(before, here, after, middle_scale)


def high_pass(series: Array, takes: Sequence[int] | None = None) -> NDArray[np.float64]:
    """A series ``[N, C]`` minus its 5-frame binomial mean, ``[N, C]``: what changes within frames.

    :param takes: ``[N]`` number of the stretch that each frame belongs to; None: all are one.

    Frames within two of an end, of another take or of a NaN give NaN. A steady change (a light turned
    up slowly) cancels to second order; flicker from frame to frame passes unchanged.
    """
    x = np.asarray(series, dtype=np.float64)
    if x.ndim != 2:
        raise ValueError(f"series: expected [N, C], got {list(x.shape)}")
    out = np.full_like(x, np.nan)
    if len(x) >= 5:
        smooth = sum(w * x[k : len(x) - 4 + k] for k, w in enumerate(_BINOMIAL))
        out[2:-2] = x[2:-2] - smooth
        if takes is not None:
            numbers = np.asarray(takes)
            out[2:-2][numbers[4:] != numbers[:-4]] = np.nan
    return out


def flicker(mean_colors: Array, takes: Sequence[int] | None = None) -> float:
    """Flicker of a face: root mean square of :func:`high_pass` of its mean colour.

    :param mean_colors: ``[N, 3]`` mean colour in the mask by frame, in [0, 1]; NaN rows where no
        face was found.
    :param takes: as for :func:`high_pass`.
    :return: in the unit of the colours; NaN when no five frames follow each other.
    """
    passed = high_pass(mean_colors, takes)
    passed = passed[np.isfinite(passed).all(axis=1)]
    return float(np.sqrt(np.square(passed).mean())) if len(passed) else float("nan")


def steadiness_ratio(output: float, original: float, *, floor: float = 0.0) -> float:
    """How much less steady the output is: ``output / original``, both at least ``floor``.

    ``floor`` is the smallest figure that means anything (a still picture has none at all): below
    it two clips count as equally steady.
    """
    top, bottom = max(output, floor), max(original, floor)
    if not (np.isfinite(top) and np.isfinite(bottom)):
        return float("nan")
    if bottom == 0:
        return 1.0 if top == 0 else float("inf")
    return top / bottom

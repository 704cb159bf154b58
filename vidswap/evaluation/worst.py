"""The worst frames of a clip, picked while it streams by."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidswap.metrics.report import WorstFrame
from vidswap.metrics.table import Row

REASONS = (
    "identity_source", "expression", "mouth_opening", "eye_aspect", "gaze", "warping_ratio",
    "sharpness_ratio",
)  # fmt: skip
"""What a frame can be worst in."""
_APART_SECONDS = 0.4
_GAP_PX = 4


@dataclass
class _Candidate:
    badness: float
    seconds: float
    value: float
    jpeg: bytes


class WorstFrames:
    """Keeps a few frames a reason, of different moments.

    :param each: frames kept a reason.
    """

    def __init__(self, each: int = 2) -> None:
        self._each = each
        self._kept: dict[str, list[_Candidate]] = {reason: [] for reason in REASONS}

    def offer(self, row: Row, pictures: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None) -> None:
        """Look at a frame.

        :param pictures: original and output, ``[S, S, 3]``; None when no face was there.
        """
        if pictures is None or self._each < 1:
            return
        jpeg: bytes | None = None
        for reason, kept in self._kept.items():
            value = _value(row, reason)
            badness = abs(math.log(max(value, 1e-6))) if reason == "sharpness_ratio" else value
            if not math.isfinite(badness) or not self._has_room(kept, badness, row["pts_seconds"]):
                continue
            jpeg = jpeg if jpeg is not None else _side_by_side(*pictures)
            self._put(kept, _Candidate(badness, row["pts_seconds"], value, jpeg))

    def _has_room(self, kept: list[_Candidate], badness: float, seconds: float) -> bool:
        near = [one for one in kept if abs(one.seconds - seconds) < _APART_SECONDS]
        if near:
            return badness > max(one.badness for one in near)
        return len(kept) < self._each or badness > min(one.badness for one in kept)

    def _put(self, kept: list[_Candidate], one: _Candidate) -> None:
        kept[:] = [k for k in kept if abs(k.seconds - one.seconds) >= _APART_SECONDS]
        kept.append(one)
        kept.sort(key=lambda k: -k.badness)
        del kept[self._each :]

    def result(self) -> list[WorstFrame]:
        """By reason, the worst first."""
        return [
            WorstFrame(one.seconds, reason, one.value, one.jpeg)
            for reason, kept in self._kept.items()
            for one in kept
        ]


def _value(row: Row, reason: str) -> float:
    if reason != "warping_ratio":
        return row[reason]
    below = row["warping_original"]
    return row["warping_output"] / below if below > 0 else math.nan


def _side_by_side(original: NDArray[np.uint8], output: NDArray[np.uint8]) -> bytes:
    height, width = original.shape[:2]
    sheet = Image.new("RGB", (2 * width + _GAP_PX, height), "white")
    sheet.paste(Image.fromarray(original), (0, 0))
    sheet.paste(Image.fromarray(output), (width + _GAP_PX, 0))
    stream = io.BytesIO()
    sheet.save(stream, "JPEG", quality=85)
    return stream.getvalue()

"""Frames of two videos side by side, by their times."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from vidswap.records import Frame
from vidswap.video import VideoInfo


class FramePairs:
    """Each frame of the target with the frame of the output that is shown at its time.

    Both streams are read once, in lockstep, with two frames of the output held.

    :param tolerance: most seconds between partners; half a frame of the target.
    :param offset: seconds added to the output's times.
    :param count_rest: read the output to its end, to say how many frames nobody wanted.
    """

    def __init__(
        self,
        target: Iterator[Frame],
        output: Iterator[Frame],
        *,
        tolerance: Fraction,
        offset: Fraction = Fraction(0),
        count_rest: bool = True,
    ) -> None:
        self._target, self._output = target, output
        self._tolerance, self._offset = tolerance, offset
        self._count_rest = count_rest
        self.pairs = 0
        self.target_alone = 0
        """Frames of the target without partner so far."""
        self.output_alone = 0
        """Frames of the output that no frame of the target wanted so far."""

    def __iter__(self) -> Iterator[tuple[Frame, Frame]]:
        here, after = next(self._output, None), next(self._output, None)
        is_used = False
        for frame in self._target:
            seconds = frame.pts * frame.time_base
            while (
                here is not None
                and after is not None
                and abs(self._seconds(after) - seconds) <= abs(self._seconds(here) - seconds)
            ):
                self.output_alone += not is_used
                here, after, is_used = after, next(self._output, None), False
            near = here is not None and abs(self._seconds(here) - seconds) <= self._tolerance
            if here is None or not near or is_used:
                self.target_alone += 1
                continue
            is_used = True
            self.pairs += 1
            yield frame, here
        if here is not None:
            self.output_alone += not is_used
        if after is not None and self._count_rest:
            self.output_alone += 1 + sum(1 for _ in self._output)

    def _seconds(self, frame: Frame) -> Fraction:
        return frame.pts * frame.time_base + self._offset


def frame_seconds(info: VideoInfo) -> Fraction:
    """Usual time from one frame to the next."""
    return max(1, info.nominal_step) * info.time_base


def time_offset(target: VideoInfo, output: VideoInfo) -> Fraction:
    """Seconds to add to the output's times.

    0 where the output begins within the target's time (a swap of a part keeps its times); else
    the starts are laid on each other, as many tools let their outputs begin at 0.
    """
    start, other = (info.start_pts * info.time_base for info in (target, output))
    slack = frame_seconds(target) / 2
    length = target.duration_seconds
    begins_inside = other >= start - slack and (length is None or other <= start + Fraction(length) + slack)
    return Fraction(0) if begins_inside else start - other

"""Time of frames: integer pts, rational time base, and where a clip starts.

Seconds that people give (``--start``, ``--at``) count from the first frame of the clip, whatever
the container's clock says there. Inside, only pts and time bases are used: a variable frame rate
and a start at -0.5 s or at 1000 s go through unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

# Containers whose clock starts anywhere (broadcast, camera): the offset means nothing to a viewer.
_FREE_RUNNING = frozenset({"mpegts", "mpeg", "flv", "live_flv", "asf", "wtv", "mxf", "dv"})


def rescale(value: int, source: Fraction, target: Fraction) -> int:
    """``value`` ticks of ``source`` in ticks of ``target``, rounded to the nearest, exactly."""
    return round(value * source / target)


def seconds_to_pts(seconds: float | Fraction, time_base: Fraction) -> int:
    """Nearest tick of a time base to a time."""
    return round(Fraction(seconds) / time_base)


@dataclass
class MonotonicClock:
    """Gives every decoded frame a pts that is above the one before.

    Frames without a timestamp (raw streams) get the nominal step; a clock that jumps back (two
    recordings joined byte by byte) is carried on from where it was.
    """

    step: int
    """Nominal ticks from frame to frame, at least 1."""
    last: int | None = None
    offset: int = 0
    """Ticks added since the last jump backwards."""
    repaired: int = 0
    """Frames whose time had to be made up or moved."""

    def next(self, pts: int | None, duration: int | None = None) -> int:
        """The pts of the next frame in display order."""
        if pts is None:
            value = 0 if self.last is None else self.last + self.step
            self.repaired += 1
        else:
            value = pts + self.offset
            if self.last is not None and value <= self.last:
                self.offset += self.last + (duration or self.step) - value
                value = pts + self.offset
                self.repaired += 1
        self.last = value
        return value


def output_shift(
    container: str,
    start_seconds: Fraction,
    first_frame_seconds: Fraction,
    *,
    trimmed_from_seconds: Fraction | None = None,
) -> Fraction:
    """Seconds to add to all times of a target when it is written anew.

    A trimmed clip starts at 0. Otherwise times stay as they are, except where an output container
    could not hold them (pictures before 0) or where they say nothing (a broadcast clock). Sound
    a little before 0 is usual, and is kept by an edit list.

    :param container: name of the target's container.
    :param start_seconds: earliest time of its streams.
    :param first_frame_seconds: time of its first picture.
    :param trimmed_from_seconds: time of the first frame that is kept, when the clip is cut.
    """
    if trimmed_from_seconds is not None:
        return -trimmed_from_seconds
    if first_frame_seconds < 0 or set(container.split(",")) & _FREE_RUNNING:
        return -min(start_seconds, first_frame_seconds)
    return Fraction(0)


def quarter_turns_clockwise(matrix: tuple[int, ...] | None) -> int:
    """Rotation 0, 90, 180 or 270 of a display matrix, by where its *down* direction points.

    :param matrix: nine integers ``a b u c d v x y w`` with ``x' = a x + c y``, ``y' = b x + d y``.
        A mirrored picture gets the rotation that puts heads up, still mirrored.
    """
    if matrix is None:
        return 0
    c, d = matrix[3], matrix[4]
    if abs(d) >= abs(c):
        return 0 if d >= 0 else 180
    return 270 if c > 0 else 90


def rotation_matrix(rotation: int, size_wh: tuple[int, int]) -> tuple[int, ...]:
    """Display matrix of a clockwise rotation by 0, 90, 180 or 270 degrees, 16.16 fixed point."""
    one = 1 << 16
    a, b = {0: (one, 0), 90: (0, one), 180: (-one, 0), 270: (0, -one)}[rotation]
    width, height = (side << 16 for side in size_wh)
    x, y = {0: (0, 0), 90: (height, 0), 180: (width, height), 270: (0, width)}[rotation]
    return (a, b, 0, -b, a, 0, x, y, 1 << 30)

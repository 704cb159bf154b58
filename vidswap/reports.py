"""What a run tells its caller: progress while it works, figures when it is done."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Log = Callable[[str], None]
"""Takes lines of a log."""
_WINDOW_SECONDS = 60.0
"""The rate is that of the frames of so long ago."""


def quiet(_line: str) -> None:
    """A log that nobody reads."""


@dataclass(frozen=True)
class Progress:
    """How far a run is; given to the ``progress`` callback now and then."""

    frames_done: int
    frames_total: int | None
    """None when the target does not say how long it is."""
    frames_per_second: float
    """Rate of the last minute; 0 before there is one."""
    seconds_left: float | None
    """None when it cannot be told."""
    message: str = ""
    """What is being done beside the frames, ``inverting alice.jpg (once; then it is cached)`` for example."""


class Pace:
    """How fast frames come, and how long the rest will take.

    It begins with the first frame: what is done once before it (networks, the source's photo) would promise
    hours for what takes minutes.
    """

    def __init__(self, total: int | None, clock: Callable[[], float] = time.perf_counter) -> None:
        self.total, self._clock = total, clock
        self._seen: deque[tuple[float, int]] = deque()
        """Times and frames done by then, the last minute's."""

    def __call__(self, done: int, message: str = "") -> Progress:
        """:param done: frames that are finished. :param message: what is being done beside them."""
        now, seen = self._clock(), self._seen
        if done and (not seen or done > seen[-1][1]):
            seen.append((now, done))
        while len(seen) > 2 and now - seen[1][0] >= _WINDOW_SECONDS:
            seen.popleft()
        since, first = seen[0] if seen else (now, done)
        rate = (done - first) / (now - since) if len(seen) > 1 else 0.0
        left = max(self.total - done, 0) / rate if self.total and rate > 0 else None
        if self.total is not None and done > self.total:
            self.total = None  # the header was wrong
        return Progress(done, self.total, rate, left, message)


class Telling:
    """Tells the caller how far a run is and what takes long, from whichever thread knows it.

    :param progress: None when nobody asks. :param log: told what takes long as well.
    :param total: how many frames there will be, if that is known.
    """

    def __init__(self, progress: Callable[[Progress], None] | None, log: Log, total: int | None) -> None:
        self._progress, self._log, self._pace, self._lock = progress, log, Pace(total), threading.Lock()
        self._done = 0

    def frames(self, done: int) -> None:
        """:param done: frames that are finished."""
        self._done = done
        self._tell("")

    def doing(self, what: str) -> None:
        """:param what: is done once, and takes longer than a frame."""
        self._log(what)
        self._tell(what)

    def _tell(self, message: str) -> None:
        if self._progress is not None:
            with self._lock:
                self._progress(self._pace(self._done, message))


@dataclass(frozen=True)
class SwapReport:
    """What one swap did."""

    output: Path
    frames: int
    """Frames written."""
    frames_swapped: int
    """Frames in which at least one face was swapped."""
    seconds_total: float
    seconds_per_frame: float
    """Wall time of the frames alone, start-up and source left out."""
    device: str
    warnings: tuple[str, ...] = ()
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    """Busy seconds by stage; stages overlap, so the sum may exceed ``seconds_total``."""
    peak_memory_mb: float = 0.0


@dataclass(frozen=True)
class PreviewReport:
    """What one contact sheet shows."""

    output: Path
    at_seconds: tuple[float, ...]
    """Times of the frames that are shown, as the target has them (nearest to those asked)."""
    faces: tuple[int, ...]
    """Faces that were swapped, a number for each of those times."""
    device: str
    seconds_total: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrackSummary:
    """One person seen in a clip."""

    track_id: int
    """The number that ``--face`` takes."""
    first_seconds: float
    last_seconds: float
    frames: int
    """Looked-at frames in which the person was found."""
    size_px: float
    """Largest size of the face, longer side of the box in display pixels."""
    score: float
    """Highest confidence of the detector, 0..1."""
    box_xyxy: tuple[float, float, float, float]
    """The face where it is largest, in display coordinates."""
    best_seconds: float
    """The time of that frame."""
    thumbnail: Path | None = None

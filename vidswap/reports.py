"""What a run tells its caller: progress while it works, figures when it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Progress:
    """How far a run is; given to the ``progress`` callback now and then."""

    frames_done: int
    frames_total: int | None
    """None when the target does not say how long it is."""
    frames_per_second: float
    """Current rate; 0 before there is one."""
    seconds_left: float | None
    """None when it cannot be told."""
    message: str = ""
    """What is being done beside the frames, ``inverting the source`` for example."""


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

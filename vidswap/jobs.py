"""What a batch hands to an engine, and what comes back (composer level)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from vidswap.config import RunConfig
from vidswap.errors import DISK_ERRORS, OutputError, VidswapError
from vidswap.pipeline import Swapper
from vidswap.reports import Progress


@dataclass(frozen=True)
class Job:
    """One clip of a batch; plain data, so that it can go to another process or machine."""

    index: int
    """Place in the batch, from 0."""
    name: str
    """What the clip is called in tables: its path below the folder that was given."""
    target: Path
    output: Path
    source: tuple[str, ...] = ()
    """Photos of one person, or ``synthetic:SEED``; may be empty where ``face`` names sources."""
    config: RunConfig = field(default_factory=RunConfig)
    start_seconds: float | None = None
    end_seconds: float | None = None
    face: tuple[str, ...] = ()
    """Values of ``--face``."""
    reference: str | None = None
    """Picture of the person to be swapped; not with ``face``."""
    force: bool = False
    """Replace an output that exists."""
    restart: bool = False
    """Begin again where a run of this clip was stopped."""


@dataclass(frozen=True)
class JobResult:
    """How one clip ended."""

    index: int
    state: Literal["done", "failed"]
    seconds: float = 0.0
    frames: int = 0
    frames_swapped: int = 0
    """Frames in which at least one face was swapped."""
    warnings: tuple[str, ...] = ()
    error: str = ""
    """One line; empty unless the clip failed."""
    exit_code: int = 0
    """What ``vidswap swap`` would have ended with."""
    device: str = ""


@dataclass(frozen=True)
class JobEvent:
    """Something happened to a job: it started, a frame is done, or it ended."""

    index: int
    kind: Literal["started", "progress", "ended"]
    progress: Progress | None = None
    result: JobResult | None = None


OnEvent = Callable[[JobEvent], None]
RunJobs = Callable[[Sequence[Job], OnEvent], list[JobResult]]
"""``run`` of an engine: works through the jobs, tells events, gives a result for each job.

A failed clip is a result; what is raised ends the batch (Ctrl-C, missing weights)."""


def failure(index: int, error: BaseException, seconds: float = 0.0) -> JobResult:
    """The result of a clip that raised ``error``."""
    code, message = 1, f"unexpected {type(error).__name__}: {error}"
    if isinstance(error, VidswapError):
        code, message = error.exit_code, str(error)
    elif isinstance(error, OSError) and error.errno in DISK_ERRORS:
        code = OutputError.exit_code
        message = f"cannot write ({error.strerror}): free some space on that disk"
    elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        message = "out of memory: use fewer --jobs or --preset fast"
    line = " ".join(message.split())
    return JobResult(index, "failed", seconds, error=line, exit_code=code)


def perform(
    job: Job, swapper: Swapper, progress: Callable[[Progress], None] | None = None
) -> JobResult:
    """Swap one clip with networks that are loaded already.

    :raises VidswapError: as :meth:`vidswap.pipeline.Swapper.swap_video`.
    """
    job.output.parent.mkdir(parents=True, exist_ok=True)
    report = swapper.swap_video(
        job.target, list(job.source), job.output,
        start_seconds=job.start_seconds, end_seconds=job.end_seconds, face=job.face,
        reference=job.reference, force=job.force, restart=job.restart, progress=progress,
    )  # fmt: skip
    return JobResult(
        job.index, "done", report.seconds_total, report.frames, report.frames_swapped,
        tuple(report.warnings), device=report.device,
    )  # fmt: skip


def with_threads(job: Job, threads: int) -> Job:
    """The job with its share of the threads, unless its settings name a number."""
    if job.config.threads:
        return job
    return replace(job, config=replace(job.config, threads=threads))

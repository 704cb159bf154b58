"""How a run shows that it moves: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, TextIO

from vidswap.reports import Progress

PLAIN_SECONDS = 10.0
"""Time between two lines where there is no terminal."""


def counted(number: int, noun: str) -> str:
    """``1 frame``, ``2 frames``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def rate(progress: Progress) -> str:
    """``2.4 frames/s, 1:05 left``; slow runs are told in seconds a frame."""
    parts = []
    if progress.frames_per_second >= 1:
        parts.append(f"{progress.frames_per_second:.1f} frames/s")
    elif progress.frames_per_second > 0:
        parts.append(f"{1 / progress.frames_per_second:.1f} s/frame")
    if progress.seconds_left is not None:
        parts.append(f"{clock(progress.seconds_left)} left")
    if progress.message:
        parts.append(progress.message)
    return ", ".join(parts)


class ProgressView:
    """Context manager whose instance is the ``progress`` callback of a run."""

    def __init__(self, *, stream: TextIO | None = None, is_terminal: bool | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty() if is_terminal is None else is_terminal
        self._bar: Any = None
        self._last: Progress | None = None
        self._printed: Progress | None = None
        self._printed_at = time.monotonic()

    def __enter__(self) -> ProgressView:
        return self

    def __call__(self, progress: Progress) -> None:
        self._last = progress
        if self._is_terminal:
            self._draw(progress)
        elif progress.message or time.monotonic() - self._printed_at >= PLAIN_SECONDS:
            self._print(progress)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._last is not None and self._last != self._printed and not self._is_terminal:
            self._print(self._last)

    def _draw(self, progress: Progress) -> None:
        if self._bar is None:
            from tqdm import tqdm

            counted = "{n_fmt}/{total_fmt}" if progress.frames_total else "{n_fmt}"
            bar = "{percentage:3.0f}%|{bar}| " if progress.frames_total else ""
            self._bar = tqdm(
                total=progress.frames_total,
                file=self._stream,
                dynamic_ncols=True,
                bar_format=f"{bar}{counted} frames{{postfix}}",
            )
        self._bar.set_postfix_str(rate(progress), refresh=False)
        if progress.frames_total and progress.frames_done > progress.frames_total:
            self._bar.total = progress.frames_done  # the container had promised fewer
        moved = progress.frames_done - self._bar.n
        if moved > 0:
            self._bar.update(moved)
        if progress.message:
            self._bar.refresh()

    def _print(self, progress: Progress) -> None:
        total = f"/{progress.frames_total}" if progress.frames_total else ""
        details = rate(progress)
        line = f"{progress.frames_done}{total} frames" + (f", {details}" if details else "")
        print(line, file=self._stream, flush=True)
        self._printed, self._printed_at = progress, time.monotonic()

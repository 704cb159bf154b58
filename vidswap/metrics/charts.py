"""Small line charts as inline SVG: no scripts, no outside files."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

WIDTH, HEIGHT = 640, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 12, 24
_MAX_POINTS = 600


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    label: str
    values: Array
    """``[N]``; NaN leaves a gap, infinity is drawn at the top."""
    css_class: str = "output"
    """Class of the line in the page's style sheet: ``output``, ``original`` or ``limit``."""


def line_chart(x: Array, series: Sequence[Series], *, x_label: str = "s", name: str = "") -> str:
    """An ``<svg>`` of lines over a common x axis.

    Long series are drawn as the smallest and largest value of each of some hundred bins, so that
    a single bad frame stays visible.

    :param x: ``[N]`` ascending.
    :param name: what the chart shows, for screen readers.
    """
    times = np.asarray(x, dtype=np.float64)
    low, high = _value_range([line.values for line in series])
    y_ticks = nice_ticks(low, high, 4)
    low, high = min(low, y_ticks[0]), max(high, y_ticks[-1])
    start, end = (float(times[0]), float(times[-1])) if len(times) else (0.0, 1.0)
    end = end if end > start else start + 1.0

    def to_x(value: Array) -> Array:
        return _LEFT + (value - start) / (end - start) * (WIDTH - _LEFT - _RIGHT)

    def to_y(value: Array) -> Array:
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(name)}" '
        'xmlns="http://www.w3.org/2000/svg">'
    ]
    for tick in y_ticks:
        y = float(to_y(np.float64(tick)))
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(f'<text x="{_LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in nice_ticks(start, end, 7):
        if start <= tick <= end:
            at = float(to_x(np.float64(tick)))
            place = f'x="{at:.1f}" y="{HEIGHT - 8}" text-anchor="middle"'
            parts.append(f"<text {place}>{tick:g} {x_label}</text>")
    for line in series:
        values = np.clip(np.asarray(line.values, dtype=np.float64), low, high)  # NaN stays NaN
        for run_x, run_y in _runs(*_thinned(times, values)):
            points = " ".join(
                f"{a:.1f},{b:.1f}" for a, b in zip(to_x(run_x), to_y(run_y), strict=True)
            )
            if len(run_x) == 1:
                at_x, at_y = points.split(",")
                parts.append(f'<circle class="{line.css_class}" cx="{at_x}" cy="{at_y}" r="1.5"/>')
            else:
                parts.append(f'<polyline class="{line.css_class}" points="{points}"/>')
    return "".join([*parts, "</svg>"])


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About ``count`` round numbers that cover ``low`` to ``high``."""
    largest = max(abs(low), abs(high))
    if not high - low > max(1e-9 * largest, 1e-100):
        high = low + (abs(low) if largest > 1e-100 else 1.0)
    rough = (high - low) / max(count, 1)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = 2 - math.floor(math.log10(step))  # 0.30000000000000004 is no round number
    return [round(k * step, digits) for k in range(first, last + 1)]


def _value_range(lines: Sequence[Array]) -> tuple[float, float]:
    """Range of the finite values, from 0 where they reach down into the lower half of it."""
    values = np.concatenate([np.asarray(line, dtype=np.float64).ravel() for line in lines] or [np.empty(0)])
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    if 0 < low < 0.6 * high:
        low = 0.0
    if high - low < 1e-9 * max(abs(high), 1e-9):
        low, high = (low - 0.5 * abs(low), high + 0.5 * abs(high)) if high else (0.0, 1.0)
    return low, high


def _thinned(x: Array, y: Array) -> tuple[Array, Array]:
    if len(x) <= _MAX_POINTS:
        return x, y
    keep: set[int] = set()
    for chunk in np.array_split(np.arange(len(x)), _MAX_POINTS // 2):
        values = y[chunk]
        if np.isnan(values).all():
            keep.add(int(chunk[0]))
        else:
            keep.update((int(chunk[np.nanargmin(values)]), int(chunk[np.nanargmax(values)])))
    index = np.array(sorted(keep))
    return x[index], y[index]


def _runs(x: Array, y: Array) -> list[tuple[Array, Array]]:
    """Stretches without NaN."""
    good = np.flatnonzero(~np.isnan(y))
    if not len(good):
        return []
    runs = np.split(good, np.flatnonzero(np.diff(good) > 1) + 1)
    return [(x[run], y[run]) for run in runs]

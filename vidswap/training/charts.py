"""Pictures of a training run: curves from its CSV, sheets of samples, shares by style."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

_PANEL_WH = (300, 170)
_MARGIN = 34
_COLORS = ("#1f6fb4", "#d95f02", "#2a9d5c", "#b0307a", "#7a5cc0", "#8a6d1d", "#3a3a3a")
_STEP = re.compile(r"^(?:step|epoch) (\d+)[^:]*: (.*)$")
_FIGURE = re.compile(r"([A-Za-z0-9_ ]*[A-Za-z_]) (-?\d+\.\d+)")


def figures_of(line: str) -> tuple[int, dict[str, float]] | None:
    """Step and figures of a log line such as ``step 50/600: 128 px 27.21 dB``; None for others."""
    match = _STEP.match(line)
    if match is None:
        return None
    found = {name.strip(): float(value) for name, value in _FIGURE.findall(match[2])}
    return (int(match[1]), found) if found else None


def read_curves(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Curves ``(step, value)`` by column of a CSV whose first column is the step.

    Of two rows of one step, as a resumed run writes them, the later one counts.
    """
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    curves: dict[str, dict[float, float]] = {}
    for row in rows:
        step = float(row.pop("step"))
        for name, value in row.items():
            if name and value:
                curves.setdefault(name, {})[step] = float(value)
    return {name: sorted(points.items()) for name, points in curves.items()}


def draw_curves(csv_path: Path, png_path: Path) -> None:
    """One small panel a column, three across."""
    curves = read_curves(csv_path)
    across = min(3, max(1, len(curves)))
    down = max(1, -(-len(curves) // across))
    picture = Image.new("RGB", (across * _PANEL_WH[0], down * _PANEL_WH[1]), "white")
    for index, (name, points) in enumerate(curves.items()):
        origin = (index % across * _PANEL_WH[0], index // across * _PANEL_WH[1])
        _panel(ImageDraw.Draw(picture), origin, name, points, _COLORS[index % len(_COLORS)])
    picture.save(png_path)


def _panel(
    draw: ImageDraw.ImageDraw,
    origin: tuple[int, int],
    name: str,
    points: Sequence[tuple[float, float]],
    color: str,
) -> None:
    left, top = origin[0] + _MARGIN + 10, origin[1] + _MARGIN - 8
    right, bottom = origin[0] + _PANEL_WH[0] - 12, origin[1] + _PANEL_WH[1] - 22
    steps, values = [p[0] for p in points], [p[1] for p in points]
    low, high = min(values), max(values)
    spread_x, spread_y = (steps[-1] - steps[0]) or 1.0, (high - low) or 1.0
    draw.rectangle((left, top, right, bottom), outline="#bbbbbb")
    draw.text((left, top - 16), f"{name}: {values[-1]:.4g}", fill="black")
    for value, y in ((high, top - 5), (low, bottom - 6)):
        draw.text((origin[0] + 3, y), f"{value:.3g}", fill="#555555")
    draw.text((left, bottom + 4), f"{steps[0]:g}", fill="#555555")
    draw.text((right - 30, bottom + 4), f"{steps[-1]:g}", fill="#555555")
    line = [
        (
            left + (x - steps[0]) / spread_x * (right - left),
            bottom - (y - low) / spread_y * (bottom - top),
        )
        for x, y in points
    ]
    if len(line) > 1:
        draw.line(line, fill=color, width=2)
    else:
        ((across, down),) = line
        draw.ellipse((across - 2, down - 2, across + 2, down + 2), fill=color)


def draw_sheet(
    top: Sequence[Tensor],
    side: Sequence[Tensor],
    cells: Sequence[Sequence[Tensor]],
    path: Path,
) -> None:
    """Sources across, targets down, mixed faces in the cells.

    Images are ``[1, 3, S, S]`` in [-1, 1].
    """
    blank = torch.ones_like(top[0])
    rows = [torch.cat([blank, *top], 3)]
    rows += [torch.cat([first, *row], 3) for first, row in zip(side, cells, strict=True)]
    sheet = torch.cat(rows, 2)[0]
    array = ((sheet.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    picture = Image.fromarray(array)
    ImageDraw.Draw(picture).multiline_text((6, 6), "sources >\n\ntargets v", fill="black")
    picture.save(path)


def draw_shares(shares: Mapping[str, Sequence[float]], path: Path) -> None:
    """Bars by style, one panel a measure: how far each style takes a face from target to source."""
    width, height = 26, 110
    count = max(len(values) for values in shares.values())
    picture = Image.new("RGB", (count * width + 70, len(shares) * (height + 34) + 10), "white")
    draw = ImageDraw.Draw(picture)
    for row, (name, values) in enumerate(shares.items()):
        base = (row + 1) * (height + 34) - 14
        highest = max(max(values), 1e-6)
        draw.text((8, base - height - 16), f"{name} (highest bar: {highest:.3f})", fill="black")
        for style, value in enumerate(values):
            x = 40 + style * width
            tall = max(0.0, value) / highest * (height - 8)
            draw.rectangle((x, base - tall, x + width - 5, base), fill=_COLORS[row % len(_COLORS)])
            draw.text((x + 4, base + 2), str(style), fill="#555555")
    picture.save(path)

"""The report of an evaluation: JSON, CSV, and one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from vidswap.metrics.charts import Series, line_chart
from vidswap.metrics.table import CLIP_MEASURES, FRAME_MEASURES, Measure, Row, Summary

FORMAT_VERSION = 1


@dataclass(frozen=True)
class WorstFrame:
    """One frame of the strip."""

    pts_seconds: float
    reason: str
    """Name of the measure that it is bad in."""
    value: float
    jpeg: bytes = field(repr=False)
    """Original and output side by side."""


@dataclass(frozen=True)
class Report:
    """All that an evaluation found."""

    target: str
    """File name, without folders."""
    output: str
    sources: tuple[str, ...]
    rows: Sequence[Row]
    """One a frame of the target that has a frame in the output, in order of time."""
    frame_summary: Mapping[str, Summary]
    clip_summary: Mapping[str, float]
    networks: Mapping[str, str]
    """What judged: purpose to name."""
    notes: Sequence[str] = ()
    """What a reader must know: frames without partner, rescaled output, missing network."""
    worst: Sequence[WorstFrame] = ()
    gallery_size: int = 0


def to_json(report: Report) -> str:
    """The summary with definitions; NaN and infinity become null, as JSON has no words for them."""
    body = {
        "format": "vidswap-evaluation",
        "version": FORMAT_VERSION,
        "target": report.target,
        "output": report.output,
        "sources": list(report.sources),
        "frames": len(report.rows),
        "gallery_size": report.gallery_size,
        "networks": dict(report.networks),
        "notes": list(report.notes),
        "clip": dict(report.clip_summary),
        "per_frame": {name: asdict(summary) for name, summary in report.frame_summary.items()},
        "worst": [
            {"pts_seconds": w.pts_seconds, "measure": w.reason, "value": w.value}
            for w in report.worst
        ],
        "definitions": {
            measure.name: {"unit": measure.unit, "better": measure.better, "is": measure.meaning}
            for measure in (*CLIP_MEASURES.values(), *FRAME_MEASURES.values())
        },
    }
    return json.dumps(_finite(body), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value


def to_csv(rows: Sequence[Row]) -> str:
    """The rows with a header; cells without a figure are empty, infinity is ``inf``."""
    stream = io.StringIO()
    names = list(rows[0]) if rows else []
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(row[name]) for name in names])
    return stream.getvalue()


def _cell(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.9g}"


_PAIRS = (
    ("warping", "Warping error", "squared RGB difference"),
    ("jitter", "Landmark jitter", "inter-ocular distances"),
    ("flicker", "Flicker", "RGB, 0..1"),
)
"""Columns ``<name>_output`` and ``<name>_original`` that are drawn into one chart."""

_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#6a737d;--line:#d9dee3;--paper:#fff;
--output:#c2410c;--original:#2563a8}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8ea;--soft:#98a1aa;--line:#3a4048;
--paper:#16191d;--output:#fb923c;--original:#7ab4ee}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:1340px;margin:2rem auto;padding:0 1.2rem}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin:2.2rem 0 .6rem}
p.facts,figcaption,td.is{color:var(--soft)}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .7rem .3rem 0;
border-bottom:1px solid var(--line);vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}td.is{font-size:.88em}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,560px),1fr));gap:1.2rem}
figure{margin:0}figcaption{font-size:.88em}figcaption b{color:var(--ink)}svg{width:100%;height:auto}
svg text{font-size:11px;fill:var(--soft)}svg .grid{stroke:var(--line)}
svg polyline{fill:none;stroke-width:1.4;stroke-linejoin:round}
svg polyline.output{stroke:var(--output)}svg polyline.original{stroke:var(--original)}
svg circle.output{fill:var(--output)}svg circle.original{fill:var(--original)}
.key-output{color:var(--output)}.key-original{color:var(--original)}
.strip{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:1rem}
.strip img{width:100%;display:block;border-radius:4px}
li{margin:.2rem 0}
"""


def to_html(report: Report) -> str:
    """The page: summary, worst frames, plots over time; no script, no outside resource."""
    title = f"{html.escape(report.output)} against {html.escape(report.target)}"
    facts = [
        f"{len(report.rows)} frames",
        f"source: {html.escape(', '.join(report.sources))}",
        f"gallery of {report.gallery_size}",
        *(f"{html.escape(k)}: {html.escape(v)}" for k, v in report.networks.items()),
    ]
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in report.notes)
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>{title}</title><style>{_STYLE}</style></head><body>",
            f'<h1>{title}</h1><p class="facts">{" · ".join(facts)}</p>',
            f"<ul>{notes}</ul>" if notes else "",
            _clip_table(report),
            _frame_table(report),
            _strip(report),
            _plots(report),
            "</body></html>\n",
        ]
    )


def number(value: float) -> str:
    """A figure with as many digits as mean something."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞"
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.2f}"
    return f"{value:.3f}" if abs(value) >= 0.01 else f"{value:.2g}"


_BETTER = {
    "lower": "lower is better",
    "higher": "higher is better",
    "one": "1 is like the original",
}


def _clip_table(report: Report) -> str:
    lines = []
    for name, measure in CLIP_MEASURES.items():
        if name in report.clip_summary:
            value = f'<td class="n">{number(report.clip_summary[name])}</td>'
            lines.append(f"<tr><td>{measure.title}</td>{value}{_about(measure)}</tr>")
    head = '<tr><th>Over the clip</th><th class="n">figure</th><th></th></tr>'
    return f"<h2>Summary</h2><table>{head}{''.join(lines)}</table>"


def _frame_table(report: Report) -> str:
    lines = []
    for name, measure in FRAME_MEASURES.items():
        summary = report.frame_summary.get(name)
        if summary is not None and summary.frames:
            cells = "".join(
                f'<td class="n">{number(value)}</td>'
                for value in (summary.mean, summary.p95, summary.worst)
            )
            lines.append(f"<tr><td>{measure.title}</td>{cells}{_about(measure)}</tr>")
    head = (
        '<tr><th>By frame</th><th class="n">mean</th><th class="n">95 %</th>'
        '<th class="n">worst</th><th></th></tr>'
    )
    return f"<h2>Frames</h2><table>{head}{''.join(lines)}</table>"


def _about(measure: Measure) -> str:
    text = f"{measure.meaning} Unit: {measure.unit}; {_BETTER[measure.better]}."
    return f'<td class="is">{html.escape(text)}</td>'


def _strip(report: Report) -> str:
    figures = []
    for frame in report.worst:
        measure = FRAME_MEASURES.get(frame.reason)
        title = measure.title if measure else frame.reason
        data = base64.b64encode(frame.jpeg).decode("ascii")
        figures.append(
            f'<figure><img alt="original and output at {frame.pts_seconds:.2f} s" '
            f'src="data:image/jpeg;base64,{data}"><figcaption><b>{frame.pts_seconds:.2f} s</b> '
            f"{html.escape(title)} {number(frame.value)}</figcaption></figure>"
        )
    if not figures:
        return ""
    return (
        "<h2>Worst frames</h2><p class='facts'>Left the original, right the output.</p>"
        f'<div class="strip">{"".join(figures)}</div>'
    )


def _plots(report: Report) -> str:
    if not report.rows:
        return ""
    times = np.array([row["pts_seconds"] for row in report.rows])
    figures = []

    def column(name: str) -> np.ndarray:
        return np.array([row.get(name, math.nan) for row in report.rows])

    def add(title: str, unit: str, series: list[Series], key: str) -> None:
        if any(np.isfinite(line.values).any() for line in series):
            chart = line_chart(times, series, name=f"{title} over time")
            caption = f"<b>{html.escape(title)}</b>, {html.escape(unit)}{key}"
            figures.append(f"<figure><figcaption>{caption}</figcaption>{chart}</figure>")

    for name, measure in FRAME_MEASURES.items():
        add(measure.title, measure.unit, [Series(name, column(name))], "")
    key = ' · <span class="key-output">output</span> · <span class="key-original">original</span>'
    for name, title, unit in _PAIRS:
        lines = [Series(kind, column(f"{name}_{kind}"), kind) for kind in ("original", "output")]
        add(title, unit, lines, key)
    return f'<h2>Over time</h2><div class="plots">{"".join(figures)}</div>'

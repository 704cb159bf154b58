"""Charts, summaries, and the report's three forms."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidswap.metrics.charts import Series, line_chart, nice_ticks
from vidswap.metrics.report import Report, WorstFrame, number, to_csv, to_html, to_json
from vidswap.metrics.table import FRAME_MEASURES, Summary, summarize

SVG = "{http://www.w3.org/2000/svg}"


def test_p95_looks_at_the_bad_side() -> None:
    values = np.arange(101.0)
    assert summarize(values, "lower").p95 == pytest.approx(95.0)
    assert summarize(values, "higher").p95 == pytest.approx(5.0)
    assert (summarize(values, "lower").worst, summarize(values, "higher").worst) == (100.0, 0.0)


def test_ratios_are_bad_on_both_sides_of_one() -> None:
    assert summarize([1.0, 1.1, 0.5], "one").worst == 0.5
    assert summarize([1.0, 3.0, 0.5], "one").worst == 3.0


def test_summary_leaves_out_nan_and_bounds_infinite_psnr() -> None:
    summary = summarize([math.inf, 40.0, math.nan], "higher")
    assert summary.mean == 70.0 and summary.frames == 2
    assert math.isnan(summarize([math.nan], "lower").mean)


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.integers(1, 9))
def test_ticks_cover_the_range_with_about_as_many_as_asked(
    low: float, span: float, count: int
) -> None:
    ticks = nice_ticks(low, low + span, count)
    slack = 1e-6 * max(abs(low), abs(low + span), 1e-9)
    assert ticks[0] <= low + slack and ticks[-1] >= low + span - slack
    assert 2 <= len(ticks) <= 2 * count + 3
    assert ticks == sorted(set(ticks))


def _lines(svg: str) -> list[list[tuple[float, float]]]:
    root = ElementTree.fromstring(svg)
    return [
        [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
        for line in root.iter(f"{SVG}polyline")
    ]


def test_chart_draws_larger_values_higher_and_breaks_at_nan() -> None:
    values = np.array([0.0, 1.0, np.nan, 2.0, 4.0])
    first, second = _lines(line_chart(np.arange(5.0), [Series("a", values)]))
    assert first[0][1] > first[1][1] > second[0][1] > second[1][1]
    assert first[0][0] < first[1][0] < second[0][0] < second[1][0]


def test_a_long_chart_keeps_its_single_bad_frame() -> None:
    values = np.full(20_000, 1.0)
    values[12_345] = 9.0
    (line,) = _lines(line_chart(np.arange(20_000.0), [Series("a", values)]))
    heights = np.array([y for _, y in line])
    assert len(line) < 1000
    assert (heights == heights.min()).sum() == 1


@pytest.mark.parametrize("values", [[], [np.nan, np.nan], [3.0, 3.0], [np.inf, 1.0], [0.0]])
def test_charts_of_odd_series_are_well_formed(values: list[float]) -> None:
    svg = line_chart(np.arange(float(len(values))), [Series("a", np.array(values))], name="<&>")
    ElementTree.fromstring(svg)
    assert "nan" not in svg and "inf" not in svg


def _report(**changes: object) -> Report:
    rows = [
        {"frame": float(k), "pts_seconds": k / 25, "expression": 0.05 + 0.01 * k,
         "warping_output": 2e-4, "warping_original": 1e-4, "psnr_outside_db": math.inf}
        for k in range(4)
    ]  # fmt: skip
    rows[2]["expression"] = math.nan
    settings: dict[str, object] = {
        "target": "in & out.mp4",
        "output": "<b>.mp4",
        "sources": ("synthetic:4",),
        "rows": rows,
        "frame_summary": {"expression": Summary(0.06, 0.08, 0.08, 3)},
        "clip_summary": {"warping_ratio": 2.0, "tl_id": math.nan},
        "networks": {"identity": "dlib"},
        "notes": ["2 frames without partner"],
        "worst": [WorstFrame(0.12, "expression", 0.08, b"\xff\xd8picture")],
    }
    return Report(**{**settings, **changes})  # type: ignore[arg-type]


def test_json_is_strict_and_defines_its_figures() -> None:
    body = json.loads(to_json(_report()), parse_constant=lambda word: pytest.fail(word))
    assert body["clip"] == {"warping_ratio": 2.0, "tl_id": None}
    assert body["per_frame"]["expression"]["p95"] == 0.08
    assert set(FRAME_MEASURES) <= set(body["definitions"])
    assert body["worst"][0]["measure"] == "expression"


def test_csv_reads_back() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(_report().rows))))
    assert [row["expression"] for row in rows] == ["0.05", "0.06", "", "0.08"]
    assert rows[0]["psnr_outside_db"] == "inf"


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and not (value or "").startswith("data:"):
                self.outside.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_escaped_and_needs_nothing_else() -> None:
    page = to_html(_report())
    tags = _Tags()
    tags.feed(page)
    assert tags.open == [] and tags.outside == []
    assert "script" not in tags.seen and "link" not in tags.seen
    assert "&lt;b&gt;.mp4" in page and "<b>.mp4" not in page
    assert not re.search(r"url\(|@import", page)
    assert page.count("<svg") == 2  # expression, warping; not the PSNR without finite figures


def test_numbers_have_meaningful_digits() -> None:
    assert [number(x) for x in (123.456, 12.345, 1.23456, 0.0123456, 0.000123456)] == [
        "123", "12.35", "1.235", "0.012", "0.00012",
    ]  # fmt: skip
    assert number(math.nan) == "–" and number(math.inf) == "∞"

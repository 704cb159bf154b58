"""The outlines drawn by hand, and how they are turned into masks."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def _tool():
    path = ROOT / "tools" / "measure_occlusion.py"
    spec = importlib.util.spec_from_file_location("measure_occlusion", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_outline_covers_what_it_encloses() -> None:
    cover = _tool().outline_mask([[[2, 2], [6, 2], [6, 5], [2, 5]]], (8, 8))
    assert cover.shape == (8, 8)
    assert cover[2:5, 2:6].min() > 0.9
    assert abs(cover.sum() - 12) < 2.5


def test_twelve_frames_are_outlined_inside_the_picture() -> None:
    outlines = json.loads(_tool().OUTLINES.read_text(encoding="utf-8"))
    assert len(outlines["clip_sha256"]) == 64
    indices = [entry["index"] for entry in outlines["frames"]]
    assert len(set(indices)) == 12 and min(indices) >= 58 and max(indices) <= 230
    width, height = outlines["size_wh"]
    for entry in outlines["frames"]:
        for polygon in entry["polygons"]:
            points = np.array(polygon)
            assert points.min() >= 0 and (points <= [width, height]).all()
        share = _tool().outline_mask(entry["polygons"], (width, height)).mean()
        assert 0.03 < share < 0.2

"""Jitter and flicker: what is steady has none, what trembles has the figure put in."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vidswap.metrics.temporal import (
    LandmarkJitter,
    flicker,
    high_pass,
    second_difference,
    steadiness_ratio,
)


def _landmarks(count: int = 30) -> np.ndarray:
    return np.random.default_rng(1).random((count, 2)) * 100


def test_even_motion_has_no_jitter() -> None:
    points = _landmarks()
    moving = [points + k * np.array([2.0, -1.0]) for k in range(3)]
    assert second_difference(*moving, 60.0) == pytest.approx(0.0, abs=1e-12)


def test_one_displaced_frame_counts_twice_over_the_eyes_distance() -> None:
    points = _landmarks()
    assert second_difference(points, points + [3.0, 4.0], points, 50.0) == pytest.approx(0.2)


def test_stream_agrees_with_the_plain_figure_and_breaks_at_gaps() -> None:
    rng = np.random.default_rng(2)
    frames = [_landmarks() + rng.normal(0, 0.5, (30, 2)) for _ in range(6)]
    jitter = LandmarkJitter()
    found = [jitter.add(points, 40.0) for points in frames]
    assert np.isnan(found[:2]).all()
    assert found[4] == pytest.approx(second_difference(frames[2], frames[3], frames[4], 40.0))
    jitter.add(None)
    assert math.isnan(jitter.add(frames[0], 40.0))
    assert math.isnan(jitter.add(frames[1], 40.0))
    assert jitter.add(frames[2], 40.0) > 0


def test_jitter_wants_a_scale() -> None:
    with pytest.raises(ValueError, match="scale"):
        second_difference(_landmarks(), _landmarks(), _landmarks(), 0.0)


def test_high_pass_takes_off_what_changes_slowly() -> None:
    slow = np.linspace(0.2, 0.6, 40)[:, None]
    assert np.abs(high_pass(slow)[2:-2]).max() < 1e-12
    assert np.isnan(high_pass(slow)[[0, 1, -2, -1]]).all()


def test_flicker_measures_an_alternating_gain() -> None:
    base = np.tile([0.4, 0.5, 0.6], (50, 1))
    alternating = base + 0.01 * (-1.0) ** np.arange(50)[:, None]
    assert flicker(base) == pytest.approx(0.0, abs=1e-12)
    assert flicker(alternating) == pytest.approx(0.01)  # the binomial mean cancels it wholly


def test_flicker_skips_frames_without_a_face() -> None:
    colors = np.tile([0.4, 0.5, 0.6], (30, 1))
    colors[10:12] = np.nan
    assert flicker(colors) == pytest.approx(0.0, abs=1e-12)
    assert math.isnan(flicker(colors[8:12]))


def test_ratio_with_a_floor() -> None:
    assert steadiness_ratio(3.0, 2.0) == 1.5
    assert steadiness_ratio(1e-6, 0.0, floor=1e-4) == 1.0
    assert steadiness_ratio(0.0, 0.0) == 1.0
    assert steadiness_ratio(1.0, 0.0) == math.inf
    assert math.isnan(steadiness_ratio(math.nan, 1.0))

"""Which frames get into the strip of the worst."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image

from vidswap.evaluation.observe import fill
from vidswap.evaluation.worst import REASONS, WorstFrames

BLACK, WHITE = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)


def row(seconds: float, **values: float) -> dict[str, float]:
    names = (*REASONS, "warping_output", "warping_original")
    return {"pts_seconds": seconds, **dict.fromkeys(names, math.nan), **values}


def test_keeps_the_worst_of_different_moments() -> None:
    worst = WorstFrames(2)
    for k, value in enumerate([0.1, 0.9, 0.8, 0.2, 0.7, 0.3]):
        worst.offer(row(0.2 * k, expression=value), (BLACK, WHITE))
    found = worst.result()
    assert [(round(w.pts_seconds, 1), w.value) for w in found] == [(0.2, 0.9), (0.8, 0.7)]
    assert {w.reason for w in found} == {"expression"}


def test_sharpness_is_bad_on_both_sides_and_warping_is_a_ratio() -> None:
    worst = WorstFrames(1)
    worst.offer(row(0, sharpness_ratio=1.5, warping_output=1.0, warping_original=0.5), (BLACK,) * 2)
    worst.offer(row(5, sharpness_ratio=0.4, warping_output=9.0, warping_original=9.0), (BLACK,) * 2)
    found = {w.reason: w for w in worst.result()}
    assert found["sharpness_ratio"].value == 0.4
    assert found["warping_ratio"].value == 2.0


def test_frames_without_a_face_stay_out() -> None:
    worst = WorstFrames(3)
    worst.offer(row(0, expression=9.0), None)
    assert worst.result() == []


def test_picture_shows_original_left_and_output_right() -> None:
    worst = WorstFrames(1)
    worst.offer(row(0, gaze=1.0), (BLACK, WHITE))
    with Image.open(io.BytesIO(worst.result()[0].jpeg)) as image:
        pixels = np.asarray(image.convert("L"))
    assert pixels[:, :12].mean() < 20 and pixels[:, -12:].mean() > 235


@pytest.mark.parametrize("left", [2.0, 2.4, 2.6])
def test_filled_outline_has_its_area_and_place(left: float) -> None:
    outline = np.array([[left, 3.0], [left + 5, 3.0], [left + 5, 9.0], [left, 9.0]])
    y, x = np.nonzero(fill(outline, (12, 10)))
    assert (x.min(), x.max() + 1) == (round(left), round(left) + 5)
    assert (y.min(), y.max() + 1) == (3, 9)
    assert len(x) == 30


def test_filled_circle_has_its_area() -> None:
    turn = np.linspace(0, 2 * np.pi, 100)
    circle = np.stack([50 + 30 * np.cos(turn), 40 + 30 * np.sin(turn)], axis=1)
    assert fill(circle, (80, 100)).sum() == pytest.approx(np.pi * 900, rel=0.01)


def test_outline_that_leaves_the_picture_is_cut() -> None:
    outline = np.array([[-5.0, -5.0], [20.0, -5.0], [20.0, 4.0], [-5.0, 4.0]])
    mask = fill(outline, (8, 10))
    assert mask[:4].all() and not mask[4:].any()

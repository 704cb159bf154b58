"""The mask's edge falls where the target's own outline does, and stays soft where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from vidswap.compositing import snap_outline
from vidswap.compositing.arrays import smoothstep

SIZE, JAW = 512, 300
"""The cheek ends at this column."""
SKIN, WALL = (0.75, 0.55, 0.45), (0.72, 0.72, 0.7)
MIDDLE = slice(200, 312)


def soft_mask(edge: float, width: float = 20.0) -> np.ndarray:
    """1 on the left, fading over ``width`` pixels around column ``edge``."""
    columns = np.arange(SIZE, dtype=np.float32)
    line = smoothstep((edge + width / 2 - columns) / width)
    return np.repeat(line[None], SIZE, axis=0)


@pytest.fixture
def cheek() -> np.ndarray:
    """Skin before a wall, with a little grain."""
    picture = np.empty((SIZE, SIZE, 3), np.float32)
    picture[:, :JAW], picture[:, JAW:] = SKIN, WALL
    grain = np.random.default_rng(1).normal(0, 0.01, picture.shape)
    return (picture + grain).astype(np.float32)


def width_of(mask: np.ndarray) -> float:
    """Columns over which a mask's middle rows fall from 0.9 to 0.1."""
    line = mask[MIDDLE].mean(0)
    return float(((line > 0.1) & (line < 0.9)).sum())


@pytest.mark.parametrize("edge", [JAW - 4, JAW, JAW + 4])
def test_an_edge_beside_the_outline_falls_on_it(cheek: np.ndarray, edge: int) -> None:
    mask = soft_mask(edge)
    out = snap_outline(mask, cheek)
    line = out[MIDDLE].mean(0)
    assert line[JAW - 3] > 0.9 and line[JAW + 3] < 0.1
    assert abs(float(line.sum()) - JAW) < 1
    assert width_of(out) <= 3 < 10 < width_of(mask)


@pytest.mark.parametrize("edge", [JAW - 8, JAW + 8])
def test_one_further_away_comes_nearer(cheek: np.ndarray, edge: int) -> None:
    line = snap_outline(soft_mask(edge), cheek)[MIDDLE].mean(0)
    assert abs(float(line.sum()) - JAW) < 0.8 * abs(edge - JAW)
    assert abs(line[JAW - 2] - line[JAW + 2]) > 0.3  # most of the step lies on the outline


def test_it_stays_soft_on_skin(cheek: np.ndarray) -> None:
    mask = soft_mask(150)
    out = snap_outline(mask, cheek)
    assert np.abs(out - mask).max() < 0.15
    assert width_of(out) > 0.7 * width_of(mask)


def test_it_stays_soft_before_a_neck(cheek: np.ndarray) -> None:
    cheek[:, JAW:] = np.array(SKIN) * 0.6  # in the shade
    mask = soft_mask(JAW)
    out = snap_outline(mask, cheek)
    assert np.abs(out - mask).max() < 0.1


def test_it_stays_soft_at_its_lower_end(cheek: np.ndarray) -> None:
    mask = soft_mask(JAW)
    below, above = (
        snap_outline(np.ascontiguousarray(turned(mask)), np.ascontiguousarray(turned(cheek)))
        for turned in (lambda x: x.swapaxes(0, 1), lambda x: x.swapaxes(0, 1)[::-1])
    )
    np.testing.assert_allclose(below, mask.T, atol=0.02)
    assert np.abs(above - mask.T[::-1]).max() > 0.2


def test_what_is_no_edge_is_left_alone(cheek: np.ndarray) -> None:
    mask = soft_mask(JAW)
    out = snap_outline(mask, cheek)
    np.testing.assert_array_equal(out[:, : JAW - 60], 1)
    np.testing.assert_array_equal(out[:, JAW + 60 :], 0)
    whole = np.ones_like(mask)
    assert snap_outline(whole, cheek) is whole


def test_share_and_what_is_in_front(cheek: np.ndarray) -> None:
    mask = soft_mask(JAW)
    assert snap_outline(mask, cheek, share=0.0) is mask
    whole, half = snap_outline(mask, cheek), snap_outline(mask, cheek, share=0.5)
    moved = np.abs(whole - mask)[MIDDLE].max()
    assert 0.2 * moved < np.abs(half - mask)[MIDDLE].max() < 0.8 * moved
    hand = np.zeros((128, 128), np.float32)
    hand[:64] = 1.0
    out = snap_outline(mask, cheek, occluded=hand)
    np.testing.assert_allclose(out[:240], mask[:240], atol=1e-6)
    np.testing.assert_allclose(out[280:], whole[280:], atol=1e-6)
    assert mask[0, JAW] == pytest.approx(0.5, abs=0.05), "the mask that came in is not changed"

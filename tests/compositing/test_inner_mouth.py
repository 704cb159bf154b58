"""Teeth and tongue come from between the target's lips, and its lips do not come along."""

from __future__ import annotations

import numpy as np
import pytest

from vidswap import landmarks
from vidswap.compositing import lend_inner_mouth

TOOTH, DARK, LIP = (0.90, 0.86, 0.80), (0.16, 0.05, 0.05), (0.62, 0.25, 0.25)
MIDDLE = 0.72
"""Height of the mouth in the crop."""


def opened(mesh: np.ndarray, *, wide: float = 1.0, high: float = 2.0, down: float = 0.0) -> np.ndarray:
    """The mesh with its inner lips scaled about their middle and the mouth moved down."""
    out = mesh.copy()
    inner = list(landmarks.INNER_MOUTH)
    out[inner, 0] = 0.5 + wide * (out[inner, 0] - 0.5)
    out[inner, 1] = MIDDLE + high * (out[inner, 1] - MIDDLE)
    out[list(landmarks.MOUTH), 1] = MIDDLE + 1.5 * (out[list(landmarks.MOUTH), 1] - MIDDLE)
    out[[*inner, *landmarks.MOUTH], 1] += down
    return out


def with_mouth(picture: np.ndarray, mesh: np.ndarray, *, teeth: str | None) -> np.ndarray:
    """The picture with the mouth of a mesh, and half of it, upper or lower, full of teeth."""
    out = picture.copy()
    y, x = (np.mgrid[0:256, 0:256] + 0.5) / 256
    for outline, colour in ((landmarks.MOUTH, LIP), (landmarks.INNER_MOUTH, DARK)):
        points = mesh[list(outline), :2]
        centre, radii = points.mean(0), np.ptp(points, axis=0) / 2
        inside = np.hypot(*((np.stack([x, y]) - centre[:, None, None]) / radii[:, None, None])) < 1
        out[inside] = colour
        if outline is landmarks.INNER_MOUTH and teeth is not None:
            out[inside & ((y < centre[1]) if teeth == "upper" else (y >= centre[1]))] = TOOTH
    return out


def at(mesh: np.ndarray, deep: float) -> tuple[int, int]:
    """Row and column in the middle of a mouth, ``deep`` of the way from the upper lip to the lower."""
    rows = mesh[list(landmarks.INNER_MOUTH), 1]
    top, bottom = rows.min(), rows.max()
    return int((top + deep * (bottom - top)) * 256), 128


def test_the_targets_upper_teeth_come_for_drawn_lower_ones(skin, mesh) -> None:
    """The drawn mouth lies lower and is narrower and less wide open."""
    here, there = opened(mesh), opened(mesh, wide=0.9, high=1.7, down=0.03)
    target, drawn = with_mouth(skin, here, teeth="upper"), with_mouth(skin, there, teeth="lower")
    out = lend_inner_mouth(drawn, there, target, here)
    np.testing.assert_allclose(out[at(there, 0.3)], TOOTH, atol=0.02)
    np.testing.assert_allclose(out[at(there, 0.7)], DARK, atol=0.02)
    half = lend_inner_mouth(drawn, there, target, here, share=0.5)
    np.testing.assert_allclose(half[at(there, 0.3)], (np.array(TOOTH) + DARK) / 2, atol=0.02)
    outside = np.ones(skin.shape[:2], bool)
    box = there[list(landmarks.INNER_MOUTH), :2]
    (left, top), (right, bottom) = (box.min(0) * 256 - 3).astype(int), (box.max(0) * 256 + 3).astype(int)
    outside[top:bottom, left:right] = False
    np.testing.assert_array_equal(out[outside], drawn[outside])


def test_the_targets_lips_do_not_come_along(skin, mesh) -> None:
    """Its outline lies on its lips: it is really less wide open than the mesh says."""
    here, narrower = opened(mesh, high=2.0), opened(mesh, high=1.7)
    target, drawn = with_mouth(skin, narrower, teeth=None), with_mouth(skin, here, teeth=None)
    out = lend_inner_mouth(drawn, here, target, here)
    for deep in np.linspace(0.1, 0.9, 9):
        assert out[at(here, deep)][0] < DARK[0] + 0.5 * (LIP[0] - DARK[0])


@pytest.mark.parametrize("high", [0.3, 6.0])
def test_a_shut_mouth_gets_no_teeth_and_a_wider_one_no_stretched_ones(skin, mesh, high) -> None:
    here, there = opened(mesh), opened(mesh, high=high)
    target, drawn = with_mouth(skin, here, teeth="upper"), with_mouth(skin, there, teeth=None)
    assert lend_inner_mouth(drawn, there, target, here) is drawn
    assert lend_inner_mouth(drawn, None, target, here) is drawn
    assert lend_inner_mouth(drawn, here, target, here, share=0) is drawn


def test_what_is_before_a_mouth_is_not_lent(skin, mesh) -> None:
    here = opened(mesh)
    target, drawn = with_mouth(skin, here, teeth="upper"), with_mouth(skin, here, teeth=None)
    hand = np.zeros((64, 64), np.float32)
    hand[:, :31] = 1.0  # a third of the mouth: its outline is a guess
    assert lend_inner_mouth(drawn, here, target, here, occluded=hand) is drawn
    row, column = at(here, 0.25)
    lent = []
    for opacity in (0.5, 1.0):  # the more is hidden, the less is believed of the rest
        finger = np.zeros((64, 64), np.float32)
        finger[:, 31] = opacity
        out = lend_inner_mouth(drawn, here, target, here, occluded=finger)
        lent.append((out[row, column + 10, 0] - DARK[0]) / (TOOTH[0] - DARK[0]))
    np.testing.assert_allclose(out[row, column - 2], DARK, atol=0.12)
    assert 0.4 < lent[1] < lent[0] - 0.1

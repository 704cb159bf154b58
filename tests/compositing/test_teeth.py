"""Teeth take the light of the footage's, and nothing else of the face does."""

from __future__ import annotations

import numpy as np
import pytest

from vidswap import landmarks
from vidswap.compositing import TeethState, light_teeth

TEETH = (slice(180, 188), slice(114, 143))
"""Rows and columns of the teeth between open lips."""
WHITE, BROWN = (0.86, 0.82, 0.78), (0.56, 0.50, 0.43)


@pytest.fixture
def open_mesh(cheeked: np.ndarray) -> np.ndarray:
    """The mesh of the room with its lips apart."""
    out = cheeked.copy()
    out[list(landmarks.INNER_MOUTH), 1] = 0.72 + 1.4 * (out[list(landmarks.INNER_MOUTH), 1] - 0.72)
    return out


def with_mouth(picture: np.ndarray, teeth: tuple[float, float, float] | None) -> np.ndarray:
    """A picture with an open mouth: dark, between red lips, and with teeth when a colour is given."""
    out = picture.copy()
    y, x = (np.mgrid[0:256, 0:256] + 0.5) / 256
    out[np.hypot((x - 0.5) / 0.09, (y - 0.72) / 0.04) < 1] = (0.62, 0.25, 0.25)
    out[np.hypot((x - 0.5) / 0.07, (y - 0.72) / 0.028) < 1] = (0.16, 0.05, 0.05)
    if teeth is not None:
        out[TEETH] = teeth
    return out


def test_brown_teeth_become_as_white_as_the_targets(skin, open_mesh) -> None:
    target, drawn = with_mouth(skin, WHITE), with_mouth(skin, BROWN)
    out, state = light_teeth(drawn, open_mesh, target, open_mesh)
    assert state is not None and state.target is not None and state.drawn is not None
    inner = out[182:186, 118:139].mean((0, 1))
    np.testing.assert_allclose(inner, WHITE, atol=0.06)
    half, _ = light_teeth(drawn, open_mesh, target, open_mesh, share=0.5)
    middle = (np.array(WHITE) + BROWN) / 2
    np.testing.assert_allclose(half[182:186, 118:139].mean((0, 1)), middle, atol=0.05)


def test_nothing_else_is_lit(skin, open_mesh) -> None:
    target, drawn = with_mouth(skin, WHITE), with_mouth(skin, BROWN)
    out, _ = light_teeth(drawn, open_mesh, target, open_mesh)
    away = np.ones(skin.shape[:2], bool)
    away[178:190, 112:145] = False
    assert np.abs(out - drawn)[away].max() < 0.02  # lips, skin, and the dark of the mouth


def test_a_tongue_is_no_tooth(skin, open_mesh) -> None:
    """Between the lips, as bright as teeth in the shade, but red."""
    target, drawn = with_mouth(skin, WHITE), with_mouth(skin, (0.62, 0.30, 0.30))
    out, state = light_teeth(drawn, open_mesh, target, open_mesh)
    assert out is drawn and state is not None and state.drawn is None


def test_the_dark_of_a_wide_mouth_is_no_tooth(skin, open_mesh) -> None:
    """No redder than teeth, and bluish: drawn teeth turned blue after it."""
    navy = (0.06, 0.06, 0.10)
    drawn = with_mouth(skin, WHITE)
    out, state = light_teeth(drawn, open_mesh, with_mouth(skin, navy), open_mesh)
    assert out is drawn and state is not None and state.target is None
    _, seen = light_teeth(drawn, open_mesh, with_mouth(skin, WHITE), open_mesh)
    _, later = light_teeth(drawn, open_mesh, with_mouth(skin, navy), open_mesh, seen)
    assert seen is not None and later is not None
    np.testing.assert_array_equal(later.target, seen.target)


def test_what_was_seen_is_remembered(skin, open_mesh, mesh) -> None:
    """The target shuts its mouth, or bares no teeth for a while: those of the swap stay as bright."""
    target, drawn = with_mouth(skin, WHITE), with_mouth(skin, BROWN)
    first, state = light_teeth(drawn, open_mesh, target, open_mesh)
    for _ in range(5):
        later, state = light_teeth(drawn, open_mesh, with_mouth(skin, None), open_mesh, state)
    assert np.abs(later - first)[182:186, 118:139].max() < 0.03
    never, state = light_teeth(drawn, open_mesh, with_mouth(skin, None), open_mesh)
    assert never is drawn and state is not None and state.target is None


def test_light_is_measured_beside_the_skins(skin, open_mesh) -> None:
    """A scene that darkens takes the teeth along."""
    target, drawn = with_mouth(skin, WHITE), with_mouth(skin, BROWN)
    _, state = light_teeth(drawn, open_mesh, target, open_mesh)
    out, _ = light_teeth(0.5 * drawn, open_mesh, 0.5 * target, open_mesh, state)
    np.testing.assert_allclose(out[182:186, 118:139].mean((0, 1)), 0.5 * np.array(WHITE), atol=0.04)


def test_a_hand_before_the_mouth_is_left_alone(skin, open_mesh) -> None:
    target, drawn = with_mouth(skin, WHITE), with_mouth(skin, BROWN)
    hand = np.zeros((64, 64), np.float32)
    hand[40:] = 1.0
    out, state = light_teeth(drawn, open_mesh, target, open_mesh, occluded=hand)
    assert out is drawn and state == TeethState(None, None)


@pytest.mark.parametrize("case", ["no share", "no mesh", "black", "outside"])
def test_without_anything_to_go_by_the_picture_stays(skin, open_mesh, case) -> None:
    drawn, target = with_mouth(skin, BROWN), with_mouth(skin, WHITE)
    before = TeethState(np.ones(3, np.float32), np.ones(3, np.float32))
    drawn_xy, target_xy = open_mesh, open_mesh
    if case == "no mesh":
        drawn_xy = None
    if case == "black":
        target = np.zeros_like(target)
    if case == "outside":
        drawn_xy = target_xy = open_mesh + 2.0
    share = 0.0 if case == "no share" else 1.0
    out, state = light_teeth(drawn, drawn_xy, target, target_xy, before, share=share)
    assert out is drawn and state is before

"""Brows come down with the target's, from where both rest; eyes, and faces at rest, stay."""

from __future__ import annotations

import numpy as np
import pytest

from vidswap.compositing import FrownState, knit_brows
from vidswap.landmarks import EYE_CORNERS, IRIS_NETWORK_FROWN


@pytest.fixture
def rested(mesh: np.ndarray) -> np.ndarray:
    """The hand-drawn face with skin between lids and brows, and brows in their places."""
    out = mesh.copy()
    for side, eye_x in ((0, 0.385), (1, 0.615)):
        inward = 1 if side == 0 else -1
        for point, offset in zip(IRIS_NETWORK_FROWN[side], (0.01, 0.03, 0.05), strict=True):
            out[point, :2] = eye_x + inward * offset, 0.435
        inner, middle, lid = (
            ((55, 107), (52, 105), (159, 158)) if side == 0 else ((285, 336), (282, 334), (386, 385))
        )
        out[list(inner), :2] = eye_x + inward * 0.05, 0.41
        out[list(middle), :2] = eye_x, 0.40
        out[list((46, 70) if side == 0 else (276, 300)), :2] = eye_x - inward * 0.05, 0.41
        out[list(lid), :2] = eye_x, 0.45
    return out


def knit(mesh: np.ndarray, fall: float) -> np.ndarray:
    """That mesh with the skin over its eyes come down by a share of the distance of their outer corners."""
    out = mesh.copy()
    length = np.linalg.norm(out[EYE_CORNERS[1][1], :2] - out[EYE_CORNERS[0][0], :2])
    out[list(sum(IRIS_NETWORK_FROWN, ())), 1] += fall * length
    return out


@pytest.fixture
def face(skin: np.ndarray) -> np.ndarray:
    """The painted face with brows."""
    out = skin.copy()
    y, x = (np.mgrid[0:256, 0:256] + 0.5) / 256
    for eye_x in (0.385, 0.615):
        out[(np.abs(x - eye_x) < 0.045) & (np.abs(y - 0.405) < 0.010)] = (0.2, 0.12, 0.1)
    return out


def brow_height(picture: np.ndarray, columns: slice) -> float:
    """Row of the dark of a brow, in pixels."""
    part = 1.0 - picture[85:115, columns].mean(-1)
    dark = np.maximum(part - np.quantile(part, 0.5), 0.0)
    return float((dark * np.arange(85, 115)[:, None]).sum() / dark.sum())


def frowned(face, drawn, rest, now, filmed=None, share=1.0) -> tuple[np.ndarray, FrownState | None]:
    """A face at rest for ten frames whose target then frowns for eight."""
    state, out = None, face
    for mesh in [rest] * 10 + [now] * 8:
        out, state = knit_brows(face, drawn, face if filmed is None else filmed, mesh, state, share=share)
    return out, state


def test_inner_brows_come_down_and_eyes_stay(face, rested) -> None:
    out, state = frowned(face, rested, rested, knit(rested, 0.04))
    assert isinstance(state, FrownState) and state.fall.min() > 0.03
    inner, outer = slice(100, 108), slice(88, 92)
    assert brow_height(out, inner) - brow_height(face, inner) > 2.0
    assert abs(brow_height(out, outer) - brow_height(face, outer)) < 0.75 * (
        brow_height(out, inner) - brow_height(face, inner)
    )
    assert np.abs(out - face)[118:].max() < 2 / 255
    half, _ = frowned(face, rested, rested, knit(rested, 0.04), share=0.5)
    assert brow_height(face, inner) < brow_height(half, inner) < brow_height(out, inner)


def test_a_face_at_rest_or_with_the_same_frown_stays(face, rested) -> None:
    for drawn in (rested, knit(rested, 0.02)):  # deep eyes are no frown
        out, _ = frowned(face, drawn, rested, rested)
        assert out is face
    state, out = None, None
    for fall in (0.0, 0.0, 0.01, 0.02, 0.03, 0.04):  # both frown
        out, state = knit_brows(face, knit(rested, fall), face, knit(rested, fall), state)
    assert out is face
    out, _ = frowned(face, rested, knit(rested, 0.03), rested)  # it relaxes
    assert out is face


def test_hidden_brows_and_no_mesh_change_nothing(face, rested) -> None:
    _, state = frowned(face, rested, rested, knit(rested, 0.04))
    for drawn, options in ((None, {}), (rested, {"share": 0.0})):
        out, after = knit_brows(face, drawn, face, knit(rested, 0.04), state, **options)
        assert out is face and after is state
    hand = np.ones((64, 64), np.float32)
    out, after = knit_brows(face, rested, face, knit(rested, 0.04), occluded=hand)
    assert out is face and after is None
    # A brow that goes behind a hand stays as it was, and the other one goes on.
    hand[:, 32:] = 0.0
    _, after = knit_brows(face, rested, face, rested, state, occluded=hand)
    assert after.fall[0] == state.fall[0] and after.fall[1] < state.fall[1]


def test_the_folds_of_a_frown_are_lent_and_smooth_skin_is_not(face, rested) -> None:
    filmed = face.copy()
    filmed[98:112, 122:125] *= 0.6
    filmed[98:112, 131:134] *= 0.6
    folds, between = np.s_[100:110, 122:125], np.s_[100:110, 127:129]

    def depth(picture: np.ndarray) -> float:
        return float(picture[between].mean() - picture[folds].mean())

    out, _ = knit_brows(face, rested, filmed, rested)
    assert depth(out) > depth(face) + 0.3 * (depth(filmed) - depth(face))
    half, _ = knit_brows(face, rested, filmed, rested, share=0.5)
    assert depth(face) < depth(half) < depth(out)
    again, _ = knit_brows(filmed, rested, filmed, rested)  # they are there already
    np.testing.assert_allclose(again, filmed, atol=1e-6)
    away = np.abs(out - face).max(-1)
    assert away[:70].max() < 1 / 255 and away[140:].max() < 1 / 255
    bridge = np.ones((64, 64), np.float32)  # what is dark there belongs to glasses
    bridge[:, :20] = bridge[:, 44:] = bridge[36:] = 0.0
    worn, _ = knit_brows(face, rested, filmed, rested, FrownState(*np.zeros((3, 2))), occluded=bridge)
    assert worn is face
    smooth, _ = knit_brows(filmed, rested, face, rested)
    assert smooth is filmed

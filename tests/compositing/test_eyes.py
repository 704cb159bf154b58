"""Eyes are deepened where they are drawn paler than the footage's, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from vidswap.compositing import deepen_eyes, lend_lids
from vidswap.landmarks import LEFT_EYE

BOXES = [(slice(112, 129), slice(86, 111)), (slice(112, 129), slice(145, 170))]
"""Rows and columns of the eyes."""


def veiled(picture: np.ndarray, share: float, eyes: tuple[int, ...] = (0, 1)) -> np.ndarray:
    """The picture with eyes that are paler: skin shines through."""
    out = picture.copy()
    for eye in eyes:
        out[BOXES[eye]] += share * (picture[150, 128] - out[BOXES[eye]])
    return out


def dark(picture: np.ndarray, eye: int) -> float:
    """How dark an eye's middle is, 0 to 1."""
    rows, columns = BOXES[eye]
    return float(picture[rows.start + 7 : rows.stop - 7, columns.start + 9 : columns.stop - 9].mean())


def test_pale_eyes_become_as_dark_as_the_footages(skin, mesh) -> None:
    pale = veiled(skin, 0.35)
    out, depth = deepen_eyes(pale, mesh, skin, mesh, None)
    for eye in (0, 1):
        assert dark(pale, eye) > dark(skin, eye) + 0.12
        assert abs(dark(out, eye) - dark(skin, eye)) < 0.05
    assert depth is not None and (depth > 1.2).all()
    away = np.ones(skin.shape[:2], bool)
    away[90:150, 60:196] = False
    np.testing.assert_array_equal(out[away], pale[away])
    bright = pale.mean(2) > np.quantile(pale[90:150, 60:196].mean(2), 0.8)
    assert np.abs(out - pale)[bright].max() < 0.03  # skin, and the white of an eye, are no veil


def test_eyes_that_are_dark_enough_are_left_alone(skin, mesh) -> None:
    same, depth = deepen_eyes(skin, mesh, skin, mesh, None)
    assert same is skin and depth is not None
    paler, _ = deepen_eyes(skin, mesh, veiled(skin, 0.35), mesh, None)
    assert paler is skin  # never paler than they are drawn


def test_each_eye_for_itself(skin, mesh) -> None:
    pale = veiled(skin, 0.35, (1,))
    out, depth = deepen_eyes(pale, mesh, skin, mesh, None)
    assert depth is not None and depth[0] < 1.1 < depth[1]
    assert abs(dark(out, 0) - dark(pale, 0)) < 0.03 and dark(out, 1) < dark(pale, 1) - 0.1


def test_share_and_what_is_in_front(skin, mesh) -> None:
    pale = veiled(skin, 0.35)
    whole, _ = deepen_eyes(pale, mesh, skin, mesh, None)
    half, _ = deepen_eyes(pale, mesh, skin, mesh, None, share=0.5)
    assert dark(whole, 0) < dark(half, 0) < dark(pale, 0)
    assert deepen_eyes(pale, mesh, skin, mesh, None, share=0.0)[0] is pale
    covered = np.zeros((192, 192), np.float32)
    covered[:, 96:] = 1.0
    out, depth = deepen_eyes(pale, mesh, skin, mesh, None, occluded=covered)
    assert depth is not None and depth[0] > 1.2 and depth[1] == 1.0
    assert dark(out, 0) < dark(pale, 0) - 0.1 and dark(out, 1) == dark(pale, 1)


def test_contrast_is_learnt_slowly_from_open_eyes(skin, mesh, left_shut) -> None:
    pale = veiled(skin, 0.35)
    _, first = deepen_eyes(pale, mesh, skin, mesh, None)
    _, second = deepen_eyes(skin, mesh, skin, mesh, None, first)
    assert first is not None and second is not None
    np.testing.assert_allclose(first - second, 0.1 * (first - 1), atol=0.02)
    _, lids = lend_lids(pale, mesh, skin, mesh)
    _, kept = deepen_eyes(skin, mesh, skin, left_shut, lids, first)
    assert kept is not None and kept[0] == first[0] and kept[1] < first[1]
    hidden, known = deepen_eyes(pale, None, skin, mesh, None, first)
    assert hidden is pale and known is first  # nobody knows where the drawn eyes lie


@pytest.fixture
def left_shut(mesh: np.ndarray) -> np.ndarray:
    """Landmarks with the left eye closed."""
    out = mesh.copy()
    out[list(LEFT_EYE), 1] = 0.47 + 0.2 * (out[list(LEFT_EYE), 1] - 0.47)
    return out

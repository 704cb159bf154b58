"""Closed eyes are lent by the target: each for itself, in its colours, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from vidswap.compositing import LidState, lend_lids
from vidswap.landmarks import EYE_CORNERS, LEFT_EYE, RIGHT_EYE, eye_aspect

SHIFT = np.array([0.012, -0.008])


def squeezed(mesh: np.ndarray, eyes: tuple[tuple[int, ...], ...], share: float) -> np.ndarray:
    """The mesh with eyes opened to a share of what they were."""
    out = mesh.copy()
    for eye in eyes:
        middle = out[list(eye), 1].mean()
        out[list(eye), 1] = middle + share * (out[list(eye), 1] - middle)
    return out


def closed_picture(skin: np.ndarray, side: int) -> np.ndarray:
    """A face whose eye on one side is a dark line."""
    out = skin.copy()
    x = (0.385, 0.615)[side]
    rows, columns = np.mgrid[0:256, 0:256] / 256
    box = (abs(rows - 0.47) < 0.03) & (abs(columns - x) < 0.06)
    out[box] = skin[140, 128]
    line = (abs(rows - 0.47) < 0.004) & (abs(columns - x) < 0.05)
    out[line] = 0.05
    return out


def around(side: int, reach: float = 0.11) -> tuple[slice, slice]:
    x = (0.385, 0.615)[side] + SHIFT[0]
    y = 0.47 + SHIFT[1]
    return tuple(slice(int((at - reach) * 256), int((at + reach) * 256)) for at in (y, x))


@pytest.fixture
def drawn(mesh: np.ndarray) -> np.ndarray:
    """The new face's landmarks, whose eyes lie elsewhere."""
    out = mesh.copy()
    out[:, :2] += SHIFT
    return out


def test_open_eyes_are_drawn(skin, mesh, drawn) -> None:
    out, state = lend_lids(skin, drawn, skin, mesh)
    assert out is skin
    np.testing.assert_allclose(state.offset, np.broadcast_to(SHIFT, (2, 2, 2)), atol=1e-6)


@pytest.mark.parametrize("side", [0, 1])
def test_a_wink_is_lent_to_its_own_eye_where_the_drawn_one_lies(skin, mesh, drawn, side) -> None:
    target = closed_picture(skin, side)
    shut = squeezed(mesh, ((LEFT_EYE, RIGHT_EYE)[side],), 0.2)
    out, _ = lend_lids(skin, drawn, target, shut)
    rows, columns = around(side)
    outside = np.ones(skin.shape[:2], bool)
    outside[rows, columns] = False
    np.testing.assert_array_equal(out[outside], skin[outside])
    # The dark line lies along the drawn eye's corners, not the target's.
    x, y = (drawn[list(EYE_CORNERS[side]), :2].mean(0) * 256).astype(int)
    column = out[y - 12 : y + 12, x].mean(1)
    assert abs(int(column.argmin()) - 12) <= 1 and column.min() < 0.3
    assert skin[y, x].mean() < 0.3 < out[y - 4, x].mean()  # the lid above it is skin where the eye was


def test_lids_take_the_colours_of_the_drawn_face(skin, mesh, drawn) -> None:
    target = closed_picture(skin, 0)
    shut = squeezed(mesh, (LEFT_EYE,), 0.2)
    cool = np.array([0.7, 0.85, 1.1])
    plain, _ = lend_lids(skin, drawn, target, shut)
    tinted, _ = lend_lids(skin, drawn, np.clip(target * cool, 0, 1), shut)
    x, y = (drawn[list(EYE_CORNERS[0]), :2].mean(0) * 256).astype(int)
    lid = np.s_[y - 6 : y - 3, x - 4 : x + 4]
    assert np.abs(tinted[lid] - plain[lid]).max() < 0.05 < np.abs(skin[lid] * cool - skin[lid]).max()


def test_lashes_stay_as_dark_beside_the_lid_in_a_darker_face(skin, mesh, drawn) -> None:
    target = closed_picture(skin, 0)
    target[target < 0.06] = 0.12  # lashes in soft light
    shut = squeezed(mesh, (LEFT_EYE,), 0.2)
    out, _ = lend_lids(skin * np.array([0.6, 0.5, 0.4], np.float32), drawn, target, shut)
    x, y = (drawn[list(EYE_CORNERS[0]), :2].mean(0) * 256).astype(int)
    lash, lid = (out[y - 12 : y + 12, x][rows] for rows in (np.s_[11:13], np.s_[6:9]))
    shares = lash.min(0) / lid.mean(0)
    expected = 0.12 / skin[140, 128]
    np.testing.assert_allclose(shares, expected, atol=0.12)
    assert np.ptp(shares / expected) < 0.5  # as a difference of light, blue was gone and red was left


def test_folds_around_an_eye_do_not_make_its_lid_shine(skin, mesh, drawn) -> None:
    """Narrowed eyes of a smiling face came out white: its folds were taken for less light."""
    target, shut = closed_picture(skin, 0), squeezed(mesh, (LEFT_EYE,), 0.2)
    plain, _ = lend_lids(skin, drawn, target, shut)
    rows, columns = np.mgrid[0:256, 0:256] / 256
    away = np.hypot(rows - 0.47, columns - 0.385)
    folds = (away > 0.05) & (np.sin(60 * np.arctan2(rows - 0.47, columns - 0.385)) > 0)
    target[folds] *= 0.45
    out, _ = lend_lids(skin, drawn, target, shut)
    x, y = (drawn[list(EYE_CORNERS[0]), :2].mean(0) * 256).astype(int)
    lid = np.s_[y - 6 : y - 3, x - 4 : x + 4]
    assert 0.8 * plain[lid].mean() < out[lid].mean() < 1.12 * plain[lid].mean()


def test_share_occluders_and_a_mesh_that_is_not_believed(skin, mesh, drawn) -> None:
    target, shut = closed_picture(skin, 0), squeezed(mesh, (LEFT_EYE,), 0.2)
    full, state = lend_lids(skin, drawn, target, shut)
    half, _ = lend_lids(skin, drawn, target, shut, share=0.5)
    np.testing.assert_allclose(half, (skin + full) / 2, atol=1e-5)
    assert lend_lids(skin, drawn, target, shut, share=0.0)[0] is skin
    covered, _ = lend_lids(skin, drawn, target, shut, occluded=np.ones((192, 192), np.float32))
    np.testing.assert_allclose(covered, skin, atol=1e-6)
    assert lend_lids(skin, None, target, shut)[0] is skin  # nobody knows where the drawn eye lies
    again, kept = lend_lids(skin, None, target, shut, state)
    np.testing.assert_array_equal(kept.offset, state.offset)
    assert 4 * np.abs(again - full).mean() < np.abs(again - skin).mean()


def test_what_counts_as_closed_is_learnt_from_open_eyes_alone(skin, mesh, drawn) -> None:
    narrow = squeezed(mesh, (LEFT_EYE, RIGHT_EYE), 0.75)
    state = None
    for _ in range(100):
        _, state = lend_lids(skin, drawn, skin, narrow, state)
    assert isinstance(state, LidState)
    learnt = state.wide.copy()
    assert (learnt < 0.295).all()
    assert lend_lids(skin, drawn, skin, narrow, state)[0] is skin  # eyes that are narrow are no closed ones
    for _ in range(20):
        _, state = lend_lids(skin, drawn, skin, squeezed(mesh, (LEFT_EYE, RIGHT_EYE), 0.1), state)
    np.testing.assert_array_equal(state.wide, learnt)


def lent(mesh, drawn, skin, openings) -> list[list[bool]]:
    """Whether either eye is lent more than half, for openings of both in turn."""
    _, state = lend_lids(skin, drawn, skin, mesh)
    for _ in range(20):
        _, state = lend_lids(skin, drawn, skin, mesh, state)
    own, found = state.wide / eye_aspect(mesh), []
    for left, right in openings:
        seen = squeezed(squeezed(mesh, (LEFT_EYE,), left * own[0]), (RIGHT_EYE,), right * own[1])
        for _ in range(4):
            _, state = lend_lids(skin, drawn, skin, seen, state)
        found.append((state.closed > 0.5).tolist())
        assert (np.minimum(state.closed, 1 - state.closed) < 0.05).all()  # never by halves for long
    return found


def test_lids_that_hover_stay_as_they_are(skin, mesh, drawn) -> None:
    both = [(share, share) for share in (0.66, 0.5, 0.66, 0.72, 0.8, 0.72, 0.66)]
    found = lent(mesh, drawn, skin, both)
    assert [all(each) for each in found] == [any(each) for each in found]
    assert [any(each) for each in found] == [False, True, True, True, False, False, False]


def test_lowered_lids_go_as_a_pair_and_a_wink_alone(skin, mesh, drawn) -> None:
    found = lent(mesh, drawn, skin, [(1.0, 1.0), (0.52, 0.62), (1.0, 1.0), (0.45, 0.95), (0.95, 0.45)])
    assert found == [[False, False], [True, True], [False, False], [True, False], [False, True]]


def test_an_eye_beyond_the_picture_is_left_alone(skin, mesh, drawn) -> None:
    shut = squeezed(mesh, (LEFT_EYE, RIGHT_EYE), 0.2)
    gone, _ = lend_lids(skin, drawn - np.float32(2), skin, shut - np.float32(2))
    assert gone is skin


@pytest.mark.parametrize("side", [0, 1])
def test_an_eye_behind_fingers_is_as_shut_as_the_other(skin, mesh, drawn, side) -> None:
    eyes = (LEFT_EYE, RIGHT_EYE)
    target = closed_picture(closed_picture(skin, 0), 1)
    # As meshes are misled: the covered eye is said to be open.
    misled = squeezed(squeezed(mesh, (eyes[1 - side],), 0.2), (eyes[side],), 0.9)
    finger = np.zeros((192, 192), np.float32)
    middle = int(np.mean(mesh[list(eyes[side]), 0]) * 192)
    finger[:, slice(middle + 3, 96) if side == 0 else slice(96, middle - 3)] = 1
    _, believed = lend_lids(skin, drawn, target, misled)
    out, state = lend_lids(skin, drawn, target, misled, occluded=finger)
    assert believed.closed[side] == 0 and believed.closed[1 - side] == 1
    np.testing.assert_array_equal(state.closed, 1)
    x, y = (drawn[list(EYE_CORNERS[side]), :2].mean(0) * 256).astype(int)
    assert out[y - 12 : y + 12, x].mean(1).min() < 0.3
    # Where both are covered alike there is nothing better to go by.
    _, both = lend_lids(skin, drawn, target, misled, occluded=np.ones((192, 192), np.float32))
    np.testing.assert_array_equal(both.closed, believed.closed)

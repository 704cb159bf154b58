"""The FFHQ square: its rule, what it must ignore, coordinates in the crop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vidswap.faces import align_quad, face_in_crop
from vidswap.landmarks import DLIB_EYES
from vidswap.records import Face

POINTS = np.array([[40, 50], [80, 50], [60, 70], [45, 90], [75, 90]], np.float32)


def face(points: np.ndarray = POINTS) -> Face:
    return Face(np.array([30, 30, 90, 100], np.float32), 0.9, points.astype(np.float32))


def test_the_rule_by_hand() -> None:
    # Eyes 40 apart, mouth 40 below: x = (40, 0) + (40, 0), side 2 * max(80, 72), centre 54.
    expected = [[-20, -26], [-20, 134], [140, 134], [140, -26]]
    np.testing.assert_allclose(align_quad(face()), expected, atol=1e-4)


def test_it_turns_moves_and_grows_with_the_face() -> None:
    a = np.deg2rad(30)
    turn = 1.7 * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    moved = align_quad(face(POINTS @ turn.T + (5, 9)))
    np.testing.assert_allclose(moved, align_quad(face()) @ turn.T + (5, 9), atol=1e-3)


def meshed() -> Face:
    rng = np.random.default_rng(0)
    mesh = rng.uniform(0, 100, (468, 3)).astype(np.float32)
    for (start, end), (x0, x1) in zip(((33, 133), (362, 263)), ((30, 50), (70, 90)), strict=True):
        mesh[start], mesh[end] = (x0, 50, 0), (x1, 50, 0)
    mesh[61], mesh[291] = (45, 90, 0), (75, 90, 0)
    return replace(face(), mesh_xyz=mesh, iris_xy=np.zeros((2, 5, 2), np.float32))


def test_blinks_do_not_move_it_and_the_mesh_counts_first() -> None:
    open_eyes = meshed()
    assert open_eyes.mesh_xyz is not None
    blink = open_eyes.mesh_xyz.copy()
    for eye in DLIB_EYES:
        blink[list(eye[1:3] + eye[4:])] += (0, 6, 0)
    closed = replace(open_eyes, mesh_xyz=blink)
    np.testing.assert_array_equal(align_quad(closed), align_quad(open_eyes))
    assert np.abs(align_quad(open_eyes) - align_quad(face())).max() > 1


def test_face_in_crop_maps_the_quad_to_the_unit_square() -> None:
    whole = meshed()
    quad = align_quad(whole)
    corners = replace(whole, iris_xy=np.stack([np.vstack((quad, quad[:1]))] * 2))
    inside = face_in_crop(corners, quad)
    assert inside.iris_xy is not None and inside.mesh_xyz is not None
    np.testing.assert_allclose(
        inside.iris_xy[0], [[0, 0], [0, 1], [1, 1], [1, 0], [0, 0]], atol=1e-5
    )
    assert whole.mesh_xyz is not None
    scale = np.linalg.norm(quad[3] - quad[0])
    np.testing.assert_allclose(inside.mesh_xyz[:, 2], whole.mesh_xyz[:, 2] / scale, rtol=1e-4)


def test_one_point_for_all_is_refused() -> None:
    with pytest.raises(ValueError, match="span"):
        align_quad(face(np.ones((5, 2))))

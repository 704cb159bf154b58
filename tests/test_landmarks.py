"""Measures on the mesh: they see what they should and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from vidswap import landmarks as lm


def turn(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation for the documented angles, built from scratch."""
    y, p, r = np.deg2rad([yaw, pitch, roll])
    # Forward is -z: to the image's right for yaw > 0, up (towards -y) for pitch > 0.
    by_yaw = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    by_pitch = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
    by_roll = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return by_yaw @ by_pitch @ by_roll


@pytest.fixture
def mesh() -> np.ndarray:
    """A made-up head: rigid points of the mean face, the others on an ellipsoid."""
    rng = np.random.default_rng(3)
    points = rng.uniform(-0.7, 0.7, (lm.MESH_POINTS, 3))
    points[:, 2] = 0.7 - np.sqrt(1 - 0.7 * points[:, 0] ** 2 - 0.3 * points[:, 1] ** 2)
    points[lm._RIGID_INDEX] = lm._RIGID_XYZ
    for (start, end), pairs in zip(lm.EYE_CORNERS, lm._LID_PAIRS, strict=True):
        for (high, low), t in zip(pairs, (0.3, 0.5, 0.7), strict=True):
            middle = points[start] + t * (points[end] - points[start])
            points[high], points[low] = middle - (0, 0.04, 0), middle + (0, 0.04, 0)
    for high, low in lm._LIP_PAIRS:
        points[high], points[low] = (0, 0.8, -0.1), (0, 0.9, -0.1)
    return points


@pytest.mark.parametrize("angles", [(0, 0, 0), (30, 0, 0), (0, -20, 0), (0, 0, 25), (-50, 15, -70)])
def test_head_pose_reads_back_the_turn(mesh: np.ndarray, angles: tuple[float, ...]) -> None:
    moved = mesh @ turn(*angles).T * 170 + (300, 200, 5)
    assert lm.head_pose(moved) == pytest.approx(angles, abs=0.01)


def test_yaw_is_positive_to_the_images_right_and_pitch_up(mesh: np.ndarray) -> None:
    right = mesh @ turn(30, 0, 0).T
    assert right[1, 0] > mesh[1, 0] + 0.05  # the tip of the nose went right
    up = mesh @ turn(0, 30, 0).T
    assert (up[1] - up[168])[1] < (mesh[1] - mesh[168])[1]
    clockwise = mesh @ turn(0, 0, 30).T
    assert clockwise[263, 1] > clockwise[33, 1]  # the eye on the right went down


def test_expression_does_not_see_pose_or_size(mesh: np.ndarray) -> None:
    moved = mesh @ turn(25, -10, 15).T * 90 + (40, 50, 60)
    np.testing.assert_allclose(lm.expression_vector(moved), lm.expression_vector(mesh), atol=1e-4)
    assert lm.expression_distance(moved, mesh) < 1e-6
    assert lm.mouth_opening(moved) == pytest.approx(lm.mouth_opening(mesh))


def test_expression_sees_the_jaw_drop(mesh: np.ndarray) -> None:
    opened = mesh.copy()
    opened[mesh[:, 1] > 0.5] += (0, 0.2, 0)
    assert lm.expression_distance(opened, mesh) > 0.03
    vectors = lm.expression_vector(mesh), lm.expression_vector(opened)
    assert lm.expression_distance(*vectors) == pytest.approx(
        lm.expression_distance(mesh, opened), abs=1e-5
    )
    moved = np.linalg.norm(vectors[1] - vectors[0], axis=1) > 0.05
    # The nose counts as rigid and lies partly below the line; nothing else may seem to move.
    assert moved[mesh[:, 1] > 0.6].mean() > 0.9 and moved[mesh[:, 1] < 0.4].mean() < 0.02


def test_eye_aspect_and_eye_centres(mesh: np.ndarray) -> None:
    closed = mesh.copy()
    for pair in lm._LID_PAIRS[1]:
        closed[list(pair)] = closed[list(pair)].mean(axis=0)
    before, after = lm.eye_aspect(mesh), lm.eye_aspect(closed)
    assert before == pytest.approx([0.08 / 0.2926] * 2, abs=0.01)
    assert after[0] == pytest.approx(before[0]) and after[1] == pytest.approx(0, abs=1e-9)
    np.testing.assert_array_equal(lm.eye_centers(closed), lm.eye_centers(mesh))


def test_gaze_turns_with_the_head_and_moves_with_the_iris(mesh: np.ndarray) -> None:
    middles = [mesh[list(c), :2].mean(axis=0) for c in lm.EYE_CORNERS]
    iris = np.stack([np.tile(m, (5, 1)) for m in middles])
    np.testing.assert_allclose(lm.gaze(mesh, iris), 0, atol=1e-9)
    width = 0.292
    looked = iris + (0.1 * width, 0.05 * width)
    roll = turn(0, 0, 40)[:2, :2]
    rolled = mesh[:, :2] @ roll.T
    np.testing.assert_allclose(
        lm.gaze(rolled, looked @ roll.T), lm.gaze(mesh, looked), atol=1e-6
    )
    assert lm.gaze(mesh, looked)[:, 0] == pytest.approx([0.1, 0.1], abs=0.02)
    assert (lm.gaze(mesh, looked)[:, 1] > 0).all()


def test_regions_are_closed_outlines_of_distinct_points(mesh: np.ndarray) -> None:
    for region, outlines in lm.REGIONS.items():
        for outline, polygon in zip(outlines, lm.region_polygon(mesh, region), strict=True):
            assert len(set(outline)) == len(outline) == len(polygon)
            assert max(outline) < lm.MESH_POINTS
    with pytest.raises(ValueError, match="hat"):
        lm.region_polygon(mesh, "hat")
    with pytest.raises(ValueError, match="468"):
        lm.eye_aspect(mesh[:100])

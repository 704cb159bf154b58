"""Attribute differences on the mean face, turned and bent by known amounts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vidswap import landmarks
from vidswap.metrics.attributes import (
    attribute_difference,
    gaze_difference,
    pose_difference_degrees,
    pose_rotation,
)
from vidswap.models.aligned_mesh import canonical_mesh

LIDS = (160, 159, 158, 385, 386, 387)
LOWER_LIPS = (178, 87, 14, 317, 402)


@pytest.fixture
def mesh() -> np.ndarray:
    """The mean face, 100 px between the eyes."""
    return canonical_mesh().numpy().astype(np.float64) * 100 + 300


def iris_of(mesh: np.ndarray, shift: float = 0.0) -> np.ndarray:
    """Irises in the middle of the eyes, moved to the right by a share of the eye's width."""
    iris = np.zeros((2, 5, 2))
    for side, (start, end) in enumerate(landmarks.EYE_CORNERS):
        axis = mesh[end, :2] - mesh[start, :2]
        iris[side] = (mesh[start, :2] + mesh[end, :2]) / 2 + shift * axis
    return iris


def turned(mesh: np.ndarray, yaw: float, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    centre = mesh.mean(axis=0)
    return (mesh - centre) @ pose_rotation(yaw, pitch, roll).T + centre


@pytest.mark.parametrize("angles", [(0, 0, 0), (25, -10, 5), (-40, 20, 30), (5, 5, -170)])
def test_rotation_is_the_one_that_the_landmarks_measure(
    mesh: np.ndarray, angles: tuple[float, float, float]
) -> None:
    here = np.array(pose_rotation(*landmarks.head_pose(mesh)))
    moved = np.array(pose_rotation(*landmarks.head_pose(turned(mesh, *angles))))
    assert moved == pytest.approx(pose_rotation(*angles) @ here, abs=1e-5)


def test_a_face_beside_itself(mesh: np.ndarray) -> None:
    found = attribute_difference(mesh, mesh, iris_of(mesh), iris_of(mesh))
    assert found.pose_degrees == pytest.approx(0, abs=1e-6)
    assert found.expression == pytest.approx(0, abs=1e-9)
    assert (found.mouth_opening, found.eye_aspect, found.gaze) == (0, 0, 0)


@pytest.mark.parametrize(("yaw", "pitch", "roll"), [(12, 0, 0), (0, -7, 0), (0, 0, 9)])
def test_a_turn_is_pose_alone(mesh: np.ndarray, yaw: float, pitch: float, roll: float) -> None:
    found = attribute_difference(turned(mesh, yaw, pitch, roll), mesh)
    assert found.pose_degrees == pytest.approx(abs(yaw + pitch + roll), abs=0.01)
    assert found.expression == pytest.approx(0, abs=1e-6)
    assert math.isnan(found.gaze)


def test_place_and_size_of_the_face_do_not_matter(mesh: np.ndarray) -> None:
    found = attribute_difference(mesh * 2.5 - 70, mesh, iris_of(mesh * 2.5 - 70), iris_of(mesh))
    assert found.pose_degrees == pytest.approx(0, abs=1e-5)
    assert found.expression == pytest.approx(0, abs=1e-9)
    assert found.gaze == pytest.approx(0, abs=1e-9)


def test_open_mouth_closed_eyes_and_gaze_show_each_in_their_own_figure(mesh: np.ndarray) -> None:
    unit = landmarks.interocular(mesh)
    talking, asleep = mesh.copy(), mesh.copy()
    talking[list(LOWER_LIPS), 1] += 0.2 * unit
    asleep[list(LIDS), 1] += 0.05 * unit
    mouth = attribute_difference(talking, mesh, iris_of(mesh), iris_of(mesh))
    assert mouth.mouth_opening == pytest.approx(0.2, abs=0.02)
    assert mouth.eye_aspect == pytest.approx(0) and mouth.gaze == pytest.approx(0)
    assert mouth.expression > 0
    eyes = attribute_difference(asleep, mesh)
    assert eyes.eye_aspect > 0.1 and eyes.mouth_opening == 0
    looking = attribute_difference(mesh, mesh, iris_of(mesh, 0.1), iris_of(mesh))
    assert looking.gaze == pytest.approx(0.1) and looking.expression == pytest.approx(0, abs=1e-9)


def test_gaze_of_closed_eyes_is_not_judged(mesh: np.ndarray) -> None:
    closed = mesh.copy()
    for high, low in ((160, 144), (159, 145), (158, 153)):  # the eye on the image's left
        closed[high, :2] = closed[low, :2]
    irises = iris_of(mesh)
    irises[0] += 50  # nonsense behind the lid
    one = attribute_difference(closed, mesh, irises, iris_of(mesh))
    assert one.gaze == pytest.approx(0, abs=1e-9)
    for high, low in ((385, 380), (386, 374), (387, 373)):
        closed[high, :2] = closed[low, :2]
    assert math.isnan(attribute_difference(closed, mesh, irises, iris_of(mesh)).gaze)


@pytest.mark.parametrize("angle", [1e-5, 0.5, 90.0, 179.9])
def test_angle_between_rotations(angle: float) -> None:
    assert pose_difference_degrees(
        pose_rotation(0, 0, angle) @ pose_rotation(20, 10, 5), pose_rotation(20, 10, 5)
    ) == pytest.approx(angle, rel=1e-3)


def test_shapes_are_checked(mesh: np.ndarray) -> None:
    with pytest.raises(ValueError, match="468"):
        attribute_difference(mesh[:5], mesh)
    with pytest.raises(ValueError, match="3, 3"):
        pose_difference_degrees(np.eye(2), np.eye(3))
    assert math.isnan(gaze_difference(np.zeros((2, 2)), np.ones((2, 2)), np.array([False, False])))

"""The finder over short clips made here: steady numbers, few detections, losses, cuts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from vidswap.faces import FaceFinder, FaceMesher, MediaPipeDetector, Tracker
from vidswap.records import Face


def shot(faces: list[tuple[np.ndarray, float, float, int]], tone: int = 110) -> np.ndarray:
    """A 360 x 640 picture with faces at (left, top, side)."""
    ramp = np.linspace(0, 60, 640, dtype=np.float32)[None, :, None]
    picture = Image.fromarray((np.full((360, 640, 3), tone) + ramp).astype(np.uint8))
    for face, left, top, side in faces:
        small = Image.fromarray(face).resize((side, side), Image.Resampling.LANCZOS)
        picture.paste(small, (round(left), round(top)))
    return np.asarray(picture)


@pytest.fixture
def finder(detector: MediaPipeDetector, mesher: FaceMesher) -> FaceFinder:
    return FaceFinder(detector, mesher, Tracker(), detect_every=4)


def test_two_people_keep_their_numbers_with_few_detections(
    finder: FaceFinder, portraits: list[np.ndarray]
) -> None:
    first: list[Face] = []
    for step in range(9):
        right = (portraits[1], 380, 100 - 5 * step, 150)
        rgb = shot([(portraits[0], 20 + 6 * step, 60, 200), right])
        faces = finder.find(rgb, step / 25)
        assert [face.track_id for face in faces] == [0, 1]
        first = first or faces
    assert finder.state.detections == 3
    moved = (faces[0].box_xyxy - first[0].box_xyxy)[:2]
    np.testing.assert_allclose(moved, [48, 0], atol=3)


def test_coordinates_are_those_of_the_whole_frame(
    finder: FaceFinder, portraits: list[np.ndarray]
) -> None:
    rgb = shot([(portraits[0], 100, 60, 256)])
    (half,) = finder.find(rgb, 0, scale=0.5)
    finder.reset()
    (whole,) = finder.find(rgb, 0.04)
    assert half.mesh_xyz is not None and whole.mesh_xyz is not None
    np.testing.assert_allclose(half.mesh_xyz, whole.mesh_xyz * 2, rtol=1e-5)
    with pytest.raises(ValueError, match="scale"):
        finder.find(rgb, 0, scale=0)


def test_a_face_that_leaves_is_lost_and_one_that_comes_back_is_known(
    finder: FaceFinder, portraits: list[np.ndarray]
) -> None:
    here, empty = shot([(portraits[0], 100, 60, 256)]), shot([])
    asked = []

    def embed(face: Face, rgb: np.ndarray) -> np.ndarray:
        asked.append(face)
        return np.full(128, 0.05, np.float32)

    assert len(finder.find(here, 0, embed=embed)) == 1
    assert len(finder.find(here, 0.04, embed=embed)) == 1
    assert len(asked) == 1
    assert finder.find(empty, 0.08, embed=embed) == []
    (back,) = finder.find(here, 9.0, embed=embed)
    assert back.track_id == 0 and len(asked) == 2


def test_a_cut_is_seen_at_once(finder: FaceFinder, portraits: list[np.ndarray]) -> None:
    finder.find(shot([(portraits[0], 30, 60, 256)]), 0)
    other = 255 - shot([])  # another room
    other[40:296, 340:596] = shot([(portraits[1], 0, 0, 256)])[:256, :256]
    (face,) = finder.find(other, 0.04)
    assert finder.state.cuts == 1
    assert face.track_id == 1 and face.box_xyxy[0] > 340


def test_small_faces_are_left_alone(
    detector: MediaPipeDetector, mesher: FaceMesher, portraits: list[np.ndarray]
) -> None:
    rgb = shot([(portraits[0], 100, 60, 256), (portraits[1], 480, 200, 90)])
    assert len(FaceFinder(detector, mesher).find(rgb, 0)) == 2
    assert len(FaceFinder(detector, mesher, min_size_px=80).find(rgb, 0)) == 1


def test_a_change_of_size_mid_clip(finder: FaceFinder, portraits: list[np.ndarray]) -> None:
    rgb = shot([(portraits[0], 100, 60, 256)])
    finder.find(rgb, 0)
    (face,) = finder.find(np.ascontiguousarray(rgb[::2, ::2]), 0.04)
    assert 50 < face.box_xyxy[0] < 120


def test_what_the_mesh_doubts_at_first_sight_is_no_face(
    finder: FaceFinder, portraits: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    presence, refine = [0.93], finder.mesher.refine
    monkeypatch.setattr(
        finder.mesher, "refine", lambda *a, **named: replace(refine(*a, **named), score=presence[0])
    )
    rgb = shot([(portraits[0], 100, 60, 256)])
    assert finder.find(rgb, 0) == []
    presence[0] = 0.99
    assert len(finder.find(rgb, 0.04)) == 1
    presence[0] = 0.75  # a face that is known may be half hidden
    assert len(finder.find(rgb, 0.08)) == 1

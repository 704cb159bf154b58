"""BlazeFace: anchors, merging, windows, and real faces of all sizes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vidswap.faces import Detector, MediaPipeDetector
from vidswap.faces.blazeface import (
    FULL_RANGE,
    SHORT_RANGE,
    Detections,
    merge_weighted,
    overlap,
)
from vidswap.faces.detect import tiles


def place(picture: np.ndarray, face: np.ndarray, left: int, top: int, side: int) -> None:
    small = Image.fromarray(face).resize((side, side), Image.Resampling.LANCZOS)
    picture[top : top + side, left : left + side] = np.asarray(small)


def plain(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 110, np.uint8)


def test_anchors_are_those_of_the_networks() -> None:
    short, full = SHORT_RANGE.centers_xy(), FULL_RANGE.centers_xy()
    assert short.shape == (896, 2) and full.shape == (2304, 2)
    np.testing.assert_allclose(short[:4], [[1 / 32] * 2] * 2 + [[3 / 32, 1 / 32]] * 2)
    np.testing.assert_allclose(short[512:518], [[1 / 16] * 2] * 6)
    np.testing.assert_allclose(full[49], [3 / 96, 3 / 96])


def test_merging_weighs_by_score_and_keeps_apart_what_is_apart() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]], np.float32)
    scores = np.array([0.9, 0.3, 0.6], np.float32)
    points = np.repeat(boxes[:, None, :2], 6, axis=1)
    merged = merge_weighted(Detections(boxes, scores, points))
    np.testing.assert_allclose(merged.boxes_xyxy, [[0.25, 0, 10.25, 10], [50, 50, 60, 60]])
    np.testing.assert_allclose(merged.scores, [0.9, 0.6])
    np.testing.assert_allclose(merged.points_xy[0], [[0.25, 0]] * 6)
    assert overlap(boxes[0], boxes)[1] == pytest.approx(90 / 110)


def test_tiles_cover_the_picture_and_overlap() -> None:
    windows = tiles((1920, 1080), 40, 30)
    side = windows[0][2] - windows[0][0]
    covered = np.zeros((1080, 1920), dtype=int)
    for left, top, right, bottom in windows:
        covered[max(int(top), 0) : int(bottom) + 1, max(int(left), 0) : int(right) + 1] += 1
    assert covered.min() >= 1
    lefts = sorted({window[0] for window in windows})
    assert max(np.diff(lefts)) <= 0.76 * side
    assert 0 < len(tiles((7680, 4320), 24, 12)) <= 12
    assert tiles((320, 240), 24, 12) == [] and tiles((1920, 1080), 24, 0) == []


def test_a_portrait_gives_one_face_with_points_in_place(
    detector: MediaPipeDetector, portraits: list[np.ndarray]
) -> None:
    assert isinstance(detector, Detector)
    for portrait in portraits:
        (face,) = detector.detect(portrait)
        # FFHQ alignment puts the eyes about here, whoever it is (a 512 px picture).
        expected = np.array([[193, 243], [319, 242]])
        assert np.abs(face.keypoints_xy[:2] - expected).max() < 18
        assert 300 < face.keypoints_xy[2, 1] < face.keypoints_xy[3, 1] < 410
        assert face.keypoints_xy[3, 0] < 255 < face.keypoints_xy[4, 0]
        assert 0.5 < face.score <= 1


@pytest.mark.parametrize("size_hw", [(720, 1280), (1280, 720)])
def test_coordinates_do_not_depend_on_the_frame(
    detector: MediaPipeDetector, portraits: list[np.ndarray], size_hw: tuple[int, int]
) -> None:
    frame = plain(*size_hw)
    place(frame, portraits[0], 100, 60, 512)
    (alone,), (within,) = detector.detect(portraits[0]), detector.detect(frame)
    moved = alone.keypoints_xy + (100, 60)
    assert np.abs(moved - within.keypoints_xy).max() < 0.03 * alone.size_px


def test_thirty_faces_are_thirty(
    detector: MediaPipeDetector, portraits: list[np.ndarray]
) -> None:
    frame = plain(1080, 1920)
    for index in range(30):
        place(frame, portraits[index % 2], 60 + index % 6 * 310, 20 + index // 6 * 210, 170)
    faces = detector.detect(frame)
    assert len(faces) == 30
    assert [f.size_px for f in faces] == sorted((f.size_px for f in faces), reverse=True)


def test_small_faces_need_the_tiles(
    detector: MediaPipeDetector, portraits: list[np.ndarray]
) -> None:
    frame = plain(1080, 1920)
    corners = ((200, 150), (1500, 200), (900, 800))
    for left, top in corners:
        place(frame, portraits[0], left, top, 80)  # faces of about 50 px
    centers = np.array([(f.box_xyxy[:2] + f.box_xyxy[2:]) / 2 for f in detector.detect(frame)])
    assert len(centers) == 3
    for left, top in corners:
        assert np.abs(centers - (left + 40, top + 45)).max(axis=1).min() < 12


@pytest.mark.parametrize("share", [0.65, 0.45])
def test_faces_larger_than_the_picture(
    detector: MediaPipeDetector, portraits: list[np.ndarray], share: float
) -> None:
    side = int(512 * share)
    low = (512 - side) // 2
    part = portraits[0][low + 20 : low + 20 + side, low : low + side]
    assert len(detector.detect(np.ascontiguousarray(part))) == 1


@pytest.mark.parametrize("size_hw", [(1, 1), (3, 900), (480, 640)])
def test_pictures_without_a_face(detector: MediaPipeDetector, size_hw: tuple[int, int]) -> None:
    assert detector.detect(plain(*size_hw)) == []


def test_other_arrays_are_refused(detector: MediaPipeDetector) -> None:
    with pytest.raises(ValueError, match="uint8"):
        detector.detect(np.zeros((4, 4, 3), np.float32))  # type: ignore[arg-type]

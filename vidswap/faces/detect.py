"""Face detectors behind one protocol, and the registry that makes them by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidswap.errors import UsageError, did_you_mean
from vidswap.faces.backends import FaceAlignmentDetector, InsightFaceDetector, check_picture
from vidswap.faces.blazeface import (
    FULL_RANGE,
    SHORT_RANGE,
    BlazeFace,
    Detections,
    merge_weighted,
)
from vidswap.records import Face

Window = tuple[float, float, float, float]
Locate = Callable[[str], Path]

# BlazeFace finds faces from about this share of its window on; smaller ones need tiles.
_SMALLEST_SHARE = 1 / 14


@runtime_checkable
class Detector(Protocol):
    """Finds faces in one picture."""

    def detect(self, rgb: NDArray[np.uint8]) -> list[Face]:
        """Faces of a picture, the largest first.

        :param rgb: ``[H, W, 3]`` uint8.
        :return: faces in pixels of this picture, with box, score and five keypoints (see
            :class:`vidswap.records.Face`). The mesh network looks at each; one that it does not take for a
            face is dropped.
        """
        ...


class MediaPipeDetector:
    """BlazeFace on the whole picture, on tiles for small faces, on a wider canvas for huge ones.

    :param full_range_path: network for faces up to five metres away (192 px input).
    :param short_range_path: network for close-ups (128 px input), asked when the first finds
        nothing.
    :param min_score: detections below this confidence are dropped.
    :param min_face_px: smallest face worth finding, longer side in pixels; decides the tiles.
    :param max_tiles: most tiles a picture is cut into; 0 looks at the whole picture only.
    :raises WeightsError: when a file is missing or damaged.
    """

    def __init__(
        self,
        full_range_path: Path,
        short_range_path: Path,
        *,
        min_score: float = 0.5,
        min_face_px: float = 24.0,
        max_tiles: int = 12,
        threads: int = 1,
    ) -> None:
        if not 0 < min_score < 1:
            raise ValueError(f"min_score: expected 0..1, got {min_score}")
        self.min_score = min_score
        self.min_face_px = min_face_px
        self.max_tiles = max_tiles
        self._full = BlazeFace(full_range_path, FULL_RANGE, threads=threads)
        self._short = BlazeFace(short_range_path, SHORT_RANGE, threads=threads)

    def detect(self, rgb: NDArray[np.uint8]) -> list[Face]:
        """See :meth:`Detector.detect`."""
        picture = Image.fromarray(check_picture(rgb))
        size_wh = picture.size
        parts = [self._full.run(picture, _whole(size_wh, 1.0), self.min_score)]
        for tile in tiles(size_wh, self.min_face_px, self.max_tiles):
            parts.append(_uncut(self._full.run(picture, tile, self.min_score), tile, size_wh))
        found = merge_weighted(Detections.join(parts))
        if not len(found):
            found = self._close_up(picture)
        order = np.argsort(-_sides(found.boxes_xyxy), kind="stable")
        faces = [_face(found, index) for index in order]
        return [face for face in faces if _shows(face, size_wh)]

    def _close_up(self, picture: Image.Image) -> Detections:
        """Faces that fill the picture or are cut by its edge: margins make them look normal."""
        for network, margin in ((self._short, 1.0), (self._full, 2.0), (self._short, 2.0)):
            found = network.run(picture, _whole(picture.size, margin), self.min_score)
            if len(found):
                return merge_weighted(found)
        return Detections.join([])


def tiles(size_wh: tuple[int, int], min_face_px: float, max_tiles: int) -> list[Window]:
    """Overlapping square windows in which a face of ``min_face_px`` is large enough to be found.

    Empty when the whole picture serves. Neighbours overlap by a quarter, so that each small face
    lies whole in one of them; when more than ``max_tiles`` were needed, the tiles grow.
    """
    longer = max(size_wh)
    side = max(min_face_px / _SMALLEST_SHARE, 192.0)
    while side < 0.8 * longer:
        counts = [1 + max(0, int(np.ceil((length - side) / (0.75 * side)))) for length in size_wh]
        if counts[0] * counts[1] <= max_tiles:
            return [
                (left, top, left + side, top + side)
                for top in _starts(size_wh[1], side, counts[1])
                for left in _starts(size_wh[0], side, counts[0])
            ]
        side *= 1.15
    return []


def _starts(length: int, side: float, count: int) -> list[float]:
    if count == 1:
        return [(length - side) / 2]
    return [float(value) for value in np.linspace(0, length - side, count)]


def _whole(size_wh: tuple[int, int], margin: float) -> Window:
    """Square window around the whole picture, ``margin`` times its longer side."""
    half = max(size_wh) * margin / 2
    x, y = size_wh[0] / 2, size_wh[1] / 2
    return x - half, y - half, x + half, y + half


def _uncut(found: Detections, tile: Window, size_wh: tuple[int, int]) -> Detections:
    """Drop faces that touch a side of the tile within the picture: another tile has them whole."""
    side = tile[2] - tile[0]
    slack = 0.01 * side
    boxes = found.boxes_xyxy
    keep = np.ones(len(found), dtype=bool)
    for axis in (0, 1):
        if tile[axis] > 0:
            keep &= boxes[:, axis] > tile[axis] + slack
        if tile[axis + 2] < size_wh[axis]:
            keep &= boxes[:, axis + 2] < tile[axis + 2] - slack
    # Large in a tile means that the whole picture shows it better.
    keep &= _sides(boxes) < 0.6 * side
    return found.take(keep)


def _sides(boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.maximum(boxes_xyxy[:, 2] - boxes_xyxy[:, 0], boxes_xyxy[:, 3] - boxes_xyxy[:, 1])


def _face(found: Detections, index: int) -> Face:
    points = found.points_xy[index]
    eyes, nose, mouth = points[:2], points[2], points[3]
    # BlazeFace marks the mouth's centre only. Corners lie 0.48 eye distances beside it on 48 faces
    # of the generator (deviation 0.05; many smile). Only their middle matters to alignment.
    half = 0.48 * (eyes[1] - eyes[0])
    return Face(
        box_xyxy=found.boxes_xyxy[index].astype(np.float32),
        score=float(found.scores[index]),
        keypoints_xy=np.stack((eyes[0], eyes[1], nose, mouth - half, mouth + half)).astype("f4"),
    )


def _shows(face: Face, size_wh: tuple[int, int]) -> bool:
    """A face whose centre lies outside the picture is an echo of its edge."""
    x, y = (face.box_xyxy[:2] + face.box_xyxy[2:]) / 2
    return bool(0 <= x < size_wh[0] and 0 <= y < size_wh[1])


def _make_mediapipe(locate: Locate, min_score: float, min_face_px: float) -> Detector:
    return MediaPipeDetector(
        locate("blazeface-full"), locate("blazeface-short"), min_score=min_score, min_face_px=min_face_px
    )


def _make_insightface(_locate: Locate, min_score: float, _min_face_px: float) -> Detector:
    return InsightFaceDetector(min_score=min_score)


def _make_face_alignment(_locate: Locate, min_score: float, _min_face_px: float) -> Detector:
    return FaceAlignmentDetector(min_score=min_score)


DETECTORS: dict[str, Callable[[Locate, float, float], Detector]] = {
    "mediapipe": _make_mediapipe,
    "insightface": _make_insightface,
    "face-alignment": _make_face_alignment,
}
"""Name -> factory ``(locate, min_score, min_face_px) -> Detector``; ``locate`` gives the file of weights by
their name in the catalogue, and fetches them where they are not here."""


def make_detector(
    name: str,
    locate: Locate,
    *,
    min_score: float = 0.5,
    min_face_px: float = 24.0,
) -> Detector:
    """Make a detector by its name in :data:`DETECTORS`.

    :raises UsageError: when the name is unknown.
    :raises WeightsError: when its weights are missing.
    """
    if name not in DETECTORS:
        hint = did_you_mean(name, DETECTORS, f"choose {', '.join(DETECTORS)}")
        raise UsageError(f"unknown face detector {name!r}: {hint}")
    return DETECTORS[name](locate, min_score, min_face_px)

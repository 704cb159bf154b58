"""BlazeFace: a single-shot face detector (Bazarevsky et al., 1907.05047), run on one window.

A window is a square (in pixels of the picture) that is brought to the network's input size.
The network answers with a score, a box and six keypoints an anchor; anchors sit at the centres
of the cells of its feature maps and all have the size of the window.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidswap.models.litert import LiteRTModel

Array = NDArray[np.float32]


@dataclass(frozen=True)
class AnchorLayout:
    """Feature maps of an SSD head whose anchors have a fixed size."""

    input_size: int
    """Side of the network's input in pixels."""
    maps: tuple[tuple[int, int], ...]
    """(stride in input pixels, anchors a cell) for each feature map, in the network's order."""

    def centers_xy(self) -> Array:
        """Anchor centres ``[n, 2]`` in units of the window, row by row, map after map."""
        rows = []
        for stride, count in self.maps:
            cells = -(-self.input_size // stride)
            axis = (np.arange(cells, dtype=np.float32) + 0.5) / cells
            y, x = np.meshgrid(axis, axis, indexing="ij")
            grid = np.stack((x.ravel(), y.ravel()), axis=1)
            rows.append(np.repeat(grid, count, axis=0))
        return np.concatenate(rows)


# Two anchors in each 8 px cell; the three 16 px layers of two anchors each share one grid.
SHORT_RANGE = AnchorLayout(input_size=128, maps=((8, 2), (16, 6)))
FULL_RANGE = AnchorLayout(input_size=192, maps=((4, 1),))


@dataclass(frozen=True)
class Detections:
    """Faces in pixels of the picture."""

    boxes_xyxy: Array
    """``[n, 4]``"""
    scores: Array
    """``[n]`` in 0..1."""
    points_xy: Array
    """``[n, 6, 2]`` eye on the image's left, eye on its right, nose tip, mouth centre, ear on the
    image's left, ear on its right."""

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: NDArray[np.generic]) -> Detections:
        return Detections(self.boxes_xyxy[index], self.scores[index], self.points_xy[index])

    @staticmethod
    def join(parts: list[Detections]) -> Detections:
        if not parts:
            return Detections(np.zeros((0, 4), "f4"), np.zeros(0, "f4"), np.zeros((0, 6, 2), "f4"))
        return Detections(
            np.concatenate([part.boxes_xyxy for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.points_xy for part in parts]),
        )


class BlazeFace:
    """One BlazeFace network.

    :param path: its ``.tflite`` file.
    :param layout: :data:`SHORT_RANGE` or :data:`FULL_RANGE`.
    :raises WeightsError: when the file is missing or does not fit the layout.
    """

    def __init__(self, path: Path, layout: AnchorLayout, *, threads: int = 1) -> None:
        self._model = LiteRTModel(path, threads=threads)
        self._size = layout.input_size
        self._anchors = layout.centers_xy()
        shapes = {shape[-1]: name for name, shape in self._model.output_shapes.items()}
        expected = (1, self._size, self._size, 3)
        count = len(self._anchors)
        if (
            self._model.input_shape != expected
            or set(shapes) != {1, 16}
            or any(shape[1] != count for shape in self._model.output_shapes.values())
        ):
            from vidswap.errors import WeightsError

            raise WeightsError(
                f"{path} is not the expected BlazeFace network (input {self._model.input_shape}, "
                f"expected {expected}); run `vidswap weights verify`."
            )
        self._regressor, self._classifier = shapes[16], shapes[1]

    def run(
        self, picture: Image.Image, window_xyxy: tuple[float, float, float, float], min_score: float
    ) -> Detections:
        """All anchors above ``min_score`` in a square window, not yet merged.

        The window may leave the picture; what is outside is black, as in training.
        """
        left, top, right, _ = window_xyxy
        side = right - left
        pixels = _letterbox(picture, window_xyxy, self._size)
        out = self._model(pixels * np.float32(1 / 127.5) - np.float32(1))
        logits = out[self._classifier][0, :, 0]
        threshold = np.log(min_score / (1 - min_score))
        keep = np.flatnonzero(logits > threshold)
        raw = out[self._regressor][0, keep].reshape(-1, 8, 2) / np.float32(self._size)
        anchors = self._anchors[keep]
        center, half = raw[:, 0] + anchors, raw[:, 1] / 2
        boxes = np.concatenate((center - half, center + half), axis=1) * side
        points = (raw[:, 2:] + anchors[:, None]) * side
        offset = np.array([left, top], dtype=np.float32)
        return Detections(
            (boxes + np.tile(offset, 2)).astype(np.float32),
            (1 / (1 + np.exp(-logits[keep].clip(-80, 80)))).astype(np.float32),
            (points + offset).astype(np.float32),
        )


def _letterbox(
    picture: Image.Image, window_xyxy: tuple[float, float, float, float], size: int
) -> Array:
    """A window of a picture, antialiased, as ``[size, size, 3]`` float32 in 0..255."""
    left, top, right, _ = window_xyxy
    scale = size / (right - left)
    # The part inside the picture, snapped to whole input pixels so that nothing shifts.
    low_x, low_y = max(0.0, -left), max(0.0, -top)
    high_x = min(right, picture.width) - left
    high_y = min(top + (right - left), picture.height) - top
    if high_x <= low_x or high_y <= low_y:
        return np.zeros((size, size, 3), dtype=np.float32)
    x0, y0 = int(np.ceil(low_x * scale)), int(np.ceil(low_y * scale))
    x1 = max(x0 + 1, int(np.floor(high_x * scale + 1e-6)))
    y1 = max(y0 + 1, int(np.floor(high_y * scale + 1e-6)))
    box = (
        max(0.0, left + x0 / scale),
        max(0.0, top + y0 / scale),
        min(float(picture.width), left + x1 / scale),
        min(float(picture.height), top + y1 / scale),
    )
    part = picture.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    canvas = np.zeros((size, size, 3), dtype=np.float32)
    canvas[y0:y1, x0:x1] = np.asarray(part)[: size - y0, : size - x0]
    return canvas


def overlap(box_xyxy: Array, boxes_xyxy: Array) -> Array:
    """Intersection over union of one box ``[4]`` with ``[n, 4]``."""
    low = np.maximum(box_xyxy[:2], boxes_xyxy[:, :2])
    high = np.minimum(box_xyxy[2:], boxes_xyxy[:, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=1)
    area = np.prod(np.clip(box_xyxy[2:] - box_xyxy[:2], 0, None))
    areas = np.prod(np.clip(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0, None), axis=1)
    return common / np.maximum(area + areas - common, 1e-9)


def merge_weighted(found: Detections, *, min_overlap: float = 0.3) -> Detections:
    """Non-maximum suppression that averages instead of dropping.

    Each cluster becomes the mean of its members weighted by their scores, with the best score:
    BlazeFace's own way (section 3.3 of the paper), which steadies boxes from frame to frame.
    """
    order = np.argsort(-found.scores, kind="stable")
    merged = []
    while len(order):
        boxes = found.boxes_xyxy[order]
        same = overlap(boxes[0], boxes) > min_overlap
        same[0] = True
        part = found.take(order[same])
        weights = part.scores / part.scores.sum()
        merged.append(
            Detections(
                (weights @ part.boxes_xyxy)[None],
                part.scores[:1],
                np.einsum("n,nkc->kc", weights, part.points_xy)[None],
            )
        )
        order = order[~same]
    return Detections.join(merged)

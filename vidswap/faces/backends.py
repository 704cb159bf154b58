"""Detectors of other packages: SCRFD by insightface, FAN by face-alignment.

Both packages fetch weights from their own hubs as soon as a model is made. Here nothing is
fetched unasked: the files must be there, or a :class:`WeightsError` says where they belong.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidswap.errors import UsageError, WeightsError
from vidswap.records import Face


def check_picture(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture, contiguous; ValueError unless it is ``[H, W, 3]`` uint8."""
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or min(rgb.shape[:2]) < 1:
        raise ValueError(f"rgb: expected uint8 [H, W, 3], got {rgb.dtype} {list(rgb.shape)}")
    return np.ascontiguousarray(rgb)


class InsightFaceDetector:
    """SCRFD (Guo et al., 2105.04714) as insightface packs it.

    :param folder: folder of a model pack that holds a detection ``.onnx``; None looks for
        ``models/<pack>`` under insightface's own root (``~/.insightface``). The packs of
        insightface are licensed for non-commercial research.
    :param pack: name of the pack when ``folder`` is None.
    :param min_score: detections below this confidence are dropped.
    :param input_size: side of the square that pictures are fitted into.
    :raises WeightsError: when no detection network is there; nothing is downloaded.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        pack: str = "buffalo_l",
        min_score: float = 0.5,
        input_size: int = 640,
    ) -> None:
        self.min_score = min_score
        place = folder or Path.home() / ".insightface" / "models" / pack
        candidates = sorted(place.glob("*.onnx")) if place.is_dir() else []
        if not candidates:
            raise WeightsError(
                f"No insightface networks in {place}; put the .onnx files of a model pack there, "
                "or use --set faces.detector=mediapipe."
            )
        self._model = self._load(candidates, place)
        self._model.prepare(ctx_id=-1, input_size=(input_size, input_size), det_thresh=min_score)

    @staticmethod
    def _load(candidates: list[Path], place: Path) -> Any:
        try:
            from insightface.model_zoo import get_model
        except ImportError as error:
            raise UsageError(
                "The insightface detector needs the insightface and onnxruntime packages; "
                "install them with pip."
            ) from error
        # SCRFD files are named det_*; try those first, so that a pack's big recognition
        # network is not loaded only to see that it is no detector.
        ordered = sorted(candidates, key=lambda path: not path.name.startswith(("det", "scrfd")))
        for path in ordered:
            try:
                model = get_model(str(path), providers=["CPUExecutionProvider"])
            except Exception as error:  # onnxruntime has no common base for its load errors
                raise WeightsError(f"{path} is damaged ({error}); fetch it again.") from error
            if getattr(model, "taskname", None) == "detection":
                return model
        raise WeightsError(
            f"No detection network among the {len(ordered)} .onnx files in {place}; "
            "add the pack's det_*.onnx."
        )

    def detect(self, rgb: NDArray[np.uint8]) -> list[Face]:
        """Faces of ``[H, W, 3]`` uint8 RGB, the largest first."""
        bgr = np.ascontiguousarray(check_picture(rgb)[..., ::-1])  # insightface's order
        boxes, points = self._model.detect(bgr, max_num=0, metric="default")
        if points is None:
            raise WeightsError("This insightface network gives no keypoints; use a *_kps one.")
        faces = [
            Face(box[:4].astype(np.float32), float(box[4]), five.astype(np.float32))
            for box, five in zip(boxes, points, strict=True)
            if box[4] >= self.min_score
        ]
        return sorted(faces, key=lambda face: -face.size_px)


class FaceAlignmentDetector:
    """FAN with 68 landmarks (Bulat & Tzimiropoulos, 1703.07332) after the S3FD detector.

    :param folder: folder with the two checkpoints under their published names; None is torch's
        hub folder, where the package itself keeps them.
    :param min_score: detections below this confidence are dropped.
    :param device: torch device.
    :raises WeightsError: when a checkpoint is missing; nothing is downloaded.
    """

    FILES = {"detector": "s3fd-619a316812.pth", "landmarks": "2DFAN4-11f355bf06.pth.tar"}
    """File names of the checkpoints, as published."""

    def __init__(
        self, folder: Path | None = None, *, min_score: float = 0.5, device: str = "cpu"
    ) -> None:
        import torch

        place = folder or Path(torch.hub.get_dir()) / "checkpoints"
        missing = [name for name in self.FILES.values() if not (place / name).is_file()]
        if missing:
            raise WeightsError(
                f"face-alignment lacks {', '.join(missing)} in {place}; put the files there, or "
                "use --set faces.detector=mediapipe."
            )
        self.min_score = min_score
        try:
            import face_alignment
        except ImportError as error:
            raise UsageError(
                "The face-alignment detector needs the face-alignment package; install it with pip."
            ) from error
        self._fan = self._load(face_alignment, place, device, min_score)

    def _load(self, package: Any, place: Path, device: str, min_score: float) -> Any:
        import torch

        # The package takes a path for its detector but looks up the landmark network in torch's
        # hub folder only; TORCH_HOME's "hub" is that folder's parent, so it is set for the call.
        before = torch.hub.get_dir()
        hub = place.parent
        if place.name != "checkpoints":
            raise UsageError(
                f"face-alignment expects its files in a folder named 'checkpoints', got {place}."
            )
        try:
            torch.hub.set_dir(os.fspath(hub))
            return package.FaceAlignment(
                package.LandmarksType.TWO_D,
                device=device,
                flip_input=False,
                compile=False,  # minutes of compilation pay off for no clip we have seen
                face_detector="sfd",
                face_detector_kwargs={
                    "path_to_detector": os.fspath(place / self.FILES["detector"]),
                    "filter_threshold": min_score,
                },
            )
        except Exception as error:  # torch's safe unpickler raises all sorts on damaged files
            line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise WeightsError(
                f"A face-alignment checkpoint in {place} cannot be read ({line}); fetch it again."
            ) from error
        finally:
            torch.hub.set_dir(before)

    def detect(self, rgb: NDArray[np.uint8]) -> list[Face]:
        """Faces of ``[H, W, 3]`` uint8 RGB, the largest first."""
        picture = check_picture(rgb)
        boxes = self._fan.face_detector.detect_from_image(picture.copy())
        if len(boxes) == 0:
            return []
        landmarks = self._fan.get_landmarks_from_image(picture, detected_faces=boxes)
        faces = [
            Face(
                np.asarray(box[:4], dtype=np.float32),
                float(min(box[4], 1.0)),
                keypoints_from_68(points),
            )
            for box, points in zip(boxes, landmarks, strict=True)
            if box[4] >= self.min_score
        ]
        return sorted(faces, key=lambda face: -face.size_px)


def keypoints_from_68(points_xy: NDArray[np.floating]) -> NDArray[np.float32]:
    """Five keypoints ``[5, 2]`` from 68 landmarks ``[68, 2]`` in the 300-W order."""
    points = np.asarray(points_xy, dtype=np.float32)[:, :2]
    if points.shape != (68, 2):
        raise ValueError(f"points_xy: expected [68, 2], got {np.shape(points_xy)}")
    return np.stack(
        (points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54])
    )

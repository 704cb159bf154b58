"""ArcFace (Deng et al., 1801.07698) as a second judge of identity, from files of the user.

Our training knows dlib's network, so that a swap may please that network alone; one that took no
part is the fairer judge. The weights of insightface's packs are licensed for non-commercial
research and come from their own hub: nothing is downloaded here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidswap.errors import UsageError, WeightsError

CHIP_SIZE = 112

# Where eyes, nose tip and mouth corners lie in ArcFace's training chips, in pixels of 112.
_TEMPLATE_XY = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
     [70.7299, 92.2041]]
)  # fmt: skip


def chip_quad(keypoints_xy: NDArray[np.floating]) -> NDArray[np.float64]:
    """The square that ArcFace looks at: corners TL, BL, BR, TR, ``[4, 2]``.

    The least-squares similarity (Umeyama 1991) from the template to five keypoints.

    :param keypoints_xy: ``[5, 2]`` eyes, nose tip, mouth corners, left to right in the image.
    :raises ValueError: when the shape is wrong.
    """
    points = np.asarray(keypoints_xy, dtype=np.float64)
    if points.shape != (5, 2):
        raise ValueError(f"keypoints_xy: expected [5, 2], got {list(points.shape)}")
    # A similarity of the plane is one complex factor and a shift.
    template, found = (p @ np.array([1, 1j]) for p in (_TEMPLATE_XY, points))
    a, b = template - template.mean(), found - found.mean()
    factor = (a.conj() @ b) / (a.conj() @ a)
    corners = np.array([0, 1j, 1 + 1j, 1]) * CHIP_SIZE
    moved = factor * (corners - template.mean()) + found.mean()
    return np.stack([moved.real, moved.imag], axis=1)


class ArcFaceJudge:
    """Embeddings of chips cut by :func:`chip_quad`."""

    def __init__(self, path: Path) -> None:
        """
        :param path: an ``.onnx`` file of a recognition network, or a folder (a model pack of
            insightface) that holds one.
        :raises WeightsError: when there is none, or it cannot be read.
        :raises UsageError: when insightface or onnxruntime is not installed.
        """
        try:
            from insightface.model_zoo import get_model
        except ImportError as error:
            raise UsageError(
                "The second identity network needs insightface and onnxruntime; install them "
                "with pip, or leave out --judge."
            ) from error
        self._model: Any = None
        for candidate in _candidates(path):
            try:
                model = get_model(str(candidate), providers=["CPUExecutionProvider"])
            except Exception as error:  # onnxruntime's load errors share no base class
                raise WeightsError(f"{candidate} is damaged ({error}); fetch it again.") from error
            if getattr(model, "taskname", None) == "recognition":
                self._model, self.path = model, candidate
                break
        if self._model is None:
            raise WeightsError(f"No recognition network (112 px ArcFace .onnx) in {path}.")
        if tuple(self._model.input_size) != (CHIP_SIZE, CHIP_SIZE):
            raise WeightsError(
                f"{self.path} takes {self._model.input_size} pixels; a network for 112 is needed."
            )

    @property
    def name(self) -> str:
        """The file, for the report."""
        return f"ArcFace ({self.path.name})"

    def embed(self, chip: NDArray[np.floating]) -> NDArray[np.float32]:
        """Embedding ``[512]`` of a chip ``[112, 112, 3]`` RGB in [0, 1]; its length carries
        quality, so compare by cosine."""
        if chip.shape != (CHIP_SIZE, CHIP_SIZE, 3):
            raise ValueError(f"chip: expected [112, 112, 3], got {list(chip.shape)}")
        planes = np.asarray(chip, np.float32).transpose(2, 0, 1)[None] * 255
        return np.asarray(self._model.forward(planes), np.float32)[0]


def default_folder() -> Path:
    """Where insightface itself keeps its model packs."""
    return Path.home() / ".insightface" / "models"


def find_default() -> Path | None:
    """A recognition network that insightface has on this machine already, or None."""
    for pattern in ("buffalo_l/w600k_r50.onnx", "*/w600k_*.onnx", "*/glintr100.onnx"):
        found = sorted(default_folder().glob(pattern))
        if found:
            return found[0]
    return None


def _candidates(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted(path.glob("*.onnx")) if path.is_dir() else []
    if not files:
        raise WeightsError(
            f"No .onnx file at {path}; give --judge the recognition network of an insightface "
            "model pack (w600k_r50.onnx)."
        )
    return sorted(files, key=lambda file: not file.name.startswith(("w600k", "glint", "arc")))

"""MediaPipe's face mesh and iris networks as differentiable PyTorch modules.

Face mesh: Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile
GPUs" (arXiv 1907.06724). Iris: Ablavatski et al., "Real-time Pupil Tracking from Monocular
Video for Digital Puppetry" (arXiv 2006.11341). Both are the published float models, converted
by :mod:`vidswap.weights.convert_tflite`; they agree with LiteRT to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray
from torch import Tensor, nn

from vidswap.errors import WeightsError
from vidswap.models.tflite_graph import TfliteGraph

if TYPE_CHECKING:
    from typing_extensions import Self

FACE_SIZE = 192
"""Side in pixels of the face crop that the mesh network takes."""
EYE_SIZE = 64
"""Side in pixels of the eye crop that the iris network takes."""


class _CropNet(nn.Module):
    """A graph with one square crop as its input and two outputs known by their lengths."""

    size: ClassVar[int]
    lengths: ClassVar[tuple[int, int]]

    def __init__(self, graph: TfliteGraph) -> None:
        super().__init__()
        shapes = [graph.graph["tensors"][str(i)]["shape"] for i in graph.graph["outputs"]]
        found = [shape[-1] for shape in shapes]
        side = graph.input_shape[1:3]
        if side != (self.size, self.size) or sorted(found) != sorted(self.lengths):
            raise WeightsError(
                f"{type(self).__name__}: expected a {self.size} px input and outputs of "
                f"{self.lengths} numbers, got {side} and {found}; fetch the weights again"
            )
        self.graph = graph
        self._order = [found.index(length) for length in self.lengths]

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """From a converted safetensors file.

        :raises WeightsError: when it is missing, damaged or another network.
        """
        return cls(TfliteGraph.load(path))

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]
    ) -> Self:
        """From what :func:`vidswap.weights.convert_tflite.convert` returns."""
        return cls(TfliteGraph(tensors, metadata))

    def _outputs(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """The two outputs in the order of ``lengths``, each ``[B, length]``."""
        outputs = self.graph(crops)
        first, second = (outputs[i].flatten(1) for i in self._order)
        return first, second


class FaceMeshNet(_CropNet):
    """468 landmarks of an upright face crop."""

    size = FACE_SIZE
    lengths = (468 * 3, 1)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Landmarks and presence.

        :param crops: ``[B, 3, 192, 192]`` RGB in [0, 1], the face upright and 1/1.5 of the crop.
        :return: landmarks ``[B, 468, 3]`` in pixels of the crop (x right, y down, a pixel's
            centre at + 0.5 as MediaPipe's own crops have it; z towards the camera negative),
            and the presence logit ``[B]``.
        """
        landmarks, presence = self._outputs(crops)
        return landmarks.reshape(-1, 468, 3), presence[:, 0]


class IrisNet(_CropNet):
    """Eye contour and iris of an eye crop; for the eye on the image's left (its outer corner
    on the left). The other eye goes in mirrored."""

    size = EYE_SIZE
    lengths = (71 * 3, 5 * 3)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Contour and iris.

        :param crops: ``[B, 3, 64, 64]`` RGB in [0, 1], 2.3 times as wide as the eye.
        :return: eye contour, lids and brow ``[B, 71, 3]``, and iris ``[B, 5, 3]`` (centre,
            then its edge on the right, that is towards the nose, above, left, below), in pixels
            of the crop.
        """
        contour, iris = self._outputs(crops)
        return contour.reshape(-1, 71, 3), iris.reshape(-1, 5, 3)

"""Where the lips are: the lip branch of MediaPipe's attention mesh, differentiable.

Grishchenko et al., "Attention Mesh: High-fidelity Face Mesh Prediction in Real-time" (arXiv 2006.10962). The
plain mesh hardly tells pressed lips from parted ones: on closed mouths its gap was 0.02 to 0.05 interocular
distances, with this network 0.00 to 0.01. Only what the lips need is run: the first layers on the crop of the
face, a window of their features around the lips of the plain mesh, and the branch itself.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidswap.errors import WeightsError
from vidswap.models.mesh import FACE_SIZE
from vidswap.models.tflite_graph import TfliteGraph

LIPS = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409,
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415,
    76, 77, 90, 180, 85, 16, 315, 404, 320, 307, 306, 184, 74, 73, 72, 11, 302, 303, 304, 408,
    62, 96, 89, 179, 86, 15, 316, 403, 319, 325, 292, 183, 42, 41, 38, 12, 268, 271, 272, 407,
)  # fmt: skip
"""Mesh points of the lips in the network's order: four rings from the outer edge inwards."""

_LEFT, _RIGHT = 61, 291
_ROOM = 1.5
"""Side of the window over the extent of the lips."""
_GRID, _FINE = 16, 64
"""Cells of the window, and the units a side that the branch answers in."""


class LipNet(nn.Module):
    """Lips of face crops.

    :param features: its first layers. :param points: the branch; both are parts of the published graph, see
        :mod:`vidswap.weights.catalogue`.
    :raises WeightsError: when they are other networks.
    """

    _cells: Tensor

    def __init__(self, features: TfliteGraph, points: TfliteGraph) -> None:
        super().__init__()
        shapes = tuple(features.input_shape), tuple(points.input_shape)
        if shapes != ((1, FACE_SIZE, FACE_SIZE, 3), (1, _GRID, _GRID, 32)):
            raise WeightsError(f"lips: other networks, with inputs of {shapes}; fetch the weights again")
        self.features = features
        self.points = points
        axis = torch.arange(_GRID) + 0.5
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        self.register_buffer("_cells", torch.stack([x, y], -1).reshape(-1, 2), persistent=False)

    @classmethod
    def load(cls, features: str | Path, points: str | Path) -> LipNet:
        """From the two converted safetensors files, frozen.

        :raises WeightsError: when a file is missing, damaged or another network.
        """
        return cls(TfliteGraph.load(features), TfliteGraph.load(points)).eval()

    def forward(self, crops: Tensor, mesh: Tensor) -> Tensor:
        """Points of the lips.

        :param crops: ``[B, 3, 192, 192]`` RGB in [0, 1], as the mesh network takes them.
        :param mesh: ``[B, 468, 2 or 3]`` its landmarks in pixels of the crop; they say where to look and get
            no gradient.
        :return: ``[B, 80, 2]`` in pixels of the crop, in the order of :data:`LIPS`.
        """
        (map_,) = self.features(crops)
        turn, middle = _window(mesh.detach()[:, list(LIPS), :2])
        places = torch.einsum("bij,nj->bni", turn, self._cells - _GRID / 2) + middle[:, None]
        grid = (places / FACE_SIZE * 2 - 1).reshape(-1, _GRID, _GRID, 2)
        window = F.grid_sample(map_, grid.to(map_.dtype), padding_mode="zeros", align_corners=False)
        (found,) = self.points(window)
        cells = found.reshape(-1, len(LIPS), 2) * (_GRID / _FINE) - _GRID / 2
        return torch.einsum("bij,bnj->bni", turn, cells) + middle[:, None]


def _window(lips: Tensor) -> tuple[Tensor, Tensor]:
    """The window around lips ``[B, 80, 2]``: pixels of the crop a cell, turned, ``[B, 2, 2]``, and its middle
    ``[B, 2]``."""
    across = lips[:, LIPS.index(_RIGHT)] - lips[:, LIPS.index(_LEFT)]
    angle = torch.atan2(across[:, 1], across[:, 0])
    cos, sin = angle.cos(), angle.sin()
    axes = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], 1)  # columns: x, y
    along = torch.einsum("bji,bnj->bni", axes, lips)
    low, high = along.amin(1), along.amax(1)
    middle = torch.einsum("bij,bj->bi", axes, (low + high) / 2)
    return axes * (_ROOM * (high - low) / _GRID)[:, None, :], middle

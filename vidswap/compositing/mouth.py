"""Where a mouth is in a picture, and the light of the face around it: what lips and teeth are measured by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from vidswap.compositing.arrays import enlarged_part, to_array, to_tensor
from vidswap.compositing.masks import signed_distance
from vidswap.landmarks import INNER_MOUTH, MOUTH
from vidswap.records import FloatArray

_CHEEKS = (50, 280, 101, 330, 118, 347)
"""Mesh points on skin that is neither bearded nor folded."""
_CHEEK = 0.012
"""Radius around them, as part of the crop."""
_BLACK = 0.02
"""Light of cheeks from which on they are seen."""
_OFF = 0.008
"""Part of the crop by which outlines of lips may be off."""
_CLEAR = 0.2
"""Opacity of what is in front, below which a face is seen: a hand may be brighter than it."""
_GRID = 4
"""Pixels from one place to the next where the mouth's outline is looked at."""


@dataclass(frozen=True)
class MouthPlace:
    """A mouth, with some skin around it, in a picture."""

    part: tuple[slice, slice]
    """Rows and columns."""
    inner: FloatArray
    """``[h, w]`` signed distance to where the lips meet, positive between them, in parts of the crop."""
    outer: FloatArray
    """``[h, w]`` the same to where the lips end."""
    cover: FloatArray | None
    """``[h, w]`` in [0, 1] what is in front; None where nothing was looked for."""

    @property
    def lips(self) -> NDArray[np.bool_]:
        """``[h, w]`` what is surely lip, and seen."""
        return (self.outer > 0) & (self.inner < -_OFF) & self._clear

    @property
    def skin(self) -> NDArray[np.bool_]:
        """``[h, w]`` what is surely skin around them, and seen."""
        return (self.outer < -_OFF) & self._clear

    @property
    def _clear(self) -> NDArray[np.bool_]:
        return np.ones(self.outer.shape, bool) if self.cover is None else self.cover < _CLEAR


def mouth_place(
    mesh_xy: FloatArray, size: int, *, room: float, occluded: FloatArray | None
) -> MouthPlace | None:
    """The mouth of a mesh in a picture ``[size, size]``; None where that is next to nothing.

    :param mesh_xy: ``[468, 2 or 3]`` in [0, 1]. :param room: breadth of the skin around, as part of the crop.
    :param occluded: ``[n, n]`` what is in front of the face.
    """
    points = np.asarray(mesh_xy, np.float32)[:, :2]
    around = points[list(MOUTH)]
    low = np.maximum(np.floor((around.min(0) - room) * size), 0).astype(int)
    high = np.minimum(np.ceil((around.max(0) + room) * size) + 1, size).astype(int)
    if (high - low < 2 * _GRID).any():
        return None
    part = (slice(low[1], high[1]), slice(low[0], high[0]))
    inner, outer = (_distance(points[list(outline)], low, high, size) for outline in (INNER_MOUTH, MOUTH))
    cover = None
    if occluded is not None:
        cover = to_array(enlarged_part(to_tensor(occluded), size, part))
    return MouthPlace(part, inner, outer, cover)


def skin_light(target: FloatArray, mesh_xy: FloatArray) -> float | None:
    """Light of the target's cheeks, 0 to 1; None where they are black or outside."""
    size, reach = target.shape[0], max(1, round(_CHEEK * target.shape[0]))
    found = []
    for x, y in (np.asarray(mesh_xy)[list(_CHEEKS), :2] * size).astype(int):
        part = target[max(0, y - reach) : max(0, y + reach + 1), max(0, x - reach) : max(0, x + reach + 1)]
        if part.size:
            found.append(float(light_of(part).mean()))
    usual = float(np.median(found)) if found else 0.0
    return usual if usual > _BLACK else None


def light_of(rgb: FloatArray) -> FloatArray:
    """Light of colours ``[..., 3]``."""
    return rgb @ np.array([0.299, 0.587, 0.114], np.float32)


def redness_of(rgb: FloatArray) -> FloatArray:
    """How much more red than green there is in colours ``[..., 3]``, -1 to 1."""
    return (rgb[..., 0] - rgb[..., 1]) / np.maximum(rgb.sum(-1), 1e-3)


def _distance(outline: FloatArray, low: NDArray[np.int_], high: NDArray[np.int_], size: int) -> FloatArray:
    """Signed distance to an outline ``[n, 2]`` at the pixels of a part, in parts of the crop, ``[h, w]``."""
    width, height = high - low
    x, y = (a + _GRID * (np.arange(-(-n // _GRID)) + 0.5) for a, n in zip(low, (width, height), strict=True))
    at = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2) / size
    coarse = torch.from_numpy(signed_distance(outline, at).reshape(1, 1, len(y), len(x)))
    fine = F.interpolate(coarse, scale_factor=_GRID, mode="bilinear", align_corners=False)
    return fine[0, 0, :height, :width].numpy()

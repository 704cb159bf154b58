"""Hair over foreheads: the new face's that would hang over a bare one, and the target's that stays.

The generator draws the source's hairline. Where it lies lower than the target's, a strip of drawn hair would
end in the target's skin. Such places are left out of the mask: the forehead there stays the target's.

A fringe of the target lies in front of its face as a hand does. But the generator draws fringes, so that it
cannot be told by what the inversion fails to explain.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vidswap.compositing.arrays import (
    gaussian_blur,
    grown,
    resize_map,
    smoothstep,
    to_array,
    to_tensor,
    widest,
)
from vidswap.compositing.glance import GLANCE_SIZE as _SIZE
from vidswap.compositing.glance import Glance
from vidswap.compositing.masks import face_mask, outline_distance
from vidswap.landmarks import INNER_BROWS, LEFT_BROW, LEFT_EYE, RIGHT_BROW, RIGHT_EYE
from vidswap.records import FloatArray

_DARKER = 14.0
"""L* by which drawn hair is darker than the skin that it would cover, after broad light is taken off."""
_ABOVE_BROWS = 0.03
"""Part of the crop above the brows where the forehead begins."""
_FRINGE = (0.25, 0.45)
"""Logarithm by which hair may, and must, differ from the skin in some colour."""
_LOCK = (0.15, 0.3)
"""The same of a lock beside the cheeks, in hue, upwards in light, or downwards beyond the shade."""
_SHADE = 0.9
"""Logarithm by which skin in the shade may be darker."""
_EDGE = 16.0
"""Pixels of a 1024 crop by which a forehead fades out."""
_HANGS = 60
"""Pixels by which hair may hang from the forehead: a fringe to the eyes, a lock beside them to the chin."""
_BESIDE = 0.12
"""Part of the crop inside the face's outline up to which a lock may hang lower than the eyes."""


def forehead_mask(mesh_xyz: NDArray[np.floating], size: int) -> FloatArray:
    """The forehead down to the brows, and what lies between them down to the eyes.

    :param mesh_xyz: ``[468, 3]`` in crop coordinates scaled to [0, 1], of an upright face.
    :return: ``[size, size]`` in [0, 1].
    """
    rows = ((np.arange(size, dtype=np.float32) + 0.5) / size)[:, None]
    brows = float(mesh_xyz[[*LEFT_BROW, *RIGHT_BROW], 1].min())
    eyes = float(mesh_xyz[[*LEFT_EYE, *RIGHT_EYE], 1].mean())
    left, right = (float(mesh_xyz[list(ends), 0].mean()) for ends in INNER_BROWS)
    aside = abs(rows.T - (left + right) / 2)
    above = np.clip((brows - _ABOVE_BROWS / 2 - rows) / 0.02, 0, 1)
    between = np.clip((eyes - rows) / 0.02, 0, 1) * np.clip(((right - left) / 2 - aside) / 0.01, 0, 1)
    return face_mask(mesh_xyz, size, regions="face,-brows", feather=_EDGE) * np.maximum(above, between)


def bare_forehead(
    drawn: FloatArray | Glance, target: FloatArray | Glance, mask: FloatArray, mesh_xyz: FloatArray
) -> FloatArray:
    """What of the mask may stay: 0 where the new face has hair on the target's bare forehead.

    :param drawn: ``[S, S, 3]`` RGB in [0, 1]. :param target: ``[T, T, 3]`` of the same quad. Or glances.
    :param mask: ``[M, M]`` in [0, 1]. :param mesh_xyz: ``[468, 3]`` of the target in the crop, in [0, 1].
    :return: ``[M, M]`` in [0, 1].
    """
    face = resize_map(mask, _SIZE)
    brows = float(mesh_xyz[[*LEFT_BROW, *RIGHT_BROW], 1].mean())
    rows = ((np.arange(_SIZE, dtype=np.float32) + 0.5) / _SIZE)[:, None]
    forehead = smoothstep((brows - _ABOVE_BROWS - rows) / 0.04) * (face > 0.02)
    skin = face > 0.5
    if not forehead.any() or skin.sum() < 64:
        return np.ones_like(mask)
    light = [Glance.of(one).lab[..., 0] for one in (drawn, target)]
    difference = to_array(gaussian_blur(to_tensor(light[1] - light[0]), 1.0))
    difference = difference - float(np.median(difference[skin]))
    hair = smoothstep((difference - _DARKER) / _DARKER) * forehead
    keep = 1.0 - to_array(gaussian_blur(to_tensor(widest(hair, 1)), 1.5))
    return resize_map(keep.clip(0, 1), mask.shape[0])


def own_fringe(
    occluded: FloatArray, target: FloatArray | Glance, mask: FloatArray, mesh_xyz: FloatArray
) -> FloatArray:
    """What of a map of occluders is the target's own hair, hanging over its forehead and down along its
    cheeks, ``[n, n]`` in [0, 1].

    :param occluded: ``[n, n]`` in [0, 1], as a network sees it. :param mask: ``[M, M]`` the face.
    :param target: ``[T, T, 3]`` RGB in [0, 1], or a glance. :param mesh_xyz: ``[468, 3]`` in [0, 1].
    """
    seen, face = resize_map(occluded, _SIZE), resize_map(mask, _SIZE)
    brows = float(mesh_xyz[[*LEFT_BROW, *RIGHT_BROW], 1].mean())
    eyes = float(mesh_xyz[[*LEFT_EYE, *RIGHT_EYE], 1].mean())
    rows = ((np.arange(_SIZE, dtype=np.float32) + 0.5) / _SIZE)[:, None]
    skin = (face > 0.5) & (seen < 0.3)
    if skin.sum() < 64 or not (seen * (rows < brows) * face).any():
        return np.zeros_like(occluded)
    color = np.log(Glance.of(target).rgb[0].permute(1, 2, 0).numpy() + 0.05)
    color = color - np.median(color[skin], axis=0)
    light = color.mean(2)
    # A far cheek in the shade is darker than the skin, though not as black hair is, and has its hue.
    lock = np.maximum(np.abs(color - light[..., None]).max(2), np.maximum(light, -light - _SHADE))
    beside = smoothstep((_BESIDE - outline_distance(mesh_xyz)) / 0.03)
    upper = smoothstep((eyes - rows) / 0.02)
    hair = np.maximum(upper * _plainly(np.abs(color).max(2), _FRINGE), beside * _plainly(lock, _LOCK)) * seen
    hanging = grown(hair * smoothstep((brows - rows) / 0.03), hair, _HANGS)
    return np.minimum(occluded, resize_map(hanging, occluded.shape[0]))


def _plainly(difference: FloatArray, limits: tuple[float, float]) -> FloatArray:
    """Where colours differ plainly, ``[n, n]`` in [0, 1], without threads."""
    least, sure = limits
    other = smoothstep((to_array(gaussian_blur(to_tensor(difference), 1.0)) - least) / (sure - least))
    return -widest(-widest(other, 2), 1)

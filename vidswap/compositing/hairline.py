"""Hair of the new face that would hang over the target's bare forehead.

The generator draws the source's hairline. Where it lies lower than the target's, a strip of drawn hair would
end in the target's skin. Such places are left out of the mask: the forehead there stays the target's.
"""

from __future__ import annotations

import numpy as np

from vidswap.compositing.arrays import (
    gaussian_blur,
    resize_map,
    smoothstep,
    to_array,
    to_tensor,
    widest,
)
from vidswap.compositing.glance import GLANCE_SIZE as _SIZE
from vidswap.compositing.glance import Glance
from vidswap.landmarks import LEFT_BROW, RIGHT_BROW
from vidswap.records import FloatArray

_DARKER = 14.0
"""L* by which drawn hair is darker than the skin that it would cover, after broad light is taken off."""
_ABOVE_BROWS = 0.03
"""Part of the crop above the brows where the forehead begins."""


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

"""The shade under a drawn jaw, where the target's jaw reaches lower.

The outlines of two faces agree in their meshes better than in their pictures: inside the target's outline the
drawing may already show the shade under its jaw. Pasted, that is a dark crease, with the rest of the target's
own jaw in the light below it: a double chin. Such shade is told from the two pictures, as places along the
outline, below the mouth and in one piece with what lies beyond, where the drawing is darker beside its cheeks
than the target's skin beside its own. There the drawn skin around is carried on, as far as the target's jaw.
"""

from __future__ import annotations

import numpy as np

from vidswap.compositing.arrays import (
    gaussian_blur,
    grown,
    resize_map,
    smoothstep,
    to_array,
    to_tensor,
    widest,
)
from vidswap.compositing.background import with_skin
from vidswap.compositing.beard import bare_skin, cheeks_seen
from vidswap.compositing.glance import GLANCE_SIZE as _SIZE
from vidswap.compositing.glance import Glance
from vidswap.compositing.masks import outline_distance
from vidswap.landmarks import MOUTH
from vidswap.records import FloatArray

_DARKER = (4.0, 10.0)
"""L* by which the drawing may, and must, be darker there than the target, each beside its own cheeks."""
_OUTSIDE = (-0.035, -0.025)
"""Parts of the crop beyond the outline from which on it is looked for."""
_INSIDE = (0.048, 0.06)
"""The same inside, up to which, and from which not."""
_BEGINS = (-0.03, 0.012)
"""The same between which it begins: what is dark further in only is no shade of the jaw."""
_BELOW = 0.05
"""Part of the crop below the mouth from which on it is looked for in full."""
_STEPS = 14
"""Pixels over which it is followed into the face."""
_DEEP = 0.01
"""Part of the crop inside the outline from which on skin is carried on."""
_LEAST = 0.05


def carry_jaw_on(
    drawn: FloatArray,
    target: FloatArray | Glance,
    mask: FloatArray,
    mesh_xyz: FloatArray,
    *,
    glance: Glance | None = None,
    occluded: FloatArray | None = None,
) -> FloatArray:
    """The new face with skin in place of the shade under its jaw, as far as the target's jaw reaches.

    :param drawn: ``[S, S, 3]`` RGB in [0, 1]. :param target: ``[T, T, 3]`` of the same quad, or a glance.
    :param mask: ``[M, M]`` in [0, 1], the face. :param mesh_xyz: ``[468, 3]`` of the target, in [0, 1].
    :param glance: of ``drawn``, where it was made already.
    :param occluded: ``[n, n]`` what is in front of the target's face.
    :return: like ``drawn``; the very same where there is nothing to mend.
    """
    cheeks = cheeks_seen(mask, mesh_xyz)
    if cheeks is None:
        return drawn
    place = ((np.arange(_SIZE, dtype=np.float32) + 0.5) / _SIZE)[:, None]
    inside, lips = outline_distance(mesh_xyz), float(mesh_xyz[list(MOUTH), 1].mean())
    ring = smoothstep((inside - _OUTSIDE[0]) / (_OUTSIDE[1] - _OUTSIDE[0]))
    ring = ring * smoothstep((_INSIDE[1] - inside) / (_INSIDE[1] - _INSIDE[0]))
    ring = ring * smoothstep((place - lips) / _BELOW)
    if occluded is not None:
        ring = ring * (1 - np.clip(resize_map(occluded, _SIZE), 0, 1))
    glance, other = Glance(drawn) if glance is None else glance, Glance.of(target)
    darker = to_array(gaussian_blur(to_tensor(other.lab[..., 0] - glance.lab[..., 0]), 0.8))
    darker = smoothstep((darker - np.median(darker[cheeks]) - _DARKER[0]) / (_DARKER[1] - _DARKER[0]))
    # A beard, a collar or hair of the target is none of this.
    shade = darker * ring * bare_skin(other.lab, cheeks, inside)
    begins = shade * (inside > _BEGINS[0]) * (inside < _BEGINS[1])
    if begins.max(initial=0.0) < _LEAST:
        return drawn
    there = (grown(begins.astype(np.float32), shade.astype(np.float32), _STEPS) * ring).astype(np.float32)
    known = (1 - widest(there, 2)) * smoothstep(inside / _DEEP)
    return with_skin(drawn, glance, there, known.astype(np.float32))

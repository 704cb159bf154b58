"""The generator's own background where the new face is narrower than the target's.

The mask follows the target's outline and, roughly, that of the face as drawn. Where the drawn cheek ends
before both say so, a bright sliver of the generator's background would be pasted at the jaw; left to the
target, the sliver would show its beard. Skin is redder than what surrounds it, in any light, so such places
are told by their colour, and the drawn skin beside them is carried on. Skin in full light is paler than skin
in shade, and so are the whites of an eye: what is taken for background is also nearer to the colours beyond
the face there than to those of the face, and in one piece with what lies beyond it.
"""

from __future__ import annotations

import numpy as np
import torch

from vidswap.compositing.arrays import (
    enlarged_part,
    gaussian_blur,
    grown,
    resize_map,
    smoothstep,
    span_of,
    to_tensor,
    widest,
)
from vidswap.compositing.glance import GLANCE_SIZE as _SIZE
from vidswap.compositing.glance import Glance
from vidswap.compositing.masks import outline_distance
from vidswap.landmarks import LEFT_EYE, RIGHT_EYE
from vidswap.records import FloatArray

_LESS_RED = (5.0, 11.0)
"""a* by which something may, and must, be less red than the skin. Within faces 97 % of the pixels were less
than 14 below the median, nearly all of the rest eyes and teeth."""
_SHADE = (16.0, 26.0)
"""L* by which it may, and must not, be darker: hair is no background."""
_INSIDE = (0.05, 0.07)
"""Parts of the crop inside the outline up to which, and from which not, it is looked for."""
_OUTSIDE = (-0.018, -0.004)
"""The same beyond it: little, since a beard that is followed over drawn skin must not end in the target's own
background."""
_ON_HEAD = (-0.085, -0.065)
"""The same where the target shows hair or skin of its own there."""
_TEMPLES = 0.12
"""Part of the crop above the eyes from which on it is looked for."""
_NEARBY = 6.0
"""Standard deviation of what face and background are told apart by, in 1/128 of the crop."""
_DEEP, _BEYOND = 0.07, -0.02
"""Parts of the crop inside the outline from which on there is face only, and up to which there is none."""
_BETWEEN = (0.5, 0.8)
"""Part of the way from the face's colour to the background's at which a pixel may, and must, be that."""
_STEPS = 12
"""Pixels over which background is followed into the face."""
_SPREAD, _FAR_SPREAD, _FAR_SHARE = 2.5, 6.0, 0.01
"""Standard deviations of what skin is carried on from, in 1/128 of the crop, and the weight of the second."""
_LEAST = 0.05


def drawn_background(lab: FloatArray, skin: np.ndarray) -> FloatArray:
    """Where a drawn face ``[n, n, 3]`` in L*a*b* is bright and not as red as its skin, ``[n, n]`` in [0, 1].

    :param skin: ``[n, n]`` booleans, mostly skin. A colourless face has no such place.
    """
    usual = np.median(lab[skin], axis=0)
    least, sure = _LESS_RED
    paler = smoothstep((usual[1] - lab[..., 1] - least) / (sure - least))
    return (paler * _bright(lab, usual)).astype(np.float32)


def carry_skin_on(
    drawn: FloatArray,
    mask: FloatArray,
    mesh_xyz: FloatArray,
    *,
    glance: Glance | None = None,
    head: FloatArray | None = None,
) -> FloatArray:
    """The new face with skin in place of background along the target's cheeks and jaw.

    :param drawn: ``[S, S, 3]`` RGB in [0, 1]. :param mask: ``[M, M]`` in [0, 1], the face.
    :param mesh_xyz: ``[468, 3]`` of the target in the crop, in [0, 1].
    :param glance: of ``drawn``, where it was made already.
    :param head: ``[128, 128]`` where the target shows its own head, see :func:`own_head`: beards may be
        replaced there further out than the drawn face reaches.
    :return: like ``drawn``; the very same where there is nothing to mend.
    """
    skin = resize_map(mask, _SIZE) > 0.5
    if skin.sum() < 64:
        return drawn
    place = (np.arange(_SIZE, dtype=np.float32) + 0.5) / _SIZE
    inside = outline_distance(mesh_xyz)
    eyes = float(mesh_xyz[[*LEFT_EYE, *RIGHT_EYE], 1].mean())
    ring = smoothstep((_INSIDE[1] - inside) / (_INSIDE[1] - _INSIDE[0]))
    outer = smoothstep((inside - _OUTSIDE[0]) / (_OUTSIDE[1] - _OUTSIDE[0]))
    if head is not None:
        far = smoothstep((inside - _ON_HEAD[0]) / (_ON_HEAD[1] - _ON_HEAD[0]))
        outer = np.maximum(outer, head * far)
    ring = ring * outer
    ring = ring * smoothstep((place[:, None] - eyes + _TEMPLES) / 0.04)
    glance = Glance(drawn) if glance is None else glance
    lab = glance.lab
    paler = drawn_background(lab, skin)
    wanted = inside > (0 if head is None else _ON_HEAD[0])
    if (paler * ring)[wanted].max(initial=0.0) < _LEAST:
        return drawn
    paler = paler * like_beyond(lab, paler, inside)
    there = (grown(paler * (inside < 0), paler, _STEPS) * ring).astype(np.float32)
    if there[wanted].max(initial=0.0) < _LEAST:
        return drawn
    known = (1 - widest(paler, 1)) * _bright(lab, np.median(lab[skin], axis=0))
    return with_skin(drawn, glance, there, known)


def with_skin(drawn: FloatArray, glance: Glance, there: FloatArray, known: FloatArray) -> FloatArray:
    """A picture ``[S, S, 3]`` with the skin around in some places.

    :param glance: of ``drawn``. :param there: ``[128, 128]`` the places, in [0, 1].
    :param known: ``[128, 128]`` what is skin, and may be carried on.
    """
    # A pixel wider than seen: at the edge of the cheek the two are mixed.
    shown = gaussian_blur(to_tensor(widest(there, 1)), 0.8)
    known_skin = to_tensor(known + 1e-5)
    carried = _spread(glance.rgb * known_skin) / _spread(known_skin)
    # Where nothing changes the picture stays as it is: most of it.
    inner = span_of(shown[0, 0].numpy() > 0, room=1)
    size, out = drawn.shape[0], np.array(drawn, dtype=np.float32)
    rows, columns = (slice(s.start * size // _SIZE, -(-s.stop * size // _SIZE)) for s in inner)
    share, colour = (enlarged_part(one, size, (rows, columns)) for one in (shown, carried))
    part = torch.lerp(to_tensor(drawn)[..., rows, columns], colour, share)
    out[rows, columns] = part[0].permute(1, 2, 0).numpy()
    return out


def _spread(values: torch.Tensor) -> torch.Tensor:
    return gaussian_blur(values, _SPREAD) + _FAR_SHARE * gaussian_blur(values, _FAR_SPREAD)


def like_beyond(lab: FloatArray, paler: FloatArray, inside: FloatArray) -> FloatArray:
    """Where a drawing has the colour of what lies beyond the face nearby, ``[n, n]`` in [0, 1].

    :param lab: ``[n, n, 3]`` in L*a*b*. :param paler: its :func:`drawn_background`.
    :param inside: ``[n, n]`` signed distance to the outline in parts of the crop, positive inside.
    """
    colour = to_tensor(lab[..., 1:])
    beyond = paler * (inside < _BEYOND)
    face = np.where(inside > _DEEP, 1.0, (1 - paler) * (inside > 0))
    near = []
    for weight in (face, beyond):
        known = to_tensor(weight + 1e-6)
        near.append(gaussian_blur(colour * known, _NEARBY) / gaussian_blur(known, _NEARBY))
    way = near[1] - near[0]
    part = ((colour - near[0]) * way).sum(1) / way.square().sum(1).clamp_min(1.0)
    least, sure = _BETWEEN
    return smoothstep((part[0].numpy() - least) / (sure - least))


def _bright(lab: FloatArray, usual: FloatArray) -> FloatArray:
    shade, dark = _SHADE
    return smoothstep((lab[..., 0] - usual[0] + dark) / (dark - shade)).astype(np.float32)

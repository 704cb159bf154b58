"""The rim of the target's beard that would be left around a new face without one.

The mask of a face ends at the mesh's oval, and a beard does not: hair of jaw and chin hangs beyond the
outline. Where the new face has bare skin there, what is left of the beard frames it like a chin strap. Such
hair is told from the two pictures: the target is darker than the new face, below the nose, in one piece with
hair inside the outline. A collar, the shadow under a chin or long hair do not go on inside, or not far.
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
from vidswap.compositing.background import drawn_background, like_beyond
from vidswap.compositing.glance import GLANCE_SIZE as _SIZE
from vidswap.compositing.glance import Glance
from vidswap.compositing.masks import outline_distance
from vidswap.landmarks import MOUTH
from vidswap.records import FloatArray

_NOSE_BASE = 2
"""Mesh point between nose and upper lip."""
_SEED = (6.0, 16.0)
"""L* by which hair may, and must, be darker than the skin drawn in its place; broad light is taken off."""
_GROW = (1.0, 9.0)
"""The same for what is in one piece with it: the thin hair of a beard's edge."""
_GREYER = 0.7
"""L* that one unit of chroma less counts as: a beard in full light is greyer than skin, and hardly darker."""
_OFF_COLOUR, _NO_SKIN = 14.0, 26.0
"""Distance in a*, b* from the new face's cheeks at which the drawing may, and must, be no skin."""
_SHADE, _DARK = 26.0, 40.0
"""The same downwards in L*: a neck lies in the shade of its chin."""
_BAND = (0.014, 0.06)
"""Parts of the crop inside the outline between which a beard is looked for: the shadow under a chin may
begin a little inside of where the mesh puts the jaw."""
_REACH, _REACH_SURE = 0.055, 0.085
"""Parts of the crop beyond the outline up to which its thin hair, and what is surely hair, are followed: in
blurred frames of a head thrown back the mesh ends well above the chin."""
_WALL = -0.07
"""Part of the crop beyond the outline from which on a bright thing without the colour of skin is no beard."""
_AS_BRIGHT = 8.0
"""L* below the cheeks' at which such a thing may begin."""
_RIM = 0.045
"""Part of the crop inside the outline from which the mask is opaque by itself."""
_STEPS = 18
"""Pixels over which anything is followed."""
_FEW, _MANY = 0.4, 0.65
"""Share of that band around the chin that is hair at most without, and at least with, a beard. Two women had
up to 0.13 in 44 frames, a bearded man from 0.84 in 30; against his own beard, drawn too light, 0.3 to 0.7."""
_CLOSE_PX, _WIDEN_PX, _FEATHER_PX = 4, 2, 2.0
_LEAST = 0.02
_FRAMES, _FALL_FRAMES = 6.0, 120.0
"""Time constants with which the share rises and falls, in frames: nobody is shaven within a shot, but a chin
that is drawn dark for a while hides a beard."""


def beard_beyond(
    drawn: FloatArray | Glance,
    target: FloatArray | Glance,
    mask: FloatArray,
    mesh_xyz: FloatArray,
    *,
    occluded: FloatArray | None = None,
    share: float | None = None,
) -> tuple[FloatArray | None, float]:
    """Opacity of the new face where the target's beard hangs over the outline, to be joined with the mask.

    :param drawn: ``[S, S, 3]`` RGB in [0, 1]. :param target: ``[T, T, 3]`` of the same quad. Or glances.
    :param mask: ``[M, M]`` the face. :param mesh_xyz: ``[468, 3]`` of the target in the crop, in [0, 1].
    :param occluded: ``[n, n]``, 1 where something is in front of the face, or behind it.
    :param share: what the call for the frame before returned; None at a cut.
    :return: ``[128, 128]`` in [0, 1], or None when there is no such place; and how much of the chin is hair
        that the new face has not, smoothed over time: whether there is a beard must not flicker.
    """
    place = (np.arange(_SIZE, dtype=np.float32) + 0.5) / _SIZE
    nose, lip = float(mesh_xyz[_NOSE_BASE, 1]), float(mesh_xyz[list(MOUTH), 1].max())
    cheeks = cheeks_seen(mask, mesh_xyz)
    if cheeks is None:
        return None, share or 0.0
    one, two = Glance.of(drawn).lab, Glance.of(target).lab
    inside = outline_distance(mesh_xyz)
    bare = bare_skin(one, cheeks, inside)
    where = bare * smoothstep((place[:, None] - nose) / 0.04)
    seen, free = np.ones_like(bare), np.ones_like(bare)
    if occluded is not None:
        covered = _broad_only(resize_map(occluded, _SIZE))
        seen, where = 1 - covered, where * (1 - covered)
        # A hand reaches into the face. What ends at the jaw is background, or the neck.
        free = 1 - grown(covered * (inside > _BAND[1] / 2), covered, _STEPS)
    darker = _darker(one, two, cheeks)
    hair, thin = (where * smoothstep((darker - low) / (high - low)) for low, high in (_SEED, _GROW))
    band = (inside > _BAND[0]) & (inside < _BAND[1])
    share = _smoothed(hair, seen, band & (place[:, None] > lip), share)
    grows = float(smoothstep((np.float32(share) - _FEW) / (_MANY - _FEW)))
    if grows < _LEAST:
        return None, share
    # No thresholds, which pixels would cross to and fro.
    limit = (one * smoothstep((inside + end) / 0.012) for one, end in ((thin, _REACH), (hair, _REACH_SURE)))
    beyond = grown(hair * band, np.maximum(*limit), _STEPS)
    closed = -widest(-widest(beyond, _CLOSE_PX), _CLOSE_PX)
    wide = to_tensor(widest(closed, _WIDEN_PX))
    # Not into what surrounds the neck, drawn or seen, nor over a hand, however soft the edge is.
    soft = to_array(gaussian_blur(wide, _FEATHER_PX)) * bare * free * (1 - _behind(two, cheeks, inside))
    border = np.minimum(place, 1 - place) - 1.0 / _SIZE
    # Well inside the outline the mask itself has the say, and who stands in front of the face.
    rim = smoothstep((_RIM - inside) / 0.012) * smoothstep(np.minimum(border[:, None], border) / 0.02)
    soft = (grows * soft * rim).astype(np.float32)
    return (soft if soft.max() >= _LEAST else None), share


def own_head(
    target: FloatArray | Glance, mask: FloatArray, mesh_xyz: FloatArray, occluded: FloatArray | None
) -> FloatArray | None:
    """Where the target shows its own head or neck, not what is before or behind it, ``[128, 128]`` in [0, 1].

    For :func:`vidswap.compositing.background.carry_skin_on`: a beard whose new face is narrower than it.

    :param target: ``[T, T, 3]`` RGB in [0, 1], or a glance. :param mask: ``[M, M]`` the face.
    :param mesh_xyz: ``[468, 3]`` in the crop, in [0, 1].
    :param occluded: ``[n, n]``, 1 where something is in front of the face, or behind it; without it a dark
        background cannot be told from a beard, and the answer is None.
    """
    if occluded is None:
        return None
    cheeks = cheeks_seen(mask, mesh_xyz)
    if cheeks is None:
        return None
    behind = _behind(Glance.of(target).lab, cheeks, outline_distance(mesh_xyz))
    return (1 - behind) * (1 - _broad_only(resize_map(occluded, _SIZE)))


def wears_beard(share: float | None) -> bool:
    """Whether a share that :func:`beard_beyond` returned is that of a beard; None may be."""
    return share is None or share > _FEW


def above_beard(mask: FloatArray, mesh_xyz: FloatArray) -> FloatArray:
    """The part of a mask ``[n, n]`` above the upper lip: skin in bearded faces too, for measuring colour.

    :param mesh_xyz: ``[468, 3]`` of the target in the crop, in [0, 1].
    """
    place = (np.arange(len(mask), dtype=np.float32) + 0.5) / len(mask)
    share = smoothstep((float(mesh_xyz[_NOSE_BASE, 1]) + 0.02 - place) / 0.04)
    return mask * share[:, None]


def cheeks_seen(mask: FloatArray, mesh_xyz: FloatArray) -> np.ndarray | None:
    """The face above the base of the nose, ``[128, 128]`` booleans; None where too little of it, or of what
    lies below, is seen."""
    face = resize_map(mask, _SIZE) > 0.5
    rows = ((np.arange(_SIZE, dtype=np.float32) + 0.5) / _SIZE)[:, None]
    cheeks = face & (rows < float(mesh_xyz[_NOSE_BASE, 1]))
    return cheeks if cheeks.sum() >= 64 and face.sum() - cheeks.sum() >= 64 else None


def _smoothed(hair: FloatArray, seen: FloatArray, chin: np.ndarray, before: float | None) -> float:
    """Share of hair on what is seen of the chin, which a hand may cover."""
    visible = float(seen[chin].sum())
    if visible < 0.3 * max(float(chin.sum()), 1.0):
        return before or 0.0
    now = float(hair[chin].sum()) / visible
    if before is None:
        return now
    frames = _FRAMES if now > before else _FALL_FRAMES
    return before + (1 - float(np.exp(-1.0 / frames))) * (now - before)


def bare_skin(lab: FloatArray, cheeks: np.ndarray, inside: FloatArray) -> FloatArray:
    """Where a drawing ``[n, n, 3]`` in L*a*b* has bare skin, ``[n, n]`` in [0, 1]."""
    usual = np.median(lab[cheeks], axis=0)
    away = np.hypot(lab[..., 1] - usual[1], lab[..., 2] - usual[2])
    skin = smoothstep((_NO_SKIN - away) / (_NO_SKIN - _OFF_COLOUR))
    skin = skin * smoothstep((lab[..., 0] - usual[0] + _DARK) / (_DARK - _SHADE))
    paler = drawn_background(lab, cheeks)
    around = paler * like_beyond(lab, paler, inside)
    # In one piece with what lies far out: the white stubble of an old man's chin is pale as well.
    skin = skin * (1 - grown(around * (inside < -_REACH_SURE), around, _STEPS))
    return to_array(gaussian_blur(to_tensor(-widest(-skin, 1)), 0.7))


def _behind(lab: FloatArray, cheeks: np.ndarray, inside: FloatArray) -> FloatArray:
    """Where a target ``[n, n, 3]`` in L*a*b* shows what is behind the head, ``[n, n]`` in [0, 1].

    A neck is as red as the cheeks and a beard is darker, or in one piece with the chin.
    """
    bright = smoothstep((lab[..., 0] - np.median(lab[cheeks, 0]) + _AS_BRIGHT) / _AS_BRIGHT)
    paler = drawn_background(lab, cheeks) * bright
    behind = grown(paler * (inside < _WALL), paler * (inside < 0), _STEPS)
    # A dark thing on a wall is as far back as the wall. Not up to the very edge: pixels there are mixed, and
    # would be left as a dark line.
    behind = -widest(-widest(_broad_only(behind), _CLOSE_PX), _CLOSE_PX + 2)
    return to_array(gaussian_blur(to_tensor(behind), 0.7))


def _darker(one: FloatArray, two: FloatArray, cheeks: np.ndarray) -> FloatArray:
    """By how much the second of two pictures in L*a*b* is darker and greyer than the first, ``[n, n]``."""
    colour = [np.hypot(lab[..., 1], lab[..., 2]) for lab in (one, two)]
    difference = one[..., 0] - two[..., 0] + _GREYER * (colour[0] - colour[1])
    smooth = to_array(gaussian_blur(to_tensor(difference), 1.0))
    # Light from the side: a line through what the halves of the cheeks say.
    columns = np.broadcast_to(np.arange(_SIZE, dtype=np.float32), cheeks.shape)
    middle = float(np.median(columns[cheeks]))
    halves = [cheeks & (columns <= middle), cheeks & (columns >= middle)]
    (x0, y0), (x1, y1) = ((np.median(columns[h]), np.median(smooth[h])) for h in halves)
    light = y0 + (y1 - y0) * np.clip((columns - x0) / max(x1 - x0, 1.0), -0.5, 1.5)
    return smooth - light


def _broad_only(occluded: FloatArray) -> FloatArray:
    """A map without its specks and threads, of which a beard gives many: nothing thinner than a finger."""
    return widest(-widest(-occluded, 2), 2)

"""Open eyes are as dark as the footage's.

Pupils and lashes are close to black in anybody's face; how close they come in a picture is a matter of
its light and lens. A mixed face is often drawn flatter than the target, and is brightened to its skin, so
that its eyes look as if behind a veil. Here the dark of either eye is deepened until it stands off the skin
around as far as the target's does. Only the dark: the white of an eye stays as it is, and so does the hue of
an iris.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vidswap.compositing.arrays import luma, smoothstep, to_array, to_tensor
from vidswap.compositing.lids import TELLING, EyePatch, LidState, eye_patch
from vidswap.landmarks import eye_aspect
from vidswap.records import FloatArray

_DARK, _SKIN = 0.05, 0.7
"""Quantiles of the light around an eye that stand for its pupil and lashes, and for skin."""
_MOST = 1.8
"""Deepest: so many times the drawn contrast."""
_FRAMES = 10.0
"""Time constant of the contrast in frames."""
_LEAST_PIXELS = 60
_COVERED = 0.2
"""Opacity of what is in front, from which on it is no eye."""
_FULL = 0.45
"""Darkness below the skin, as a share of it, that is deepened in full: lids and iris are by less."""
_SOFT = 0.4
"""Share of the patch's radius over which it fades."""
_NEARLY = 0.02
"""A contrast this close to the drawn one is left alone."""


def deepen_eyes(
    image: FloatArray,
    drawn_xy: FloatArray | None,
    target: FloatArray,
    target_xy: FloatArray,
    lids: LidState | None,
    before: NDArray[np.float64] | None = None,
    *,
    share: float = 1.0,
    occluded: FloatArray | None = None,
) -> tuple[FloatArray, NDArray[np.float64] | None]:
    """The new face with eyes that stand off its skin as the target's do.

    :param image: ``[S, S, 3]`` the new face, RGB in [0, 1], in the target's light.
    :param drawn_xy: ``[468, 2 or 3]`` its landmarks in [0, 1]; None where they are not to be believed: then
        the eyes lie where they lay in the frame before.
    :param target: ``[T, T, 3]`` the target's crop of the same quad; ``target_xy`` its landmarks.
    :param lids: state of the frame before (see :func:`vidswap.compositing.lend_lids`), None after a cut.
    :param before: the contrasts that the frame before gave, None after a cut.
    :param share: of the missing contrast that is made up for, 0 to 1.
    :param occluded: ``[n, n]`` what is in front of the target's face.
    :return: like ``image``, the very same where nothing is to be done; and by how many times the contrast of
        either eye is raised, ``[2]``.
    """
    if share <= 0 or (drawn_xy is None and (lids is None or lids.frames == 0)):
        return image, before
    offset = np.zeros((2, 2, 2)) if lids is None else lids.offset
    depth, out = np.ones(2) if before is None else before.copy(), image
    for eye, opening in enumerate(_opening(target_xy, lids)):
        patch = eye_patch(eye, image.shape[0], drawn_xy, target_xy, offset[eye])
        if patch is None:
            continue
        told = _contrast(image, patch, target, occluded) if opening > TELLING else None
        if told is not None:
            now = float(np.clip(told, 1.0, _MOST))
            depth[eye] += (now - depth[eye]) * (1.0 if before is None else 1 / _FRAMES)
        missing = share * (depth[eye] - 1)
        if missing < _NEARLY:
            continue
        if out is image:
            out = image.copy(order="K")
        _deepen(out, patch, 1 + missing, occluded)
    return out, depth


def _opening(target_xy: FloatArray, lids: LidState | None) -> NDArray[np.float64]:
    """``[2]`` of the target's eyes, over their own when open."""
    return np.ones(2) if lids is None else eye_aspect(target_xy) / lids.wide


def _contrast(
    image: FloatArray, patch: EyePatch, target: FloatArray, occluded: FloatArray | None
) -> float | None:
    """How many times the drawn contrast the target's is; None where too little is seen of it."""
    seen = patch.radii < 1
    if occluded is not None:
        seen = seen & (to_array(patch.shown(occluded)) < _COVERED)
    if seen.sum() < _LEAST_PIXELS:
        return None
    part = image[patch.rows, patch.columns]
    drawn, shown = (_dark_share(_light(each)[seen]) for each in (part, to_array(patch.shown(target))))
    return shown / max(drawn, 1e-3)


def _dark_share(light: FloatArray) -> float:
    """By how much of the skin's light the dark is darker, 0 to 1."""
    dark, skin = np.quantile(light, (_DARK, _SKIN))
    return float((skin - dark) / max(float(skin), 1e-3))


def _light(picture: FloatArray) -> FloatArray:
    return to_array(luma(to_tensor(picture)))


def _deepen(image: FloatArray, patch: EyePatch, times: float, occluded: FloatArray | None) -> None:
    """Scale what is darker than the skin around an eye away from it, in place."""
    part = (patch.rows, patch.columns)
    here = image[part]
    light = _light(here)
    skin = float(np.quantile(light[patch.radii < 1], _SKIN))
    below = np.maximum(skin - light, 0.0)
    weight = smoothstep((1 - patch.radii) / _SOFT) * np.minimum(below / max(_FULL * skin, 1e-3), 1.0)
    if occluded is not None:
        weight = weight * (1 - np.clip(to_array(patch.shown(occluded)), 0, 1))
    deeper = np.maximum(light - (times - 1) * weight * below, 0.0)
    image[part] = here * (deeper / np.maximum(light, 1e-3))[..., None]

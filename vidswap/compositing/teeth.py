"""Teeth are as bright as the footage's.

Teeth are white in anybody's mouth, and what they look like is the light that falls on them. A face that is
brought from pale skin to the target's takes its teeth along into the dark; one that is drawn with its mouth
in the shade has brown ones. So the brightest teeth that the target shows are remembered beside its skin, and
those of the drawn mouth are brought there, channel by channel. Teeth are told by their colour: bright for a
mouth, and not as red as skin and lips. Where the mesh says that they are is not enough, since on thin lips
it is off by as much as they are thick.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from vidswap.compositing.arrays import enlarged_part, gaussian_blur, smoothstep, to_array, to_tensor
from vidswap.compositing.masks import signed_distance
from vidswap.landmarks import INNER_MOUTH, MOUTH, mouth_opening
from vidswap.records import FloatArray

_OPEN = 0.025
"""Opening of a mouth (see :func:`vidswap.landmarks.mouth_opening`) from which it may show teeth."""
_LEAST_AREA = 1.5e-4
"""Part of the crop that teeth fill, before they are believed."""
_TOP = 0.7
"""Quantile of their light above which they are in full light."""
_CHEEKS = (50, 280, 101, 330, 118, 347)
"""Mesh points on skin that is neither bearded nor folded."""
_CHEEK = 0.012
"""Radius around them, as part of the crop."""
_RISE, _FALL = 0.5, 0.01
"""Shares a frame by which brighter and darker teeth are learnt: lips shade them more often than not."""
_LEAST_GAIN, _MOST_GAIN = 0.85, 1.7
_MOST_HUE = 1.25
"""Largest gain of a channel over the mean of the three."""
_DARK, _LIT = 0.2, 0.5
"""Light of a pixel over that of the teeth up to which it stays, and from which on it is gained in full."""
_PALE, _PALER = 0.95, 0.75
"""Redness over that of the skin around the mouth, at which something may, and must, be teeth."""
_AROUND = 0.02
"""Breadth of that skin, as part of the crop."""
_OFF, _SOFT = 0.008, 0.012
"""Parts of the crop by which the mesh's inner lips may be off, and over which what lies between them fades
in."""
_BLUR = 0.001
"""Blur of what is gained, as part of the crop."""
_BLACK = 0.02
"""Light of cheeks from which on they are seen."""
_GRID = 4
"""Pixels from one place to the next where the mouth's outline is looked at."""
_COVERED = 0.2
"""Opacity of what is in front, from which on it is no mouth."""


@dataclass(frozen=True)
class TeethState:
    """The brightest that was seen in the mouths of a track. Start a track, or a shot, with None."""

    target: FloatArray | None
    """``[3]`` RGB of the target's, over the light of its skin; None as long as its mouth was shut."""
    drawn: FloatArray | None
    """The same of the drawn face."""


def light_teeth(
    image: FloatArray,
    drawn_xy: FloatArray | None,
    target: FloatArray,
    target_xy: FloatArray,
    before: TeethState | None = None,
    *,
    share: float = 1.0,
    occluded: FloatArray | None = None,
) -> tuple[FloatArray, TeethState | None]:
    """The new face with teeth as bright and as white as the target's.

    :param image: ``[S, S, 3]`` the new face, RGB in [0, 1], in the target's light.
    :param drawn_xy: ``[468, 2 or 3]`` its landmarks in [0, 1]; None where they are not to be believed: then
        the picture stays as it is.
    :param target: ``[T, T, 3]`` the target's crop of the same quad; ``target_xy`` its landmarks.
    :param before: state of the frame before, None after a cut.
    :param share: of the missing light that is made up for, 0 to 1.
    :param occluded: ``[n, n]`` what is in front of the target's face.
    :return: like ``image``, the very same where nothing is to be done; and the state.
    """
    skin = skin_light(target, target_xy)
    if share <= 0 or drawn_xy is None or skin is None:
        return image, before
    shown, drawn = _mouth(target, target_xy, occluded), _mouth(image, drawn_xy, occluded)
    state = TeethState(
        _brightest(None if before is None else before.target, shown, skin),
        _brightest(None if before is None else before.drawn, drawn, skin),
    )
    if drawn is None or state.target is None or state.drawn is None:
        return image, state
    gain = state.target / np.maximum(state.drawn, 1e-3)
    usual = float(np.clip(gain.mean(), _LEAST_GAIN, _MOST_GAIN))
    gain = usual * np.clip(gain / gain.mean(), 1 / _MOST_HUE, _MOST_HUE)
    light = light_of(drawn.rgb) / max(float(light_of(state.drawn)) * skin, 1e-3)
    weight = drawn.teeth * smoothstep((light - _DARK) / (_LIT - _DARK))
    weight = share * to_array(gaussian_blur(to_tensor(weight), _BLUR * image.shape[0]))
    out = image.copy(order="K")
    out[drawn.part] = np.clip(drawn.rgb * (1 + weight[..., None] * (gain - 1)), 0.0, 1.0)
    return out, state


@dataclass(frozen=True)
class _Mouth:
    """An open mouth in a picture."""

    part: tuple[slice, slice]
    rgb: FloatArray
    """``[h, w, 3]``"""
    teeth: FloatArray
    """``[h, w]`` 1 where something between the lips is as little red as teeth, in light or shade."""
    top: FloatArray | None
    """``[3]`` RGB of teeth in full light; None where too little is seen of them."""


def _mouth(picture: FloatArray, mesh_xy: FloatArray, occluded: FloatArray | None) -> _Mouth | None:
    """The open mouth of a picture ``[S, S, 3]``; None where it is shut, covered or outside."""
    if mouth_opening(mesh_xy) < _OPEN:
        return None
    size, points = picture.shape[0], np.asarray(mesh_xy, np.float32)[:, :2]
    box = mouth_box(points, size, room=_AROUND)
    if box is None:
        return None
    low, high = box
    part = (slice(low[1], high[1]), slice(low[0], high[0]))
    inner, outer = (distance_at(points[list(outline)], low, high, size) for outline in (INNER_MOUTH, MOUTH))
    inside = smoothstep(inner / _SOFT)
    lips, skin = (outer > 0) & (inner < -_OFF), outer < -_OFF
    if occluded is not None:
        cover = to_array(enlarged_part(to_tensor(occluded), size, part))
        if float((cover > _COVERED).mean()) > _COVERED:
            return None
        inside = inside * (1 - np.clip(cover, 0, 1))
        lips, skin = (each & (cover < _COVERED) for each in (lips, skin))
    if not (lips.any() and skin.any()):
        return None
    rgb = np.ascontiguousarray(picture[part])
    red = _redness(rgb)
    # Of lips that are paler than skin (or off the mesh) skin tells.
    usual = max(min(float(np.median(red[each])) for each in (lips, skin)), 1e-3)
    teeth = inside * smoothstep((_PALE - red / usual) / (_PALE - _PALER))
    return _Mouth(part, rgb, teeth, _in_full_light(rgb[teeth > 0.5], size))


def mouth_box(
    points_xy: FloatArray, size: int, *, room: float
) -> tuple[NDArray[np.int_], NDArray[np.int_]] | None:
    """Left top and right bottom of what is around the mouth, in pixels of a picture ``[size, size]``; None
    where that is next to nothing.

    :param room: breadth of the skin around it, as part of the picture.
    """
    around = points_xy[list(MOUTH)]
    low = np.maximum(np.floor((around.min(0) - room) * size), 0).astype(int)
    high = np.minimum(np.ceil((around.max(0) + room) * size) + 1, size).astype(int)
    return None if (high - low < 2 * _GRID).any() else (low, high)


def _in_full_light(teeth: FloatArray, size: int) -> FloatArray | None:
    """Mean ``[3]`` of the brightest of pixels ``[n, 3]``; None of too few."""
    if len(teeth) < _LEAST_AREA * size**2:
        return None
    light = light_of(teeth)
    return teeth[light >= np.quantile(light, _TOP)].mean(0)


def distance_at(outline: FloatArray, low: np.ndarray, high: np.ndarray, size: int) -> FloatArray:
    """Signed distance to an outline ``[n, 2]`` at the pixels of a part, in parts of the crop, ``[h, w]``."""
    width, height = high - low
    x, y = (a + _GRID * (np.arange(-(-n // _GRID)) + 0.5) for a, n in zip(low, (width, height), strict=True))
    at = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2) / size
    coarse = torch.from_numpy(signed_distance(outline, at).reshape(1, 1, len(y), len(x)))
    fine = F.interpolate(coarse, scale_factor=_GRID, mode="bilinear", align_corners=False)
    return fine[0, 0, :height, :width].numpy()


def _brightest(before: FloatArray | None, mouth: _Mouth | None, skin: float) -> FloatArray | None:
    """What is remembered of the brightest teeth, with this frame's mouth."""
    if mouth is None or mouth.top is None:
        return before
    now = (mouth.top / skin).astype(np.float32)
    if before is None:
        return now
    return before + (_RISE if now.sum() > before.sum() else _FALL) * (now - before)


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
    return rgb @ np.array([0.299, 0.587, 0.114], np.float32)


def _redness(rgb: FloatArray) -> FloatArray:
    """How much more red than green there is, -1 to 1."""
    return (rgb[..., 0] - rgb[..., 1]) / np.maximum(rgb.sum(-1), 1e-3)

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

from vidswap.compositing.arrays import gaussian_blur, smoothstep, to_array, to_tensor
from vidswap.compositing.mouth import light_of, mouth_place, redness_of, skin_light
from vidswap.landmarks import mouth_opening
from vidswap.records import FloatArray

_OPEN = 0.025
"""Opening of a mouth (see :func:`vidswap.landmarks.mouth_opening`) from which it may show teeth."""
_LEAST_AREA = 1.5e-4
"""Part of the crop that teeth fill, before they are believed."""
_TOP = 0.7
"""Quantile of their light above which they are in full light."""
_LEAST_LIGHT = 0.35
"""Light of teeth in full light over that of the skin, at least. Teeth of five talkers had 0.58 to 1.2; the
dark of a mouth wide open, which is no redder than teeth, 0.16 to 0.27."""
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
_SOFT = 0.012
"""Part of the crop over which what lies between the mesh's inner lips fades in."""
_BLUR = 0.001
"""Blur of what is gained, as part of the crop."""
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
    size = picture.shape[0]
    place = mouth_place(mesh_xy, size, room=_AROUND, occluded=occluded)
    if place is None:
        return None
    inside = smoothstep(place.inner / _SOFT)
    lips, skin = place.lips, place.skin
    if place.cover is not None:
        if float((place.cover > _COVERED).mean()) > _COVERED:
            return None
        inside = inside * (1 - np.clip(place.cover, 0, 1))
    if not (lips.any() and skin.any()):
        return None
    rgb = np.ascontiguousarray(picture[place.part])
    red = redness_of(rgb)
    # Of lips that are paler than skin (or off the mesh) skin tells.
    usual = max(min(float(np.median(red[each])) for each in (lips, skin)), 1e-3)
    teeth = inside * smoothstep((_PALE - red / usual) / (_PALE - _PALER))
    return _Mouth(place.part, rgb, teeth, _in_full_light(rgb[teeth > 0.5], size))


def _in_full_light(teeth: FloatArray, size: int) -> FloatArray | None:
    """Mean ``[3]`` of the brightest of pixels ``[n, 3]``; None of too few."""
    if len(teeth) < _LEAST_AREA * size**2:
        return None
    light = light_of(teeth)
    return teeth[light >= np.quantile(light, _TOP)].mean(0)


def _brightest(before: FloatArray | None, mouth: _Mouth | None, skin: float) -> FloatArray | None:
    """What is remembered of the brightest teeth, with this frame's mouth."""
    if mouth is None or mouth.top is None:
        return before
    now = (mouth.top / skin).astype(np.float32)
    if light_of(now) < _LEAST_LIGHT:
        return before
    if before is None:
        return now
    return before + (_RISE if now.sum() > before.sum() else _FALL) * (now - before)

"""Lips have the footage's colour, and are no brighter than skin.

The colour match (:mod:`vidswap.compositing.color`) goes by skin. What it does to skin it does to lips, which
come out mauve where skin has to lose yellow, and grey in a dim light. The target's own lips tell what red is
in that light, so the new ones are brought towards it as a whole; their folds and their glints stay.

As filmed, lips are seldom brighter than the cheeks. A face that is brought from dark skin to a pale target's
takes them along into the light: pink becomes all but white, as if lit from within. So what of the lips is
brighter than the cheeks in broad is brought down to them.
"""

from __future__ import annotations

import numpy as np

from vidswap.compositing.arrays import gaussian_blur, smoothstep, to_array, to_tensor
from vidswap.compositing.mouth import MouthPlace, light_of, mouth_place, redness_of, skin_light
from vidswap.records import FloatArray

_MOST = 0.9
"""Light of lips over that of cheeks that is theirs to have. Its median over the lips was 0.48 to 0.94 in
twelve faces as filmed, and up to 1.06 in swaps of them."""
_BROAD = 0.006
"""Blur beyond which light is no glint, as part of the crop."""
_SOFT = 0.006
"""Parts of the crop over which lips fade in from their outlines."""
_ROOM = 0.03
"""Breadth of what is looked at around the mouth, as part of the crop."""
_LITTLE = 0.01
"""Excess that is left alone, as a share of the light."""
_FRAMES = 6.0
"""Time constant of the lips' colour in frames."""
_LEAST_AREA = 3e-4
"""Part of the crop that lips fill, before their colour is believed."""
_MOST_TINT = 1.3
"""Largest factor of a channel."""
_DARK = 0.03
"""Added to both sides of a ratio of light."""


def tint_lips(
    image: FloatArray,
    drawn_xy: FloatArray | None,
    target: FloatArray,
    target_xy: FloatArray,
    before: FloatArray | None = None,
    *,
    share: float = 1.0,
    occluded: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray | None]:
    """The new face with lips of the target's colour.

    :param image: ``[S, S, 3]`` the new face, RGB in [0, 1], in the target's light.
    :param drawn_xy: ``[468, 2 or 3]`` its landmarks in [0, 1]; None where they are not to be believed: then
        the picture stays as it is.
    :param target: ``[T, T, 3]`` the target's crop of the same quad; ``target_xy`` its landmarks.
    :param before: state of the frame before, None after a cut.
    :param share: of the difference that is made up for, 0 to 1.
    :param occluded: ``[n, n]`` what is in front of the target's face.
    :return: like ``image``, the very same where nothing is to be done; and the state, ``[3]`` logarithms of
        the gain of each channel at a share of 1.
    """
    if share <= 0 or drawn_xy is None:
        return image, before
    place = mouth_place(drawn_xy, image.shape[0], room=_ROOM, occluded=occluded)
    if place is None:
        return image, before
    wanted = _colour(target, mouth_place(target_xy, target.shape[0], room=_ROOM, occluded=occluded))
    own = _colour(image, place)
    now = before
    if wanted is not None and own is not None:
        most = np.log(_MOST_TINT)
        told = np.clip(np.log((wanted + _DARK) / (own + _DARK)), -most, most).astype(np.float32)
        now = told if before is None else before + (told - before) / _FRAMES
    if now is None:
        return image, None
    out = image.copy(order="K")
    gain = np.exp(share * now) - 1
    out[place.part] = np.clip(image[place.part] * (1 + _softly(place)[..., None] * gain), 0.0, 1.0)
    return out, now


def _colour(picture: FloatArray, place: MouthPlace | None) -> FloatArray | None:
    """RGB ``[3]`` of the lips in a picture ``[S, S, 3]``; None where too little is seen of them, or where
    what is seen is less red than the skin beside it: hair, or a hand."""
    if place is None or not place.skin.any() or place.lips.sum() < _LEAST_AREA * picture.shape[0] ** 2:
        return None
    lips, skin = (np.median(picture[place.part][each], 0) for each in (place.lips, place.skin))
    return lips if redness_of(lips) > redness_of(skin) else None


def _softly(place: MouthPlace) -> FloatArray:
    """``[h, w]`` 1 on lips, as far as they are seen, fading in from their outlines."""
    lips = smoothstep(place.outer / _SOFT) * smoothstep(-place.inner / _SOFT)
    return lips if place.cover is None else lips * (1 - np.clip(place.cover, 0, 1))


def dim_lips(
    image: FloatArray,
    drawn_xy: FloatArray | None,
    target: FloatArray,
    target_xy: FloatArray,
    *,
    share: float = 1.0,
    occluded: FloatArray | None = None,
) -> FloatArray:
    """The new face with lips that are no brighter than its skin.

    :param image: ``[S, S, 3]`` the new face, RGB in [0, 1], in the target's light.
    :param drawn_xy: ``[468, 2 or 3]`` its landmarks in [0, 1]; None where they are not to be believed: then
        the picture stays as it is.
    :param target: ``[T, T, 3]`` the target's crop of the same quad; ``target_xy`` its landmarks.
    :param share: of the excess that is taken off, 0 to 1.
    :param occluded: ``[n, n]`` what is in front of the target's face.
    :return: like ``image``, the very same where nothing is to be done.
    """
    if share <= 0 or drawn_xy is None:
        return image
    cheeks = skin_light(target, target_xy)
    if cheeks is None:
        return image
    size = image.shape[0]
    place = mouth_place(drawn_xy, size, room=_ROOM, occluded=occluded)
    if place is None:
        return image
    lips = _softly(place)
    rgb = np.ascontiguousarray(image[place.part])
    # In broad, without teeth, skin, and what is in front.
    light, weight = (gaussian_blur(to_tensor(each), _BROAD * size) for each in (light_of(rgb) * lips, lips))
    broad = to_array(light / weight.clamp_min(1e-3))

    def beyond(skin: float) -> FloatArray:
        return lips * share * (1 - 1 / np.maximum(broad / (_MOST * skin), 1.0))

    dimmed = beyond(cheeks)
    if dimmed.max() >= _LITTLE:  # or are the cheeks in the shade?
        dimmed = beyond(max(cheeks, _light_around(target, target_xy, occluded)))
    if dimmed.max() < _LITTLE:
        return image
    out = image.copy(order="K")
    out[place.part] = rgb * (1 - dimmed[..., None])
    return out


def _light_around(target: FloatArray, target_xy: FloatArray, occluded: FloatArray | None) -> float:
    """Light of the skin around the target's mouth, 0 where none is seen: a phone's falls on the chin."""
    place = mouth_place(target_xy, target.shape[0], room=_ROOM, occluded=occluded)
    skin = None if place is None else target[place.part][place.skin]
    return 0.0 if skin is None or not len(skin) else float(np.median(light_of(skin)))

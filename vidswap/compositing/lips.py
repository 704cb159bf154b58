"""Lips are no brighter than skin.

What makes lips lips is their colour; as filmed they are seldom brighter than the cheeks. A face that is
brought from dark skin to a pale target's takes them along into the light: pink becomes all but white, as if
lit from within. So what of the lips is brighter than the cheeks in broad is brought down to them. Their hue
stays, and so do glints, which are small.
"""

from __future__ import annotations

import numpy as np

from vidswap.compositing.arrays import gaussian_blur, smoothstep, to_array, to_tensor
from vidswap.compositing.mouth import light_of, mouth_place, skin_light
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
    lips = smoothstep(place.outer / _SOFT) * smoothstep(-place.inner / _SOFT)
    if place.cover is not None:
        lips = lips * (1 - np.clip(place.cover, 0, 1))
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

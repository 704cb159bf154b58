"""What shows between the lips is the target's own.

Teeth and tongue carry little of what makes a person and much of what they say, and a generator of portraits
draws them anew in every frame: another number of them, the lower row for the upper one, none where the lips
of its people hide them. The target's are there in every frame. So they are lent to the new face, as Liu et
al. do with whole pictures ("Fine-Grained Face Swapping via Regional GAN Inversion", 2023, the inner mouth of
E4S): from between the target's lips to between the drawn ones, by the outlines of both.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from vidswap.compositing.arrays import gaussian_blur, smoothstep, to_array, to_tensor
from vidswap.compositing.mouth import light_of, mouth_place, redness_of
from vidswap.landmarks import INNER_MOUTH, mouth_opening
from vidswap.records import FloatArray

_SHUT, _OPEN = 0.055, 0.08
"""Opening of the narrower mouth (see :func:`vidswap.landmarks.mouth_opening`) up to which nothing is lent,
and from which all is: between lips that are hardly parted lies little but what outlines are off by."""
_ALIKE, _APART = 1.8, 2.6
"""Ratio of the two openings up to which what is lent may be stretched, and from which it is left."""
_SOFT, _SOFT_SHARE = 0.006, 0.2
"""Parts of the crop, and of the gap between the drawn lips at most, over which it fades in from them."""
_OFF, _DEEP = 0.008, 0.014
"""Parts of the crop by which the target's outlines may lie on its lips, and from which on what is red between
them is tongue."""
_REDDEST, _RED = 0.85, 0.65
"""Redness over that of the target's lips at which something is as red as they are, and no longer."""
_BRIGHT, _DULL = 0.75, 0.55
"""Light over theirs at which it is as bright, and no longer: tongue and gums lie in the shade."""
_BLUR = 0.002
"""Blur of what is told by colour, as part of the crop."""
_CLEAR, _COVERED = 0.05, 0.25
"""Mean opacity of what is in front of a mouth up to which its outline is believed, and from which on it is a
guess."""


def lend_inner_mouth(
    image: FloatArray,
    drawn_xy: FloatArray | None,
    target: FloatArray,
    target_xy: FloatArray,
    *,
    share: float = 1.0,
    occluded: FloatArray | None = None,
) -> FloatArray:
    """The new face with what the target shows between its lips.

    :param image: ``[S, S, 3]`` the new face, RGB in [0, 1], in the target's light.
    :param drawn_xy: ``[468, 2 or 3]`` its landmarks in [0, 1]; None where they are not to be believed: then
        the picture stays as it is.
    :param target: ``[T, T, 3]`` the target's crop of the same quad; ``target_xy`` its landmarks.
    :param share: opacity of what is lent, 0 to 1.
    :param occluded: ``[n, n]`` what is in front of the target's face; it is not lent.
    :return: like ``image``, the very same where nothing is lent.
    """
    if share <= 0 or drawn_xy is None:
        return image
    share *= _alike(mouth_opening(target_xy), mouth_opening(drawn_xy))
    size = image.shape[0]
    place = mouth_place(drawn_xy, size, room=0.0, occluded=None) if share > 0 else None
    if place is None:
        return image
    gap = 2 * float(place.inner.max())
    weight = share * smoothstep(place.inner / max(min(_SOFT, _SOFT_SHARE * gap), 1e-4) + 0.5)
    rows, columns = place.part
    at = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) + 0.5 for s in (columns, rows))), -1) / size
    places = _moved(at, drawn_xy, target_xy).astype(np.float32)
    grid = torch.from_numpy(places)[None] * 2 - 1

    def shown(picture: FloatArray, mode: str) -> FloatArray:
        seen = F.grid_sample(to_tensor(picture), grid, mode=mode, padding_mode="border", align_corners=False)
        return to_array(seen).clip(0, 1)

    if occluded is not None:
        cover = shown(occluded, "bilinear")
        hidden = (weight * cover).sum() / max(float(weight.sum()), 1e-6)
        if hidden >= _COVERED:
            return image
        weight = weight * (1 - cover) * smoothstep((_COVERED - hidden) / (_COVERED - _CLEAR))
    lent = shown(target, "bicubic")
    lips = smoothstep((_DEEP - place.inner) / (_DEEP - _OFF)) * _like_lips(lent, target, target_xy)
    weight = weight * (1 - to_array(gaussian_blur(to_tensor(lips), _BLUR * size)))
    out = image.copy(order="K")
    out[place.part] += weight[..., None] * (lent - out[place.part])
    return out


def _alike(target: float, drawn: float) -> float:
    """How far two openings are those of one mouth, 0 to 1."""
    low, high = sorted((target, drawn))
    if low <= _SHUT:
        return 0.0
    open_ = smoothstep(np.float32((low - _SHUT) / (_OPEN - _SHUT)))
    return float(open_ * smoothstep(np.float32((_APART - high / low) / (_APART - _ALIKE))))


def _like_lips(lent: FloatArray, target: FloatArray, target_xy: FloatArray) -> FloatArray:
    """Where colours ``[h, w, 3]`` are those of the target's lips, ``[h, w]`` 0 to 1.

    Outlines are off by a part of a thin lip, and its red in another's mouth looks like a wound.
    """
    place = mouth_place(target_xy, target.shape[0], room=0.0, occluded=None)
    if place is None or not place.lips.any():
        return np.zeros(lent.shape[:2], np.float32)
    flesh = target[place.part][place.lips]
    red, light = (value(lent) / max(float(np.median(value(flesh))), 1e-3) for value in (redness_of, light_of))
    return smoothstep((red - _RED) / (_REDDEST - _RED)) * smoothstep((light - _DULL) / (_BRIGHT - _DULL))


def _moved(at: NDArray[np.float64], drawn_xy: FloatArray, target_xy: FloatArray) -> NDArray[np.float64]:
    """Where places ``[h, w, 2]`` between the drawn lips lie between the target's.

    By the affine map that fits both outlines best: teeth stay straight, and the noise of single points does
    not shake them.
    """
    drawn, target = (np.asarray(mesh, np.float64)[list(INNER_MOUTH), :2] for mesh in (drawn_xy, target_xy))
    middle = drawn.mean(0)
    turn, *_ = np.linalg.lstsq(drawn - middle, target - target.mean(0), rcond=None)
    return (at - middle) @ turn + target.mean(0)

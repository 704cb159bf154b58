"""The mask's soft edge follows the target's outline.

A mask is drawn from landmarks, so its edge fades over some pixels wherever it happens to lie. On skin that is
wanted. Where a cheek or a jaw ends before a wall it lets the wall shine through the new face's edge, which
looks cut out and blurred beside a sharp picture. There the edge is to fall where the picture's own does: the
mask is filtered with the target as its guide (He et al., "Guided image filtering", ECCV 2010), which gives
the matte nearest to it that is linear in the target's colours.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from kornia.filters import guided_blur

from vidswap.compositing.arrays import (
    enlarged,
    enlarged_part,
    resize,
    smoothstep,
    span_of,
    to_array,
    to_tensor,
    widest,
)
from vidswap.records import FloatArray

_SIZE = 128
"""Side in which the matte's colours are found; at 256 the edge lies no better."""
_FINE = 256
"""Side of the target whose colours the matte is applied to."""
_RADIUS = 3
"""Pixels of that size to every side which one linear matte is fitted to."""
_NOISE = 1e-3
"""Variance of the target's colours that is not taken for an edge: a standard deviation of 8 of 255."""
_LOW, _HIGH = 0.2, 0.8
"""Values of the matte that become 0 and 1: a fit to noisy colours reaches neither."""
_PASSES = 2
"""Times that it is filtered: an edge some pixels beside the outline gets there by steps."""
_BESIDE = 5
"""Pixels around an edge in which it is seen what lies beside it."""
_LIKE, _UNLIKE = 0.12, 0.22
"""Difference of tones up to which that is skin, and from which it is something else. A mask that ends on a
neck ends softly: the lower edge of a beard is not where the new face's chin ends."""
_ASIDE, _BELOW = 0.6, 0.9
"""Downward share of the edge's normal up to which it may be the outline of a head, and from which a neck is
below it, in whatever light."""
_LIGHT = 0.12
"""What a logarithm of light counts beside those of hue: a neck lies in the shade."""
_BLACK = 0.03
"""Added to colours before their logarithm: the hue of black is noise."""
_BAND = 0.02
"""The mask's own values, from either end, between which it is an edge."""


def snap_outline(
    mask: FloatArray, target: FloatArray, *, share: float = 1.0, occluded: FloatArray | None = None
) -> FloatArray:
    """A mask whose soft edge lies on the edges of the target beside it.

    :param mask: ``[S, S]`` in [0, 1]. :param target: ``[T, T, 3]`` RGB in [0, 1], the same square.
    :param share: of the filtered edge, 0 to 1.
    :param occluded: ``[n, n]`` what is in front of the face; edges there were found by other means.
    :return: like ``mask``, the very same where nothing is to be done. What is wholly inside or outside and
        not beside an edge stays as it is.
    """
    if share <= 0:
        return mask
    coarse = to_array(resize(to_tensor(mask), _SIZE))
    edge = (coarse > _BAND) & (coarse < 1 - _BAND)
    if not edge.any():
        return mask
    band = widest(edge, _RADIUS // 2)
    rows, columns = span_of(band > 0, room=2 * _RADIUS, cell=4)
    guide = resize(to_tensor(target), _SIZE)[:, :, rows, columns]
    start = torch.from_numpy(coarse[rows, columns])[None, None]
    # Where the matte is put to use its edge is a little softer than single hairs of a beard.
    down, across = _at(_FINE, rows, columns)
    fine = resize(to_tensor(target), _FINE)[..., down, across]
    snapped, times = enlarged(start, fine), _FINE // _SIZE
    for _ in range(_PASSES):
        snapped = guided_blur(fine, snapped, 2 * times * _RADIUS + 1, _NOISE, subsample=times)
        snapped = ((snapped - _LOW) / (_HIGH - _LOW)).clamp_(0, 1)
    size = mask.shape[0]
    inner = _at(size, rows, columns)
    snapped = enlarged(snapped, mask[inner])
    weight = share * band
    weight[rows, columns] *= _unlike_skin(guide, start) * (1 - _downwards(start))
    if occluded is not None:
        hidden = to_array(resize(to_tensor(occluded), _SIZE)).clip(0, 1)
        weight = weight * (1 - widest(hidden, _RADIUS))
    here = enlarged_part(to_tensor(weight), size, inner)[0, 0].numpy()
    out = mask.copy()
    out[inner] += smoothstep(here) * (snapped[0, 0].numpy() - out[inner])
    return out


def _unlike_skin(picture: torch.Tensor, mask: torch.Tensor) -> FloatArray:
    """How much what lies beside a mask differs from the skin inside of it, ``[h, w]`` in [0, 1].

    :param picture: ``[1, 3, h, w]``. :param mask: ``[1, 1, h, w]``.
    """
    outside = (1 - mask).square()
    spread = _around(torch.cat([picture * outside, outside], 1), _BESIDE)
    beside = _tone(spread[:, :3] / spread[:, 3:].clamp_min(1e-4))
    inside = picture[0].flatten(1)[:, mask.flatten() > 1 - _BAND]
    if inside.shape[1] == 0:
        return np.ones(mask.shape[-2:], np.float32)
    # A beard is darker than the skin beside it.
    light = inside.mean(0)
    skin = _tone(inside[:, light >= light.median()].median(1).values[None, :, None, None])
    apart = (beside - skin).square().sum(1).sqrt()[0].numpy()
    return smoothstep((apart - _LIKE) / (_UNLIKE - _LIKE))


def _downwards(mask: torch.Tensor) -> FloatArray:
    """Where a mask ``[1, 1, h, w]`` ends downwards, ``[h, w]`` in [0, 1]."""
    down, across = np.gradient(to_array(_around(mask)))
    share = -down / np.maximum(np.hypot(down, across), 1e-6)
    return smoothstep((share - _ASIDE) / (_BELOW - _ASIDE))


def _tone(colours: torch.Tensor) -> torch.Tensor:
    """Hue and, less, light of ``[1, 3, h, w]``, in logarithms: shade moves them little."""
    red, green, blue = (colours + _BLACK).log().unbind(1)
    return torch.stack([red - green, blue - green, _LIGHT * green], 1)


def _at(size: int, rows: slice, columns: slice) -> tuple[slice, slice]:
    """The same rows and columns in another size."""
    first, second = (slice(each.start * size // _SIZE, each.stop * size // _SIZE) for each in (rows, columns))
    return first, second


def _around(maps: torch.Tensor, reach: int = _RADIUS) -> torch.Tensor:
    """Means over the square around each pixel, of what lies inside of the map."""
    side = 2 * reach + 1
    for window, room in (((1, side), (0, reach)), ((side, 1), (reach, 0))):
        maps = F.avg_pool2d(maps, window, stride=1, padding=room, count_include_pad=False)
    return maps


__all__ = ["snap_outline"]

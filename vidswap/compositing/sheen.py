"""Sheen of the footage's skin, lent to the new face.

Where light falls on a nose, a cheekbone or a forehead depends on the lamps, so it belongs to the footage. The
colour match (:mod:`vidswap.compositing.color`) brings over what is as large as an eye; a generator trained on
evenly lit photos draws the smaller highlights faintly or not at all, and a face without them looks like clay.
"""

from __future__ import annotations

import torch

from vidswap.compositing.arrays import (
    enlarged_part,
    gaussian_blur,
    luma,
    resize,
    resize_map,
    scaled_span,
    span_of,
    to_tensor,
    with_added,
)
from vidswap.errors import UsageError
from vidswap.records import FloatArray

_SIZE = 128
_FINE, _BROAD = 0.012, 0.05
"""Blurs, as parts of the crop's side, between which a highlight lies: what is broader is left to the colour
match, what is finer to the texture."""
_FAINT = 0.01
"""Light above the surroundings up to which it is no highlight."""
_MOST = 0.15
"""Light that is lent at the most."""
_FEW = 0.02
"""Share of skin around a place below which nothing is known of it."""
_TINT = (0.4, 1.8)
"""Colour of a highlight, each channel over its luma."""


def lend_sheen(image: FloatArray, target: FloatArray, skin: FloatArray, *, share: float = 1.0) -> FloatArray:
    """The new face with the highlights of the target's skin that it lacks; nothing becomes darker.

    :param image: ``[S, S, 3]`` the new face, RGB in [0, 1], in the target's light.
    :param target: ``[T, T, 3]`` the target's crop of the same quad.
    :param skin: ``[n, n]`` in [0, 1], where both are bare skin, well off brows, eyes and lips, whose
        surroundings are no plain skin.
    :param share: of the missing light that is added, 0 to 1.
    :return: like ``image``, the very same where nothing is missing.
    :raises UsageError: for a share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise UsageError(f"sheen {share}: give a number between 0 and 1")
    seen = to_tensor(resize_map(skin, _SIZE))
    pictures = [resize(to_tensor(each), _SIZE) for each in (image, target)]
    lights = torch.cat([*(luma(each) for each in pictures), pictures[1]], 1)
    heard = torch.cat([lights * seen, seen], 1)
    near, around = (gaussian_blur(heard, width * _SIZE) for width in (_FINE, _BROAD))
    above = near[:, :-1] / (near[:, -1:] + _FEW) - around[:, :-1] / (around[:, -1:] + _FEW)
    own, wanted = (above[:, :2] - _FAINT).clamp_min(0).split(1, 1)
    lent = share * seen * _MOST * torch.tanh((wanted - own).clamp_min(0) / _MOST)
    bright = lent[0, 0].numpy() > 1 / 1024
    if not bright.any():
        return image
    size = image.shape[0]
    inner = scaled_span(span_of(bright, room=1), size / _SIZE)
    glint = enlarged_part(lent, size, inner)[0, 0].numpy()
    return with_added(image, glint[..., None] * _tint(above, lent), inner)


def _tint(above: torch.Tensor, lent: torch.Tensor) -> FloatArray:
    """Colour ``[3]`` of the target's highlights that are lent, over their luma: the lamps'."""
    colours = (above[:, 2:] * lent).sum((0, 2, 3)) / (above[:, 1:2] * lent).sum()
    tint = colours.clamp(*_TINT)
    return (tint / luma(tint.view(1, 3, 1, 1)).item()).numpy()

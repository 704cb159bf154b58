"""Brows that knit when the target's do.

Where brows are, and how they are shaped, says who somebody is, and a mixer leaves them to the source: the
target frowns, and the new face does not. Along the latent directions of a generator of smiling portraits a
frown is not to be had either: a quarter of one already fades brows and reddens lips. So the drawn brows are
moved in the picture: by how far the target's skin between lid and brow has come down from where it rests,
less what the drawn face shows of it. The folds that stand between knit brows are the target's own: they are
a frown's, not a person's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from vidswap.compositing.arrays import (
    gaussian_blur,
    luma,
    resize_map,
    scaled_span,
    smoothstep,
    to_array,
    to_tensor,
)
from vidswap.landmarks import EYE_CORNERS, INNER_BROWS, IRIS_NETWORK_FROWN
from vidswap.records import FloatArray

_MIDDLE, _OUTER = ((52, 105), (282, 334)), ((46, 70), (276, 300))
"""Mesh points of the middles and the outer ends of both brows."""
_LIDS = ((159, 158), (386, 385))
"""The middle of the upper lids: nothing moves from there on downwards."""
_RELAXING, _KNITTING = 0.2, 0.005
"""Shares a frame by which a face is learnt to rest higher, and lower."""
_FRAMES = 2.5
"""Time constant of the frown in frames."""
_LEAST, _MOST = 0.006, 0.04
"""Fall of the skin, in inter-ocular distances, up to which it is noise, and beyond which no more is moved."""
_DOWN, _IN = 1.8, 0.7
"""How far the inner end of a brow moves for it, downwards and towards the other."""
_MIDDLE_SHARE = 0.55
"""Of that, for the middle of a brow; its outer end stays."""
_REACH = (0.16, 0.12)
"""Width and height of what moves along, as deviations in inter-ocular distances."""
_CELLS = 128
"""Cells of a crop's side in which the movement is worked out."""
_ABOVE_LIDS = 0.12
"""Height over the lids, in inter-ocular distances, in which the movement fades."""
_SMOOTH, _FOLDED = 0.055, 0.09
"""Depth of the dark lines between brows (deviation of the logarithm of light) up to which nobody frowns, and
from which on somebody does. At rest five people had 0.02 to 0.058, frowning three of them 0.07 to 0.12."""
_FINE, _BROAD = 0.004, 0.03
"""Blurs, as parts of the crop's side, between which a fold lies."""
_BETWEEN = (0.075, 0.13)
"""Width and height of the place between the brows, as deviations in inter-ocular distances."""
_FOLD_SIZE = 256
"""Side of a whole crop at the size at which folds are looked at."""
_DIM = 0.05
"""Added to light before its logarithm is taken."""
_DARKEST = 0.4
"""Logarithm of light that a fold takes at the most."""
_COVERED = 0.3
"""Opacity of what is in front of a brow, from which on it is not seen."""


@dataclass(frozen=True)
class FrownState:
    """Where the brows of a track rest. Start a track, or a shot, with None."""

    target: FloatArray
    """``[2]`` height of the skin over either eye, in inter-ocular distances."""
    drawn: FloatArray
    """The same of the drawn face."""
    fall: FloatArray
    """``[2]`` by how much more the target's has come down, smoothed."""


def knit_brows(
    image: FloatArray,
    drawn_xy: FloatArray | None,
    target: FloatArray,
    target_xy: FloatArray,
    before: FrownState | None = None,
    *,
    share: float = 1.0,
    occluded: FloatArray | None = None,
) -> tuple[FloatArray, FrownState | None]:
    """The new face with brows that are knit as far as the target's.

    :param image: ``[S, S, 3]`` the new face, RGB in [0, 1], in the target's light.
    :param drawn_xy: ``[468, 2 or 3]`` its landmarks in [0, 1]; None where they are not to be believed: then
        the picture stays as it is.
    :param target: ``[T, T, 3]`` the target's crop of the same quad; ``target_xy`` its landmarks.
    :param before: state of the frame before, None after a cut.
    :param share: of the missing frown that is made up for, 0 to 1.
    :param occluded: ``[n, n]`` what is in front of the target's face.
    :return: like ``image``, the very same where nothing is to be done; and the state.
    """
    if share <= 0 or drawn_xy is None:
        return image, before
    shown, drawn = _heights(target_xy), _heights(drawn_xy)
    hidden = np.array([_cover(occluded, target_xy, side) > _COVERED for side in (0, 1)])
    if before is not None:
        state = _frowning(before, shown, drawn, hidden)
    elif hidden.any():
        return image, None
    else:
        state = FrownState(shown, drawn, np.zeros(2, np.float32))
    out, fall = image, share * np.maximum(state.fall - _LEAST, 0.0)
    if fall.any():
        out = _moved(image, np.asarray(drawn_xy, np.float64)[:, :2], fall)
    return _folded(out, target, np.asarray(target_xy, np.float64)[:, :2], share, occluded), state


def _frowning(
    before: FrownState, shown: FloatArray, drawn: FloatArray, hidden: NDArray[np.bool_]
) -> FrownState:
    """The state with this frame's heights ``[2]``; a brow that is hidden stays as it was."""
    rest, own_rest = _rest(before.target, shown), _rest(before.drawn, drawn)
    lack = np.clip((rest - shown) - (own_rest - drawn), 0.0, _MOST)
    fall = (before.fall + (lack - before.fall) / _FRAMES).astype(np.float32)
    kept = ((before.target, rest), (before.drawn, own_rest), (before.fall, fall))
    return FrownState(*(np.where(hidden, old, now) for old, now in kept))


def _rest(old: FloatArray, now: FloatArray) -> FloatArray:
    return old + np.where(now > old, _RELAXING, _KNITTING).astype(np.float32) * (now - old)


def _axes(mesh_xy: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Across the eyes and down, as unit vectors, and the distance of their outer corners."""
    points = np.asarray(mesh_xy, np.float64)
    across = points[EYE_CORNERS[1][1], :2] - points[EYE_CORNERS[0][0], :2]
    length = max(float(np.linalg.norm(across)), 1e-6)
    across = across / length
    return across, np.array([-across[1], across[0]]), length


def _heights(mesh_xy: NDArray[np.floating]) -> FloatArray:
    """``[2]`` how high the skin between lid and brow lies over the line of either eye."""
    points = np.asarray(mesh_xy, np.float64)[:, :2]
    _, down, length = _axes(points)
    found = [
        -(points[list(skin)].mean(0) - points[list(corners)].mean(0)) @ down / length
        for skin, corners in zip(IRIS_NETWORK_FROWN, EYE_CORNERS, strict=True)
    ]
    return np.array(found, np.float32)


def _cover(occluded: FloatArray | None, mesh_xy: NDArray[np.floating], side: int) -> float:
    """Mean opacity of what is in front of a brow."""
    if occluded is None:
        return 0.0
    points = np.asarray(mesh_xy)[list(IRIS_NETWORK_FROWN[side] + INNER_BROWS[side]), :2]
    x, y = np.clip((points * occluded.shape[0]).astype(int), 0, occluded.shape[0] - 1).T
    return float(occluded[y, x].mean())


def _moved(image: FloatArray, drawn: NDArray[np.float64], fall: FloatArray) -> FloatArray:
    """The picture with its brows moved."""
    size = image.shape[0]
    across, down, length = _axes(drawn)
    reach = length * np.array(_REACH)
    centres, shifts = [], []
    for side, inward in ((0, across), (1, -across)):
        for points, share in ((INNER_BROWS[side], 1.0), (_MIDDLE[side], _MIDDLE_SHARE), (_OUTER[side], 0.0)):
            centres.append(drawn[list(points)].mean(0))
            shifts.append(share * fall[side] * length * (_DOWN * down + _IN * inward))
    moving = np.array([each for each, shift in zip(centres, shifts, strict=True) if shift.any()])
    part = _box(moving.min(0) - 2.5 * reach, moving.max(0) + 2.5 * reach, size)
    if part is None:
        return image
    rows, columns = part
    # The movement is smooth: it is worked out in cells.
    step = max(1, size // _CELLS)
    at = np.stack(np.meshgrid(_places(columns, step), _places(rows, step)), -1) / size
    weights = np.stack([_bell(at - each, across, down, reach) for each in centres], -1)
    field = (weights / np.maximum(weights.sum(-1, keepdims=True), 1.0)) @ np.array(shifts)
    # Eyes stay: between brow and lid the skin is pressed together.
    lids = min(float(drawn[list(points)].mean(0) @ down) for points in _LIDS)
    room = ((lids - at @ down) / (_ABOVE_LIDS * length)).astype(np.float32)
    # Nothing is torn at the edge of what is looked at.
    fading = _fading(field.shape[0])[:, None] * _fading(field.shape[1])
    field *= (smoothstep(room) * fading)[..., None]
    tall, wide = rows.stop - rows.start, columns.stop - columns.start
    moves = torch.from_numpy(field.astype(np.float32)).permute(2, 0, 1)[None]
    moves = F.interpolate(moves, scale_factor=step, mode="bilinear", align_corners=False)[0, :, :tall, :wide]
    y, x = ((2 * torch.arange(count) + 1) / count - 1 for count in (tall, wide))
    grid = torch.stack((x - moves[0] * (2 * size / wide), y[:, None] - moves[1] * (2 * size / tall)), -1)
    before = to_tensor(np.ascontiguousarray(image[part]))
    seen = F.grid_sample(before, grid[None], mode="bicubic", padding_mode="border", align_corners=False)
    out = image.copy(order="K")
    out[part] = to_array(seen).clip(0, 1)
    return out


def _box(low: NDArray[np.float64], high: NDArray[np.float64], size: int) -> tuple[slice, slice] | None:
    """Rows and columns between two corners (x, y) in [0, 1]; None where that is next to nothing."""
    first = np.clip(np.floor(low * size), 0, size).astype(int)
    last = np.clip(np.ceil(high * size), 0, size).astype(int)
    if (last - first < 8).any():
        return None
    return slice(first[1], last[1]), slice(first[0], last[0])


def _places(span: slice, step: int) -> NDArray[np.float64]:
    """The middles of cells of ``step`` pixels that cover a span."""
    return span.start + step * (np.arange(-(-(span.stop - span.start) // step)) + 0.5)


def _fading(count: int) -> FloatArray:
    """1 in the middle of a row of cells and 0 at its ends."""
    beside = np.minimum(np.arange(count), np.arange(count)[::-1])
    return smoothstep(beside.astype(np.float32) / max(count / 6, 1.0))


def _bell(
    away: NDArray[np.float64],
    across: NDArray[np.float64],
    down: NDArray[np.float64],
    reach: NDArray[np.float64],
) -> NDArray[np.float64]:
    """1 at a place and less away from it ``[h, w, 2]``, by its deviations across and down."""
    return np.exp(-0.5 * ((away @ across / reach[0]) ** 2 + (away @ down / reach[1]) ** 2))


def _folded(
    image: FloatArray,
    target: FloatArray,
    target_xy: NDArray[np.float64],
    share: float,
    occluded: FloatArray | None,
) -> FloatArray:
    """The picture with the dark folds between the target's brows, the very same where it has none."""
    across, down, length = _axes(target_xy)
    between = np.mean([target_xy[list(points)].mean(0) for points in INNER_BROWS], 0)
    reach = length * np.array(_BETWEEN)
    part = _box(between - 3 * reach.max(), between + 3 * reach.max(), _FOLD_SIZE)
    if part is None:
        return image
    away = (
        np.stack(np.meshgrid(*(np.arange(each.start, each.stop) + 0.5 for each in part[::-1])), -1)
        / _FOLD_SIZE
    )
    place = torch.from_numpy(_bell(away - between, across, down, reach).astype(np.float32))
    if occluded is not None:  # the bridge of glasses, a strand of hair
        place = place * (1 - torch.from_numpy(resize_map(occluded, _FOLD_SIZE)[part]).clamp(0, 1))
    wanted = _lines(target, part)
    depth = float(((wanted.clamp(max=0.0) ** 2 * place).sum() / place.sum().clamp_min(1e-6)).sqrt())
    strength = share * float(smoothstep(np.float32((depth - _SMOOTH) / (_FOLDED - _SMOOTH))))
    if strength <= 0:
        return image
    lent = strength * place * (_lines(image, part) - wanted).clamp(0.0, _DARKEST)
    inner = scaled_span(part, image.shape[0] / _FOLD_SIZE)
    shape = tuple(each.stop - each.start for each in inner)
    gain = torch.exp(-F.interpolate(lent, size=shape, mode="bicubic", align_corners=False))
    out = image.copy(order="K")
    out[inner] = np.clip(out[inner] * to_array(gain)[..., None], 0.0, 1.0)
    return out


def _lines(picture: FloatArray, part: tuple[slice, slice]) -> torch.Tensor:
    """Lines and folds of a part of a picture, ``[1, 1, h, w]``: logarithms of light, below 0 where dark."""
    seen = to_tensor(np.ascontiguousarray(picture[scaled_span(part, picture.shape[0] / _FOLD_SIZE)]))
    shape = tuple(each.stop - each.start for each in part)
    small = F.interpolate(luma(seen), size=shape, mode="bilinear", align_corners=False, antialias=True)
    light = torch.log(small + _DIM)
    near, around = (gaussian_blur(light, width * _FOLD_SIZE) for width in (_FINE, _BROAD))
    return near - around

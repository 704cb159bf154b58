"""Closed eyes are the target's own.

A generator that learnt from portraits has hardly seen closed eyes: what it draws for a blink, a wink or a
lowered gaze is half open and without lashes, whatever its code says. Shut lids carry little of what makes a
person and much of what they feel, and the target's are there in every frame. So they are lent to the new
face: moved from the corners of the target's eye to those of the drawn one, and brought to the drawn face's
colours as in Pérez et al. ("Poisson image editing", 2003), by a smooth correction that takes them to what is
drawn around them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from vidswap.compositing.arrays import enlarged, gaussian_blur, smoothstep, to_array, to_tensor
from vidswap.compositing.paste import solve_laplace
from vidswap.landmarks import EYE_CORNERS, LEFT_BROW, LEFT_EYE, RIGHT_BROW, RIGHT_EYE, eye_aspect
from vidswap.records import FloatArray

_SHUT, _OPEN = 0.58, 0.74
"""Opening of an eye over its own when open, below which lids begin to be lent, and from which they no
longer are: lent in part for long, two pairs of eyes would shine through each other. Closed eyes measured up
to 0.4, winking ones 0.45 to 0.58, those that look at the floor 0.6 to 0.73."""
_ALIKE, _APART = 0.12, 0.3
"""Difference of the two openings up to which both eyes are one pair, and from which each is for itself."""
_HARDLY, _CLEARLY = 0.05, 0.12
"""Share of an eye and its lids that is covered more than the other's: up to the first it is believed to be as
open as the mesh says, from the second it is as open as the other. By fingers before a shut eye the mesh is
misled, to 0.5 to 0.8 of its opening."""
_NEAR, _COVER_SIZE = 0.8, 128
"""What of an eye's patch is looked at for that, in its radii, and in a picture of which side."""
_USUAL, _NARROW, _WIDE = 0.3, 0.2, 0.4
"""Opening over width of an open eye: at first, at least and at most."""
_RISE, _FALL, TELLING = 0.2, 0.01, 0.68
"""Shares a frame by which it is learnt from wider and narrower eyes, and opening from which they tell it."""
_FOLLOW = 0.6
"""Share by which lids come and go in a frame."""
_FRAMES = 6.0
"""Time constant of where the drawn eye lies beside the target's, in frames."""
_BESIDE, _ABOVE, _BELOW = 0.3, 0.28, 0.3
"""Room around the lids that is lent with them, in widths of the eye."""
_LEAST_ABOVE, _UNDER_BROW = 0.1, 0.02
"""Room above them that there is at least, and to the brow: in widths of the eye as well."""
_LEAST = 0.02
"""Opacity below which nothing is lent."""
_SOFT = 0.45
"""Share of the patch's radius over which it fades."""
_RIM, _RIM_WIDTH = 1.0, 0.12
"""Where the drawn face is taken for what the lids are brought to, and its breadth, in radii of the patch."""
_RIM_BLUR = 0.25
"""Radii over which its colour is averaged along it."""
_BLACK = 0.03
"""Added before colours are compared as ratios: those of black are noise."""
_DARKER, _BRIGHTER = 0.15, 0.03
"""Most that the correction may differ from what the lit skin along the rim asks for, as logarithms. Lids that
are too bright look like blind eyes."""
_LIT = 4
"""Power of its light by which skin counts as lit."""
_SOLVED = 24
"""Pixels of a radius where the correction is worked out: it is smooth."""

_EYES = (LEFT_EYE, RIGHT_EYE)
_BROWS = (LEFT_BROW, RIGHT_BROW)
_CORNERS = np.array(EYE_CORNERS)


@dataclass(frozen=True)
class LidState:
    """What is remembered of a track's eyes."""

    wide: NDArray[np.float64]
    """``[2]`` opening over width of the open eyes, left and right."""
    offset: NDArray[np.float64]
    """``[2, 2, 2]`` corners of the drawn eyes less the target's, in [0, 1]: eye, corner, (x, y)."""
    frames: int
    """Frames that the offset was learnt from; 0: it is not known."""
    closed: NDArray[np.float64]
    """``[2]`` how far the lids are lent, 0 to 1."""


@dataclass(frozen=True)
class EyePatch:
    """The ellipse around an eye and its lids, in a picture ``[S, S]``."""

    rows: slice
    columns: slice
    radii: FloatArray
    """``[h, w]`` distance from the middle; 1 on the ellipse."""
    places: FloatArray
    """``[h, w, 2]`` where its pixels come from in the target's crop, in [0, 1]."""
    radius_px: float

    def shown(self, picture: FloatArray, *, mode: str = "bilinear") -> torch.Tensor:
        """What a picture or map of the target's crop shows there, ``[1, C, h, w]``."""
        places = torch.from_numpy(self.places)[None] * 2 - 1
        return F.grid_sample(
            to_tensor(picture), places, mode=mode, padding_mode="border", align_corners=False
        )


def lend_lids(
    image: FloatArray,
    drawn_xy: FloatArray | None,
    target: FloatArray,
    target_xy: FloatArray,
    before: LidState | None = None,
    *,
    share: float = 1.0,
    occluded: FloatArray | None = None,
) -> tuple[FloatArray, LidState]:
    """The new face with the target's lids where the target's eyes are closed, each eye for itself.

    :param image: ``[S, S, 3]`` the new face, RGB in [0, 1], in the target's light.
    :param drawn_xy: ``[468, 2 or 3]`` its landmarks in [0, 1]; None where they are not to be believed: then
        the eyes lie where they lay in the frame before.
    :param target: ``[T, T, 3]`` the target's crop of the same quad; ``target_xy`` its landmarks.
    :param before: state of the track's frame before, None after a cut.
    :param share: opacity of closed lids, 0 to 1.
    :param occluded: ``[n, n]`` what is in front of the target's face; it is not lent.
    :return: like ``image``, the very same where no eye is closed; and the state.
    """
    state = _learnt(before, drawn_xy, target_xy, occluded)
    if state.frames == 0 or share <= 0:
        return image, state
    out = image
    for eye, closed in enumerate(share * state.closed):
        if closed < _LEAST:
            continue
        patch = eye_patch(eye, image.shape[0], drawn_xy, target_xy, state.offset[eye])
        if patch is None:
            continue
        if out is image:
            out = image.copy(order="K")
        _lend(out, patch, target, occluded, float(closed))
    return out, state


def _learnt(
    before: LidState | None, drawn_xy: FloatArray | None, target_xy: FloatArray, occluded: FloatArray | None
) -> LidState:
    wide, offset, frames, closed = np.full(2, _USUAL), np.zeros((2, 2, 2)), 0, None
    if before is not None:
        wide, offset, frames, closed = before.wide, before.offset, before.frames, before.closed
    now, doubt = eye_aspect(target_xy), _doubt(target_xy, occluded)
    # Closed eyes say nothing of how wide they open, and covered ones little.
    rate = (1 - doubt) * np.where(now > wide, _RISE, np.where(now > TELLING * wide, _FALL, 0.0))
    wide = np.clip(wide + rate * (now - wide), _NARROW, _WIDE)
    opening = now / wide
    opening = opening + doubt * (opening[::-1] - opening)
    pair = float(smoothstep((_APART - np.ptp(opening)) / (_APART - _ALIKE)))
    opening = opening + pair * (opening.mean() - opening)
    if closed is None:
        closed = (opening < _SHUT).astype(np.float64)
    else:
        here = opening < np.where(closed > 0.5, _OPEN, _SHUT)
        closed = closed + _FOLLOW * (here - closed)
    if drawn_xy is not None:
        drawn, target = (np.asarray(one, np.float64)[_CORNERS, :2] for one in (drawn_xy, target_xy))
        offset = offset + (drawn - target - offset) / min(frames + 1, _FRAMES)
        frames += 1
    return LidState(wide, offset, frames, closed)


def _doubt(target_xy: FloatArray, occluded: FloatArray | None) -> NDArray[np.float64]:
    """``[2]`` how little the opening of either eye is believed, 0 to 1: at most one of them is doubted."""
    if occluded is None:
        return np.zeros(2)
    patches = [eye_patch(eye, _COVER_SIZE, None, target_xy, np.zeros((2, 2))) for eye in (0, 1)]
    covers = np.array([
        0.0 if patch is None else to_array(patch.shown(occluded))[patch.radii < _NEAR].mean()
        for patch in patches
    ])
    return smoothstep((covers - covers[::-1] - _HARDLY) / (_CLEARLY - _HARDLY)).astype(np.float64)


def eye_patch(
    eye: int, size: int, drawn_xy: FloatArray | None, target_xy: FloatArray, offset: NDArray[np.float64]
) -> EyePatch | None:
    """Where the lids of an eye belong; None outside of the picture."""
    points = np.asarray(target_xy, np.float64)[:, :2]
    corners = points[_CORNERS[eye]]
    turn, shift = _similarity(corners, corners + offset)
    lids, brow = ([*group[eye]] for group in (_EYES, _BROWS))
    moved = points @ turn.T + shift
    seen = [moved] if drawn_xy is None else [moved, np.asarray(drawn_xy, np.float64)[:, :2]]
    start, end = corners + offset
    width = max(float(np.linalg.norm(end - start)), 1e-6)
    across = (end - start) / width
    axes = np.stack([across, (-across[1], across[0])], 1)
    # In widths of the eye, from the middle of its corners: across and down.
    middle = (start + end) / 2
    around = np.concatenate([(one[lids] - middle) @ axes / width for one in seen])
    brows = np.concatenate([(one[brow] - middle) @ axes / width for one in seen])
    low, high = around.min(0), around.max(0)
    top = max(low[1] - _ABOVE, float(brows[:, 1].max()) + _UNDER_BROW)
    first = np.array([low[0] - _BESIDE, min(top, low[1] - _LEAST_ABOVE)])
    last = np.array([high[0] + _BESIDE, high[1] + _BELOW])
    centre, radii = middle + axes @ ((first + last) / 2) * width, (last - first) / 2 * width
    reach = float(np.hypot(*radii)) * (_RIM + 3 * _RIM_WIDTH)
    lowest = np.maximum(np.floor((centre - reach) * size), 0).astype(int)
    highest = np.minimum(np.ceil((centre + reach) * size), size).astype(int)
    if (highest - lowest < 4).any():
        return None
    x, y = ((np.arange(a, b) + 0.5) / size for a, b in zip(lowest, highest, strict=True))
    at = np.stack(np.meshgrid(x, y), -1)
    distance = np.linalg.norm((at - centre) @ axes / radii, axis=-1)
    places = (at - shift) @ np.linalg.inv(turn).T
    return EyePatch(
        slice(lowest[1], highest[1]), slice(lowest[0], highest[0]),
        distance.astype(np.float32), places.astype(np.float32), float(radii.max()) * size,
    )  # fmt: skip


def _similarity(
    start: NDArray[np.float64], end: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrix ``[2, 2]`` and shift ``[2]`` that bring two points ``[2, 2]`` onto two others, without shear."""
    a, b = (complex(*(pair[1] - pair[0])) for pair in (start, end))
    ratio = b / a if a else 1 + 0j
    turn = np.array([[ratio.real, -ratio.imag], [ratio.imag, ratio.real]])
    return turn, end.mean(0) - turn @ start.mean(0)


def _lend(
    image: FloatArray, patch: EyePatch, target: FloatArray, occluded: FloatArray | None, closed: float
) -> None:
    """Blend the target's lids into ``image``."""
    lent = patch.shown(target, mode="bicubic")
    weight = torch.from_numpy(closed * smoothstep((1 - patch.radii) / _SOFT))[None, None]
    if occluded is not None:
        weight = weight * (1 - patch.shown(occluded).clamp(0, 1))
    part = (patch.rows, patch.columns)
    here = to_tensor(image[part])
    # Up to the light of the skin as a ratio: light that is added to lashes or taken from them turns them
    # grey, or red where one channel is used up before the others. What shines is not made to shine more:
    # narrowed eyes came out white.
    skin, drawn = _lit_skin(lent, patch), _lit_skin(here, patch)
    usual = _stops(drawn) - _stops(skin)
    stops = _correction(_stops(here) - _stops(lent), patch).clamp(usual - _DARKER, usual + _BRIGHTER)
    dull = torch.minimum(lent.clamp_min(0), skin)
    lent = ((dull + _BLACK) * stops.exp() - _BLACK + lent - dull).clamp_(0, 1)
    image[part] = torch.lerp(here, lent, weight)[0].permute(1, 2, 0).numpy()


def _lit_skin(picture: torch.Tensor, patch: EyePatch) -> torch.Tensor:
    """Colour of the brighter skin along the rim, ``[1, 3, 1, 1]``: folds and the shade of a brow are in one
    of two pictures and not in the other, and say nothing of the light."""
    weight = _rim(patch) * picture.clamp_min(0).mean(1, keepdim=True) ** _LIT
    return (picture.clamp_min(0) * weight).sum((2, 3), keepdim=True) / weight.sum().clamp_min(1e-9)


def _rim(patch: EyePatch) -> torch.Tensor:
    """How much pixels count for what the lids are brought to, ``[1, 1, h, w]``."""
    return torch.from_numpy(np.exp(-0.5 * ((patch.radii - _RIM) / _RIM_WIDTH) ** 2))[None, None]


def _stops(picture: torch.Tensor) -> torch.Tensor:
    """Logarithm of a picture, black where it is black."""
    return (picture.clamp_min(0) + _BLACK).log()


def _correction(apart: torch.Tensor, patch: EyePatch) -> torch.Tensor:
    """Smooth differences that take the lids to the drawn face along the rim, ``[1, 3, h, w]``.

    :param apart: the drawn face less the lids, alike.
    """
    weight, inside = _rim(patch), torch.from_numpy(patch.radii < _RIM)[None, None]
    scale = min(1.0, _SOLVED / patch.radius_px)
    size = tuple(max(4, round(side * scale)) for side in apart.shape[-2:])
    votes = F.interpolate(torch.cat([apart * weight, weight], 1), size, mode="area")
    blurred = gaussian_blur(votes, _RIM_BLUR * patch.radius_px * scale)
    usual = votes[:, :3].sum((2, 3), keepdim=True) / votes[:, 3:].sum().clamp_min(1e-6)
    value = (blurred[:, :3] + 1e-4 * usual) / (blurred[:, 3:] + 1e-4)
    held = F.interpolate(inside.float(), size, mode="area") < 0.5
    return enlarged(solve_laplace(value, held), apart)

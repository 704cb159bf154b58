"""Colour and light of the swapped face, brought to those of the target inside the mask.

``lab`` matches robust mean and spread in CIE L*a*b* (after Reinhard et al., "Color transfer
between images", 2001); ``blocks`` follows it with a low-frequency map of gains, so that side
light and cast shadows fall on the new face as they fell on the old one. Both are measured at a
small size and applied at full size through a table and a smooth map, and both are carried from
frame to frame in an open :class:`ColorState`. What is finer than that map is the new face's own shape,
but how strongly light models a shape belongs to the footage: where the drawn face is flatter, as one
from a generator of evenly lit photos mostly is, its own shading is deepened until skin varies as much
as the target's.

Swap and target show the same pose, so pixels are compared in pairs, and pairs that disagree with
the rest (a hand, a beard, a highlight, an open mouth) lose their vote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import kornia
import numpy as np
import torch
import torch.nn.functional as F

from vidswap.compositing.arrays import (
    enlarged_part,
    gaussian_blur,
    luma,
    resize,
    resize_map,
    smoothstep,
    span_of,
    to_array,
    to_tensor,
)
from vidswap.errors import UsageError
from vidswap.records import FloatArray

ColorMethod = Literal["none", "lab", "blocks"]

_ANALYSIS_SIZE = 96
_FIELD_SIZE = 32
_TABLE_SIZE = 17
_TABLE_SIDE = 768
"""Side of a picture from which on the table is read at each second pixel."""
_MIN_SAMPLES = 40.0
"""Weight (pixels of the analysis size) below which a frame has no say: nearly all is hidden."""
_SHIFT_LIMIT = np.array([28.0, 18.0, 22.0], np.float32)
# Upper limits near 1: a beard or a shadow in the target widens its spread, and a gain for it would
# redden lips and darken eyes.
_GAIN_LIMIT = np.array([[0.85, 0.75, 0.75], [1.06, 1.0, 1.0]], np.float32)
_COLOURED = 6.0
"""a* or b* of skin from which its change is taken as a factor."""
_CHROMA_SCALE = (0.4, 1.8)
_LOG_FIELD_LIMIT = float(np.log(1.8))
_FIELD_SIGMAS = (0.2, 0.07)
"""Blurs of the light map as parts of the crop's side, from half a face to an eye and its lids. Where the
narrow one has few votes, the broader one holds. Finer light is a part of a person's looks: with 0.05, 0.06,
0.07 and 0.08 the distance to the source's photo was 0.41, 0.39, 0.38 and 0.37 on one pair; with 0.03 instead
of 0.05 it rose from 0.42 to 0.44 on another."""
_SURPRISE = 1.0
"""Logarithm by which a pair may lie off the broad map before it has no say in the finer one."""
_SKIN_CHROMA = 5.0
"""Floor of the spread of a* and b* among skin: it keeps its hue from light to shade."""
_DULLER = 14.0
"""Floor of the spread of L* by which the swap is darker than the target: a nose that has no highlight may be
20 darker than one that has."""
_PALE = 12.0
"""Distance of a* and b* from grey up to which a target's colour may be that of hair; from twice as much on it
is that of skin or of a lamp."""
_DARK_HAIR = 35.0
"""L* by which dark hair is darker than skin; what a lamp paints is mostly less."""
_BLACK = 16.0
"""Added to L* before it is compared with a* and b*, which it is in proportion to in one light and another."""
_FINE_SIGMA = 0.016
"""Blur of the colour below which it is fine detail, as part of the crop's side: a lip is thicker."""
_FINE_SIZE = 256
_FINE_SHARE = 0.99
"""Quantile of the footage's fine warm colour that bounds the swap's."""
_LEAST_FINE = 0.01
_SHADING_SIZE = 128
_SHADING_LIMIT = 0.5
"""Logarithm from which shading is lips, brows or a pupil, and is deepened no further."""
_CONTRAST_MOST = 1.35
"""Times the drawn shading: more makes wrinkles of the lines of a smile."""
_DARK = 0.05
"""Added to both sides of a ratio, so that noise in black hair or pupils makes no gain."""

_DARKEST_BLUE = -2.0
"""Least b* of what is dark in a face, unless the footage's skin has less."""
_LIPS = 13.0
"""a* that lips have more than skin at the least, where the footage does not show them."""
_NOT_DARK = 30.0
"""L* from which blue may stay: irises."""


@dataclass(frozen=True)
class ColorState:
    """What a track remembers of its colour match. Start a track, or a shot, with None."""

    center_lab: FloatArray
    """``[3]`` robust mean of the swap in the mask, L* in 0..100."""
    shift_lab: FloatArray
    """``[3]`` added to it."""
    gain_lab: FloatArray
    """``[3]`` factors of the distance to the mean."""
    log_field: FloatArray | None
    """``[32, 32, 3]`` logarithm of the gain of gamma-encoded RGB; None unless ``blocks``."""
    contrast: float
    """Factor of the shading that is finer than the field; 1 unless ``blocks``."""
    fine_warmth: float
    """Most of the warm colour that fine detail has, as a difference to the surroundings, 0..1."""
    redness: float
    """a* of the reddest of the face; of what the swap has beyond it half is kept."""
    frames: int
    """Frames measured so far."""


@dataclass(frozen=True)
class ColorMatcher:
    """Match the colour of a swapped face to its target, steadily over time."""

    method: ColorMethod = "blocks"
    """``none``, ``lab`` or ``blocks``."""
    smoothing_frames: float = 4.0
    """Time constant of the exponential smoothing in frames; 0 measures every frame afresh."""
    strength: float = 1.0
    """0 leaves the swap's colours, 1 matches fully."""
    contrast: float = 1.0
    """Share of the shading that a flatter swap lacks; needs ``blocks``."""

    def __post_init__(self) -> None:
        if self.method not in ("none", "lab", "blocks"):
            raise UsageError(f"unknown colour method {self.method!r}: use 'none', 'lab' or 'blocks'")
        if self.smoothing_frames < 0 or not 0 <= self.strength <= 1 or not 0 <= self.contrast <= 1:
            raise UsageError(
                f"colour match: smoothing_frames {self.smoothing_frames} must be at least 0, "
                f"strength {self.strength} and contrast {self.contrast} between 0 and 1"
            )

    def __call__(
        self,
        image: FloatArray,
        target: FloatArray,
        mask: FloatArray,
        state: ColorState | None = None,
        *,
        features: FloatArray | None = None,
        shown: FloatArray | None = None,
    ) -> tuple[FloatArray, ColorState | None]:
        """Match one frame.

        :param image: ``[S, S, 3]`` RGB in [0, 1], the regenerated face.
        :param target: ``[T, T, 3]`` RGB in [0, 1], the target's crop of the same quad.
        :param mask: ``[M, M]`` where both show the face, occluders taken out.
        :param state: what the call for the frame before returned; None at a cut.
        :param features: ``[n, n]``, 1 on the brows, eyes and lips of either face: light is read beside them.
        :param shown: ``[n, n]`` in [0, 1], above 0 where the result will be looked at; None is everywhere.
            Far from it the image comes back as it is, and has no part in the face's shading.
        :return: ``[S, S, 3]`` and the state for the next frame.
        """
        if self.method == "none" or self.strength == 0:
            return image, state
        measured = self._measure(image, target, mask, features)
        if measured is not None:
            state = self._smoothed(measured, state)
        if state is None:
            return image, None
        return self.apply(image, state, shown=shown), state

    def apply(self, image: FloatArray, state: ColorState, *, shown: FloatArray | None = None) -> FloatArray:
        """Apply a state to an image ``[S, S, 3]`` without measuring; for ``shown`` see the call."""
        size = image.shape[0]
        inner = (slice(0, size), slice(0, size)) if shown is None else _span_shown(shown, size)
        if inner is None:
            return image
        # A copy: what follows is done in place.
        rows, columns = inner
        part = to_tensor(image)[..., rows, columns].clone(memory_format=torch.contiguous_format)
        table = _lab_table(state, self.strength)
        out = _table_applied(part, table, finest=size > _TABLE_SIDE)
        if self.method == "blocks" and state.log_field is not None:
            # Cubic: a linear enlargement from 32 would show its facets on a cheek.
            field = F.interpolate(
                to_tensor(state.log_field), size=_SHADING_SIZE, mode="bicubic", align_corners=False
            )
            deeper = self.contrast * (state.contrast - 1)
            if deeper > 0:
                face = np.ones((1, 1), np.float32) if shown is None else shown
                small = _apply_table(resize(to_tensor(image), _SHADING_SIZE), table)
                field = field + deeper * _shading(small, to_tensor(resize_map(face, _SHADING_SIZE)))
            out = _soft_clip(out.mul_(enlarged_part(torch.exp(self.strength * field), size, inner)))
        out = _fine_colour_bounded(out, size, state.fine_warmth, self.strength)
        made = np.array(image, dtype=np.float32)
        made[inner] = out.clamp_(0.0, 1.0)[0].permute(1, 2, 0).numpy()
        return made

    def _measure(
        self, image: FloatArray, target: FloatArray, mask: FloatArray, features: FloatArray | None
    ) -> ColorState | None:
        size = min(_ANALYSIS_SIZE, image.shape[0], target.shape[0])
        swap, goal = resize(to_tensor(image), size), resize(to_tensor(target), size)
        swap_lab = _lab(swap).reshape(-1, 3)
        goal_lab = _lab(goal).reshape(-1, 3)
        inside = resize_map(mask, size).reshape(-1)
        weight = inside * _exposure(goal_lab) * _exposure(swap_lab)
        if float(weight.sum()) < _MIN_SAMPLES * (size / _ANALYSIS_SIZE) ** 2:
            return None
        weight = _agreeing(swap_lab, goal_lab, weight)
        center, swap_spread = _robust_mean_spread(swap_lab, weight)
        goal_center, goal_spread = _robust_mean_spread(goal_lab, weight)
        shift = np.clip(goal_center - center, -_SHIFT_LIMIT, _SHIFT_LIMIT)
        # The floor keeps two flat pictures from being divided by their noise.
        gain = np.clip((goal_spread + 1.5) / (swap_spread + 1.5), *_GAIN_LIMIT)
        warmth = _fine_warmth(target, mask)
        redness = max(_reddest(goal_lab, inside), float(center[1] + shift[1]) + _LIPS)
        state = ColorState(center, shift, gain.astype(np.float32), None, 1.0, warmth, redness, 1)
        if self.method == "lab":
            return state
        matched = _apply_table(swap, _lab_table(state, 1.0))
        votes = inside * _exposure(goal_lab) * _not_black(swap_lab)
        if features is not None:
            votes = votes * (1 - resize_map(features, size).reshape(-1))
        skin = _on_skin(swap_lab, goal_lab, votes).reshape(size, size)
        field = _light_field(matched, goal, skin)
        return replace(state, log_field=field, contrast=_contrast(matched, goal, to_tensor(skin)))

    def _smoothed(self, new: ColorState, old: ColorState | None) -> ColorState:
        if old is None or self.smoothing_frames == 0:
            return new
        rate = 1.0 - float(np.exp(-1.0 / self.smoothing_frames))
        # The first frames average what they have; a jump of the light (a flash, a missed cut) is
        # followed at once, as lagging behind it would show.
        rate = max(rate, 1.0 / (old.frames + 1))
        jump = float(np.abs(new.shift_lab - old.shift_lab).max())
        rate = max(rate, float(smoothstep(np.float32((jump - 6.0) / 12.0))))

        def mix(before: FloatArray, after: FloatArray) -> FloatArray:
            return (before + rate * (after - before)).astype(np.float32)

        field = new.log_field
        if field is not None and old.log_field is not None:
            field = mix(old.log_field, field)
        return ColorState(
            center_lab=mix(old.center_lab, new.center_lab),
            shift_lab=mix(old.shift_lab, new.shift_lab),
            gain_lab=mix(old.gain_lab, new.gain_lab),
            log_field=field,
            contrast=old.contrast + rate * (new.contrast - old.contrast),
            fine_warmth=old.fine_warmth + rate * (new.fine_warmth - old.fine_warmth),
            redness=old.redness + rate * (new.redness - old.redness),
            frames=old.frames + 1,
        )


def _lab(tensor: torch.Tensor) -> FloatArray:
    """``[1, 3, H, W]`` RGB to ``[H, W, 3]`` L*a*b*."""
    return to_array(kornia.color.rgb_to_lab(tensor))


def _exposure(lab: FloatArray) -> FloatArray:
    """Weight of pixels that are neither blown out nor black, where colour means nothing."""
    return smoothstep((98.0 - lab[..., 0]) / 8.0) * _not_black(lab)


def _not_black(lab: FloatArray) -> FloatArray:
    return smoothstep((lab[..., 0] - 3.0) / 8.0)


def _reddest(lab: FloatArray, mask: FloatArray) -> float:
    """a* of the lips, as far as they are seen: of the reddest hundredth of the face."""
    seen = lab[mask > 0.5, 1]
    return float(np.quantile(seen, 0.99)) if seen.size else -np.inf


def _weighted_quantile(values: FloatArray, weight: FloatArray, q: float) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weight[order])
    index = np.searchsorted(cumulative, q * cumulative[-1])
    return float(values[order[min(int(index), len(order) - 1)]])


def _median_mad(values: FloatArray, weight: FloatArray) -> tuple[float, float]:
    median = _weighted_quantile(values, weight, 0.5)
    mad = _weighted_quantile(np.abs(values - median), weight, 0.5)
    return median, 1.4826 * mad


def _agreeing(swap_lab: FloatArray, goal_lab: FloatArray, weight: FloatArray) -> FloatArray:
    """Weights ``[n]`` less those of pairs that differ otherwise than most, and of non-skin."""
    heard = weight > 0  # the rest would only be sorted along
    votes, swap, goal = weight[heard], swap_lab[heard], goal_lab[heard]
    left = votes.copy()
    # Floors in L*, a*, b*: variation below them is ordinary skin.
    for lab, floor in ((swap, 6.0), (goal, 6.0), (goal - swap, 4.0)):
        for channel in range(3):
            left *= _trust(lab[:, channel], votes, floor)
    return _kept_votes(weight, heard, left)


def _on_skin(swap_lab: FloatArray, goal_lab: FloatArray, weight: FloatArray) -> FloatArray:
    """Weights ``[n]`` of pairs where both show skin, in whatever light.

    Unlike :func:`_agreeing` it hears pairs that differ much: a highlight that only one of them has is wrong
    light on a face, and what the light map is for.
    """
    heard = weight > 0
    votes, swap, goal = weight[heard], swap_lab[heard], goal_lab[heard]
    like_skin = _of_one_hue(goal, votes)
    # A lamp of another colour paints a cheek; hair and beards are paler than skin, or darker.
    painted = smoothstep((np.hypot(*goal[:, 1:].T) - _PALE) / _PALE)
    painted *= smoothstep((goal[:, 0] - swap[:, 0]) / _DARK_HAIR + 1.0)
    left = votes * _of_one_hue(swap, votes) * np.maximum(like_skin, painted)
    # What is left of hair is dark.
    left *= _trust(swap[:, 0] - goal[:, 0], votes, _DULLER, below=True)
    return _kept_votes(weight, heard, left)


def _of_one_hue(lab: FloatArray, votes: FloatArray) -> FloatArray:
    """1 where colours ``[n, 3]`` are those of most, and 0 far from them."""
    kept = np.ones_like(votes)
    for chroma, even in zip(lab[:, 1:].T, _evenly_lit(lab, votes).T, strict=True):
        # From light to shade colour fades with lightness, or not at all where a camera bends its curve.
        median, spread = _median_mad(chroma, votes)
        low, high = np.minimum(chroma, even), np.maximum(chroma, even)
        kept *= _near(np.maximum(low - median, median - high), max(spread, _SKIN_CHROMA))
    return kept


def _evenly_lit(lab: FloatArray, weight: FloatArray) -> FloatArray:
    """a* and b* ``[n, 2]`` as they were in the usual light, if lightness were but light."""
    usual = _weighted_quantile(lab[:, 0], weight, 0.5)
    return lab[:, 1:] * ((usual + _BLACK) / (lab[:, :1] + _BLACK))


def _trust(values: FloatArray, votes: FloatArray, floor: float, *, below: bool = False) -> FloatArray:
    """1 at the median of ``values`` and 0 far from it, in units of their spread, which is ``floor`` at least.

    :param below: doubt only what lies below the median.
    """
    median, spread = _median_mad(values, votes)
    away = median - values if below else np.abs(values - median)
    return _near(away, max(spread, floor))


def _near(away: FloatArray, spread: float) -> FloatArray:
    """1 up to 0, and 0 from two and a half spreads on."""
    return np.maximum(0.0, 1.0 - (np.maximum(away, 0.0) / (2.5 * spread)) ** 2)


def _kept_votes(weight: FloatArray, heard: np.ndarray, left: FloatArray) -> FloatArray:
    """Weights ``[n]`` of which those that are heard have ``left``."""
    # Two faces with nothing in common (a mask drawn wrong): better all votes than none.
    if not float(left.sum()) > 0.1 * float(weight[heard].sum()):
        return weight
    kept = np.zeros_like(weight)
    kept[heard] = left
    return kept


def _robust_mean_spread(lab: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weighted mean and standard deviation ``[3]`` of samples ``[n, 3]``."""
    share = (weight / weight.sum())[:, None]
    mean = (lab * share).sum(axis=0)
    spread = np.sqrt((((lab - mean) ** 2) * share).sum(axis=0))
    return mean.astype(np.float32), spread.astype(np.float32)


def _lab_table(state: ColorState, strength: float) -> torch.Tensor:
    """The affine map in L*a*b* as a table of differences over the RGB cube, ``[1, 3, b, g, r]``."""
    lab = _lab_cube()
    center = torch.from_numpy(state.center_lab).view(1, 3, 1, 1)
    shift = torch.from_numpy(state.shift_lab).view(1, 3, 1, 1)
    gain = torch.from_numpy(state.gain_lab).view(1, 3, 1, 1)
    moved = (lab - center) * gain + center
    # Another light scales the colour of a thing: skin that must lose yellow would take the same yellow
    # from lips (magenta), the white of the eyes and dark hair (blue) if it were subtracted.
    scale = torch.where(center > _COLOURED, (center + shift) / center, torch.ones_like(center))
    scale = scale.clamp(*_CHROMA_SCALE)
    scale[:, 0] = 1.0
    # What is more colourful than skin keeps its distance: scaled up, lips would glow.
    scaled = torch.where(scale > 1, torch.minimum(moved * scale, moved + center * (scale - 1)), moved * scale)
    moved = scaled + (shift - center * (scale - 1))
    moved[:, 1:2] -= 0.5 * (moved[:, 1:2] - state.redness).clamp(min=0.0)
    # Black and white stay: pupils, nostrils and catch lights are not skin.
    lightness = lab[:, :1]
    hold = ((lightness / 25.0).clamp(0, 1) * ((100.0 - lightness) / 12.0).clamp(0, 1)) * strength
    moved = lab + hold * (moved - lab)
    moved[:, :1] = moved[:, :1].clamp(0.0, 100.0)
    # The generator draws the dark of some mouths navy; where light is not blue itself, no face is there.
    least = min(_DARKEST_BLUE, float(state.center_lab[2] + state.shift_lab[2]))
    dark = ((_NOT_DARK - lightness) / (_NOT_DARK / 2)).clamp(0, 1) * strength
    moved[:, 2:] += dark * (moved[:, 2:].clamp(min=least) - moved[:, 2:])
    table = kornia.color.lab_to_rgb(moved, clip=True)
    return table.reshape(1, 3, _TABLE_SIZE, _TABLE_SIZE, _TABLE_SIZE)


@lru_cache(maxsize=1)
def _lab_cube() -> torch.Tensor:
    """The nodes of the table in L*a*b*, ``[1, 3, 1, n]``; not to be written to."""
    steps = torch.linspace(0.0, 1.0, _TABLE_SIZE)
    blue, green, red = torch.meshgrid(steps, steps, steps, indexing="ij")
    return kornia.color.rgb_to_lab(torch.stack([red, green, blue]).reshape(1, 3, 1, -1))


def _span_shown(shown: FloatArray, size: int) -> tuple[slice, slice] | None:
    """Rows and columns of an image of this size around what is shown; None when nothing is."""
    seen = shown > 0
    if not seen.any():
        return None
    cells = shown.shape[0]
    # The detail's blurs and the paste's cubic look a little beyond the mask.
    spans = span_of(seen, room=max(1, cells // 32), cell=max(1, cells // 64))
    rows, columns = (
        slice(span.start * size // cells & ~1, min(size, -(-span.stop * size // cells) + 1 & ~1))
        for span in spans
    )
    return rows, columns


def _table_applied(image: torch.Tensor, table: torch.Tensor, *, finest: bool) -> torch.Tensor:
    """The table at each pixel; of a ``finest`` picture at each second, which is all that footage shows.

    What the table adds changes little from pixel to pixel, and it is what is enlarged.
    """
    if not finest or min(image.shape[-2:]) < 4:
        return _apply_table(image, table)
    small = F.avg_pool2d(image, 2, ceil_mode=True, count_include_pad=False)
    change = _apply_table(small, table).sub_(small)
    change = F.interpolate(change, scale_factor=2, mode="bilinear", align_corners=False)
    return image + change[..., : image.shape[-2], : image.shape[-1]]


def _apply_table(tensor: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """A table ``[1, 3, n, n, n]`` (blue, green, red) at colours ``[1, 3, H, W]`` in [0, 1], linear between.

    torch samples pictures several times as fast as volumes. So the slices of blue lie side by side, each
    with what the next one adds to it.
    """
    n = table.shape[-1]
    both = torch.cat([table[:, :, :-1], table[:, :, 1:] - table[:, :, :-1]], 1)
    sheet = both.permute(0, 1, 3, 2, 4).reshape(1, 6, n, (n - 1) * n)
    red, green, blue = (tensor.clamp(0, 1) * (n - 1)).unbind(1)
    slices = blue.floor().clamp_(max=n - 2)
    x = torch.add(red, slices, alpha=n).mul_(2 / (sheet.shape[-1] - 1)).sub_(1)
    at = torch.stack([x, green.mul_(2 / (n - 1)).sub_(1)], -1)
    found = F.grid_sample(sheet, at, mode="bilinear", padding_mode="border", align_corners=True)
    return torch.addcmul(found[:, :3], found[:, 3:], (blue - slices)[:, None])


def _light_field(swap: torch.Tensor, goal: torch.Tensor, weight: FloatArray) -> FloatArray:
    """Smooth logarithm of goal over swap, ``[32, 32, 3]``, by normalised convolution from coarse to fine.

    Two rounds: what the broader maps leave unexplained by far (features that one face has and the
    other has not) is left out of the second. Colours follow as well as light: the same skin has one hue.
    """
    size = weight.shape[0]
    ratio = torch.log((goal + _DARK) / (swap + _DARK))
    vote = to_tensor(weight)
    # Far from any vote a map returns to the broader one instead of repeating its rim.
    prior = 0.02

    def smooth(votes: torch.Tensor, widths: Sequence[float]) -> torch.Tensor:
        field = torch.zeros_like(ratio)
        for width in widths:
            near = gaussian_blur(torch.cat([(ratio - field) * votes, votes], 1), width * size)
            field = field + near[:, :3] / (near[:, 3:] + prior)
        return field

    broad = smooth(vote, _FIELD_SIGMAS[:-1])
    surprise = (ratio - broad).abs().mean(dim=1, keepdim=True) / _SURPRISE
    field = smooth(vote * (1 - surprise.clamp(0, 1) ** 2), _FIELD_SIGMAS)
    field = _LOG_FIELD_LIMIT * torch.tanh(field / _LOG_FIELD_LIMIT)
    return to_array(resize(field, _FIELD_SIZE))


def _shading(picture: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Logarithm of the light of ``[1, 3, n, n]`` less that of what has weight around it."""
    light = torch.log(luma(picture) + _DARK)
    around = gaussian_blur(torch.cat([light * weight, weight], 1), _FIELD_SIGMAS[-1] * light.shape[-1])
    shading = light - around[:, :1] / around[:, 1:].clamp_min(1e-3)
    return _SHADING_LIMIT * torch.tanh(shading / _SHADING_LIMIT) * weight


def _contrast(swap: torch.Tensor, goal: torch.Tensor, weight: torch.Tensor) -> float:
    """How many times the swap's shading on skin the target's is, between 1 and a bound."""
    # Means of amounts, not of squares: a few moles or deep wrinkles say little.
    own, wanted = (float((_shading(each, weight).abs() * weight).sum()) for each in (swap, goal))
    return min(max(wanted / max(own, 1e-6), 1.0), _CONTRAST_MOST)


def _fine_colour(image: torch.Tensor, size: int) -> torch.Tensor:
    """By how much the colour (RGB less its luma) of ``[1, 3, h, w]`` differs from what lies around.

    :param size: side in pixels of the whole crop, of which ``image`` may be a part.
    """
    colour = image - luma(image)
    sigma = _FINE_SIGMA * size
    # What is broad is found at a smaller size.
    step = max(1, min(int(sigma / 2), *image.shape[-2:]))
    broad = F.avg_pool2d(colour, step, ceil_mode=True, count_include_pad=False)
    broad = gaussian_blur(broad, sigma / step)
    broad = F.interpolate(broad, scale_factor=step, mode="bilinear", align_corners=False)
    return colour.sub_(broad[..., : image.shape[-2], : image.shape[-1]])


def _fine_warmth(target: FloatArray, mask: FloatArray) -> float:
    size = min(_FINE_SIZE, target.shape[0])
    fine = _fine_colour(resize(to_tensor(target), size), size)[0, 2].numpy()
    seen = fine[resize_map(mask, size) > 0.5]
    return max(_LEAST_FINE, -float(np.quantile(seen, 1 - _FINE_SHARE))) if seen.size else 1.0


def _fine_colour_bounded(image: torch.Tensor, size: int, bound: float, strength: float) -> torch.Tensor:
    """An image whose fine detail is no warmer than the footage's; see :func:`_fine_colour`. In place.

    The generator outlines wrinkles in orange, hair in green, and a closing mouth in scarlet. What is bluer
    than its surroundings (irises, the white of an eye, black hair on skin) stays, and so does all lightness.
    """
    fine = _fine_colour(image, size)
    warm = fine[:, 2:].neg().clamp_(min=0.0).div_(bound)
    # Nothing changes well below the bound.
    kept = warm.pow_(4).add_(1.0).pow_(-0.25)
    return image.add_(fine.mul_(kept.sub_(1.0)), alpha=strength)


def _soft_clip(tensor: torch.Tensor) -> torch.Tensor:
    """Bend values above 0.9 towards 1 instead of cutting them, so highlights keep their shape; in place."""
    knee = 0.9
    values = tensor.view(-1)
    over = torch.nonzero(values > knee)[:, 0]  # once: a mask is searched at reading and at writing
    values[over] = knee + (1 - knee) * torch.tanh((values[over] - knee) / (1 - knee))
    return tensor

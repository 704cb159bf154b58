"""Sharpness, texture and grain of the swapped face, brought to those of the footage.

A generator draws every pore at 1024 px; footage seldom holds that much, and has grain. A face
that is sharper and cleaner than the neck below it looks pasted. Everything is measured and made
at the **footage's own resolution**: the crop reduced to as many pixels as its quad has.
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
    span_of,
    to_array,
    to_tensor,
    widest,
    with_added,
)
from vidswap.errors import UsageError
from vidswap.records import FloatArray

_MIN_SIDE = 48
_MAX_SIGMA = 2.0
"""Most blur, in pixels of the footage: beyond it the footage is in motion, not soft."""
_SIGMA_STEPS = np.array([0.0, 0.35, 0.5, 0.65, 0.8, 1.0, 1.2, 1.45, 1.7, _MAX_SIGMA])
_USUAL_DROPS = np.array([0.0, 0.04, 0.25, 0.47, 0.64, 0.81, 0.95, 1.08, 1.18, 1.26])
"""By how much each of them lowered the ratio of octaves of six drawn faces, on average."""
_MAX_GRAIN = 0.06
_MIN_GRAIN = 0.0012
"""Grain below a third of an 8-bit step cannot be told from rounding."""
_BLOCK = 8
_FLAT_SHARE = 0.2
"""Quantile of blocks, by activity, that count as flat."""
_PRE_BLUR = 0.7
_FLAT_BIAS = 0.0952
"""What that quantile reads of pure white noise of level 1 (64 samples a block)."""
_CROP_KEEPS = 0.62
"""Part of white grain's level that survives footage -> larger crop -> back (cubic both ways)."""
_CROP_SOFTENS = 0.1
"""What the same journey takes off the octave ratio of an ordinary picture."""
_PASTE_KEEPS = 0.86
"""Part of the grain made here that survives the enlargement and the paste."""
_CHROMA_GRAIN = 0.25
_TEXTURE, _TEXTURE_AROUND = 0.005, 0.04
"""Blurs, as parts of the crop's side: what is finer than the first counts as texture, and how much of it
there is, is averaged by the second."""
_TEXTURE_MOST = 2.0
"""Texture up to so many times what is usual in the target's skin is carried over."""
_ROUGHER, _ROUGHER_AROUND, _BESIDE = 1.4, 0.025, 0.01
"""Times the target's texture that the swap's may be; by what that is averaged, and how far from brows, eyes
and lips it is measured, as parts of the crop's side. A generator draws pores, as a weave, into the skin of
pictures that hold none."""
_LINE = 4.0
"""Times the median of skin beyond which what is fine is a line or a lash, and no texture."""
_FEW = 0.05
"""Least share of skin around a place at which its texture is measured."""
_COARSER = 4
"""Pixels of the footage for one of the map of that."""
_LITTLE = 0.02
"""Share of its texture below which it is left alone."""
_ENOUGH = 32768
_LOOK_PX = 16
"""Pixels that two blurs, one after the other, look at around the face."""


def match_detail(
    swap_image: FloatArray,
    target_crop: FloatArray,
    mask: FloatArray,
    *,
    footage_scale: float,
    strength: float = 1.0,
    seed: int = 0,
    texture: FloatArray | None = None,
) -> FloatArray:
    """Soften and grain a regenerated face as the footage is, and lend it the footage's fine texture.

    :param swap_image: ``[S, S, 3]`` RGB in [0, 1].
    :param target_crop: ``[T, T, 3]`` RGB in [0, 1], the target over the same quad.
    :param mask: ``[M, M]`` the face, occluders taken out.
    :param footage_scale: pixels of the frame for a pixel of ``swap_image``: side of the quad in
        pixels / S.
    :param strength: 0 returns the image as it is, 1 matches fully.
    :param seed: number of the grain pattern: give the frame's pts, and a frame always gets the
        same grain.
    :param texture: ``[n, n]`` in [0, 1], which part of the target's pores and grain is carried over where the
        swap has less of them, and of the swap's taken off where the target has less; 0 where one of the faces
        is no bare skin. None: none anywhere.
    :return: ``[S, S, 3]``.
    :raises UsageError: for a strength outside [0, 1].
    """
    if not 0 <= strength <= 1:
        raise UsageError(f"detail strength {strength}: give a number between 0 and 1")
    size = swap_image.shape[0]
    side = int(np.clip(round(size * footage_scale), 1, size))
    if strength == 0 or side < _MIN_SIDE:
        return swap_image
    face = resize_map(mask, side) > 0.5
    if face.sum() < 16 * _BLOCK**2:
        return swap_image
    # Nothing looks farther than a few pixels beyond the face. Blocks begin where they would in the whole.
    rows, columns = inner = span_of(face, room=max(side // 16, _LOOK_PX), cell=_BLOCK)
    seen = face[inner]
    target_luma = to_array(_reduce(luma(to_tensor(target_crop)), side))[inner]
    skin = None
    if texture is not None:
        skin = _skin(target_luma, strength * resize_map(texture, side)[inner], side)
    if skin is not None:
        swap_image = _smoothed(swap_image, skin, inner, side)
    swap = _reduce(to_tensor(swap_image), side)[..., rows, columns].contiguous()
    swap_luma = luma(swap)
    enlarged = side < target_crop.shape[0]
    seen_noise = noise_level(target_luma, seen)
    target_noise = seen_noise / _CROP_KEEPS if enlarged else seen_noise
    sigma = matching_blur(
        to_array(swap_luma),
        target_luma,
        seen,
        noise=seen_noise,
        allowance=_CROP_SOFTENS if enlarged else 0.0,
    )
    softened = gaussian_blur(swap, strength * sigma)
    lent = None
    if skin is not None:
        lent = _texture(luma(softened), skin, side)
        softened = softened + lent
    own_noise = noise_level(to_array(luma(softened)), seen)
    # Grain at or below the swap's own finest texture is there already.
    missing = float(np.sqrt(max(target_noise**2 - own_noise**2, 0.0))) * strength
    change = softened - swap
    if missing >= _MIN_GRAIN:
        kept = _PASTE_KEEPS if side < size else 1.0
        change += _grain(side, seed)[..., rows, columns] * (min(missing, _MAX_GRAIN) / kept)
    elif sigma == 0 and lent is None:
        return swap_image
    return _carried(swap_image, change, inner, side)


@dataclass(frozen=True)
class _Skin:
    """Bare skin of a target and a swap, at the footage's resolution."""

    wanted: FloatArray
    """``[h, w]`` where its texture is brought to the target's, and how far, 0 to 1."""
    heard: NDArray[np.bool_]
    """``[h, w]`` where it tells what is usual."""
    fine: torch.Tensor
    """``[1, 1, h, w]`` the target's fine detail."""


def _skin(target: FloatArray, wanted: FloatArray, side: int) -> _Skin | None:
    """The skin of a target ``[h, w]`` in a crop of ``side`` pixels; None where too little of it is bare."""
    heard = wanted > 0.5 * wanted.max()
    if heard.sum() < _BLOCK**2:
        return None
    return _Skin(wanted, heard, _fine(to_tensor(target), side))


def _fine(light: torch.Tensor, side: int) -> torch.Tensor:
    """What of a picture in a crop of ``side`` pixels counts as texture."""
    return light - gaussian_blur(light, _TEXTURE * side)


def _texture(swap: torch.Tensor, skin: _Skin, side: int) -> torch.Tensor:
    """What the target's skin has of fine detail and the swap's has not, ``[1, 1, h, w]``.

    Bounded by what is usual in the target's skin, so that moles, wrinkles and stubble stay behind.

    :param swap: ``[1, 1, h, w]`` light. :param side: pixels of the whole crop.
    """
    fine, own = skin.fine, _fine(swap, side)
    energy, own_energy = (gaussian_blur(each.square(), _TEXTURE_AROUND * side) for each in (fine, own))
    usual = float(energy[0, 0][torch.from_numpy(skin.heard)].median()) ** 0.5
    most = _TEXTURE_MOST * max(usual, 1e-4)
    missing = (1 - own_energy / energy.clamp_min(1e-8)).clamp_min(0).sqrt()
    ordinary = (_TEXTURE_MOST * usual / energy.clamp_min(1e-8).sqrt()).clamp(max=1.0)
    return to_tensor(skin.wanted) * missing * ordinary**2 * most * torch.tanh(fine / most)


def _smoothed(image: FloatArray, skin: _Skin, inner: tuple[slice, slice], side: int) -> FloatArray:
    """The swap ``[S, S, 3]`` without the texture that its skin has in excess of the target's.

    Lines, lashes and moles of either do not count as texture, and stay.

    :param skin: rows and columns ``inner`` of ``side``.
    """
    whole = luma(to_tensor(image))
    own = _fine(_reduce(whole, side)[..., inner[0], inner[1]], side)
    bare = to_tensor(-widest(-skin.heard.astype(np.float32), max(1, round(_BESIDE * side))))
    # Means of roots: they hear what is everywhere, and hardly the few lines among it.
    roots = [each.abs().sqrt() * bare for each in (skin.fine, own)]
    coarse = F.avg_pool2d(torch.cat([*roots, bare, to_tensor(skin.wanted)], 1), _COARSER, ceil_mode=True)
    heard_of = gaussian_blur(coarse[:, :3], _ROUGHER_AROUND * side / _COARSER)
    level, own_level = (heard_of[:, :2] / heard_of[:, 2:].clamp_min(_FEW)).square().split(1, 1)
    excess = coarse[:, 3:] * (1 - _ROUGHER * level / own_level.clamp_min(1e-5)).clamp_min(0)
    if excess.max() < _LITTLE:
        return image
    # In the picture as it is drawn: reduced and enlarged again, half of what is taken off would be lost.
    size = image.shape[0]
    rows, columns = part = scaled_span(inner, size / side)
    drawn = _fine(whole[..., rows, columns], size)
    most = _LINE * max(float(drawn[..., ::4, ::4].abs().median()), 1e-4)
    share = F.interpolate(excess, size=drawn.shape[-2:], mode="bilinear", align_corners=False)
    taken = share * most * torch.tanh(drawn / most)
    return with_added(image, -taken[0, 0].numpy()[..., None], part)


def noise_level(grey: FloatArray, mask: FloatArray | NDArray[np.bool_]) -> float:
    """Standard deviation of the grain of a picture ``[H, W]``, 0..1, in its flattest blocks.

    The second difference in both directions cancels gradients and straight edges (Immerkaer,
    "Fast noise variance estimation", 1996); its robust spread in the quietest fifth of the
    blocks under the mask leaves texture out.
    """
    # The very finest frequencies come and go with the sub-pixel phase of the crop: damp them.
    smooth = to_array(gaussian_blur(to_tensor(grey), _PRE_BLUR))
    mixed = smooth[:-2] - 2 * smooth[1:-1] + smooth[2:]
    mixed = (mixed[:, :-2] - 2 * mixed[:, 1:-1] + mixed[:, 2:]) / 6.0
    rows, columns = (length // _BLOCK for length in mixed.shape)
    if rows == 0 or columns == 0:
        return 0.0

    def blocks(values: FloatArray) -> FloatArray:
        cut = values[: rows * _BLOCK, : columns * _BLOCK]
        split = cut.reshape(rows, _BLOCK, columns, _BLOCK).swapaxes(1, 2)
        return split.reshape(rows * columns, -1)

    covered = blocks(np.asarray(mask[1:-1, 1:-1] > 0.5)).all(axis=1)
    if covered.sum() < 8:
        return 0.0
    # Blown-out and black blocks hold no grain and would pass for the quietest.
    level = blocks(grey[1:-1, 1:-1])[covered].mean(axis=1)
    # Sorted rows: many times as fast as a median of each.
    middle = np.sort(np.abs(blocks(mixed)[covered]), axis=1)[:, _BLOCK**2 // 2 - 1 : _BLOCK**2 // 2 + 1]
    spread = 1.4826 * middle.mean(axis=1)
    usable = spread[(level > 0.04) & (level < 0.96)]
    if usable.size < 8:
        return 0.0
    return float(np.quantile(usable, _FLAT_SHARE)) / _FLAT_BIAS


def matching_blur(
    swap_grey: FloatArray,
    target_grey: FloatArray,
    mask: NDArray[np.bool_],
    *,
    noise: float = 0.0,
    allowance: float = 0.0,
) -> float:
    """Gaussian sigma in pixels that makes the swap as soft as the target, 0 if it is already.

    Softness is read from the energy of the finest octave over that of the next: the ratio falls
    with blur, and unlike the energy itself it does not depend on how wrinkled a face is.

    :param swap_grey: ``[H, W]`` at the footage's resolution; ``target_grey`` and ``mask`` too.
    :param noise: standard deviation of the target's grain, which is taken off its energy.
    :param allowance: added to the target's ratio for what resampling took from it.
    """
    # More samples than that say the same: some rows are left out.
    every = 1 + int(np.count_nonzero(mask)) // _ENOUGH
    goal = _octave_ratio(to_tensor(target_grey), mask, noise, every) + allowance
    grey = to_tensor(swap_grey)
    ratios = {0: _octave_ratio(grey, mask, 0.0, every)}
    if ratios[0] <= goal:
        return 0.0
    # The ratio falls with every step. The first that reaches the goal is mostly where it is for other faces;
    # else it is found by halving.
    low, high = 0, len(_SIGMA_STEPS)
    guess = int(np.searchsorted(_USUAL_DROPS, ratios[0] - goal))
    while high - low > 1:
        middle = min(max(guess, low + 1), high - 1) if len(ratios) < 3 else (low + high) // 2
        ratios[middle] = _octave_ratio(gaussian_blur(grey, float(_SIGMA_STEPS[middle])), mask, 0.0, every)
        low, high = (low, middle) if ratios[middle] <= goal else (middle, high)
    if high == len(_SIGMA_STEPS):
        return _MAX_SIGMA
    t = (ratios[low] - goal) / max(ratios[low] - ratios[high], 1e-9)
    return float(_SIGMA_STEPS[low] + t * (_SIGMA_STEPS[high] - _SIGMA_STEPS[low]))


def _octave_ratio(grey: torch.Tensor, mask: NDArray[np.bool_], noise: float, every: int = 1) -> float:
    """Logarithm of the finest octave's amplitude over that of the next two, in each ``every``-th row."""
    heard = mask[::every]
    levels = (gaussian_blur(grey, sigma, every=every) for sigma in (0.0, 0.8, 2.4))
    own, one, two = (level[0, 0].numpy()[heard] for level in levels)
    fine, middle = own - one, one - two
    # White noise through these two filters keeps these parts of its variance.
    fine_energy, middle_energy = _trimmed_energy(fine), _trimmed_energy(middle)
    # Pores pass for grain in part: at most half of the energy is taken to be grain.
    fine_energy -= min(0.63 * noise**2, 0.5 * fine_energy)
    middle_energy -= min(0.09 * noise**2, 0.5 * middle_energy)
    floor = 1e-8
    return 0.5 * float(np.log((fine_energy + floor) / (middle_energy + 10 * floor)))


def _trimmed_energy(values: FloatArray) -> float:
    """Mean square without the strongest 2 %: glints on glasses and lashes decide nothing."""
    square = values * values
    last = int(0.98 * (len(square) - 1))
    return float(np.partition(square, last)[: last + 1].mean())


def _grain(side: int, seed: int) -> torch.Tensor:
    """Unit grain ``[1, 3, side, side]``: mostly of lightness, a little of colour."""
    generator = torch.Generator().manual_seed((int(seed) * 0x9E3779B1 + 12345) % 2**63)
    noise = torch.randn((1, 4, side, side), generator=generator)
    return noise[:, :1] + _CHROMA_GRAIN * noise[:, 1:]


def _reduce(tensor: torch.Tensor, side: int) -> torch.Tensor:
    """To the footage's resolution by a cubic: an area average would eat half of its grain."""
    if tensor.shape[-1] == side:
        return tensor
    return F.interpolate(
        tensor, size=(side, side), mode="bicubic", align_corners=False, antialias=True
    )


def _carried(
    original: FloatArray, change: torch.Tensor, inner: tuple[slice, slice], side: int
) -> FloatArray:
    """Carry a change made at the footage's resolution to the crop's.

    The change, not the picture, is enlarged: the paste reduces the crop again, and what it
    reads is then the picture as changed here, not one that went through two resamplings.

    :param change: ``[1, 3, h, w]``, rows and columns ``inner`` of ``side``.
    """
    size, part = original.shape[0], inner
    if side != size:
        part = scaled_span(inner, size / side)
        change = _enlarged(change, size / side, inner, part)
    return with_added(original, change[0].permute(1, 2, 0).numpy(), part)


def _enlarged(
    change: torch.Tensor, scale: float, inner: tuple[slice, slice], outer: tuple[slice, slice]
) -> torch.Tensor:
    """Rows and columns ``outer`` of a change of which ``inner`` are known, ``scale`` times as large."""
    place = []
    for known, wanted in zip(inner, outer, strict=True):
        centre = (torch.arange(wanted.start, wanted.stop) + 0.5) / scale - known.start
        place.append(centre * (2 / (known.stop - known.start)) - 1)
    grid = torch.stack(torch.meshgrid(*place, indexing="ij")[::-1], dim=-1)[None]
    return F.grid_sample(
        change, grid, mode="bicubic", padding_mode="border", align_corners=False
    )

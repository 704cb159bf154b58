"""Sharpness and grain of the swapped face, brought to those of the footage.

A generator draws every pore at 1024 px; footage seldom holds that much, and has grain. A face
that is sharper and cleaner than the neck below it looks pasted. Everything is measured and made
at the **footage's own resolution**: the crop reduced to as many pixels as its quad has.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from vidswap.compositing.arrays import gaussian_blur, luma, resize, resize_map, to_array, to_tensor
from vidswap.errors import UsageError
from vidswap.records import FloatArray

_MIN_SIDE = 48
_MAX_SIGMA = 2.0
"""Most blur, in pixels of the footage: beyond it the footage is in motion, not soft."""
_SIGMA_STEPS = np.array([0.0, 0.35, 0.5, 0.65, 0.8, 1.0, 1.2, 1.45, 1.7, _MAX_SIGMA])
_MAX_GRAIN = 0.06
_MIN_GRAIN = 0.0012
"""Grain below a third of an 8-bit step cannot be told from rounding."""
_BLOCK = 8
_FLAT_SHARE = 0.2
"""Quantile of blocks, by activity, that count as flat."""
_CHROMA_GRAIN = 0.25


def match_detail(
    swap_image: FloatArray,
    target_crop: FloatArray,
    mask: FloatArray,
    *,
    footage_scale: float,
    strength: float = 1.0,
    seed: int = 0,
) -> FloatArray:
    """Soften and grain a regenerated face as the footage is; never sharpen it.

    :param swap_image: ``[S, S, 3]`` RGB in [0, 1].
    :param target_crop: ``[T, T, 3]`` RGB in [0, 1], the target over the same quad.
    :param mask: ``[M, M]`` the face, occluders taken out.
    :param footage_scale: pixels of the frame for a pixel of ``swap_image``: side of the quad in
        pixels / S.
    :param strength: 0 returns the image as it is, 1 matches fully.
    :param seed: number of the grain pattern: give the frame's pts, and a frame always gets the
        same grain.
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
    swap = resize(to_tensor(swap_image), side)
    target_luma = to_array(luma(resize(to_tensor(target_crop), side)))
    swap_luma = luma(swap)
    target_noise = noise_level(target_luma, face)
    sigma = matching_blur(to_array(swap_luma), target_luma, face, noise=target_noise)
    softened = gaussian_blur(swap, strength * sigma)
    own_noise = noise_level(to_array(luma(softened)), face)
    # Grain at or below the swap's own finest texture is there already.
    missing = float(np.sqrt(max(target_noise**2 - own_noise**2, 0.0))) * strength
    if missing >= _MIN_GRAIN:
        softened = softened + _grain(side, seed) * min(missing, _MAX_GRAIN)
    out = softened if side == size else _back_to_size(swap_image, swap, softened)
    return to_array(out.clamp_(0.0, 1.0))


def noise_level(grey: FloatArray, mask: FloatArray) -> float:
    """Standard deviation of the grain of a picture ``[H, W]``, 0..1, in its flattest blocks.

    The second difference in both directions cancels gradients and straight edges (Immerkaer,
    "Fast noise variance estimation", 1996); its robust spread in the quietest fifth of the
    blocks under the mask leaves texture out.
    """
    mixed = grey[:-2] - 2 * grey[1:-1] + grey[2:]
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
    spread = 1.4826 * np.median(np.abs(blocks(mixed)[covered]), axis=1)
    usable = spread[(level > 0.04) & (level < 0.96)]
    return float(np.quantile(usable, _FLAT_SHARE)) if usable.size >= 8 else 0.0


def matching_blur(
    swap_grey: FloatArray, target_grey: FloatArray, mask: FloatArray, *, noise: float = 0.0
) -> float:
    """Gaussian sigma in pixels that makes the swap as soft as the target, 0 if it is already.

    Softness is read from the energy of the finest octave over that of the next: the ratio falls
    with blur, and unlike the energy itself it does not depend on how wrinkled a face is.

    :param swap_grey: ``[H, W]`` at the footage's resolution; ``target_grey`` and ``mask`` too.
    :param noise: standard deviation of the target's grain, which is taken off its energy.
    """
    goal = _octave_ratio(to_tensor(target_grey), mask, noise)
    grey = to_tensor(swap_grey)
    previous_sigma, previous = 0.0, _octave_ratio(grey, mask, 0.0)
    if previous <= goal:
        return 0.0
    for sigma in _SIGMA_STEPS[1:]:
        ratio = _octave_ratio(gaussian_blur(grey, float(sigma)), mask, 0.0)
        if ratio <= goal:
            t = (previous - goal) / max(previous - ratio, 1e-9)
            return float(previous_sigma + t * (sigma - previous_sigma))
        previous_sigma, previous = float(sigma), ratio
    return _MAX_SIGMA


def _octave_ratio(grey: torch.Tensor, mask: FloatArray, noise: float) -> float:
    """Logarithm of the finest octave's amplitude over that of the next two."""
    one = gaussian_blur(grey, 0.8)
    two = gaussian_blur(grey, 2.4)
    fine, middle = (grey - one)[0, 0].numpy()[mask], (one - two)[0, 0].numpy()[mask]
    # White noise through these two filters keeps these parts of its variance.
    fine_energy = _trimmed_energy(fine) - 0.68 * noise**2
    middle_energy = _trimmed_energy(middle) - 0.09 * noise**2
    floor = 1e-8
    return 0.5 * float(np.log((max(fine_energy, floor)) / max(middle_energy, 100 * floor)))


def _trimmed_energy(values: FloatArray) -> float:
    """Mean square without the strongest 2 %: glints on glasses and lashes decide nothing."""
    square = values * values
    return float(square[square <= np.quantile(square, 0.98)].mean())


def _grain(side: int, seed: int) -> torch.Tensor:
    """Unit grain ``[1, 3, side, side]``: mostly of lightness, a little of colour."""
    generator = torch.Generator().manual_seed((int(seed) * 0x9E3779B1 + 12345) % 2**63)
    noise = torch.randn((1, 4, side, side), generator=generator)
    return noise[:, :1] + _CHROMA_GRAIN * noise[:, 1:]


def _back_to_size(
    original: FloatArray, reduced: torch.Tensor, changed: torch.Tensor
) -> torch.Tensor:
    """Carry a change made at the footage's resolution to the crop's.

    The change, not the picture, is enlarged: the paste reduces the crop again, and what it
    reads is then the picture as changed here, not one that went through two resamplings.
    """
    size = original.shape[0]
    change = F.interpolate(
        changed - reduced, size=(size, size), mode="bicubic", align_corners=False
    )
    return to_tensor(original) + change

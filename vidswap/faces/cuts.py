"""A cheap detector of shot boundaries, on thumbnails."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SMALL_WH = (48, 32)
_SHIFT = 6
_BINS = 8
# (colours changed by more than, structure agrees by less than). Within the shots of four clips
# neighbours and frames up to 16 s apart stayed under 0.08 and over 0.77, flashes over 0.88;
# different shots over 0.19 and under 0.69.
_LIMITS = ((0.15, 0.75), (0.08, 0.5), (0.04, 0.25))


def small_rgb(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Thumbnail ``[32, 48, 3]`` uint8 of a picture; the aspect ratio does not matter here."""
    if rgb.shape[:2] == (_SMALL_WH[1], _SMALL_WH[0]):
        return rgb
    # Every n-th pixel first: on a 4K frame the exact mean costs 20 ms and decides nothing.
    step = max(1, min(rgb.shape[0] // (8 * _SMALL_WH[1]), rgb.shape[1] // (8 * _SMALL_WH[0])))
    part = np.ascontiguousarray(rgb[::step, ::step])
    return np.asarray(Image.fromarray(part).resize(_SMALL_WH, Image.Resampling.BOX))


def is_cut(previous_small_rgb: NDArray[np.uint8], rgb: NDArray[np.uint8]) -> bool:
    """Whether a new shot begins between two pictures.

    Colours and structure must both change: motion keeps the colours, a flash or a fade keeps the
    structure. Structure is the correlation of the luma, at the best shift of a camera pan, after
    its mean and contrast are taken out.

    :param previous_small_rgb: :func:`small_rgb` of the picture before (or that picture).
    :param rgb: ``[H, W, 3]`` uint8.
    """
    before, now = small_rgb(previous_small_rgb), small_rgb(rgb)
    colors = color_difference(before, now)
    if colors <= min(least for least, _ in _LIMITS):
        return False  # nearly every frame of a clip ends here
    structure = structure_match(before, now)
    return any(
        colors > least_colors and structure < most_structure
        for least_colors, most_structure in _LIMITS
    )


def color_difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Half the L1 distance of the cumulative-smoothed histograms of three channels, 0..1."""
    total = 0.0
    for channel in range(3):
        histograms = []
        for picture in (a, b):
            # Each value falls into two bins in proportion, so that a slight change of light
            # does not jump over the border of a bin.
            position = picture[..., channel].ravel() * ((_BINS - 1) / 255)
            low = position.astype(np.int64)
            share = position - low
            counts = np.bincount(low, 1 - share, _BINS + 1)
            counts += np.bincount(low + 1, share, _BINS + 1)
            histograms.append(counts / counts.sum())
        total += 0.5 * float(np.abs(histograms[0] - histograms[1]).sum())
    return total / 3


def structure_match(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Correlation of two thumbnails' luma at the best small shift, -1..1."""
    weights = np.array([0.299, 0.587, 0.114])
    first, second = a @ weights, b @ weights
    best = -1.0
    height, width = first.shape
    for dy in range(-_SHIFT, _SHIFT + 1, 2):
        for dx in range(-_SHIFT, _SHIFT + 1, 2):
            p = first[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)]
            q = second[max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : width + min(-dx, 0)]
            p, q = p - p.mean(), q - q.mean()
            norm = np.sqrt((p * p).sum() * (q * q).sum())
            if norm > 1e-6 * p.size:
                best = max(best, float((p * q).sum() / norm))
            elif (p * p).sum() < p.size and (q * q).sum() < q.size:
                best = max(best, 1.0)  # both are plain: nothing that could differ
    return best

"""Likeness of two pictures inside or outside a mask, and sharpness.

Pictures are ``[H, W, 3]`` RGB, float in [0, 1] or uint8; masks ``[H, W]``, where weights above 0
count. Pictures that are equal have a PSNR of infinity.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from kornia.metrics import ssim as kornia_ssim
from numpy.typing import NDArray

from vidswap.metrics._checks import mask_for, picture, same_shape

Array = NDArray[Any]

_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
"""Weights of ITU-R BT.709 for R'G'B'."""
_SSIM_WINDOW = 11


def masked_mse(first: Array, second: Array, mask: Array | None = None) -> float:
    """Mean squared difference over pixels and channels in [0, 1]; NaN for an empty mask."""
    a, b = picture("first", first), picture("second", second)
    same_shape(a, b)
    weight = mask_for(a.shape, mask)
    total = float(weight.sum(dtype=np.float64))
    if total <= 0:
        return float("nan")
    error = np.square(a - b).mean(axis=2)
    return float((error * weight).sum(dtype=np.float64) / total)


def psnr(first: Array, second: Array, mask: Array | None = None) -> float:
    """Peak signal-to-noise ratio in dB, ``10 log10(1 / MSE)`` over the mask; higher is closer.

    :return: infinity for equal pictures, NaN for an empty mask.
    """
    error = masked_mse(first, second, mask)
    return float("inf") if error == 0 else float(-10 * np.log10(error))


def ssim(first: Array, second: Array, mask: Array | None = None) -> float:
    """Structural similarity (Wang et al. 2004), 11-pixel Gaussian window, averaged over the mask.

    Unit: none, 1 for equal pictures. A window at the mask's edge looks across it.

    :return: NaN for an empty mask.
    """
    a, b = picture("first", first), picture("second", second)
    same_shape(a, b)
    weight = mask_for(a.shape, mask)
    if weight.sum() <= 0:
        return float("nan")
    planes = [torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))[None] for x in (a, b)]
    similarity = kornia_ssim(planes[0], planes[1], _SSIM_WINDOW).mean(1)[0].numpy()
    return float((similarity * weight).sum(dtype=np.float64) / weight.sum(dtype=np.float64))


def luma(image: Array) -> NDArray[np.float32]:
    """Luma ``[H, W]`` in [0, 1] by the weights of BT.709."""
    return picture("image", image) @ _LUMA


def laplacian_energy(image: Array, mask: Array | None = None) -> float:
    """Mean square of the 4-neighbour Laplacian of the luma over the mask: fine detail and grain.

    Pixels at the picture's border have no full neighbourhood and do not count. Unit: squared luma
    in [0, 1]. The variance of the Laplacian is a common measure of focus (Pech-Pacheco et al.
    2000); its mean is zero but for the border, so that the mean square is the same.

    :return: NaN for an empty mask.
    """
    y = luma(image)
    weight = mask_for(y.shape, mask)[1:-1, 1:-1]
    total = float(weight.sum(dtype=np.float64))
    if total <= 0:
        return float("nan")
    curve = y[:-2, 1:-1] + y[2:, 1:-1] + y[1:-1, :-2] + y[1:-1, 2:] - 4 * y[1:-1, 1:-1]
    return float((curve * curve * weight).sum(dtype=np.float64) / total)


def sharpness_ratio(output: Array, original: Array, mask: Array | None = None) -> float:
    """:func:`laplacian_energy` of the output over that of the original, same mask.

    1 is as sharp and grainy as the original; under 1 waxy or blurred, over 1 over-sharpened.
    """
    reference = laplacian_energy(original, mask)
    return laplacian_energy(output, mask) / reference if reference > 0 else float("nan")


def mean_color(image: Array, mask: Array | None = None) -> NDArray[np.float64]:
    """Mean RGB ``[3]`` in [0, 1] over the mask; NaN for an empty mask."""
    x = picture("image", image)
    weight = mask_for(x.shape, mask)
    total = float(weight.sum(dtype=np.float64))
    if total <= 0:
        return np.full(3, np.nan)
    return np.einsum("hwc,hw->c", x, weight, dtype=np.float64) / total


def psnr_outside(
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    origin_xy: tuple[int, int] = (0, 0),
    hole: Array | None = None,
) -> float:
    """:func:`psnr` of whole frames without a hole; fast on large frames.

    :param first: ``[H, W, 3]`` uint8; ``second`` alike.
    :param origin_xy: pixel of the frame at the hole's top left corner.
    :param hole: ``[h, w]``, pixels above 0 do not count; None: all count.
    :return: in dB; NaN when nothing is left.
    """
    if first.dtype != np.uint8 or second.dtype != np.uint8 or first.ndim != 3:
        raise ValueError(f"expected uint8 [H, W, 3], got {first.dtype} {list(first.shape)}")
    same_shape(first, second)
    difference = np.subtract(first, second, dtype=np.int16).astype(np.float32)
    count = first.shape[0] * first.shape[1]
    if hole is not None:
        (left, top), (height, width) = origin_xy, np.shape(hole)
        if not (0 <= left <= first.shape[1] - width and 0 <= top <= first.shape[0] - height):
            raise ValueError(f"hole: {[width, height]} at {[left, top]} leaves the picture")
        covered = np.asarray(hole) > 0
        difference[top : top + height, left : left + width][covered] = 0
        count -= int(covered.sum())
    if count == 0:
        return float("nan")
    flat = difference.ravel()
    error = float(np.dot(flat, flat)) / (3 * count * 255**2)
    return float("inf") if error == 0 else float(-10 * np.log10(error))

"""Paste-back: the regenerated face at the pixels of the frame, with its opacity.

The frame itself is blended elsewhere, in the frame's own samples: these functions return what
to blend (``rgb``) and how much of it (``alpha``). Where alpha is 0 the frame is not touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from vidswap.compositing.arrays import enlarged, gaussian_blur, span_of, to_array, to_tensor
from vidswap.errors import UsageError
from vidswap.geometry import apply_homography, quad_to_homography
from vidswap.records import FloatArray, Swap
from vidswap.warp import paste_sample

Blend = Literal["alpha", "multiband", "gradient"]
Window = tuple[float, float, float, float]
"""Left, top, width and height as parts of the crop."""
BLENDS: tuple[str, ...] = ("alpha", "multiband", "gradient")

_MARGIN = 0.02
"""Room around the mask, as part of the crop, that sampling and blending may look at."""
_RIM = 4
"""Pixels of a mask beside its edge that sampling may mix with it."""
_BAND_LEVELS = 4
_COARSEST_PX = 12
_SWEEPS = 12


def composite(
    box_rgb: FloatArray | None,
    box_xyxy: Sequence[int],
    swap: Swap,
    *,
    blend: Blend = "alpha",
) -> tuple[FloatArray, FloatArray]:
    """Swapped pixels of a box of the frame, and their opacity.

    * ``alpha``: the swap as it is, under its feathered mask.
    * ``multiband``: each octave of detail is blended over its own width (Burt and Adelson,
      "A multiresolution spline", 1983): coarse light widely, texture sharply.
    * ``gradient``: the swap's gradients with the frame's values around it (Pérez et al.,
      "Poisson image editing", 2003), solved as a smooth correction of the swap.

    :param box_rgb: ``[h, w, 3]`` RGB in [0, 1], the frame inside the box. ``alpha`` does not look at it and
        takes None; rgb is then 0 where alpha is.
    :param box_xyxy: left, top, right, bottom in whole display pixels.
    :param swap: image, mask and quad.
    :return: ``rgb [h, w, 3]`` in [0, 1] and ``alpha [h, w]`` in [0, 1]; the result is
        ``frame + alpha * (rgb - frame)``. Where alpha is 0, rgb is the frame.
    :raises UsageError: for an unknown blend.
    :raises ValueError: when the box and its picture differ in size.
    """
    if blend not in BLENDS:
        raise UsageError(f"unknown blend {blend!r}: use one of {', '.join(BLENDS)}")
    left, top, right, bottom = (int(value) for value in box_xyxy)
    if box_rgb is None and blend == "alpha":
        rgb = np.zeros((3, bottom - top, right - left), np.float32).transpose(1, 2, 0)
    elif box_rgb is None or box_rgb.shape != (bottom - top, right - left, 3):
        raise ValueError(
            f"box_rgb: expected {[bottom - top, right - left, 3]}, "
            f"got {None if box_rgb is None else list(box_rgb.shape)}"
        )
    else:
        rgb = np.array(box_rgb, dtype=np.float32)
    alpha = np.zeros(rgb.shape[:2], np.float32)
    found = _mask_window(swap.mask)
    if found is None:
        return rgb, alpha
    # Blends other than alpha look around themselves: they get the square.
    window, tight = found
    part = _pixel_box(swap.quad_xy, tight if blend == "alpha" else window, (left, top, right, bottom))
    if not part:
        return rgb, alpha
    area = (part[0] - left, part[1] - top, part[2] - left, part[3] - top)
    inner = (slice(area[1], area[3]), slice(area[0], area[2]))
    opacity = _sample_window(swap.mask, swap.quad_xy, window, part, mode="bilinear")[..., 0]
    alpha[inner] = opacity
    if blend == "alpha":
        _place_seen(rgb, alpha, swap, window, (left, top))
        return rgb, alpha
    pixels = _sample_window(swap.image, swap.quad_xy, window, part, mode="bicubic")
    if blend == "multiband":
        pixels, alpha[inner] = _multiband(pixels, rgb[inner], opacity)
    else:
        pixels = _gradient(pixels, rgb[inner], opacity)
    rgb[inner] = np.where(alpha[inner][..., None] > 0, pixels, rgb[inner])
    return rgb, alpha


def _place_seen(
    rgb: FloatArray,
    alpha: FloatArray,
    swap: Swap,
    window: Window,
    corner: tuple[int, int],
) -> None:
    """Sample the swap where its opacity is above 0, into ``rgb``, whose corner lies at this pixel."""
    seen = alpha > 0
    if not seen.any():
        return
    rows, columns = span_of(seen, room=0)
    left, top = corner
    part = (left + columns.start, top + rows.start, left + columns.stop, top + rows.stop)
    seen = seen[rows, columns]
    pixels = _sample_window(swap.image, swap.quad_xy, window, part, mode="bicubic", where=seen)
    for channel in range(3):
        np.place(rgb[rows, columns, channel], seen, pixels[:, channel])


def _mask_window(mask: FloatArray) -> tuple[Window, Window] | None:
    """Square of the unit crop that holds the mask, and the mask's own rectangle with some room.

    None when it is empty.
    """
    size = mask.shape[0]
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    low = np.array([columns[0], rows[0]]) / size - _MARGIN
    high = np.array([columns[-1] + 1, rows[-1] + 1]) / size + _MARGIN
    side = min(1.0, float((high - low).max()))
    u, v = np.clip((low + high - side) / 2, 0.0, 1.0 - side)
    left, top = (float(value) for value in np.clip(low, 0.0, 1.0))
    right, bottom = (float(value) for value in np.clip(high, 0.0, 1.0))
    return (float(u), float(v), side, side), (left, top, right - left, bottom - top)


def _pixel_box(
    quad_xy: NDArray[np.floating], window: Window, box: tuple[int, ...]
) -> tuple[int, int, int, int] | None:
    """Whole pixels under a window of the crop, cut to the box; None when none are."""
    corners = _window_quad(quad_xy, window)
    low = np.maximum(np.floor(corners.min(axis=0)), box[:2]).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=0)), box[2:]).astype(int)
    if (low >= high).any():
        return None
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _window_quad(
    quad_xy: NDArray[np.floating], window: Window
) -> NDArray[np.float64]:
    u, v, width, height = window
    corners = np.array([[u, v], [u, v + height], [u + width, v + height], [u + width, v]])
    return apply_homography(quad_to_homography(quad_xy), corners)


def _sample_window(
    image: FloatArray,
    quad_xy: NDArray[np.floating],
    window: Window,
    part: tuple[int, int, int, int],
    *,
    mode: str,
    where: NDArray[np.bool_] | None = None,
) -> FloatArray:
    """Sample only the part of a crop that the mask needs; outside of the crop masks are 0.

    With ``where`` only those pixels of the part, ``[n, C]``.
    """
    size = image.shape[0]
    side = min(size, int(np.ceil(window[2] * size)) + 2)
    column, row = (min(int(value * size), size - side) for value in window[:2])
    cut = image[row : row + side, column : column + side]
    quad = _window_quad(quad_xy, (column / size, row / size, side / size, side / size))
    # A mask that is 0 along the edge of the cut needs no coverage to be 0 beyond it.
    edges = cut[:_RIM], cut[-_RIM:], cut[:, :_RIM], cut[:, -_RIM:]
    ends = image.ndim == 2 and any(edge.any() for edge in edges)
    pixels, coverage = paste_sample(cut, quad, part, mode=mode, where=where, covered=ends)
    return pixels if coverage is None else pixels * coverage[..., None]


def _multiband(
    pixels: FloatArray, frame: FloatArray, opacity: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Blend octave by octave; returns the blended pixels and where they replace the frame."""
    mask = to_tensor(opacity)
    both = torch.cat([to_tensor(pixels), to_tensor(frame)])
    # A steep mask at the finest level: the pyramid itself widens it towards the coarse ones,
    # and as many levels as fit into the feather keep the widening within the mask.
    weight = ((mask - 0.4) * 3.0).clamp(0, 1)
    details: list[torch.Tensor] = []
    for _ in range(_band_levels(opacity)):
        if min(both.shape[-2:]) < 2 * _COARSEST_PX:
            break
        small = _halve(both)
        top, bottom = both - enlarged(small, both)
        details.append(bottom + weight * (top - bottom))
        both, weight = small, _halve(weight)
    out = both[1:] + weight * (both[:1] - both[1:])
    for detail in reversed(details):
        out = enlarged(out, detail) + detail
    cover = (mask * 3.0).clamp(0, 1)
    cover = cover * cover * (3 - 2 * cover)
    return to_array(out.clamp(0, 1)), to_array(cover)


def _band_levels(opacity: FloatArray) -> int:
    """Octaves that the soft edge has room for, from its mean width in pixels."""
    soft = float(((opacity > 0) & (opacity < 1)).sum())
    outline = 2.0 * np.sqrt(np.pi * max(float((opacity > 0.5).sum()), 1.0))
    return int(np.clip(np.ceil(np.log2(max(soft / outline, 1.0) / 2.0)), 1, _BAND_LEVELS))


def _halve(tensor: torch.Tensor) -> torch.Tensor:
    size = tuple((length + 1) // 2 for length in tensor.shape[-2:])
    # The antialiased linear kernel at one half is the binomial filter of the paper.
    return F.interpolate(tensor, size=size, mode="bilinear", align_corners=False, antialias=True)


def _gradient(pixels: FloatArray, frame: FloatArray, opacity: FloatArray) -> FloatArray:
    """Swap plus the harmonic function that takes it to the frame along the mask's rim."""
    mask = to_tensor(opacity)
    difference = to_tensor(frame) - to_tensor(pixels)
    # The rim's own values are averaged along it: a strand of hair on the outline must not
    # send a streak of its colour across the cheek.
    rim = mask * (1 - mask)
    sigma = 0.02 * max(mask.shape[-2:])
    height, width = mask.shape[-2:]
    scale = max(1, round(min(height, width) / 128))
    size = (max(8, height // scale), max(8, width // scale))
    rim = F.interpolate(rim, size=size, mode="bilinear", align_corners=False, antialias=True)
    known = F.interpolate(
        difference, size=size, mode="bilinear", align_corners=False, antialias=True
    )
    inside = F.interpolate(mask, size=size, mode="bilinear", align_corners=False) > 0.5
    weight = gaussian_blur(rim, sigma / scale)
    usual = (rim * known).sum(dim=(2, 3), keepdim=True) / rim.sum().clamp(min=1e-6)
    value = (gaussian_blur(rim * known, sigma / scale) + 1e-3 * usual) / (weight + 1e-3)
    correction = solve_laplace(value, ~inside)
    return (to_tensor(pixels) + enlarged(correction, mask)).clamp(0, 1)[0].permute(1, 2, 0).numpy()


def solve_laplace(boundary: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
    """Harmonic fill: values that equal ``boundary`` where ``fixed`` and their neighbours' mean
    elsewhere, solved coarse to fine.

    :param boundary: ``[1, C, H, W]``, read where fixed only.
    :param fixed: ``[1, 1, H, W]`` bool.
    """
    height, width = boundary.shape[-2:]
    hold = fixed.to(boundary.dtype)
    if min(height, width) > _COARSEST_PX:
        size = ((height + 1) // 2, (width + 1) // 2)
        share = F.interpolate(hold, size=size, mode="bilinear", antialias=True)
        mean = F.interpolate(boundary * hold, size=size, mode="bilinear", antialias=True)
        coarse = solve_laplace(mean / share.clamp(min=1e-6), share > 0.5)
        start = enlarged(coarse, boundary)
        sweeps = _SWEEPS
    else:
        share = hold.mean().clamp(min=1e-6)
        start = ((boundary * hold).mean(dim=(2, 3), keepdim=True) / share).expand_as(boundary)
        sweeps = 3 * _COARSEST_PX
    values = torch.where(fixed, boundary, start)
    # Red-black over-relaxation with the best factor for a square of this side (Young, 1954).
    factor = 2.0 / (1.0 + np.sin(np.pi / (min(height, width) + 1)))
    odd = (torch.arange(height)[:, None] + torch.arange(width)[None]) % 2 == 1
    steps = [torch.where(fixed, 0.0, factor * colour) for colour in (odd.float(), 1 - odd.float())]
    for _ in range(sweeps):
        for step in steps:
            padded = F.pad(values, (1, 1, 1, 1), mode="replicate")
            mean = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1]
            mean = (mean + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]) / 4
            values = values + step * (mean - values)
    return values

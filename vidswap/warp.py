"""Sampling pictures through quads: the one transform behind crop and paste-back.

A quad ``[4, 2]`` (TL, BL, BR, TR, display coordinates) spans a square crop. :func:`crop` reads
the frame inside the quad, :func:`paste_sample` reads the crop at the pixels of the frame; both
use the homography of :mod:`vidswap.geometry` and its pixel-centre rule, so a crop that is pasted
back untouched lands on itself.

Where a sampling makes things smaller, the picture is first reduced with an antialiasing filter;
the last step is always one cubic interpolation (Keys' kernel, as torch has it).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from vidswap.geometry import quad_size_px, quad_to_homography

Image = NDArray[np.float32]

# The low-pass cuts off at this many times the Nyquist frequency of the samples to be taken. At 1
# its slope eats the finest detail, so that an untouched crop pasted back is off by 0.8 to 1.5 / 255
# on a photograph and 2.1 to 2.5 on 1/f noise; at 1.5 by 0.2 to 0.3 and 0.4 to 0.8. What lies
# between 1 and 1.5 may alias.
_CUT_OFF = 1.5
# Below this (reduction over cut-off) there is nothing worth filtering.
_REDUCE_FROM = 1.1
# Pixels that the cubic kernel and a little slack need around the sampled area.
_MARGIN_PX = 4


def crop(
    image: NDArray[np.floating] | NDArray[np.uint8],
    quad_xy: NDArray[np.floating],
    size: int,
    *,
    origin_xy: tuple[float, float] = (0.0, 0.0),
    mode: str = "bicubic",
    extend: bool = True,
) -> tuple[Image, Image | None]:
    """Sample the square under a quad.

    :param image: ``[h, w, 3]`` float RGB in [0, 1], or uint8 RGB; a whole frame or a box of one.
    :param quad_xy: ``[4, 2]`` corners TL, BL, BR, TR in display coordinates.
    :param size: side S of the crop in pixels.
    :param origin_xy: display coordinates of the image's top left corner.
    :param mode: ``bicubic`` or ``bilinear``.
    :param extend: where the quad leaves the image, show its reflection going over into a blur
        (as FFHQ's own crops do); False repeats the edge, which is cheaper.
    :return: ``[S, S, 3]`` float32 RGB in [0, 1], and ``[S, S]`` float32 with 1 where the crop
        lies inside the image and 0 outside; None instead when all of it is inside.
    :raises ValueError: when a shape is wrong or the quad is degenerate.
    """
    _check_image(image)
    if size < 1:
        raise ValueError(f"size: expected >= 1, got {size}")
    quad = np.asarray(quad_xy, dtype=np.float64) - np.asarray(origin_xy, dtype=np.float64)
    height, width = image.shape[:2]
    matrix = quad_to_homography(quad)
    part, offset_xy = _part_under(image, quad)
    reduction = quad_size_px(quad) / size
    planes, scale_xy = _reduced(_to_planes(part), reduction)
    # The image is convex: with its corners, all of the quad lies inside.
    all_inside = bool((quad >= 0).all() and (quad <= (width, height)).all())
    padding = "border" if all_inside or not extend else "reflection"
    grid = _map_grid(_onto_planes(planes, scale_xy, offset_xy) @ matrix, size, size)
    out = _sample(planes, grid[None], mode, padding)
    if all_inside:
        return _to_image(out), None
    x, y = _map_grid(matrix, size, size).unbind(-1)
    inside = (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
    if extend:
        out = _blur_outside(out, inside)
    return _to_image(out), inside.to(torch.float32).numpy()


def paste_sample(
    crop_image: NDArray[np.floating],
    quad_xy: NDArray[np.floating],
    box_xyxy: Sequence[int],
    *,
    mode: str = "bicubic",
    where: NDArray[np.bool_] | None = None,
    covered: bool = True,
) -> tuple[Image, Image | None]:
    """Sample a crop at the pixels of a box of the frame: the inverse of :func:`crop`.

    :param crop_image: ``[S, S, C]`` float in [0, 1]; C is 3 for pictures, 1 for masks (``[S, S]``
        is taken as C = 1).
    :param quad_xy: ``[4, 2]`` corners TL, BL, BR, TR in display coordinates.
    :param box_xyxy: left, top, right, bottom in whole display pixels.
    :param mode: ``bicubic`` or ``bilinear``.
    :param where: ``[h, w]``, the n pixels that are wanted; the results are then ``[n, C]`` and ``[n]``, row
        by row. None is all of them.
    :param covered: False saves the coverage; None is returned for it.
    :return: ``[h, w, C]`` float32 in [0, 1] (edge values repeat outside the quad), and coverage
        ``[h, w]``: the share of each pixel that the quad covers, 1 inside, 0 outside.
    :raises ValueError: when a shape is wrong, the box is empty or the quad is degenerate.
    """
    image = np.asarray(crop_image)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[0] != image.shape[1]:
        raise ValueError(f"crop_image: expected [S, S, C], got {np.shape(crop_image)}")
    left, top, right, bottom = (int(value) for value in box_xyxy)
    if right <= left or bottom <= top:
        raise ValueError(f"box_xyxy: expected left < right and top < bottom, got {box_xyxy}")
    size = image.shape[0]
    side_px = quad_size_px(quad_xy)
    planes, scale_xy = _reduced(_to_planes(image), size / max(side_px, 1e-6))
    inverse = _box_to_unit(quad_xy, (left, top, right, bottom))
    wanted = None if where is None else torch.from_numpy(np.flatnonzero(where))

    def places(matrix: NDArray[np.float64]) -> torch.Tensor:
        found = _map_grid(matrix, bottom - top, right - left)
        return found if wanted is None else found.view(-1, 2)[wanted][None]

    on_planes = _onto_planes(planes, (size * scale_xy[0], size * scale_xy[1]))
    out = _sample(planes, places(on_planes @ inverse)[None], mode, "border")
    if not covered:
        return _to_image(out) if where is None else _to_image(out)[0], None
    u, v = places(inverse).unbind(-1)
    # One pixel of ramp at the rim, so that a rotated edge has no stairs (and rounding no gaps).
    rim = torch.minimum(torch.minimum(u, 1 - u), torch.minimum(v, 1 - v))
    coverage = (rim * side_px + 0.5001).clamp_(0, 1)
    if where is not None:
        return _to_image(out)[0], coverage[0].numpy()
    return _to_image(out), coverage.numpy()


def _check_image(image: NDArray[np.generic]) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < 1:
        raise ValueError(f"image: expected [h, w, 3], got {list(image.shape)}")


def _box_to_unit(
    quad_xy: NDArray[np.floating], box_xyxy: tuple[int, int, int, int]
) -> NDArray[np.float64]:
    """Homography from the unit square of a box to the unit square of the quad."""
    left, top, right, bottom = box_xyxy
    box = np.array([[right - left, 0, left], [0, bottom - top, top], [0, 0, 1]], dtype=np.float64)
    matrix = np.linalg.inv(quad_to_homography(quad_xy)) @ box
    return matrix / matrix[2, 2]


def _part_under(
    image: NDArray[np.generic], quad: NDArray[np.float64]
) -> tuple[NDArray[np.generic], tuple[int, int]]:
    """The rows and columns that the sampling can touch, and the offset of their corner.

    A quad that leaves the image needs the reflection of what lies inside, so the whole image
    serves it on that axis.
    """
    spans = []
    for axis, limit in ((0, image.shape[1]), (1, image.shape[0])):
        # The pre-filter reaches as far as the reduction is large; 3 % of the quad covers it.
        margin = _MARGIN_PX + 0.03 * float(np.ptp(quad[:, axis]))
        low = int(np.floor(quad[:, axis].min() - margin))
        high = int(np.ceil(quad[:, axis].max() + margin))
        spans.append((low, high) if low >= 0 and high <= limit else (0, limit))
    (left, right), (top, bottom) = spans
    return image[top:bottom, left:right], (left, top)


def _to_planes(image: NDArray[np.generic]) -> torch.Tensor:
    """``[h, w, C]`` array to ``[1, C, h, w]`` float32 in [0, 1]."""
    array = np.asarray(image)
    # torch takes no mirrored arrays, and warns about those that pictures from files often are.
    if not array.flags.writeable or min(array.strides, default=0) < 0:
        array = array.copy()
    tensor = torch.from_numpy(array).permute(2, 0, 1)[None]
    if tensor.dtype == torch.uint8:
        return tensor.contiguous().to(torch.float32).mul_(1 / 255)
    return tensor.to(torch.float32).contiguous()


def _to_image(planes: torch.Tensor) -> Image:
    """``[1, C, h, w]`` to ``[h, w, C]`` in [0, 1], of the same memory; cubic kernels overshoot at edges."""
    return planes[0].clamp_(0, 1).permute(1, 2, 0).numpy()


def _reduced(planes: torch.Tensor, reduction: float) -> tuple[torch.Tensor, tuple[float, float]]:
    """Low-pass for sampling every ``reduction`` pixels; returns it and its scale an axis.

    The picture keeps more than two samples for each one that will be taken: reducing it to the
    exact size here would add the losses of two interpolations.
    """
    reduction /= _CUT_OFF
    if reduction < _REDUCE_FROM:
        return planes, (1.0, 1.0)
    height, width = planes.shape[2:]
    keep = 1.6 / reduction
    if reduction > 2 and min(height, width) * keep >= 2:
        new_h, new_w = round(height * keep), round(width * keep)
        planes = F.interpolate(
            planes, size=(new_h, new_w), mode="bicubic", antialias=True, align_corners=False
        )
        scale_xy = (new_w / width, new_h / height)
        return _low_pass(planes, reduction * min(scale_xy)), scale_xy
    return _low_pass(planes, reduction), (1.0, 1.0)


def _low_pass(planes: torch.Tensor, reduction: float) -> torch.Tensor:
    """Separable Lanczos filter (three lobes) with its cut-off at ``1 / reduction`` of Nyquist."""
    radius = int(np.ceil(3 * reduction)) - 1
    taps = np.arange(-radius, radius + 1) / reduction
    weights = np.sinc(taps) * np.sinc(taps / 3)
    weights /= weights.sum()
    for axis in (2, 3):
        pad = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
        padded = F.pad(planes, pad, mode="replicate")
        length = planes.shape[axis]
        # Symmetric sums are several times faster here than torch's depthwise convolution.
        out = padded.narrow(axis, radius, length) * weights[radius]
        for step in range(1, radius + 1):
            pair = padded.narrow(axis, radius - step, length) + padded.narrow(
                axis, radius + step, length
            )
            out.add_(pair, alpha=float(weights[radius + step]))
        planes = out
    return planes


def _map_grid(matrix: NDArray[np.float64], height: int, width: int) -> torch.Tensor:
    """Pixel centres of a ``height x width`` picture over the unit square, mapped: x and y ``[h, w, 2]``.

    In float64 until the last step for frames of 8K, where float32 keeps only 1/2000 px.
    """
    u = (np.arange(width) + 0.5) / width
    v = ((np.arange(height) + 0.5) / height)[:, None]
    m = matrix
    affine = abs(m[2, 0]) < 1e-12 and abs(m[2, 1]) < 1e-12
    grid = np.empty((height, width, 2), np.float32)
    for row in (0, 1):
        across, down = (m[row, 0] * u).astype(np.float32), (m[row, 1] * v + m[row, 2]).astype(np.float32)
        np.add(across, down, out=grid[..., row])
    if not affine:
        depth = ((m[2, 0] * u) + (m[2, 1] * v) + m[2, 2]).astype(np.float32)
        grid /= depth[..., None]
    return torch.from_numpy(grid)


def _onto_planes(
    planes: torch.Tensor, scale_xy: tuple[float, float], offset_xy: tuple[float, float] = (0.0, 0.0)
) -> NDArray[np.float64]:
    """Matrix from pixels to the places of ``grid_sample``, where the planes span [-1, 1].

    :param scale_xy: size of the planes over that of the pixels; ``offset_xy`` the pixel of their corner.
    """
    (sx, sy), (x, y), (height, width) = scale_xy, offset_xy, planes.shape[2:]
    return np.array(
        [
            [2 * sx / width, 0, -2 * sx * x / width - 1],
            [0, 2 * sy / height, -2 * sy * y / height - 1],
            [0, 0, 1],
        ]
    )


def _sample(planes: torch.Tensor, grid: torch.Tensor, mode: str, padding: str) -> torch.Tensor:
    return F.grid_sample(planes, grid, mode=mode, padding_mode=padding, align_corners=False)


def _blur_outside(planes: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Fade the reflected part of a crop into its own blur, the farther out the stronger.

    A sharp mirror image of the face next to the face misleads detectors and inversion alike;
    FFHQ's crops do the same for the same reason (Karras et al., 1812.04948, appendix C).
    """
    size = planes.shape[-1]
    outside = (~inside).to(torch.float32)[None, None]
    cell = max(1, size // 64)
    coarse = F.avg_pool2d(outside, cell, ceil_mode=True, count_include_pad=False)
    small = F.avg_pool2d(planes, cell, ceil_mode=True, count_include_pad=False)
    for _ in range(3):
        small = F.avg_pool2d(F.pad(small, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
        coarse = F.avg_pool2d(F.pad(coarse, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    blurred = F.interpolate(small, size=planes.shape[2:], mode="bilinear", align_corners=False)
    depth = F.interpolate(coarse, size=planes.shape[2:], mode="bilinear", align_corners=False)
    # 0.5 at the rim of the picture: nothing is blurred there, all of it some 6 cells out.
    weight = ((depth - 0.5) * 2.5).clamp_(0, 1) * outside
    return planes + (blurred - planes) * weight

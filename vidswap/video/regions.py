"""Reading a box of a frame as RGB, and blending RGB back into the frame's own samples.

Boxes are in *upright stored* pixels (:attr:`vidswap.records.Frame.upright_size_wh`): the stored
picture turned upright, its pixels not yet made square. Blending is done on YCbCr codes in the
frame's own format and depth, so samples that the opacity leaves alone keep their bits, and a faint
opacity adds no conversion noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidswap.records import Frame, PixelLayout
from vidswap.video.chroma import AxisGrid, downsample, upsample
from vidswap.video.pixels import Storage, require_storage

FloatArray = NDArray[np.float32]
Box = tuple[int, int, int, int]

# Weights of red and blue in luma (ITU-R BT.601, BT.709, BT.2020 non-constant, SMPTE 240M).
_LUMA_RED_BLUE = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
    "smpte240m": (0.212, 0.087),
    "rgb": (0.299, 0.114),
}


@dataclass(frozen=True)
class _Scale:
    """Code values of a layout: ``code = offset + gain * value``."""

    red: float
    blue: float
    luma_offset: float
    luma_gain: float
    chroma_offset: float
    chroma_gain: float
    top: int

    @classmethod
    def of(cls, layout: PixelLayout) -> _Scale:
        red, blue = _LUMA_RED_BLUE[layout.matrix]
        top, one = (1 << layout.bit_depth) - 1, 1 << (layout.bit_depth - 8)
        middle = 128.0 * one
        if layout.color_range == "pc" or layout.is_rgb:
            return cls(red, blue, 0.0, float(top), middle, float(top), top)
        return cls(red, blue, 16.0 * one, 219.0 * one, middle, 224.0 * one, top)


def read_region(
    frame: Frame,
    box_xyxy: Box | None = None,
    *,
    max_side: int | None = None,
    clip: bool = True,
) -> FloatArray:
    """A box of the upright stored picture as RGB.

    :param box_xyxy: left, top, right, bottom in upright stored pixels, inside the picture;
        None reads all of it.
    :param max_side: the result is averaged down so that its longer side is at most this.
    :param clip: False keeps values beyond 0 and 1 (super-white, colours outside the RGB cube),
        so that writing them back changes nothing.
    :return: float32 ``[h, w, 3]``, gamma-coded as in the clip, in [0, 1].
    :raises ValueError: the box is empty or leaves the picture.
    """
    stored = _stored_box(frame, _checked_box(frame, box_xyxy))
    storage = require_storage(frame.layout.name)
    if storage.is_rgb:
        rgb = _read_rgb(frame, storage, stored)
    else:
        rgb = _read_ycc(frame, storage, stored)
    rgb = np.rot90(rgb, -frame.rotation // 90)
    if clip:
        rgb = np.clip(rgb, 0.0, 1.0)
    if max_side is not None and max(rgb.shape[:2]) > max_side:
        rgb = shrink(rgb, max_side)
    return np.ascontiguousarray(rgb)


def write_region(
    frame: Frame, box_xyxy: Box | None, rgb: NDArray[Any], alpha: NDArray[Any]
) -> Frame:
    """Blend RGB into a box of a frame, in the frame's own pixel format.

    Only luma (or RGB) samples with ``alpha`` above 0, and chroma samples that share their block
    with one, may change; the alpha plane of the frame never does.

    :param box_xyxy: as for :func:`read_region`.
    :param rgb: float ``[h, w, 3]`` of the size of the box.
    :param alpha: float ``[h, w]`` opacity in [0, 1].
    :return: a frame with new planes (``native`` is None); the same frame if alpha is 0 all over.
    :raises ValueError: sizes differ, or the box leaves the picture.
    """
    box = _checked_box(frame, box_xyxy)
    size_hw = (box[3] - box[1], box[2] - box[0])
    if rgb.shape != (*size_hw, 3) or alpha.shape != size_hw:
        raise ValueError(
            f"rgb and alpha: expected {(*size_hw, 3)} and {size_hw} for the box {box}, "
            f"got {rgb.shape} and {alpha.shape}"
        )
    turns = frame.rotation // 90
    left, top, _, _ = _stored_box(frame, box)
    rgb, alpha = np.rot90(rgb, turns), np.rot90(alpha, turns)
    rows, columns = np.flatnonzero(alpha.max(axis=1) > 0), np.flatnonzero(alpha.max(axis=0) > 0)
    if rows.size == 0:
        return frame
    inner = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # One contiguous array a channel: every later step reads them in order.
    channels = np.ascontiguousarray(np.moveaxis(rgb[inner], 2, 0), np.float32)
    opacity = np.clip(np.ascontiguousarray(alpha[inner], np.float32), 0.0, 1.0)
    stored = (
        left + int(columns[0]), top + int(rows[0]),
        left + int(columns[-1]) + 1, top + int(rows[-1]) + 1,
    )  # fmt: skip
    storage = require_storage(frame.layout.name)
    if storage.is_rgb:
        planes = _write_rgb(frame, storage, stored, channels, opacity)
    else:
        planes = _write_ycc(frame, storage, stored, channels, opacity)
    return replace(frame, planes=planes, native=None)


def shrink(image: NDArray[Any], max_side: int) -> FloatArray:
    """Area-average a picture ``[h, w, c]`` down so that its longer side is ``max_side``."""
    height, width = image.shape[:2]
    scale = max_side / max(height, width)
    if scale >= 1:
        return np.asarray(image, np.float32)
    out_h, out_w = max(1, round(height * scale)), max(1, round(width * scale))
    rows = np.tensordot(_area_weights(height, out_h), np.asarray(image, np.float32), axes=1)
    return np.einsum("wx,hxc->hwc", _area_weights(width, out_w), rows, optimize=True)


def _area_weights(source: int, target: int) -> FloatArray:
    """``[target, source]`` share of each source pixel in each target pixel, rows sum to 1."""
    edges = np.arange(target + 1) * (source / target)
    pixel = np.arange(source)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return (np.clip(overlap, 0, None) * (target / source)).astype(np.float32)


def _checked_box(frame: Frame, box_xyxy: Box | None) -> Box:
    width, height = frame.upright_size_wh
    if box_xyxy is None:
        return 0, 0, width, height
    left, top, right, bottom = (int(value) for value in box_xyxy)
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ValueError(
            f"box_xyxy: expected a box inside {width}x{height} upright stored pixels, "
            f"got {(left, top, right, bottom)}"
        )
    return left, top, right, bottom


def _stored_box(frame: Frame, box: Box) -> Box:
    """The box before the picture was turned upright."""
    left, top, right, bottom = box
    width, height = frame.size_wh
    if frame.rotation == 90:
        return top, height - right, bottom, height - left
    if frame.rotation == 180:
        return width - right, height - bottom, width - left, height - top
    if frame.rotation == 270:
        return width - bottom, left, width - top, right
    return box


def _grids(layout: PixelLayout, size_wh: tuple[int, int], box: Box) -> tuple[AxisGrid, AxisGrid]:
    """Chroma grids across and down."""
    across, down = layout.chroma_shift_wh
    x_centered = layout.chroma_location == "center"
    y_centered = layout.chroma_location != "topleft"
    return (
        AxisGrid.covering(
            box[0], box[2], factor=1 << across, centered=x_centered, luma_size=size_wh[0]
        ),
        AxisGrid.covering(
            box[1], box[3], factor=1 << down, centered=y_centered, luma_size=size_wh[1]
        ),
    )


def _chroma_views(planes: Any, storage: Storage) -> tuple[NDArray[Any], NDArray[Any]]:
    """Cb and Cr planes ``[h, w]``, as views."""
    if storage.kind == "semi":
        order = (1, 0) if storage.order == "vu" else (0, 1)
        return planes[1][..., order[0]], planes[1][..., order[1]]
    return planes[1], planes[2]


def _upsampled(
    planes: Any, storage: Storage, grid_x: AxisGrid, grid_y: AxisGrid
) -> FloatArray:
    """Cb and Cr at every luma position of the grids' blocks: float32 codes ``[2, h, w]``."""
    index = np.ix_(grid_y.neighbours(), grid_x.neighbours())
    both = np.stack([view[index] for view in _chroma_views(planes, storage)])
    both = (both >> storage.left_shift).astype(np.float32)
    return upsample(upsample(both, grid_y, 1), grid_x, 2)


def _luma_view(planes: Any, storage: Storage) -> NDArray[Any]:
    return planes[0][..., 0] if planes[0].ndim == 3 else planes[0]


def _read_ycc(frame: Frame, storage: Storage, box: Box) -> FloatArray:
    left, top, right, bottom = box
    scale = _Scale.of(frame.layout)
    luma = _luma_view(frame.planes, storage)[top:bottom, left:right]
    y = ((luma >> storage.left_shift).astype(np.float32) - scale.luma_offset) / scale.luma_gain
    out = np.empty((*y.shape, 3), np.float32)
    if storage.kind == "gray":
        out[:] = y[..., None]
        return out
    grid_x, grid_y = _grids(frame.layout, frame.size_wh, box)
    dx, dy = left - grid_x.luma_start, top - grid_y.luma_start
    chroma = _upsampled(frame.planes, storage, grid_x, grid_y)
    cb, cr = chroma[:, dy : dy + y.shape[0], dx : dx + y.shape[1]]
    cb = (cb - scale.chroma_offset) * np.float32(2 * (1 - scale.blue) / scale.chroma_gain)
    cr = (cr - scale.chroma_offset) * np.float32(2 * (1 - scale.red) / scale.chroma_gain)
    green = 1 - scale.red - scale.blue
    np.add(y, cr, out=out[..., 0])
    np.add(y, cb, out=out[..., 2])
    np.subtract(
        y, cb * np.float32(scale.blue / green) + cr * np.float32(scale.red / green),
        out=out[..., 1],
    )  # fmt: skip
    return out


def _write_ycc(
    frame: Frame, storage: Storage, box: Box, rgb: FloatArray, alpha: FloatArray
) -> tuple[NDArray[Any], ...]:
    left, top, right, bottom = box
    scale = _Scale.of(frame.layout)
    planes = list(frame.planes)
    red, green, blue = rgb
    y = red * np.float32(scale.red)
    y += green * np.float32(1 - scale.red - scale.blue)
    y += blue * np.float32(scale.blue)
    planes[0] = planes[0].copy()
    target = _luma_view(planes, storage)[top:bottom, left:right]
    wanted = y * np.float32(scale.luma_gain) + np.float32(scale.luma_offset)
    _blend_into(target, wanted, alpha, storage, scale.top)
    if storage.kind == "gray":
        return tuple(planes)

    grid_x, grid_y = _grids(frame.layout, frame.size_wh, box)
    dx, dy = left - grid_x.luma_start, top - grid_y.luma_start
    change = _upsampled(frame.planes, storage, grid_x, grid_y)
    inner = np.s_[dy : dy + y.shape[0], dx : dx + y.shape[1]]
    opacity = np.zeros(change.shape[1:], np.float32)
    opacity[inner] = alpha
    for plane, color, weight in ((change[0], blue, scale.blue), (change[1], red, scale.red)):
        np.negative(plane, out=plane)
        plane += np.float32(scale.chroma_offset)
        plane[inner] += (color - y) * np.float32(scale.chroma_gain / (2 * (1 - weight)))
        plane *= opacity
    change = downsample(downsample(change, grid_y, 1), grid_x, 2)
    change *= _block_max(_block_max(opacity, grid_y.factor, 0), grid_x.factor, 1) > 0
    for index in range(1, 2 if storage.kind == "semi" else 3):
        planes[index] = planes[index].copy()
    area = np.s_[
        grid_y.first : grid_y.first + grid_y.count, grid_x.first : grid_x.first + grid_x.count
    ]
    for view, delta in zip(_chroma_views(planes, storage), change, strict=True):
        _add_into(view[area], delta, storage, scale.top)
    return tuple(planes)


def _block_max(values: FloatArray, factor: int, axis: int) -> FloatArray:
    """Largest of each ``factor`` neighbours along an axis."""
    rows = np.moveaxis(values, axis, 0)
    largest = rows[::factor]
    for index in range(1, factor):
        largest = np.maximum(largest, rows[index::factor])
    return np.moveaxis(largest, 0, axis)


def _blend_into(
    target: NDArray[Any], wanted: FloatArray, alpha: FloatArray, storage: Storage, top: int
) -> None:
    """``target += alpha * (wanted - target)`` on codes, in place; ``wanted`` is used up."""
    wanted -= target >> storage.left_shift
    wanted *= alpha
    _add_into(target, wanted, storage, top)


def _add_into(target: NDArray[Any], delta: FloatArray, storage: Storage, top: int) -> None:
    """Add a change to codes in place, rounded and held inside the format's range."""
    result = delta + (target >> storage.left_shift)
    np.rint(result, out=result)
    np.clip(result, 0, top, out=result)
    if storage.left_shift == 0:
        target[...] = result
        return
    # Samples without a change keep what is in their unused low bits too.
    codes = result.astype(target.dtype)
    changed = codes != target >> storage.left_shift
    target[changed] = codes[changed] << storage.left_shift


def _rgb_views(planes: Any, storage: Storage) -> list[NDArray[Any]]:
    """Red, green and blue as views ``[h, w]``."""
    if storage.kind == "gbr":
        return [planes[2], planes[0], planes[1]]
    return [planes[0][..., storage.order.index(channel)] for channel in "rgb"]


def _read_rgb(frame: Frame, storage: Storage, box: Box) -> FloatArray:
    left, top, right, bottom = box
    scale = np.float32(1 / ((1 << storage.bit_depth) - 1))
    views = _rgb_views(frame.planes, storage)
    return np.stack([view[top:bottom, left:right] * scale for view in views], axis=2)


def _write_rgb(
    frame: Frame, storage: Storage, box: Box, rgb: FloatArray, alpha: FloatArray
) -> tuple[NDArray[Any], ...]:
    left, top, right, bottom = box
    scale = (1 << storage.bit_depth) - 1
    color_planes = 3 if storage.kind == "gbr" else 1
    planes = [
        plane.copy() if index < color_planes else plane
        for index, plane in enumerate(frame.planes)
    ]
    for view, channel in zip(_rgb_views(planes, storage), rgb, strict=True):
        wanted = channel * np.float32(scale)
        _blend_into(view[top:bottom, left:right], wanted, alpha, storage, scale)
    return tuple(planes)

"""The picture as a player shows it: upright, square pixels, RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidswap.records import Frame
from vidswap.video.pixels import planes_to_native, require_storage
from vidswap.video.regions import read_region, shrink

# Flags of FFmpeg's scaler. Without the accurate ones its RGB comes out 1 to 2 codes too dark.
SWS_BICUBIC, SWS_AREA = 0x4, 0x20
SWS_ACCURATE = 0x2000 | 0x40000 | 0x80000  # full chroma, accurate rounding, bit exact


def read_rgb8(
    frame: Frame, *, max_side: int | None = None
) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """The whole frame in display coordinates, 8 bits, fast; for detectors and previews.

    :param max_side: the picture is scaled down so that its longer side is at most this.
    :return: uint8 ``[h, w, 3]``, and the factors ``(x, y)`` from display coordinates to pixels of
        this picture: ``pixel = display * factor``.
    """
    width, height = frame.display_size_wh
    scale = min(1.0, max_side / max(width, height)) if max_side else 1.0
    out_w, out_h = max(1, round(width * scale)), max(1, round(height * scale))
    stored_wh = (out_h, out_w) if frame.rotation in (90, 270) else (out_w, out_h)
    if require_storage(frame.layout.name).kind == "gray":
        # The scaler takes every grey for full range.
        exact = shrink(display_rgb(frame), max(out_w, out_h))
        rgb = np.rint(np.clip(exact, 0, 1) * 255).astype(np.uint8)
    else:
        native = frame.native if frame.native is not None else planes_to_native(frame)
        rgb = np.rot90(_scaled_rgb(native, frame, stored_wh), -frame.rotation // 90)
    return np.ascontiguousarray(rgb), (rgb.shape[1] / width, rgb.shape[0] / height)


def _scaled_rgb(native: Any, frame: Frame, size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    shrinks = size_wh[0] * size_wh[1] < 0.8 * frame.size_wh[0] * frame.size_wh[1]
    options: dict[str, Any] = {}
    if not frame.layout.is_rgb:
        code = {"bt709": 1, "bt2020": 9, "smpte240m": 7}.get(frame.layout.matrix, 5)
        options = {
            "src_colorspace": code,
            "src_color_range": 2 if frame.layout.color_range == "pc" else 1,
            "dst_color_range": 2,
        }
    changed = native.reformat(
        width=size_wh[0], height=size_wh[1], format="rgb24", threads=1,
        interpolation=SWS_ACCURATE | (SWS_AREA if shrinks else SWS_BICUBIC), **options,
    )  # fmt: skip
    return changed.to_ndarray()


def display_rgb(frame: Frame) -> NDArray[np.float32]:
    """The whole frame in display coordinates as float32 ``[h, w, 3]``, exactly converted."""
    rgb = read_region(frame)
    width, height = frame.display_size_wh
    if rgb.shape[:2] != (height, width):
        rgb = _stretch(_stretch(rgb, height, 0), width, 1)
    return rgb


def display_alpha(frame: Frame) -> NDArray[np.float32] | None:
    """Opacity of the whole frame in display coordinates, ``[h, w]`` in [0, 1]; None where it is opaque."""
    storage = require_storage(frame.layout.name)
    if not storage.has_alpha:
        return None
    plane = frame.planes[-1]
    if storage.kind in ("packed", "gray"):
        plane = plane[..., storage.order.index("a") if storage.order else 1]
    codes = float((1 << storage.bit_depth) - 1)
    if plane.min() >= codes:
        return None
    alpha = np.rot90(plane.astype(np.float32) / codes, -frame.rotation // 90)[..., None]
    width, height = frame.display_size_wh
    return _stretch(_stretch(alpha, height, 0), width, 1)[..., 0]


def _stretch(image: NDArray[np.float32], size: int, axis: int) -> NDArray[np.float32]:
    """Linear interpolation of one axis to a size (used to make pixels square)."""
    source = image.shape[axis]
    place = np.clip((np.arange(size) + 0.5) * source / size - 0.5, 0, source - 1)
    lower = np.minimum(place.astype(np.intp), max(0, source - 2))
    shape = [1, 1, 1]
    shape[axis] = size
    weight = (place - lower).astype(np.float32).reshape(shape)
    upper = np.minimum(lower + 1, source - 1)
    return image.take(lower, axis) * (1 - weight) + image.take(upper, axis) * weight

"""How the samples of a picture lie in memory, and planes as numpy arrays.

Planar and semi-planar YCbCr of 8 to 16 bits, planar and packed RGB, and grey are handled as they
are. The few others (palette, interleaved 4:2:2, big endian) are first changed into the nearest
of these without loss; see :func:`native_to_supported`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import av
import numpy as np
from numpy.typing import NDArray

from vidswap.errors import InputError
from vidswap.records import Frame, PixelLayout

Kind = Literal["yuv", "semi", "gbr", "packed", "gray"]

_CHROMA_SHIFT = {
    "420": (1, 1), "422": (1, 0), "444": (0, 0), "440": (0, 1), "411": (2, 0), "410": (2, 2),
}  # fmt: skip
_PACKED = {
    "rgb24": "rgb", "bgr24": "bgr", "rgba": "rgba", "bgra": "bgra", "argb": "argb",
    "abgr": "abgr", "rgb0": "rgbx", "bgr0": "bgrx", "0rgb": "xrgb", "0bgr": "xbgr",
    "rgb48le": "rgb", "bgr48le": "bgr", "rgba64le": "rgba", "bgra64le": "bgra",
}  # fmt: skip
_SEMI = {
    "nv12": ((1, 1), 8), "nv16": ((1, 0), 8), "nv24": ((0, 0), 8),
    "p010le": ((1, 1), 10), "p012le": ((1, 1), 12), "p016le": ((1, 1), 16),
    "p210le": ((1, 0), 10), "p216le": ((1, 0), 16), "p410le": ((0, 0), 10),
    "nv21": ((1, 1), 8), "nv42": ((0, 0), 8),
}  # fmt: skip


@dataclass(frozen=True)
class Storage:
    """Place of each component of a pixel format."""

    kind: Kind
    bit_depth: int
    chroma_shift_wh: tuple[int, int] = (0, 0)
    has_alpha: bool = False
    order: str = ""
    """Channels of packed RGB in memory order (``x`` is padding); ``vu`` for swapped chroma."""
    left_shift: int = 0
    """Unused low bits of a stored sample (``p010le`` keeps its 10 bits at the top of 16)."""

    @property
    def is_rgb(self) -> bool:
        return self.kind in ("gbr", "packed")

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        return np.uint8 if self.bit_depth == 8 else np.uint16


@lru_cache(maxsize=256)
def storage_of(name: str) -> Storage | None:
    """Storage of a pixel format by its FFmpeg name, None when it is not handled directly."""
    if name in _PACKED:
        order = _PACKED[name]
        depth = 16 if name.endswith("le") else 8
        return Storage("packed", depth, has_alpha="a" in order, order=order)
    if name in _SEMI:
        shift_wh, depth = _SEMI[name]
        order = "vu" if name in ("nv21", "nv42") else ""
        return Storage("semi", depth, shift_wh, order=order, left_shift=(16 - depth) % 8)
    match = re.fullmatch(r"yuv([aj]?)(4\d\d)p(?:(\d+)le)?", name)
    if match and match[2] in _CHROMA_SHIFT:
        depth = int(match[3] or 8)
        return Storage("yuv", depth, _CHROMA_SHIFT[match[2]], has_alpha=match[1] == "a")
    match = re.fullmatch(r"gbr(a?)p(?:(\d+)le)?", name)
    if match:
        return Storage("gbr", int(match[2] or 8), has_alpha=match[1] == "a")
    match = re.fullmatch(r"gray(?:(\d+)le)?", name)
    if match:
        return Storage("gray", int(match[1] or 8))
    if name in ("ya8", "ya16le"):
        return Storage("gray", 16 if name == "ya16le" else 8, has_alpha=True)
    return None


def require_storage(name: str) -> Storage:
    """Like :func:`storage_of`, with an error for formats that are not handled.

    :raises InputError: with the name of the format.
    """
    storage = storage_of(name)
    if storage is None:
        raise InputError(
            f"pixel format {name!r} is not handled; convert the clip to yuv420p or rgb24 first"
        )
    return storage


@lru_cache(maxsize=256)
def nearest_supported(name: str) -> str:
    """Name of the handled pixel format that holds all that ``name`` holds.

    :raises InputError: floating point, Bayer and hardware formats.
    """
    if storage_of(name) is not None:
        return name
    if name.endswith("be") and storage_of(name[:-2] + "le") is not None:
        return name[:-2] + "le"
    special = {
        "pal8": "bgra", "yuyv422": "yuv422p", "uyvy422": "yuv422p", "yvyu422": "yuv422p",
        "monob": "gray", "monow": "gray", "uyyvyy411": "yuv411p", "vuyx": "yuv444p",
        "vuya": "yuva444p", "ayuv": "yuva444p", "y210le": "yuv422p10le",
        "y212le": "yuv422p12le", "xv30le": "yuv444p10le", "xv36le": "yuv444p12le",
        "ayuv64le": "yuva444p16le", "x2rgb10le": "gbrp10le", "x2bgr10le": "gbrp10le",
        "rgb8": "rgb24", "bgr8": "rgb24", "rgb565le": "rgb24", "rgb555le": "rgb24",
        "bgr565le": "rgb24", "bgr555le": "rgb24", "rgb4_byte": "rgb24", "bgr4_byte": "rgb24",
        "nv20le": "yuv422p10le",
    }  # fmt: skip
    if name in special:
        return special[name]
    raise InputError(
        f"pixel format {name!r} is not handled; convert the clip to yuv420p or rgb24 first"
    )


def native_to_supported(native: Any) -> Any:
    """The decoder's frame in a handled pixel format; the same object when it is in one.

    Only the arrangement of samples changes here (a palette is looked up, interleaved samples are
    split), never the colour range: both sides are told the same.
    """
    target = nearest_supported(native.format.name)
    if target == native.format.name:
        return native
    pts, time_base = native.pts, native.time_base
    changed = native.reformat(
        format=target, src_color_range=native.color_range, dst_color_range=native.color_range
    )
    changed.pts = pts
    if time_base is not None:
        changed.time_base = time_base
    return changed


def native_planes(native: Any) -> tuple[NDArray[Any], ...]:
    """Planes of a decoder's frame as views without padding (``[h, w]`` or ``[h, w, c]``).

    The views keep the frame's memory alive; do not write into them.
    """
    storage = require_storage(native.format.name)
    return tuple(_plane_view(plane, storage, index) for index, plane in enumerate(native.planes))


def _plane_view(plane: Any, storage: Storage, index: int) -> NDArray[Any]:
    channels = plane_channels(storage, index)
    dtype = np.dtype(storage.dtype)
    line = abs(plane.line_size)
    rows = np.frombuffer(plane, np.uint8)[: line * plane.height].reshape(plane.height, line)
    view = rows[:, : plane.width * channels * dtype.itemsize].view(dtype)
    if plane.line_size < 0:
        view = view[::-1]
    return view.reshape(plane.height, plane.width, channels) if channels > 1 else view


def plane_channels(storage: Storage, index: int) -> int:
    """Interleaved samples a pixel in plane ``index``."""
    if storage.kind == "packed":
        return len(storage.order)
    if storage.kind == "semi" and index == 1:
        return 2
    if storage.kind == "gray" and storage.has_alpha:
        return 2
    return 1


def plane_shapes(name: str, size_wh: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
    """Shapes of the planes of a picture of ``size_wh`` in pixel format ``name``."""
    storage = require_storage(name)
    width, height = size_wh
    across, down = storage.chroma_shift_wh
    chroma = (-(-height >> down), -(-width >> across))
    if storage.kind == "yuv":
        shapes: list[tuple[int, ...]] = [(height, width), chroma, chroma]
        return tuple(shapes + [(height, width)] * storage.has_alpha)
    if storage.kind == "semi":
        return (height, width), (*chroma, 2)
    if storage.kind == "gbr":
        return ((height, width),) * (4 if storage.has_alpha else 3)
    channels = plane_channels(storage, 0)
    return ((height, width, channels) if channels > 1 else (height, width),)


def planes_to_native(frame: Frame, *, name: str | None = None) -> Any:
    """A new ``av.VideoFrame`` that holds the planes of a record.

    :param name: pixel format to declare instead of the record's; only its synonym
        (``yuvj420p`` for ``yuv420p``) makes sense.
    """
    width, height = frame.size_wh
    native = av.VideoFrame(width, height, name or frame.layout.name)
    for plane, samples in zip(native.planes, frame.planes, strict=True):
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        data = np.ascontiguousarray(samples).reshape(samples.shape[0], -1).view(np.uint8)
        rows[: data.shape[0], : data.shape[1]] = data
    native.color_range = 2 if frame.layout.color_range == "pc" else 1
    native.colorspace = MATRIX_CODES.get(frame.layout.matrix, 2)
    return native


MATRIX_CODES = {"rgb": 0, "bt709": 1, "bt601": 6, "smpte240m": 7, "bt2020": 9}
"""Codes of ITU-T H.273 (and FFmpeg) for the matrices that are handled."""
_MATRIX_NAMES = {
    0: "rgb", 1: "bt709", 4: "bt601", 5: "bt601", 6: "bt601", 7: "smpte240m",
    9: "bt2020", 10: "bt2020",
}  # fmt: skip
_TRANSFER_NAMES = {
    1: "bt709", 4: "gamma22", 5: "gamma28", 6: "smpte170m", 7: "smpte240m", 8: "linear",
    13: "iec61966-2-1", 14: "bt2020-10", 15: "bt2020-12", 16: "smpte2084", 18: "arib-std-b67",
}  # fmt: skip
_PRIMARIES_NAMES = {
    1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "film",
    9: "bt2020", 11: "smpte431", 12: "smpte432",
}  # fmt: skip


def layout_of(native: Any, *, chroma_location: str = "left") -> PixelLayout:
    """Layout of a decoder's frame, unknown colour tags filled in as players do.

    Without a matrix tag a picture of at least 1280 x 720 (either way up) is taken as BT.709, a
    smaller one as BT.601; without a range tag YCbCr is limited and RGB full.

    :raises InputError: YCgCo, ICtCp and other matrices that are not handled.
    """
    name = native.format.name
    storage = require_storage(name)
    full = storage.is_rgb or name.startswith("yuvj") or int(native.color_range) == 2
    code = int(native.colorspace)
    if storage.is_rgb:
        matrix = "rgb"
    elif storage.kind == "gray" and code in (0, 2, 3):
        matrix = "bt601"
    elif code in (2, 3) or (code == 0):
        large = max(native.width, native.height) >= 1280 or min(native.width, native.height) >= 720
        matrix = "bt709" if large else "bt601"
    elif code in _MATRIX_NAMES:
        matrix = _MATRIX_NAMES[code]
    else:
        raise InputError(
            f"colour matrix number {code} (ITU-T H.273) is not handled; convert the clip to BT.709"
        )
    return PixelLayout(
        name=name.replace("yuvj", "yuv"),
        bit_depth=storage.bit_depth,
        chroma_shift_wh=storage.chroma_shift_wh,
        is_rgb=storage.is_rgb,
        has_alpha=storage.has_alpha,
        color_range="pc" if full else "tv",
        matrix=matrix,
        transfer=_TRANSFER_NAMES.get(int(native.color_trc), "unknown"),
        primaries=_PRIMARIES_NAMES.get(int(native.color_primaries), "unknown"),
        chroma_location=chroma_location,
    )

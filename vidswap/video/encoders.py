"""Which encoder settings and pixel format hold a target's picture."""

from __future__ import annotations

import struct
from fractions import Fraction
from functools import lru_cache
from typing import Any

import av
import av.error
from av.codec import Codec

from vidswap.errors import UsageError
from vidswap.records import PixelLayout
from vidswap.video.pixels import Storage, storage_of
from vidswap.video.probe import VideoInfo

_X26X = ("libx264", "libx264rgb", "libx265")
_PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower",
    "veryslow", "placebo",
)  # fmt: skip
# Encoders that do not say which formats they take.
_FORMATS_UNSAID = {"libaom-av1": ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p10le")}
# Of the formats with alpha that it names, libvpx opens with one alone.
_ALPHA_REFUSED_BUT = {"libvpx-vp9": "yuva420p"}


@lru_cache(maxsize=32)
def encoder_formats(codec: str) -> tuple[str, ...]:
    """Pixel formats that an encoder takes, in its order.

    :raises UsageError: no such encoder.
    """
    try:
        encoder = Codec(codec, "w")
    except (av.error.FFmpegError, ValueError) as error:
        raise UsageError(
            f"no video encoder {codec!r} here; try libx264, libx265, libvpx-vp9 or libsvtav1"
        ) from error
    if encoder.type != "video":
        raise UsageError(f"{codec!r} does not encode video; try libx264 or libx265")
    names = tuple(form.name for form in encoder.video_formats or ())
    if codec in _ALPHA_REFUSED_BUT:
        known = {name: storage_of(name) for name in names}
        alpha = {name for name, storage in known.items() if storage is not None and storage.has_alpha}
        names = tuple(name for name in names if name not in alpha - {_ALPHA_REFUSED_BUT[codec]})
    return names or _FORMATS_UNSAID.get(codec, ("yuv420p",))


def choose_pix_fmt(
    codec: str, layout: PixelLayout, size_wh: tuple[int, int], wanted: str | None
) -> tuple[str, list[str]]:
    """Pixel format to encode in, and warnings about what it cannot hold.

    The target's own where the encoder takes it; else the one that loses least. RGB targets (GIF,
    stills) become 4:2:0 for the delivery codecs, which is what players show.

    :raises UsageError: ``wanted`` is not among the encoder's formats.
    """
    formats = encoder_formats(codec)
    if wanted is not None:
        if wanted not in formats:
            raise UsageError(
                f"{codec} has no pixel format {wanted!r}; it takes {', '.join(formats[:12])}"
            )
        return wanted, _losses(layout, wanted)
    odd = _odd_sizes_refused(codec, size_wh)
    possible = [name for name in formats if storage_of(name) and not odd(name)]
    if not possible:
        raise UsageError(
            f"{codec} cannot encode {size_wh[0]}x{size_wh[1]} pictures; try libx264 or libx265"
        )
    if layout.name in possible:
        return layout.name, []
    if layout.is_rgb and not layout.has_alpha and layout.bit_depth == 8 and "yuv420p" in possible:
        return "yuv420p", []
    if layout.is_rgb and codec in _X26X:
        layout_yuv = "yuv420p" if layout.bit_depth == 8 else "yuv420p10le"
        if layout_yuv in possible:
            return layout_yuv, _losses(layout, layout_yuv)
    best = min(possible, key=lambda name: _cost(layout, name))
    return best, _losses(layout, best)


def _odd_sizes_refused(codec: str, size_wh: tuple[int, int]) -> Any:
    """Test for the formats whose subsampling does not divide the size, for codecs that ask it."""
    width, height = size_wh

    def refused(name: str) -> bool:
        storage = storage_of(name)
        if storage is None or codec in ("libvpx-vp9", "ffv1", "libaom-av1"):
            return storage is None
        across, down = storage.chroma_shift_wh
        return bool(width % (1 << across) or height % (1 << down))

    return refused


def _cost(layout: PixelLayout, name: str) -> tuple[int, ...]:
    storage = storage_of(name)
    assert storage is not None
    lost_chroma = sum(
        max(0, theirs - ours)
        for theirs, ours in zip(storage.chroma_shift_wh, layout.chroma_shift_wh, strict=True)
    )
    return (
        int(layout.has_alpha and not storage.has_alpha),
        int((storage.kind == "gray") != layout.name.startswith(("gray", "ya")))
        if storage.kind == "gray" else 0,
        lost_chroma,
        max(0, layout.bit_depth - storage.bit_depth),
        int(storage.is_rgb != layout.is_rgb),
        int(storage.has_alpha and not layout.has_alpha),
        max(0, storage.bit_depth - layout.bit_depth),
        sum(layout.chroma_shift_wh) - sum(storage.chroma_shift_wh),
        int(name.startswith("yuvj")),
    )  # fmt: skip


def _losses(layout: PixelLayout, name: str) -> list[str]:
    storage = storage_of(name) or Storage("yuv", 8)
    losses = []
    if layout.has_alpha and not storage.has_alpha:
        losses.append("the transparency")
    if storage.bit_depth < layout.bit_depth:
        losses.append(f"{layout.bit_depth - storage.bit_depth} bits of depth")
    if not losses:
        return []
    return [f"encoding {layout.name} as {name} loses {' and '.join(losses)}"]


def encoder_options(
    codec: str, *, crf: int, encoder_preset: str, info: VideoInfo
) -> dict[str, str]:
    """Options of an encoder for a quality and a speed.

    :raises UsageError: CRF or preset out of the encoder's range.
    """
    if not 0 <= crf <= 63 or (codec in _X26X and crf > 51):
        raise UsageError(f"--crf: expected 0 to {51 if codec in _X26X else 63}, got {crf}")
    if codec in _X26X:
        if encoder_preset not in _PRESETS:
            raise UsageError(
                f"--encoder-preset: expected one of {', '.join(_PRESETS)}, "
                f"got {encoder_preset!r}"
            )
        options = {"crf": str(crf), "preset": encoder_preset}
        extra = _hdr_params(codec, info)
        if codec == "libx265":
            # Without "info=0" the stream says how many threads made it, and chunks from two machines
            # could not be joined.
            extra = [*extra, "log-level=none", "info=0"]
        else:
            # With macroblock trees x264 writes other bytes from run to run, and a chunk that is
            # made again must be the same.
            extra = [*extra, "no-mbtree=1"]
        if extra:
            options["x265-params" if codec == "libx265" else "x264-params"] = ":".join(extra)
        return options
    speed = _PRESETS.index(encoder_preset) if encoder_preset in _PRESETS else 4
    if codec in ("libvpx-vp9", "libvpx"):
        return {
            "crf": str(crf), "b": "0", "deadline": "good", "cpu-used": str(max(0, 5 - speed // 2)),
            "row-mt": "1",
        }  # fmt: skip
    if codec == "libaom-av1":
        return {"crf": str(crf), "b": "0", "cpu-used": str(max(2, 8 - speed)), "row-mt": "1"}
    if codec == "libsvtav1":
        return {"crf": str(crf), "preset": str(max(2, 12 - speed))}
    if codec.endswith("_nvenc"):
        return {"rc": "vbr", "cq": str(min(crf, 51)), "b": "0", "preset": f"p{min(7, speed + 1)}"}
    if codec in ("mpeg4", "mpeg2video", "mjpeg"):
        return {"q": str(max(1, crf // 8)), "qmin": "1"}
    return {}


def _hdr_params(codec: str, info: VideoInfo) -> list[str]:
    """HDR10 side data in the words of x264 and x265, which alone can write it from options."""
    params = []
    display = info.hdr_metadata.get("MASTERING_DISPLAY_METADATA", b"")
    if len(display) >= 88:
        numbers = struct.unpack("<22i", display[:88])
        values = [Fraction(n, d or 1) for n, d in zip(numbers[:20:2], numbers[1:20:2], strict=True)]
        if numbers[20] and numbers[21]:
            xy = [round(value * 50000) for value in values[:8]]
            low, high = (round(value * 10000) for value in values[8:10])
            params.append(
                f"{'master-display' if codec == 'libx265' else 'mastering-display'}="
                f"G({xy[2]},{xy[3]})B({xy[4]},{xy[5]})R({xy[0]},{xy[1]})"
                f"WP({xy[6]},{xy[7]})L({high},{low})"
            )
    light = info.hdr_metadata.get("CONTENT_LIGHT_LEVEL", b"")
    if len(light) >= 8:
        most, average = struct.unpack("<2I", light[:8])
        params.append(f"{'max-cll' if codec == 'libx265' else 'cll'}={most},{average}")
    return params

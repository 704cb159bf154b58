"""What a target is, found out before any work starts."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import av.error
import av.sidedata.sidedata
import numpy as np

from vidswap.errors import InputError
from vidswap.records import PixelLayout
from vidswap.video import images
from vidswap.video.container import (
    MAX_PIXELS,
    codec_name,
    is_still_picture,
    main_video_stream,
    open_input,
    positive,
    require_file,
)
from vidswap.video.pixels import layout_of, native_to_supported
from vidswap.video.timing import quarter_turns_clockwise

Kind = Literal["video", "image", "gif", "folder"]


@dataclass(frozen=True)
class StreamInfo:
    """One stream of a file, in words."""

    index: int
    type: str
    """``video``, ``audio``, ``subtitle``, ``data``, ``attachment`` or ``cover``."""
    codec: str
    language: str | None = None
    title: str | None = None

    def __str__(self) -> str:
        extra = ", ".join(text for text in (self.language, self.title) if text)
        return f"#{self.index} {self.type} {self.codec}" + (f" ({extra})" if extra else "")


@dataclass(frozen=True)
class VideoInfo:
    """A target: its picture, time and streams."""

    path: Path
    container: str
    """FFmpeg name of the container; ``png``, ``jpeg``, ``folder`` for stills."""
    kind: Kind
    size_wh: tuple[int, int]
    """Stored size, before rotation and pixel aspect ratio."""
    layout: PixelLayout
    codec: str
    time_base: Fraction
    rotation: int = 0
    """Degrees clockwise that turn the stored picture upright."""
    sample_aspect_ratio: Fraction = Fraction(1)
    average_rate: Fraction | None = None
    """Mean frames a second as the header has it; None for stills."""
    n_frames_hint: int | None = None
    """Frames as the header has it. Good for a progress bar; never to be trusted."""
    duration_seconds: float | None = None
    """Length as the header has it, None when unknown."""
    declared_end_seconds: float | None = None
    """End of the pictures on the container's clock as a Matroska file tags it; None for others."""
    start_pts: int = 0
    """pts of the first frame, in ``time_base``."""
    start_seconds: Fraction = Fraction(0)
    """Earliest time of any stream, on the container's clock."""
    is_interlaced: bool = False
    is_truncated: bool = False
    """The index names samples beyond the end of the file."""
    display_matrix: tuple[int, ...] | None = None
    """Nine integers as in the file, flips included; None without one."""
    color_codes: tuple[int, int, int, int] = (2, 2, 2, 0)
    """Primaries, transfer, matrix (ITU-T H.273) and range (0 unknown, 1 tv, 2 pc) as tagged."""
    hdr_metadata: dict[str, bytes] = field(default_factory=dict, repr=False)
    """Mastering display and light level side data of HDR10, as FFmpeg holds it."""
    streams: tuple[StreamInfo, ...] = ()
    stream_index: int = 0
    """Which stream holds the pictures."""
    n_chapters: int = 0
    metadata: dict[str, str] = field(default_factory=dict, repr=False)
    files: tuple[Path, ...] = field(default=(), repr=False)
    """The pictures of a folder, in order."""
    decoder: str | None = field(default=None, repr=False)
    """Decoder to use instead of the default one."""

    @property
    def display_size_wh(self) -> tuple[int, int]:
        """Size of the upright picture with square pixels."""
        width, height = self.size_wh
        ratio = self.sample_aspect_ratio
        if ratio > 1:
            width = round(width * ratio)
        elif ratio < 1:
            height = round(height / ratio)
        return (height, width) if self.rotation in (90, 270) else (width, height)

    @property
    def nominal_step(self) -> int:
        """Ticks from frame to frame at the average rate, at least 1."""
        if not self.average_rate:
            return max(1, round(Fraction(1, 25) / self.time_base))
        return max(1, round(1 / (self.average_rate * self.time_base)))

    def frames_expected(self, start_seconds: float | None, end_seconds: float | None) -> int | None:
        """How many frames a range has, by the header: good for a progress bar."""
        if start_seconds is None and end_seconds is None and self.n_frames_hint:
            return self.n_frames_hint
        if self.duration_seconds is None or not self.average_rate:
            return None
        until = min(end_seconds or self.duration_seconds, self.duration_seconds)
        return max(1, round((until - (start_seconds or 0.0)) * float(self.average_rate)))


def probe(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> VideoInfo:
    """Say what a target is; decodes its first picture to be sure.

    :param path: a video, a GIF, an image, or a folder of numbered images.
    :param max_pixels: pictures of a video above this many pixels are refused.
    :raises InputError: missing, empty, not a video or image, without pictures, damaged at the
        start, or too large.
    """
    target = Path(path)
    if target.is_dir():
        return _probe_folder(target)
    require_file(target)
    if images.is_image_file(target):
        return _probe_image(target)
    with open_input(target, max_pixels=max_pixels) as container:
        return _probe_container(target, container, max_pixels)


def _probe_image(path: Path) -> VideoInfo:
    frame = images.read_image(path)
    return VideoInfo(
        path=path, container=images.format_of(path), kind="image", size_wh=frame.size_wh,
        layout=frame.layout, codec=images.format_of(path), time_base=frame.time_base,
        n_frames_hint=1, streams=(StreamInfo(0, "video", images.format_of(path)),),
    )  # fmt: skip


def _probe_folder(path: Path) -> VideoInfo:
    files = images.list_folder(path)
    frame = images.read_image(files[0])
    rate = images.FOLDER_RATE
    return VideoInfo(
        path=path, container="folder", kind="folder", size_wh=frame.size_wh, layout=frame.layout,
        codec=images.format_of(files[0]), time_base=1 / rate, average_rate=rate,
        n_frames_hint=len(files), duration_seconds=float(len(files) / rate), files=files,
        streams=(StreamInfo(0, "video", images.format_of(files[0])),),
    )  # fmt: skip


def _probe_container(path: Path, container: Any, max_pixels: int) -> VideoInfo:
    stream = main_video_stream(container)
    if stream is None:
        kinds = ", ".join(sorted({s.type for s in container.streams if s.type != "video"}))
        raise InputError(
            f"{path} has no video stream ({kinds + ' only' if kinds else 'no streams'}); "
            "name a file with pictures"
        )
    if stream.codec_context is None:
        raise InputError(f"{path}: there is no decoder for its video; convert it to H.264 first")
    check_size(path, stream.codec_context.width, stream.codec_context.height, max_pixels)
    decoder = _decoder_for(stream)
    native = _first_picture(path, container, stream, decoder, max_pixels)
    check_size(path, native.width, native.height, max_pixels)
    matrix = display_matrix_of(native)
    time_base = stream.time_base or Fraction(1, 25)
    rate = positive(stream.average_rate) or positive(stream.guessed_rate)
    supported = native_to_supported(native)
    codec = codec_name(stream)
    starts = [
        other.start_time * other.time_base
        for other in container.streams
        if other.start_time is not None and other.time_base and not _is_cover(other)
    ]
    return VideoInfo(
        path=path,
        container=container.format.name,
        kind="gif" if codec == "gif" else "video",
        size_wh=(native.width, native.height),
        layout=layout_of(supported, chroma_location=chroma_location_of(codec)),
        codec=codec,
        time_base=time_base,
        rotation=quarter_turns_clockwise(matrix),
        sample_aspect_ratio=positive(stream.sample_aspect_ratio) or Fraction(1),
        average_rate=rate,
        n_frames_hint=_frames_hint(stream, container, rate),
        duration_seconds=_duration_seconds(stream, container),
        declared_end_seconds=_declared_end(stream, container),
        start_pts=native.pts if native.pts is not None else (stream.start_time or 0),
        start_seconds=min(starts, default=Fraction(0)),
        is_interlaced=bool(native.interlaced_frame),
        is_truncated=_is_truncated(path, container),
        display_matrix=matrix,
        color_codes=_color_codes(native),
        hdr_metadata=_hdr_metadata(native),
        streams=tuple(_stream_info(s) for s in container.streams),
        stream_index=stream.index,
        n_chapters=len(container.chapters()),
        metadata=dict(container.metadata),
        decoder=decoder,
    )


def _is_cover(stream: Any) -> bool:
    """Whether a stream of any type is cover art."""
    return stream.type == "video" and is_still_picture(stream)


def check_size(path: Path, width: int, height: int, max_pixels: int) -> None:
    """Refuse pictures that would not fit in memory.

    :raises InputError: with the size.
    """
    if width * height > max_pixels:
        raise InputError(
            f"{path}: its pictures have {width}x{height} pixels, more than {max_pixels} allowed; "
            "scale it down first"
        )


def chroma_location_of(codec: str) -> str:
    """Where a codec puts its chroma samples when the stream does not say."""
    return "center" if codec in ("mjpeg", "jpeg2000", "webp", "gif") else "left"


def display_matrix_of(native: Any) -> tuple[int, ...] | None:
    """The display matrix on a decoded frame, None without one."""
    kind = av.sidedata.sidedata.Type.DISPLAYMATRIX
    try:
        data = native.side_data[kind]
    except KeyError:
        return None
    return tuple(int(value) for value in np.frombuffer(bytes(data), "<i4")[:9])


def has_alpha_mode(stream: Any) -> bool:
    """Whether a WebM stream says that it carries an alpha plane beside its pictures."""
    return any(k.lower() == "alpha_mode" and v == "1" for k, v in stream.metadata.items())


def _decoder_for(stream: Any) -> str | None:
    """libvpx for VP9 and VP8 with alpha: the default decoder drops the alpha silently."""
    if has_alpha_mode(stream) and codec_name(stream) in ("vp9", "vp8"):
        name = "libvpx-vp9" if codec_name(stream) == "vp9" else "libvpx"
        try:
            av.CodecContext.create(name, "r")
        except (av.error.FFmpegError, ValueError):
            return None
        return name
    return None


def configure_decoder(
    stream: Any, decoder: str | None, *, threads: int, max_pixels: int
) -> Any:
    """The codec context that decodes a stream, bounded in picture size and threads."""
    context = stream.codec_context
    if decoder is not None:
        context = av.CodecContext.create(decoder, "r")
        if stream.codec_context.extradata:
            context.extradata = stream.codec_context.extradata
    context.options = {**context.options, "max_pixels": str(max_pixels)}
    context.thread_type = "AUTO" if threads != 1 else "NONE"
    context.thread_count = threads
    return context


UNTIMED_START = 32
"""Frames without a time at the start that are held back until one has a time."""
UNDECODABLE = "undecodable"
"""Left in ``packet.opaque`` by :func:`decode_packets` where the decoder gave an error."""


def decode_packets(container: Any, stream: Any, context: Any) -> Iterator[tuple[Any, list[Any]]]:
    """Packets of a stream with the pictures that each brought out; undecodable ones give none.

    The last packets are empty and flush the decoder.

    :raises MemoryError: there was none left for a picture, which is no damage of its packet.
    """
    try:
        for packet in container.demux(stream):
            try:
                yield packet, context.decode(packet)
            except (av.error.FFmpegError, ValueError) as error:
                if isinstance(error, MemoryError):
                    raise
                packet.opaque = UNDECODABLE
                yield packet, []
    except av.error.FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        # The file breaks off; what came before is kept, and the caller counts frames.
        return


def _first_picture(
    path: Path, container: Any, stream: Any, decoder: str | None, max_pixels: int
) -> Any:
    """The first picture, its pts made up from those after it where it has none."""
    context = configure_decoder(stream, decoder, threads=1, max_pixels=max_pixels)
    packets = 0
    first: Any = None
    untimed = 0
    try:
        for _, frames in decode_packets(container, stream, context):
            packets += 1
            for native in frames:
                first = first or native
                if native.pts is not None or untimed >= UNTIMED_START:
                    if native is not first and native.pts is not None:
                        first.pts = native.pts - untimed * _step(stream)
                    return first
                untimed += 1
    except MemoryError as error:
        raise InputError(f"{path} asks for more memory than there is; it is damaged") from error
    if first is not None:
        return first
    raise InputError(
        f"{path}: none of its pictures can be decoded ({packets} packets tried); "
        "the file is damaged or incomplete"
    )


def _step(stream: Any) -> int:
    rate = positive(stream.average_rate) or positive(stream.guessed_rate) or Fraction(25)
    return max(1, round(1 / (rate * (stream.time_base or Fraction(1, 25)))))


def _frames_hint(stream: Any, container: Any, rate: Fraction | None) -> int | None:
    seconds = _duration_seconds(stream, container)
    by_time = round(seconds * rate) if seconds and rate else None
    listed = stream.frames or None
    if listed and by_time and listed > 10 * by_time + 100:
        return by_time
    return listed if listed and listed < 1 << 30 else by_time


def _duration_seconds(stream: Any, container: Any) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration:
        return container.duration / av.time_base
    return None


def _declared_end(stream: Any, container: Any) -> float | None:
    """Seconds of the ``DURATION`` tag of a Matroska stream (hh:mm:ss.fraction)."""
    if "matroska" not in container.format.name.split(","):
        return None
    parts = str(stream.metadata.get("DURATION", "")).split(":")
    try:
        hours, minutes, seconds = (float(part) for part in parts)
    except ValueError:
        return None
    end = 3600 * hours + 60 * minutes + seconds
    return end if 0 < end < math.inf else None


def _is_truncated(path: Path, container: Any) -> bool:
    """Whether the index (MP4, MOV, AVI) points beyond the end of the file."""
    size = path.stat().st_size
    for stream in container.streams:
        try:
            entries = stream.index_entries
            count = len(entries)
            if count and entries[count - 1].pos + entries[count - 1].size > size:
                return True
        except (AttributeError, IndexError, TypeError):
            continue
    return False


def _color_codes(native: Any) -> tuple[int, int, int, int]:
    return (
        int(native.color_primaries), int(native.color_trc), int(native.colorspace),
        2 if native.format.name.startswith("yuvj") else int(native.color_range),
    )  # fmt: skip


def _hdr_metadata(native: Any) -> dict[str, bytes]:
    kinds = av.sidedata.sidedata.Type
    found = {}
    for kind in (kinds.MASTERING_DISPLAY_METADATA, kinds.CONTENT_LIGHT_LEVEL):
        try:
            found[kind.name] = bytes(native.side_data[kind])
        except KeyError:
            continue
    return found


def _stream_info(stream: Any) -> StreamInfo:
    cover = _is_cover(stream)
    return StreamInfo(
        index=stream.index, type="cover" if cover else str(stream.type), codec=codec_name(stream),
        language=stream.metadata.get("language"), title=stream.metadata.get("title"),
    )  # fmt: skip


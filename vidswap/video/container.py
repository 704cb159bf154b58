"""Opening media files without trusting them.

A file name or its content may ask the demuxer to open other files (a text ``ffconcat`` named
``.mp4``), the network, or a picture larger than memory. So every input is opened through the
``file:`` protocol alone, with a list of the demuxers that hold pictures themselves, and with a
bound on the pixels of one picture.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from vidswap.errors import InputError

MAX_PIXELS = 36_000_000
"""Most pixels of one video picture: 8192 x 4320 fits, 8192 x 8192 does not."""

_DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,gif,apng,"
    "h264,hevc,vvc,m4v,av1,obu,ivf,asf,ogg,mxf,yuv4mpegpipe,dv,nut,mjpeg,rm,wtv,mp3,aac,wav,flac,"
    "image2,image2pipe"
)
_ALLOWED = frozenset(_DEMUXERS.split(",")) - {"image2", "image2pipe"}

# PyAV starts with the media library's own log switched off. Leave it so: any level set through
# av.logging brings in a callback that takes Python's lock, and closing a decoder that runs frame
# threads then waits for ever (the closing thread holds that lock).


def file_url(path: str | os.PathLike[str]) -> str:
    """Name for the demuxer or muxer that can only mean this local file.

    The prefix keeps ``b:c.mp4`` from naming a protocol and ``-o.mp4`` from naming an option.
    """
    return "file:" + os.path.abspath(os.fspath(path))


def reason(error: BaseException) -> str:
    """Short text of what the media library or the system said."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def require_file(path: str | os.PathLike[str]) -> Path:
    """The path as an existing, readable, non-empty file.

    :raises InputError: missing, a folder, unreadable or of zero bytes.
    """
    file = Path(path)
    try:
        size = file.stat().st_size
        if file.is_dir():
            raise InputError(f"{file} is a folder where a file is needed; name a video or image")
        if not file.is_file():
            raise InputError(f"{file} is not an ordinary file; name a video or image file")
        with open(file, "rb"):
            pass
    except FileNotFoundError:
        raise InputError(f"no such file: {file}; check the path") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {file}: {reason(error)}") from error
    if size == 0:
        raise InputError(f"{file} is empty (0 bytes); it was probably not copied completely")
    return file


def open_input(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Any:
    """Open a media file for reading; the caller closes it (it is a context manager).

    :return: ``av.container.InputContainer``.
    :raises InputError: not a media file of an allowed kind, or broken beyond reading.
    """
    file = require_file(path)
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": ",".join(sorted(_ALLOWED)),
        "max_pixels": str(max_pixels),
    }
    try:
        container = av.open(
            file_url(file), "r", options=options, metadata_errors="replace"
        )
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise InputError(
            f"{file} is not a video or image that can be read ({reason(error)}); "
            "it may be incomplete, or of another kind"
        ) from error
    except MemoryError as error:
        raise InputError(f"{file} asks for more memory than there is; it is damaged") from error
    names = set(container.format.name.split(","))
    if not names & _ALLOWED:
        container.close()
        raise InputError(f"{file} is of the kind {container.format.name!r}, which is not a video")
    return container


def main_video_stream(container: Any) -> Any | None:
    """The stream of moving pictures: cover art and thumbnails are not video."""
    best = container.streams.best("video")
    candidates = [best] if best is not None else []
    candidates += list(container.streams.video)
    for stream in candidates:
        if not is_still_picture(stream):
            return stream
    return None


def is_still_picture(stream: Any) -> bool:
    """Whether a video stream is cover art or a set of thumbnails."""
    flags = av.stream.Disposition
    return bool(stream.disposition & (flags.attached_pic | flags.timed_thumbnails))


def codec_name(stream: Any) -> str:
    """FFmpeg name of a stream's codec, ``unknown`` where there is no decoder for it."""
    if stream.codec_context is not None:
        return str(stream.codec_context.codec.canonical_name)
    return str(getattr(stream, "name", None) or "unknown")


def positive(value: Fraction | None) -> Fraction | None:
    """The fraction when it says something, None for 0 and unknown."""
    return Fraction(value) if value is not None and value > 0 else None

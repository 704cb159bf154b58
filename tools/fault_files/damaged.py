"""Clips that are broken, or made to break the reader."""

from __future__ import annotations

import os
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from fault_files import Pictures, case
from fault_files.clips import RATE, tone, write_clip, writing


def png_of(width: int, height: int) -> bytes:
    """A grey PNG of one bit a pixel, built line by line: a huge picture in few bytes."""
    packer = zlib.compressobj(9)
    line = b"\0" + b"\0" * ((width + 7) // 8)
    data = b"".join(packer.compress(line) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


@case(25, "25_no_moov.mp4", "a plain MP4 without its index", "refused", 3)
def _no_moov(path: Path, pictures: Pictures) -> None:
    write_clip(path, pictures)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@case(26, "26_truncated.mp4", "a faststart MP4 cut in half", "refused; partly, if asked", 3)
def _truncated(path: Path, pictures: Pictures) -> None:
    write_clip(path, pictures, container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@case(27, "27_corrupt.mp4", "one byte in 500 of the data changed", "done, the damage counted", 0, 3)
def _corrupt(path: Path, pictures: Pictures) -> None:
    write_clip(path, pictures, container_options={"movflags": "faststart"})
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    start = data.tobytes().index(b"mdat") + 4
    random = np.random.default_rng(27)
    places = random.choice(np.arange(start, len(data)), (len(data) - start) // 500, replace=False)
    data[places] ^= random.integers(1, 256, len(places)).astype(np.uint8)
    path.write_bytes(data.tobytes())


@case(28, "28_empty.mp4", "zero bytes", "refused", 3)
def _empty(path: Path, pictures: Pictures) -> None:
    path.write_bytes(b"")


@case(29, "29_audio_only.mp4", "sound without pictures", "refused", 3)
def _audio_only(path: Path, pictures: Pictures) -> None:
    with writing(path) as container:
        container.mux(tone(container.add_stream("aac", rate=44100), seconds=1, hertz=440.0))


@case(30, "30_huge_count.avi", "a header of 2147483647 frames", "its 50 frames; little memory")
def _huge_count(path: Path, pictures: Pictures) -> None:
    write_clip(path, pictures, codec="mpeg4", options={"qscale": "4"})
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"avih") + 8 + 16, 0x7FFFFFFF)  # dwTotalFrames
    struct.pack_into("<I", data, data.index(b"strh") + 8 + 32, 0x7FFFFFFF)  # dwLength
    path.write_bytes(data)


@case(31, "31_gap.mkv", "24 hours between two frames", "the gap kept, not filled")
def _gap(path: Path, pictures: Pictures) -> None:
    times = [*range(0, 400, 40), *range(86_400_000, 86_400_400, 40)]
    write_clip(path, pictures, pts=times, time_base=Fraction(1, 1000))


@case(32, "32_large_pictures.mov", "60 frames of 8192 by 8192 in few bytes",
      "memory stays bounded, or refused", 0, 3)
def _large_pictures(path: Path, pictures: Pictures) -> None:
    picture = png_of(8192, 8192)
    with writing(path) as container:
        stream = container.add_stream("png", rate=RATE)
        stream.width = stream.height = 8192
        stream.pix_fmt = "monob"
        for number in range(60):
            packet = av.Packet(picture)
            packet.stream, packet.pts, packet.dts = stream, number, number
            packet.time_base, packet.is_keyframe = Fraction(1, RATE), True
            container.mux(packet)


@case(33, "33_bomb.png", "a PNG of 50,000 by 50,000 pixels", "refused before it is unpacked", 3)
def _bomb(path: Path, pictures: Pictures) -> None:
    path.write_bytes(png_of(50_000, 50_000))


@case(34, "34_concat.mp4", "a text that opens other files", "refused; nothing else opened", 3)
def _concat(path: Path, pictures: Pictures) -> None:
    path.write_text("ffconcat version 1.0\nfile '21_one_frame.mp4'\n")


@case(34, "34_playlist.mp4", "a playlist that opens other files", "refused; nothing else opened", 3)
def _playlist(path: Path, pictures: Pictures) -> None:
    path.write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n21_one_frame.mp4\n#EXT-X-ENDLIST\n"
    )


@case(35, "35_metadata.mp4", "a title that is not UTF-8", "done")
def _metadata(path: Path, pictures: Pictures) -> None:
    mark = "vvvvvvvvvvvv"
    write_clip(path, pictures, prepare=lambda container, _: container.metadata.update(title=mark))
    data = path.read_bytes()
    path.write_bytes(data.replace(mark.encode(), b"\xff\xfe\x80caf\xe9\xc3\x28\xa0\xa1\xf0"[:12]))


_NAMES = {
    "with spaces.mp4": "spaces",
    "näme-名前-🎬.mp4": "letters beyond ASCII",
    "two\nlines.mp4": "a line break",
    "frame%03d.mp4": "a pattern",
    "-leading.mp4": "a leading dash",
    "b:c.mp4": "what looks like a protocol",
}


def _named(path: Path, pictures: Pictures) -> None:
    write_clip(path, pictures, frames=10)


def _open_name(path: Path, pictures: Pictures) -> None:
    # PyAV takes names for patterns and protocols too, so the clip is made under a plain one.
    plain = path.with_name("36.tmp.mp4")
    _named(plain, pictures)
    os.replace(plain, path)


for _name, _what in _NAMES.items():
    case(36, f"36_names/{_name}", f"a name with {_what}", "done")(_open_name)


@case(37, "37_jobs.csv", "a job list with paths that lead out", "refused", 2, 6)
def _jobs(path: Path, pictures: Pictures) -> None:
    path.write_text("target,source,output\n21_one_frame.mp4,synthetic:1,../../escaped.mp4\n")


@case(40, "40_target.mp4", "a clip with a symbolic and a hard link to it",
      "the links refused as outputs", 2)
def _links(path: Path, pictures: Pictures) -> None:
    _named(path, pictures)
    for name, link in (("40_symlink.mp4", os.symlink), ("40_hardlink.mp4", os.link)):
        other = path.with_name(name)
        other.unlink(missing_ok=True)
        link(path, other)

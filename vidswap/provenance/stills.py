"""PNG, JPEG and GIF: where the XMP packet lies, and how one is put in."""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

from vidswap.provenance import xmp
from vidswap.provenance.splice import Part, Piece

_PNG_KEYWORD = b"XML:com.adobe.xmp"
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
JPEG_ROOM = 65533 - len(_JPEG_XMP)
"""Longest packet that a JPEG segment holds."""
_GIF_XMP = b"\x21\xff\x0bXMP DataXMP"
# A decoder that takes the packet for length-prefixed blocks lands somewhere in this slide and
# is led to the terminator (XMP specification, part 3, GIF).
_GIF_SLIDE = b"\x01" + bytes(range(255, -1, -1)) + b"\x00"
_MAX_PIECES = 1_000_000

Found = tuple[int, int, bytes]
"""Start and end of the piece that holds a packet, and the packet."""


# --- PNG ----------------------------------------------------------------------------------------


def _png_chunks(stream: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and length of the content of each chunk."""
    size, position = stream.seek(0, os.SEEK_END), 8
    for _ in range(_MAX_PIECES):
        stream.seek(position)
        head = stream.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        if position + 12 + length > size:
            return
        yield kind, position + 8, length
        position += 12 + length


def find_png(stream: BinaryIO) -> Found | None:
    """The XMP packet of a PNG."""
    for kind, start, length in _png_chunks(stream):
        if kind == b"iTXt" and length <= xmp.MAX_BYTES:
            stream.seek(start)
            keyword, _, rest = stream.read(length).partition(b"\0")
            if keyword == _PNG_KEYWORD and rest[:1] == b"\0":  # not compressed
                fields = rest[2:].split(b"\0", 2)  # language, translated keyword, text
                if len(fields) == 3:
                    return start - 8, start + length + 4, fields[2]
    return None


def with_png(stream: BinaryIO, packet: bytes) -> list[Piece] | None:
    """Pieces of the PNG with the packet behind its header."""
    first = next(_png_chunks(stream), None)
    if first is None or first[0] != b"IHDR":
        return None
    content = b"iTXt" + _PNG_KEYWORD + b"\0\0\0\0\0" + packet
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    behind_header = first[1] + first[2] + 4
    return _put(stream, behind_header, chunk, find_png(stream))


# --- JPEG ---------------------------------------------------------------------------------------


def _jpeg_segments(stream: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end (of the whole segment) up to the picture's data."""
    position = 2
    for _ in range(_MAX_PIECES):
        stream.seek(position)
        head = stream.read(4)
        if len(head) < 4 or head[0] != 0xFF:
            return
        if head[1] == 0xFF:  # a fill byte
            position += 1
            continue
        length = int.from_bytes(head[2:], "big")
        if head[1] in (0xDA, 0xD9) or length < 2:
            return
        yield head[1], position, position + 2 + length
        position += 2 + length


def find_jpeg(stream: BinaryIO) -> Found | None:
    """The XMP packet of a JPEG."""
    for marker, start, end in _jpeg_segments(stream):
        if marker == 0xE1:
            stream.seek(start + 4)
            content = stream.read(end - start - 4)
            if content.startswith(_JPEG_XMP):
                return start, end, content[len(_JPEG_XMP) :]
    return None


def with_jpeg(stream: BinaryIO, packet: bytes) -> list[Piece] | None:
    """Pieces of the JPEG with the packet in a segment behind JFIF's and Exif's."""
    if len(packet) > JPEG_ROOM:
        return None
    content = _JPEG_XMP + packet
    segment = b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content
    behind, old = 2, find_jpeg(stream)
    for marker, start, end in _jpeg_segments(stream):
        if marker not in (0xE0, 0xE1) or (old is not None and start == old[0]):
            break
        behind = end
    return _put(stream, behind, segment, old)


# --- GIF ----------------------------------------------------------------------------------------


def _gif_blocks(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Start and first 14 bytes of each block, up to and with the trailer."""
    stream.seek(0)
    head = stream.read(13)
    if len(head) < 13:
        return
    position = 13 + _color_table_bytes(head[10])
    for _ in range(_MAX_PIECES):
        stream.seek(position)
        head = stream.read(14)
        if not head:
            return
        yield position, head
        if head[0] == 0x21 and head.startswith(_GIF_XMP):
            packet_end = _gif_packet_end(stream, position + len(_GIF_XMP))
            if packet_end is None:
                return
            position = packet_end + len(_GIF_SLIDE)
        elif head[0] == 0x21:
            position = _behind_sub_blocks(stream, position + 2)
        elif head[0] == 0x2C and len(head) >= 10:
            position = _behind_sub_blocks(stream, position + 11 + _color_table_bytes(head[9]))
        else:
            return


def _color_table_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _behind_sub_blocks(stream: BinaryIO, position: int) -> int:
    while True:
        stream.seek(position)
        length = stream.read(1)
        if not length:
            return position
        position += 1 + length[0]
        if not length[0]:
            return position


def _gif_packet_end(stream: BinaryIO, start: int) -> int | None:
    stream.seek(start)
    length = stream.read(xmp.MAX_BYTES).find(_GIF_SLIDE)
    return None if length < 0 else start + length


def find_gif(stream: BinaryIO) -> Found | None:
    """The XMP packet of a GIF."""
    for start, head in _gif_blocks(stream):
        if head.startswith(_GIF_XMP):
            content = start + len(_GIF_XMP)
            end = _gif_packet_end(stream, content)
            if end is None:
                return None
            stream.seek(content)
            return start, end + len(_GIF_SLIDE), stream.read(end - content)
    return None


def with_gif(stream: BinaryIO, packet: bytes) -> list[Piece] | None:
    """Pieces of the GIF (version 89a) with the packet before its trailer."""
    stream.seek(0)
    if stream.read(6) != b"GIF89a":
        return None
    last = deque(_gif_blocks(stream), maxlen=1)
    if not last or last[0][1][0] != 0x3B:
        return None
    return _put(stream, last[0][0], _GIF_XMP + packet + _GIF_SLIDE, find_gif(stream))


def _put(stream: BinaryIO, position: int, piece: bytes, old: Found | None) -> list[Piece]:
    """The file with a piece put in at a position, and the old one taken out."""
    size = stream.seek(0, os.SEEK_END)
    if old is None:
        return [Part(0, position), piece, Part(position, size)]
    if old[0] < position:
        return [Part(0, old[0]), Part(old[1], position), piece, Part(position, size)]
    return [Part(0, position), piece, Part(position, old[0]), Part(old[1], size)]

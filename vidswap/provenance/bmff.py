"""MP4 and MOV: boxes, the XMP box and the tags, read without decoding (ISO/IEC 14496-12)."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from vidswap.provenance import xmp
from vidswap.provenance.splice import Part, Piece

XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
"""User type of the box that holds an XMP packet (XMP specification, part 3)."""

_MAX_BOXES = 1_000_000
_MAX_TAG_BYTES = 1 << 20


@dataclass(frozen=True)
class Box:
    kind: bytes
    start: int
    payload: int
    """Where its content starts (after the user type for ``uuid`` boxes)."""
    end: int
    user_type: bytes = b""
    is_open: bool = False
    """Its size is not written: it runs to the end of the file."""


def boxes(stream: BinaryIO, start: int, end: int) -> Iterator[Box]:
    """The boxes between two positions; stops at the first one that makes no sense."""
    position = start
    for _ in range(_MAX_BOXES):
        if position + 8 > end:
            return
        stream.seek(position)
        head = stream.read(32)
        if len(head) < 8:
            return
        size, kind = struct.unpack(">I4s", head[:8])
        header = 8
        if size == 1:
            if len(head) < 16:
                return
            size, header = struct.unpack(">Q", head[8:16])[0], 16
        is_open = size == 0
        if is_open:
            size = end - position
        user_type = b""
        if kind == b"uuid":
            user_type, header = head[header : header + 16], header + 16
        if size < header or position + size > end:
            return
        yield Box(kind, position, position + header, position + size, user_type, is_open)
        position += size


def read_xmp(stream: BinaryIO) -> bytes | None:
    """The XMP packet, or None."""
    box = _xmp_box(stream)
    return None if box is None else _read(stream, box.payload, box.end, xmp.MAX_BYTES)


def with_xmp(stream: BinaryIO, packet: bytes) -> list[Piece] | None:
    """Pieces of the file with the packet in a box of its own at the end (no offset moves).

    None when nothing can be put behind the last box.
    """
    size = stream.seek(0, os.SEEK_END)
    top = list(boxes(stream, 0, size))
    if not top or top[-1].is_open or top[-1].end != size:
        return None
    box = struct.pack(">I4s16s", 24 + len(packet), b"uuid", XMP_UUID) + packet
    # The random-access index says its distance from the end of the file: it stays last.
    behind = top[-1].start if top[-1].kind == b"mfra" else size
    pieces: list[Piece] = []
    position = 0
    for old in top:
        if old.user_type == XMP_UUID:  # emptied in place, so that no offset moves
            pieces += [Part(position, old.start + 4), b"free"]
            position = old.start + 8
    return [*pieces, Part(position, behind), box, Part(behind, size)]


def read_tags(stream: BinaryIO) -> dict[str, str]:
    """The tags of the file as a whole, names in lower case: the ``mdta`` kind and ``comment``."""
    size = stream.seek(0, os.SEEK_END)
    tags: dict[str, str] = {}
    for movie in boxes(stream, 0, size):
        if movie.kind != b"moov":
            continue
        for child in boxes(stream, movie.payload, movie.end):
            if child.kind == b"meta":
                tags.update(_meta_tags(stream, child))
            elif child.kind == b"udta":
                for entry in boxes(stream, child.payload, child.end):
                    if entry.kind == b"meta":
                        tags.update(_meta_tags(stream, entry))
                    elif entry.kind == b"\xa9cmt":  # QuickTime: length, language, text
                        text = _read(stream, entry.payload + 4, entry.end, _MAX_TAG_BYTES)
                        tags["comment"] = text.decode("utf-8", "replace")
    return tags


def _xmp_box(stream: BinaryIO) -> Box | None:
    size = stream.seek(0, os.SEEK_END)
    return next((b for b in boxes(stream, 0, size) if b.user_type == XMP_UUID), None)


def _meta_tags(stream: BinaryIO, meta: Box) -> dict[str, str]:
    # QuickTime's meta box has no version field before its children, MPEG-4's has.
    plain = _read(stream, meta.payload + 4, meta.payload + 8, 4) == b"hdlr"
    children = {
        box.kind: box for box in boxes(stream, meta.payload + (0 if plain else 4), meta.end)
    }
    items, keys = children.get(b"ilst"), children.get(b"keys")
    if items is None:
        return {}
    names = [] if keys is None else [
        _read(stream, key.payload, key.end, 4096).decode("utf-8", "replace").lower()
        for key in boxes(stream, keys.payload + 8, keys.end)
    ]
    tags = {}
    for item in boxes(stream, items.payload, items.end):
        number = int.from_bytes(item.kind, "big")
        if item.kind == b"\xa9cmt":
            name = "comment"
        elif 1 <= number <= len(names):
            name = names[number - 1]
        else:
            continue
        for data in boxes(stream, item.payload, item.end):
            if data.kind == b"data":  # type and locale, then the value
                value = _read(stream, data.payload + 8, data.end, _MAX_TAG_BYTES)
                tags[name] = value.decode("utf-8", "replace")
    return tags


def _read(stream: BinaryIO, start: int, end: int, most: int) -> bytes:
    stream.seek(start)
    return stream.read(max(0, min(end - start, most)))

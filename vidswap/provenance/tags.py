"""Tags of Matroska, WebM and AVI, read without decoding."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

_SEGMENT, _TAGS, _TAG, _SIMPLE_TAG = 0x18538067, 0x1254C367, 0x7373, 0x67C8
_TARGETS, _TAG_NAME, _TAG_STRING, _CLUSTER = 0x63C0, 0x45A3, 0x4487, 0x1F43B675
_MAX_ELEMENTS = 1_000_000
_MAX_TAG_BYTES = 1 << 20

Element = tuple[int, int, int]
"""Identifier, start and end of the content."""


def _number(stream: BinaryIO, *, keep_marker: bool) -> int | None:
    """An EBML variable-length integer; None at the end of the file, -1 for "unknown"."""
    first = stream.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    rest = stream.read(length - 1)
    if len(rest) < length - 1:
        return None
    value = int.from_bytes(first + rest, "big")
    if keep_marker:
        return value
    value -= 1 << (7 * length)
    return -1 if value == (1 << (7 * length)) - 1 else value


def _elements(stream: BinaryIO, start: int, end: int) -> Iterator[Element]:
    """Elements between two positions. One of unknown size is entered, not skipped."""
    position = start
    for _ in range(_MAX_ELEMENTS):
        if position >= end:
            return
        stream.seek(position)
        identifier = _number(stream, keep_marker=True)
        size = _number(stream, keep_marker=False)
        if identifier is None or size is None:
            return
        content = stream.tell()
        if size < 0:
            yield identifier, content, end
            position = content if identifier == _CLUSTER else end
            continue
        yield identifier, content, min(content + size, end)
        position = content + size


def read_matroska(stream: BinaryIO) -> dict[str, str]:
    """Tags of the file as a whole, names in lower case."""
    size = stream.seek(0, os.SEEK_END)
    tags: dict[str, str] = {}
    for segment, start, end in _elements(stream, 0, size):
        if segment != _SEGMENT:
            continue
        for kind, tags_start, tags_end in _elements(stream, start, end):
            if kind == _TAGS:
                for tag, tag_start, tag_end in _elements(stream, tags_start, tags_end):
                    if tag == _TAG:
                        tags.update(_simple_tags(stream, tag_start, tag_end))
    return tags


def _simple_tags(stream: BinaryIO, start: int, end: int) -> dict[str, str]:
    tags = {}
    for kind, content, content_end in _elements(stream, start, end):
        if kind == _TARGETS and any(
            name == 0x63C5 for name, _, _ in _elements(stream, content, content_end)
        ):
            return {}  # about one track only
        if kind == _SIMPLE_TAG:
            parts = {
                name: _text(stream, text, text_end)
                for name, text, text_end in _elements(stream, content, content_end)
                if name in (_TAG_NAME, _TAG_STRING)
            }
            if _TAG_NAME in parts:
                tags[parts[_TAG_NAME].lower()] = parts.get(_TAG_STRING, "")
    return tags


def read_avi(stream: BinaryIO) -> dict[str, str]:
    """The comment of an AVI; the format has no place for other names."""
    size = stream.seek(0, os.SEEK_END)
    for kind, start, end in _riff_lists(stream, 12, size):
        if kind != b"INFO":
            continue
        position = start
        while position + 8 <= end:
            stream.seek(position)
            name, length = struct.unpack("<4sI", stream.read(8))
            if name == b"ICMT":
                return {"comment": _text(stream, position + 8, min(position + 8 + length, end))}
            position += 8 + length + length % 2
    return {}


def _riff_lists(stream: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    position = start
    for _ in range(_MAX_ELEMENTS):
        stream.seek(position)
        head = stream.read(12)
        if len(head) < 12:
            return
        name, length = struct.unpack("<4sI", head[:8])
        if name == b"LIST":
            yield head[8:12], position + 12, min(position + 8 + length, end)
        position += 8 + length + length % 2


def _text(stream: BinaryIO, start: int, end: int) -> str:
    stream.seek(start)
    data = stream.read(max(0, min(end - start, _MAX_TAG_BYTES)))
    return data.rstrip(b"\0").decode("utf-8", "replace")

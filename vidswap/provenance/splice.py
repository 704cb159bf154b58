"""A file with pieces put in or taken out, read as a stream and never copied into memory."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO


@dataclass(frozen=True)
class Part:
    """A range of the file below."""

    start: int
    end: int


Piece = Part | bytes


class SplicedStream(io.RawIOBase):
    """The pieces one after the other, as one seekable stream for reading.

    Args:
        base: the file that :class:`Part` refers to; stays the caller's to close.
        pieces: ranges of it and bytes of one's own, in order.
    """

    def __init__(self, base: BinaryIO, pieces: Sequence[Piece]) -> None:
        super().__init__()
        self._base = base
        self._pieces: list[Piece] = []
        self._starts: list[int] = []
        self._size = self._position = 0
        for piece in pieces:
            length = len(piece) if isinstance(piece, bytes) else piece.end - piece.start
            if length < 0:
                raise ValueError(f"pieces: expected start <= end, got {piece!r}")
            if length:
                self._pieces.append(piece)
                self._starts.append(self._size)
                self._size += length

    @property
    def size(self) -> int:
        return self._size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if origin + offset < 0:
            raise ValueError(f"offset: expected a position from 0, got {origin + offset}")
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._position >= self._size or not len(buffer):
            return 0
        number = bisect_right(self._starts, self._position) - 1
        piece, offset = self._pieces[number], self._position - self._starts[number]
        if isinstance(piece, bytes):
            data = piece[offset : offset + len(buffer)]
        else:
            self._base.seek(piece.start + offset)
            data = self._base.read(min(len(buffer), piece.end - piece.start - offset))
        memoryview(buffer).cast("B")[: len(data)] = data
        self._position += len(data)
        return len(data)


def opened(base: BinaryIO, pieces: Sequence[Piece]) -> io.BufferedReader:
    """The pieces as a buffered stream: reads of any length give all that there is."""
    return io.BufferedReader(SplicedStream(base, pieces), buffer_size=1 << 18)

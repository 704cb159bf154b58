"""Seeded mutations of files: the same seed gives the same bytes."""

from __future__ import annotations

import random
import re
import struct

_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_BOXES = re.compile(
    rb"moov|trak|mdia|minf|stbl|stsd|stts|stsc|stsz|stco|co64|ctts|elst|edts|tkhd|mdhd|mvhd|hdlr|avcC|udta|meta"
    rb"|ilst|mdat|ftyp|avih|strh|strf|movi|idx1|IHDR|PLTE|tRNS|IDAT|iCCP|eXIf|acTL|\xff[\xc0-\xfe]"
    rb"|\x1a\x45\xdf\xa3|\x15\x49\xa9\x66|\x16\x54\xae\x6b|\x1f\x43\xb6\x75|\x1c\x53\xbb\x6b|\x53\xac"
)
_TOKENS = (
    b"!!python/object/apply:os.system ['true']",
    b"&a [*a, *a]",
    b"[" * 2000,
    b"{" * 2000,
    b"\x00",
    b"\xff\xfe",
    b"-1",
    b"1e999",
    b".nan",
    b".inf",
    b"null",
    b"true",
    b"99999999999999999999",
    b'"',
    b"'",
    b"{}",
    b"[]",
    b": ",
    b"\n",
    b"\t",
    b"\r",
    b"../../x",
    b"%s%n",
    "é\u202e".encode(),
    b"~",
    b"? ",
    b"<<: *x",
    b"- - - -",
    b"0x10",
    b"1_0",
)
_TEXT = (".yaml", ".yml", ".csv", ".txt", ".json", ".jsonl")


def mutate(data: bytes, other: bytes, suffix: str, seed: int) -> bytes:
    """One mutation, or several, of a file's bytes.

    :param other: bytes of another file, of which a part may come in.
    :param suffix: texts also get odd words and numbers.
    """
    chance = random.Random(seed)
    kinds = [_flip, _flip, _truncate, _header, _header, _shuffle, _splice]
    if suffix in _TEXT:
        kinds += [_words] * 6
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        chance.choice(kinds)(changed, other, chance)
    return bytes(changed)


def _flip(data: bytearray, _other: bytes, chance: random.Random) -> None:
    """Random bits, as zzuf does: from a few to one byte in twenty."""
    count = max(1, int(len(data) * 10 ** chance.uniform(-5, -1.3)))
    for _ in range(count if data else 0):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _truncate(data: bytearray, _other: bytes, chance: random.Random) -> None:
    near, far = chance.random() ** 6, chance.random()
    del data[int(len(data) * chance.choice((far, near, 1 - near))) :]


def _header(data: bytearray, _other: bytes, chance: random.Random) -> None:
    """Odd numbers near what looks like the beginning of a field."""
    places = [match.start() for match in _BOXES.finditer(bytes(data))] or [0]
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.choice(places) + chance.randrange(-8, 40)
        size, letter = chance.choice(((1, "B"), (2, "H"), (4, "I"), (4, "I"), (8, "Q")))
        if not 0 <= at <= len(data) - size:
            continue
        order = chance.choice("<>")
        (now,) = struct.unpack_from(order + letter, data, at)
        value = chance.choice((*_NUMBERS, now + 1, now - 1, now * 2, now // 2, now ^ 0x80))
        struct.pack_into(order + letter, data, at, value % (1 << (8 * size)))


def _shuffle(data: bytearray, _other: bytes, chance: random.Random) -> None:
    """A stretch is doubled, removed or zeroed."""
    if len(data) < 2:
        return
    start = chance.randrange(len(data))
    length = min(len(data) - start, int(2 ** chance.uniform(0, 14)))
    part = bytes(data[start : start + length])
    what = chance.randrange(3)
    if what == 0:
        data[start:start] = part
    elif what == 1:
        del data[start : start + length]
    else:
        data[start : start + length] = bytes(length)


def _splice(data: bytearray, other: bytes, chance: random.Random) -> None:
    """A stretch of another file."""
    if not other or not data:
        return
    start, length = chance.randrange(len(other)), int(2 ** chance.uniform(0, 14))
    at = chance.randrange(len(data))
    part = other[start : start + length]
    data[at : at + (len(part) if chance.random() < 0.5 else 0)] = part


def _words(data: bytearray, _other: bytes, chance: random.Random) -> None:
    """An odd word in place of a word or between two."""
    words = [match.span() for match in re.finditer(rb"[\w.-]+", bytes(data))] or [(0, 0)]
    start, end = chance.choice(words)
    data[start : chance.choice((start, end, end))] = chance.choice(_TOKENS)

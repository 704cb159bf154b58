"""Which marks a file can carry, found by its first bytes and never by its name.

========================  ==================  =====================  ===================
format                    C2PA manifest       XMP packet             tag read by `verify`
========================  ==================  =====================  ===================
MP4, MOV                  in the file         in the file            yes
PNG, JPEG, GIF            in the file         in the file            (XMP says the same)
AVI                       in the file         no                     yes (INFO chunk)
WebP, TIFF                in the file         no                     no
Matroska, WebM            beside it, .c2pa    no                     yes
others (OGV, MXF, TS …)   beside it, .c2pa    no                     no
========================  ==================  =====================  ===================

For Matroska and WebM there is no registered place for XMP, and the C2PA library embeds nothing there. AVI
(a ``_PMX`` chunk), WebP (an ``XMP`` chunk) and TIFF (tag 700) have a place for XMP; nothing is written there
yet, and a packet that is there is not read: that is a limit of this module. The manifest says all that the
packet would. A sidecar is lost when the file is moved without it: prefer MP4 or MOV where the mark must
travel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vidswap.provenance import bmff, stills, tags, xmp
from vidswap.provenance.splice import Piece

WithXmp = Callable[[BinaryIO, bytes], "list[Piece] | None"]


def _no_tags(stream: BinaryIO) -> dict[str, str]:
    return {}


def _no_xmp(stream: BinaryIO) -> bytes | None:
    return None


@dataclass(frozen=True)
class Format:
    """What is known of a kind of file."""

    mime: str
    embeds: bool
    """Whether the C2PA library can put its manifest inside; else it lies beside the file."""
    with_xmp: WithXmp | None = None
    read_xmp: Callable[[BinaryIO], bytes | None] = _no_xmp
    read_tags: Callable[[BinaryIO], dict[str, str]] = _no_tags
    xmp_room: int = xmp.MAX_BYTES


def _still(find: Callable[[BinaryIO], stills.Found | None]) -> Callable[[BinaryIO], bytes | None]:
    def read(stream: BinaryIO) -> bytes | None:
        found = find(stream)
        return None if found is None else found[2]

    return read


def _base_media(mime: str) -> Format:
    return Format(mime, True, bmff.with_xmp, bmff.read_xmp, bmff.read_tags)


MP4, MOV = _base_media("video/mp4"), _base_media("video/quicktime")
PNG = Format("image/png", True, stills.with_png, _still(stills.find_png))
JPEG = Format(
    "image/jpeg", True, stills.with_jpeg, _still(stills.find_jpeg), xmp_room=stills.JPEG_ROOM
)
GIF = Format("image/gif", True, stills.with_gif, _still(stills.find_gif))
AVI = Format("video/avi", True, read_tags=tags.read_avi)
WEBP, TIFF = Format("image/webp", True), Format("image/tiff", True)
MATROSKA = Format("video/x-matroska", False, read_tags=tags.read_matroska)
OTHER = Format("application/octet-stream", False)


def format_of(path: Path) -> Format:
    """The format of a file.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as stream:
        head = stream.read(32)
    if head[4:8] == b"ftyp":
        return MOV if head[8:12] == b"qt  " else MP4
    if head[4:8] in (b"moov", b"mdat", b"wide"):  # QuickTime before it had brands
        return MOV
    for magic, found in (
        (b"\x89PNG\r\n\x1a\n", PNG),
        (b"\xff\xd8\xff", JPEG),
        (b"GIF8", GIF),
        (b"\x1aE\xdf\xa3", MATROSKA),
        (b"II*\0", TIFF),
        (b"MM\0*", TIFF),
    ):
        if head.startswith(magic):
            return found
    if head.startswith(b"RIFF"):
        return {b"AVI ": AVI, b"WEBP": WEBP}.get(head[8:12], OTHER)
    return OTHER


def sidecar_of(path: Path) -> Path:
    """Where the manifest of a file lies that cannot carry it: ``clip.mkv.c2pa``.

    The whole name, so that ``clip.mkv`` and ``clip.webm`` in one folder do not share one.
    """
    return path.with_name(path.name + ".c2pa")


def find_sidecar(path: Path) -> Path | None:
    """The manifest beside a file: ``clip.mkv.c2pa``, or ``clip.c2pa`` as other tools name it."""
    for candidate in (sidecar_of(path), path.with_suffix(".c2pa")):
        if candidate != path and candidate.is_file():
            return candidate
    return None

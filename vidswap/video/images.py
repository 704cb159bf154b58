"""Single images and folders of them, as targets and as outputs.

Pictures are turned upright by their EXIF orientation when read, so a still has rotation 0. CMYK
becomes RGB (through its colour profile where it has one), a palette becomes RGB or RGBA, grey
stays grey and 16-bit PNG keeps its 16 bits.
"""

from __future__ import annotations

import io
import os
import re
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from vidswap.errors import InputError
from vidswap.records import Frame, PixelLayout
from vidswap.video.container import reason, require_file
from vidswap.video.pixels import native_planes, native_to_supported, require_storage

MAX_IMAGE_PIXELS = 200_000_000
"""Largest still that is read."""
FOLDER_RATE = Fraction(25)
"""Frames a second that a folder of images is taken to have."""
_SUFFIXES = {
    ".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".jpe": "jpeg", ".webp": "webp",
    ".bmp": "bmp", ".tif": "tiff", ".tiff": "tiff",
}  # fmt: skip
_MOTION_JPEG = (".mjpeg", ".mjpg")
_PNG_HEADER = 33
"""Bytes of a PNG up to the end of its first chunk."""
_ORIENTATION = 0x0112
_EXIF_LINKS = (0x8769, 0x8825)
"""Tags of EXIF that hold further ones: of the camera, and of the place."""
_NOT_KEPT = (0x927C, 0xA005)
"""The maker's note, and what other files belong to this one."""
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpeg"), (b"BM", "bmp"),
    (b"II*\x00", "tiff"), (b"MM\x00*", "tiff"),
)  # fmt: skip


def format_of(path: str | os.PathLike[str]) -> str:
    """``png``, ``jpeg``, ``webp``, ``bmp`` or ``tiff`` by a file's first bytes, else ``""``.

    An animated PNG or WebP counts as its first picture.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError:
        return ""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "")


def pictures_in(path: str | os.PathLike[str]) -> int:
    """How many pictures a still's file holds: more than one in an animated PNG or WebP and in a TIFF of
    several pages; 1 where it cannot be told."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=("PNG", "WEBP", "TIFF")) as image:
                return int(getattr(image, "n_frames", 1))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return 1


def is_image_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a still image, by content; pictures without a container between them are a video."""
    return bool(format_of(path)) and Path(path).suffix.lower() not in _MOTION_JPEG


def has_image_suffix(path: str | os.PathLike[str]) -> bool:
    """Whether a name is that of a still image."""
    return Path(path).suffix.lower() in _SUFFIXES


def read_image(
    path: str | os.PathLike[str],
    *,
    index: int = 0,
    pts: int = 0,
    time_base: Fraction = 1 / FOLDER_RATE,
) -> Frame:
    """Read a still as a frame: upright, RGB or grey, 8 or 16 bits.

    :raises InputError: missing, not an image, truncated, or above ``MAX_IMAGE_PIXELS``.
    """
    file = require_file(path)
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures and odd EXIF; the size is judged below.
            warnings.simplefilter("ignore")
            with Image.open(file, formats=("PNG", "JPEG", "WEBP", "BMP", "TIFF")) as image:
                if image.width * image.height > MAX_IMAGE_PIXELS:
                    raise InputError(
                        f"{file} has {image.width}x{image.height} pixels, more than "
                        f"{MAX_IMAGE_PIXELS} allowed; scale it down first"
                    )
                if image.format == "PNG" and _png_is_deep(file):
                    name, planes = _read_deep_png(file, image.getexif().get(0x0112, 1))
                else:
                    name, planes = _from_pillow(image)
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{file} has more than the {MAX_IMAGE_PIXELS} pixels that are allowed; scale it down first"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(
            f"{file} cannot be read as an image ({reason(error)}); it may be damaged or incomplete"
        ) from error
    return _frame(name, planes, index=index, pts=pts, time_base=time_base)


def _frame(
    name: str, planes: tuple[NDArray[Any], ...], *, index: int, pts: int, time_base: Fraction
) -> Frame:
    storage = require_storage(name)
    layout = PixelLayout(
        name=name, bit_depth=storage.bit_depth, chroma_shift_wh=(0, 0), is_rgb=storage.is_rgb,
        has_alpha=storage.has_alpha, color_range="pc", matrix="rgb" if storage.is_rgb else "bt601",
        transfer="iec61966-2-1", primaries="bt709",
    )  # fmt: skip
    height, width = planes[0].shape[:2]
    return Frame(
        index=index, pts=pts, time_base=time_base, layout=layout, planes=planes,
        size_wh=(width, height), duration=1,
    )  # fmt: skip


def _from_pillow(image: Image.Image) -> tuple[str, tuple[NDArray[Any], ...]]:
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grey, also as 32-bit integers
        return "gray16le", (np.clip(np.asarray(image), 0, 65535).astype(np.uint16),)
    if image.mode == "CMYK":
        image = _cmyk_to_rgb(image)
    elif image.mode in ("P", "PA"):
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode in ("1", "L"):
        image = image.convert("L")
    elif image.mode == "La":
        image = image.convert("LA")
    elif image.mode not in ("RGB", "RGBA", "LA"):
        image = image.convert("RGB")
    name = {"RGB": "rgb24", "RGBA": "rgba", "L": "gray", "LA": "ya8"}[image.mode]
    return name, (np.array(image),)


def _cmyk_to_rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        try:
            changed = ImageCms.profileToProfile(
                image, ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"), outputMode="RGB",
            )  # fmt: skip
            if changed is not None:
                return changed
        except ImageCms.PyCMSError:
            pass  # a broken profile: the plain conversion is what viewers show then
    return image.convert("RGB")


def _png_is_deep(path: Path) -> bool:
    """16-bit colour PNG: Pillow would cut it to 8 bits."""
    with open(path, "rb") as file:
        head = file.read(26)
    return len(head) == 26 and head[24] == 16 and head[25] in (2, 4, 6)


def _read_deep_png(path: Path, orientation: int) -> tuple[str, tuple[NDArray[Any], ...]]:
    decoder = av.CodecContext.create("png", "r")
    decoder.options = {"max_pixels": str(MAX_IMAGE_PIXELS)}
    try:
        pictures = decoder.decode(av.Packet(path.read_bytes())) or decoder.decode(None)
    except av.error.FFmpegError as error:
        raise ValueError(reason(error)) from error
    if not pictures:
        raise ValueError("no picture inside")
    native = native_to_supported(pictures[0])
    planes = tuple(np.array(_upright(plane, orientation)) for plane in native_planes(native))
    return native.format.name, planes


def _upright(plane: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo an EXIF orientation (1 to 8)."""
    if orientation in (2, 4, 5, 7):
        plane = plane[:, ::-1]
        orientation = {2: 1, 4: 3, 5: 8, 7: 6}[orientation]
    return np.rot90(plane, {3: 2, 6: -1, 8: 1}.get(orientation, 0))


def list_folder(path: Path) -> tuple[Path, ...]:
    """The images of a folder in the order of their numbers.

    :raises InputError: no images, or a number is missing between the first and the last; the
        message names it.
    """
    try:
        names = [entry.name for entry in os.scandir(path) if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"cannot read the folder {path}: {reason(error)}") from error
    names = [name for name in names if has_image_suffix(name)]
    if not names:
        raise InputError(f"the folder {path} holds no images (PNG, JPEG, ...); name one that does")
    numbered = {name: re.fullmatch(r"(.*?)(\d+)(\.[^.]+)", name) for name in names}
    groups = {(match[1], match[3].lower()) for match in numbered.values() if match}
    if len(groups) == 1 and all(numbered.values()):
        ordered = sorted(names, key=lambda name: int(numbered[name][2]))  # type: ignore[index]
        _require_no_gap(path, ordered, [int(numbered[n][2]) for n in ordered])  # type: ignore[index]
    else:
        ordered = sorted(names, key=_natural)
    return tuple(path / name for name in ordered)


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Key that puts ``frame2`` before ``frame10``."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]


def _require_no_gap(path: Path, names: Sequence[str], numbers: Sequence[int]) -> None:
    for index in range(1, len(numbers)):
        if numbers[index] == numbers[index - 1]:
            raise InputError(
                f"the folder {path} has number {numbers[index]} twice "
                f"({names[index - 1]}, {names[index]}); keep one"
            )
        if numbers[index] != numbers[index - 1] + 1:
            missing = numbers[index - 1] + 1
            raise InputError(
                f"the folder {path} has no image number {missing} "
                f"(between {names[index - 1]} and {names[index]}); add it or renumber the images"
            )


@dataclass(frozen=True)
class StillTags:
    """What a still says of itself beside its samples."""

    icc_profile: bytes | None = None
    """What the samples mean; None without one, or where reading them converts them."""
    exif: bytes | None = None
    """Camera, date, place and so on, upright; without the thumbnail and the maker's note, which may hold a
    picture of the face as it was."""


def still_tags_of(path: Path) -> StillTags:
    """Of a still; empty of what cannot be read."""
    try:
        with Image.open(path) as image:
            profile = None if image.mode == "CMYK" else image.info.get("icc_profile")
            if "exif" not in image.info:  # of a TIFF it would be all that the file is made of
                return StillTags(profile)
            exif = image.getexif()
            kept = Image.Exif()
            kept.update({tag: value for tag, value in exif.items() if tag not in _EXIF_LINKS})
            if _ORIENTATION in kept:
                kept[_ORIENTATION] = 1
            for link in _EXIF_LINKS:
                within = {tag: value for tag, value in exif.get_ifd(link).items() if tag not in _NOT_KEPT}
                if within:
                    kept[link] = within
            return StillTags(profile, kept.tobytes())
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error, OverflowError):
        return StillTags()


def write_image(
    frame: Frame, path: str | os.PathLike[str], *, quality: int = 95, tags: StillTags | None = None
) -> None:
    """Write a frame as PNG (by suffix; its own bit depth) or another still format, with its alpha where
    the format has one.

    :param quality: of JPEG and WebP; chroma is not subsampled.
    :param tags: as :func:`still_tags_of` gives them.
    :raises OSError: the system refuses.
    """
    from vidswap.video.preview import display_alpha, display_rgb  # later in the order of the room

    tags = tags or StillTags()
    suffix = Path(path).suffix.lower()
    opaque = suffix in (".jpg", ".jpeg", ".jpe", ".bmp")
    alpha = None if opaque else display_alpha(frame)
    if suffix == ".png" and frame.layout.bit_depth > 8:
        if not frame.layout.is_rgb:  # grey becomes RGB here, which a profile of greys does not fit
            tags = replace(tags, icc_profile=None)
        _write_deep_png(display_rgb(frame), alpha, path, tags)
        return
    if frame.layout.name in ("rgb24", "rgba", "gray", "ya8") and frame.display_size_wh == frame.size_wh:
        pixels = frame.planes[0]
    else:
        shown = display_rgb(frame)
        shown = shown if alpha is None else np.dstack((shown, alpha))
        pixels = np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if opaque and image.mode in ("RGBA", "LA"):
        image = image.convert(image.mode[:-1])
    options: dict[str, Any] = {"compress_level": 3} if suffix == ".png" else {}
    if suffix in (".jpg", ".jpeg", ".jpe"):
        options = {"quality": quality, "subsampling": 0}
    elif suffix == ".webp":
        options = {"quality": quality}
    if tags.exif:
        options["exif"] = tags.exif
    image.save(path, icc_profile=tags.icc_profile, **options)


def _write_deep_png(
    rgb: NDArray[np.float32],
    alpha: NDArray[np.float32] | None,
    path: str | os.PathLike[str],
    tags: StillTags,
) -> None:
    shown = rgb if alpha is None else np.dstack((rgb, alpha))
    height, width, channels = shown.shape
    name = "rgb48be" if channels == 3 else "rgba64be"
    codes = np.rint(np.clip(shown, 0, 1) * 65535).astype(">u2")
    native: Any = av.VideoFrame(width, height, name)
    rows = np.frombuffer(native.planes[0], np.uint8).reshape(-1, native.planes[0].line_size)
    rows[:height, : width * channels * 2] = codes.reshape(height, -1).view(np.uint8)
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, name
    encoder.time_base = Fraction(1, 25)
    native.pts = 0
    made = b"".join(bytes(packet) for packet in [*encoder.encode(native), *encoder.encode(None)])
    chunks = b""
    if tags.icc_profile:
        chunks += _png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(tags.icc_profile))
    if tags.exif:
        chunks += _png_chunk(b"eXIf", tags.exif.removeprefix(b"Exif\0\0"))
    made = made[:_PNG_HEADER] + chunks + made[_PNG_HEADER:]
    Path(path).write_bytes(made)


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return len(content).to_bytes(4, "big") + kind + content + check.to_bytes(4, "big")

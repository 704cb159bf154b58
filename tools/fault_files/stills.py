"""Pictures: as targets, as folders, as sources."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from fault_files import Pictures, case


@case(19, "19_folder", "pictures 0 to 9 without number 4", "the missing number named", 0, 3)
def _folder(path: Path, pictures: Pictures) -> None:
    path.mkdir(exist_ok=True)
    for number in range(10):
        if number != 4:
            Image.fromarray(pictures(number, 320, 240)).save(path / f"{number:04d}.png")


@case(21, "21_still.png", "a still", "a still")
def _still(path: Path, pictures: Pictures) -> None:
    Image.fromarray(pictures(0, 320, 240)).save(path)


@case(54, "54_no_face.jpg", "a source without a face", "refused as a source", 3)
def _no_face(path: Path, pictures: Pictures) -> None:
    random = np.random.default_rng(54)
    small = random.integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(small).resize((512, 512)).save(path, quality=90)


@case(55, "55_two_faces.jpg", "a source with two faces (with --face)",
      "refused as a source unless an index is given", 3)
def _two_faces(path: Path, pictures: Pictures) -> None:
    one = Image.fromarray(pictures(0, 480, 480))
    both = Image.new("RGB", (960, 480))
    both.paste(one, (0, 0))
    both.paste(one.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (480, 0))
    both.save(path, quality=95)


@case(56, "56_exif_6.jpg", "stored on its side, EXIF orientation 6", "seen upright")
def _exif(path: Path, pictures: Pictures) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = Image.fromarray(pictures(0, 480, 480))
    upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)


@case(56, "56_cmyk.jpg", "CMYK", "right colours")
def _cmyk(path: Path, pictures: Pictures) -> None:
    Image.fromarray(pictures(0, 480, 480)).convert("CMYK").save(path, quality=95)


@case(56, "56_sixteen_bits.png", "16 bits, grey", "right brightness")
def _sixteen(path: Path, pictures: Pictures) -> None:
    grey = np.asarray(Image.fromarray(pictures(0, 480, 480)).convert("L"), np.uint16) * 257
    Image.fromarray(grey).save(path)


@case(56, "56_palette_alpha.png", "a palette with alpha", "right colours")
def _palette(path: Path, pictures: Pictures) -> None:
    image = Image.fromarray(pictures(0, 480, 480)).quantize(64)
    image.save(path, transparency=bytes([0] + [255] * 63))


@case(56, "56_truncated.jpg", "a JPEG cut in half", "refused, or read with a warning", 0, 3)
def _truncated(path: Path, pictures: Pictures) -> None:
    data = io.BytesIO()
    Image.fromarray(pictures(0, 480, 480)).save(data, "JPEG", quality=95)
    path.write_bytes(data.getvalue()[: len(data.getvalue()) // 2])

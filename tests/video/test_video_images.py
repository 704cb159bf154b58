"""Stills of every sort: upright, in RGB or grey, and refused when broken."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from vidswap.errors import InputError
from vidswap.video import (
    display_rgb,
    open_frames,
    open_writer,
    pictures_in,
    probe,
    read_image,
    read_region,
    write_image,
)
from vidswap.video.images import StillTags, list_folder, still_tags_of
from vidswap.video.preview import display_alpha


def picture(mode="RGB"):
    image = Image.new("RGB", (32, 20), (40, 90, 160))
    image.paste((220, 30, 30), (0, 0, 8, 5))
    return image.convert(mode)


def is_red(pixel):
    return pixel[0] > 0.7 and pixel[1] < 0.35


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    transposed = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
    }[orientation]  # fmt: skip
    stored = picture() if transposed is None else picture().transpose(transposed)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    frame = read_image(tmp_path / "a.png")
    assert frame.size_wh == (32, 20) and frame.rotation == 0
    assert np.array_equal(frame.planes[0], np.asarray(picture()))


@pytest.mark.parametrize(
    ("mode", "suffix", "name"),
    [
        ("RGB", ".png", "rgb24"), ("RGBA", ".png", "rgba"), ("L", ".png", "gray"),
        ("LA", ".png", "ya8"), ("P", ".png", "rgb24"), ("1", ".png", "gray"),
        ("CMYK", ".jpg", "rgb24"), ("RGB", ".jpg", "rgb24"), ("L", ".jpg", "gray"),
        ("RGB", ".webp", "rgb24"), ("RGB", ".bmp", "rgb24"), ("CMYK", ".tif", "rgb24"),
    ],
)  # fmt: skip
def test_modes(tmp_path, mode, suffix, name):
    path = tmp_path / f"a{suffix}"
    picture(mode).save(path)
    info = probe(path)
    assert info.kind == "image" and info.layout.name == name and info.size_wh == (32, 20)
    with open_frames(path) as frames:
        (frame,) = list(frames)
    rgb = read_region(frame)
    if name not in ("gray", "ya8"):
        assert is_red(rgb[2, 3]) and not is_red(rgb[10, 20])


def test_palette_with_transparency(tmp_path):
    image = picture("P")
    image.save(tmp_path / "a.png", transparency=image.getpixel((2, 2)))
    frame = read_image(tmp_path / "a.png")
    assert frame.layout.name == "rgba"
    assert frame.planes[0][2, 2, 3] == 0 and frame.planes[0][15, 20, 3] == 255


def test_sixteen_bits_are_kept(make_frame, tmp_path):
    frame = make_frame("rgba64le", (32, 20))
    write_image(frame, tmp_path / "a.png")
    back = read_image(tmp_path / "a.png")
    assert back.layout.name == "rgba64le" and back.layout.bit_depth == 16
    assert np.array_equal(back.planes[0], frame.planes[0])
    Image.fromarray(np.arange(640, dtype=np.uint16).reshape(20, 32) * 100).save(tmp_path / "b.png")
    gray = read_image(tmp_path / "b.png")
    assert gray.layout.name == "gray16le" and gray.planes[0][19, 31] == 63900


@pytest.mark.parametrize("name", ["yuva420p", "rgba", "rgba64le", "gbrap", "bgra"])
def test_alpha_and_colour_profile_of_stills_are_kept(make_frame, tmp_path, name):
    """The samples were kept, what they mean was lost: no alpha but that of 8-bit RGBA, no profile."""
    frame = make_frame(name, (32, 20), rotation=90)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    write_image(frame, tmp_path / "a.png", tags=StillTags(profile))
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["icc_profile"] == profile
    back = read_image(tmp_path / "a.png")
    assert back.layout.has_alpha and back.size_wh == frame.display_size_wh
    shown, wanted = display_alpha(back), display_alpha(frame)
    assert shown is not None and wanted is not None and wanted.min() < 0.9
    assert np.abs(shown - wanted).max() < 0.003


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
@pytest.mark.parametrize("layout", ["rgb24", "rgba64le"])
def test_what_a_camera_wrote_is_kept_but_no_picture_of_the_old_face(make_frame, tmp_path, name, layout):
    exif, thumbnail = Image.Exif(), io.BytesIO()
    picture("RGB").save(thumbnail, "JPEG")
    exif[0x010F], exif[0x0112] = "Maker", 6
    exif[0x8769] = {0x9003: "2026:11:23 10:00:00", 0x927C: b"note" + thumbnail.getvalue()}
    exif[0x8825] = {1: "N", 2: (52.0, 31.0, 12.0)}
    source = tmp_path / "photo.jpg"
    picture("RGB").save(source, exif=exif.tobytes() + thumbnail.getvalue())
    write_image(make_frame(layout, (32, 20)), tmp_path / name, tags=still_tags_of(source))
    with Image.open(tmp_path / name) as image:
        found = image.getexif()
        assert (found[0x010F], found[0x0112]) == ("Maker", 1)
        assert found.get_ifd(0x8769) == {0x9003: "2026:11:23 10:00:00"}
        assert found.get_ifd(0x8825)[2] == (52.0, 31.0, 12.0)
    assert thumbnail.getvalue() not in (tmp_path / name).read_bytes()


def test_stills_without_tags_have_none(tmp_path):
    picture("RGB").save(tmp_path / "a.tif")
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    assert still_tags_of(tmp_path / "a.tif") == still_tags_of(tmp_path / "b.jpg") == StillTags()


def test_pictures_of_a_folder_come_in_natural_order(tmp_path):
    for name in ("frame10", "frame2", "frame1", "thumb"):
        picture("RGB").save(tmp_path / f"{name}.png")
    assert [path.stem for path in list_folder(tmp_path)] == ["frame1", "frame2", "frame10", "thumb"]


def test_motion_jpeg_is_a_video(tmp_path):
    """Its first bytes are those of a still: 1 of 25 frames was swapped, and said to be all."""
    data = io.BytesIO()
    picture("RGB").save(data, "JPEG")
    (tmp_path / "a.mjpeg").write_bytes(data.getvalue() * 5)
    assert probe(tmp_path / "a.mjpeg").kind == "video"
    with open_frames(tmp_path / "a.mjpeg") as frames:
        assert sum(1 for _ in frames) == 5


def test_written_stills(make_frame, tmp_path):
    frame = make_frame("rgb24", (32, 20))
    write_image(frame, tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png").planes[0], frame.planes[0])
    yuv = make_frame("yuv444p", (32, 20), rotation=90)
    for plane in yuv.planes:
        plane[...] = int(plane.mean())
    write_image(yuv, tmp_path / "b.jpg")
    assert np.abs(display_rgb(read_image(tmp_path / "b.jpg")) - display_rgb(yuv)).max() < 0.02


def test_image_target_to_image_output(tmp_path):
    picture("RGBA").save(tmp_path / "a.png")
    info = probe(tmp_path / "a.png")
    for name in ("b.png", "b.jpg", "b.webp"):
        with open_frames(info.path) as frames, open_writer(tmp_path / name, info) as writer:
            writer.write(next(frames))
        assert is_red(display_rgb(read_image(tmp_path / name))[1, 1])
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), np.asarray(picture("RGBA")))


def test_truncated_and_false_images(tmp_path):
    random = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for name in ("a.jpg", "a.png"):
        Image.fromarray(random).save(tmp_path / name)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(InputError, match="damaged or incomplete"):
            probe(tmp_path / name)
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    with pytest.raises(InputError):
        probe(tmp_path / "b.png")


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("depth", [8, 16])
def test_png_bomb_is_refused_unopened(tmp_path, depth):
    """50,000 x 50,000 pixels in a few hundred bytes."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, depth, 2, 0, 0, 0)
    data = zlib.compress(bytes(100_000))
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    with pytest.raises(InputError, match="50000x50000 pixels|more than the 200000000 pixels"):
        probe(tmp_path / "bomb.png")


def test_folders(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in (9, 10, 11):
        picture().save(folder / f"shot{number}.png")
    (folder / "notes.txt").write_text("no image")
    info = probe(folder)
    assert [path.name for path in info.files] == ["shot9.png", "shot10.png", "shot11.png"]
    with open_frames(folder, start_seconds=0.04) as frames:
        assert [(frame.index, frame.pts) for frame in frames] == [(0, 1), (1, 2)]
    picture().save(folder / "shot13.png")
    with pytest.raises(InputError, match="no image number 12 .*shot11.png and shot13.png"):
        probe(folder)


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_pictures_of_a_file_are_counted(tmp_path, suffix):
    path = tmp_path / f"picture.{suffix}"
    picture().save(path)
    assert pictures_in(path) == 1
    turned = [picture().rotate(angle) for angle in (90, 180)]
    picture().save(path, save_all=True, append_images=turned)
    assert pictures_in(path) == 3
    path.write_bytes(path.read_bytes()[:20])
    assert pictures_in(path) == pictures_in(tmp_path / "none") == 1

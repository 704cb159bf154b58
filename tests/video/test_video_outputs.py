"""Where outputs go, and that none is ever half there."""

from __future__ import annotations

import os
import resource
from contextlib import contextmanager

import numpy as np
import pytest

from vidswap.config import VideoConfig
from vidswap.errors import InputError, OutputError, UsageError
from vidswap.video import (
    check_output,
    open_frames,
    open_writer,
    output_kind,
    probe,
    read_image,
    remux,
)

FAST = VideoConfig(encoder_preset="ultrafast", crf=4)


def copy(clip, output, config=FAST):
    info = probe(clip)
    with open_frames(clip, info=info) as frames, open_writer(output, info, config) as writer:
        for frame in frames:
            writer.write(frame)
    return writer


def test_kinds_by_name(tmp_path):
    assert output_kind("a.MP4") == output_kind("a.webm") == "video"
    assert output_kind("a.gif") == "gif"
    assert output_kind("a.jpeg") == "image"
    assert output_kind("frames/") == output_kind("frames") == output_kind(tmp_path) == "folder"
    with pytest.raises(UsageError, match=r"\.avi"):
        output_kind("a.avi")


def test_wrong_outputs_are_found_before_the_work(make_clip, tmp_path):
    clip = make_clip(frames=2)
    link, hard = tmp_path / "link.mp4", tmp_path / "hard.mp4"
    link.symlink_to(clip)
    os.link(clip, hard)
    for same in (clip, link, hard):
        with pytest.raises(UsageError, match="input itself"):
            check_output(same, clip, force=True)
    other = tmp_path / "other.mp4"
    other.write_bytes(b"x")
    with pytest.raises(UsageError, match="--force"):
        check_output(other, clip)
    check_output(other, clip, force=True)
    assert other.read_bytes() == b"x"
    with pytest.raises(OutputError, match="no such folder"):
        check_output(tmp_path / "none" / "a.mp4", clip)
    check_output(tmp_path / "new.mp4", clip)
    check_output(str(tmp_path / "new") + "/", clip)
    with pytest.raises(UsageError, match="not empty"):
        check_output(tmp_path, clip)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder nobody can write to")
def test_unwritable_folder(make_clip):
    with pytest.raises(OutputError, match="cannot write into /proc"):
        check_output("/proc/a.mp4", make_clip(frames=2))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.gif", "folder"])
def test_a_failure_leaves_nothing(make_clip, tmp_path, name):
    clip = make_clip(frames=4)
    info = probe(clip)
    with pytest.raises(KeyboardInterrupt):
        with open_frames(clip) as frames, open_writer(tmp_path / name, info, FAST) as writer:
            writer.write(next(frames))
            assert not (tmp_path / name).exists()
            raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == [clip.name]


def test_nothing_written_is_an_error(make_clip, tmp_path):
    info = probe(make_clip(frames=2))
    with pytest.raises(OutputError, match="no frame"), open_writer(tmp_path / "a.mp4", info):
        pass
    assert not (tmp_path / "a.mp4").exists()


@contextmanager
def largest_file(size):
    """Let no file grow beyond ``size``, as a full disk would not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.gif", "folder"])
def test_full_disk_is_an_output_error(make_clip, tmp_path, name):
    clip = make_clip(frames=60, size_wh=(256, 192))
    with largest_file(4000), pytest.raises(OutputError, match="free some space") as caught:
        copy(clip, tmp_path / name)
    assert caught.value.exit_code == 4
    assert [path.name for path in tmp_path.iterdir()] == [clip.name]


@pytest.mark.parametrize("name", ["b.mp4", "b.mkv"])
def test_full_disk_while_joining(make_clip, tmp_path, name):
    """Matroska writes its last part only when closed: that counts as well."""
    clip = make_clip(frames=60, size_wh=(256, 192), tones=[(440, None)])
    copy(clip, tmp_path / "a.mp4")
    for size in (4000, (tmp_path / "a.mp4").stat().st_size):
        with largest_file(size), pytest.raises(OutputError, match="free some space"):
            remux(tmp_path / "a.mp4", clip, tmp_path / name)
        assert not (tmp_path / name).exists()
        assert not list(tmp_path.glob(".*"))


def test_wrong_encoders_are_refused(make_clip, tmp_path):
    info = probe(make_clip(frames=2))
    for config, words in (
        (VideoConfig(codec="nonsense"), "no video encoder 'nonsense'"),
        (VideoConfig(codec="aac"), "does not encode video"),
        (VideoConfig(crf=70), "--crf"),
        (VideoConfig(encoder_preset="warp"), "expected one of"),
        (VideoConfig(pix_fmt="pal8"), "no pixel format 'pal8'"),
    ):
        with pytest.raises(UsageError, match=words), open_writer(tmp_path / "a.mp4", info, config):
            pass
    with pytest.raises(UsageError, match="cannot hold"):
        open_writer(tmp_path / "a.webm", info, VideoConfig(codec="libx265"))
    assert not list(tmp_path.glob(".*"))


def test_order_and_time_base_are_asked_for(make_clip, tmp_path):
    from dataclasses import replace
    from fractions import Fraction

    clip = make_clip(frames=3)
    info = probe(clip)
    with open_frames(clip) as frames:
        first, second, _ = list(frames)
    with open_writer(tmp_path / "a.mp4", info, FAST) as writer:
        writer.write(second)
        with pytest.raises(ValueError, match="pts"):
            writer.write(first)
        with pytest.raises(ValueError, match="time_base"):
            writer.write(replace(second, pts=10**6, time_base=Fraction(1, 7)))


def test_gif_keeps_times_and_colors(make_clip, tmp_path):
    from fractions import Fraction

    clip = make_clip(pts=[0, 10, 15, 40, 44], time_base=Fraction(1, 100), pix_fmt="yuv444p")
    copy(clip, tmp_path / "a.gif")
    info = probe(tmp_path / "a.gif")
    assert info.kind == "gif"
    copy(tmp_path / "a.gif", tmp_path / "b.gif")
    copy(tmp_path / "a.gif", tmp_path / "c.mp4")
    from vidswap.video import display_rgb

    with open_frames(clip) as frames:
        wanted = [(frame.pts_seconds, display_rgb(frame)) for frame in frames]
    for name in ("a.gif", "b.gif", "c.mp4"):
        with open_frames(tmp_path / name) as frames:
            found = [(frame.pts_seconds, display_rgb(frame)) for frame in frames]
        assert [time for time, _ in found] == [time for time, _ in wanted]
        for (_, a), (_, b) in zip(found, wanted, strict=True):
            assert np.abs(a - b).mean() < 0.03


def test_folder_of_images_in_and_out(make_clip, tmp_path):
    clip = make_clip(frames=4, pix_fmt="yuv444p10le")
    copy(clip, tmp_path / "frames")
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == [f"frame_{n:06d}.png" for n in range(4)]
    info = probe(tmp_path / "frames")
    assert info.kind == "folder" and info.layout.bit_depth == 16 and info.n_frames_hint == 4
    copy(tmp_path / "frames", tmp_path / "again")
    for name in names:
        a, b = (read_image(tmp_path / folder / name) for folder in ("frames", "again"))
        assert np.array_equal(a.planes[0], b.planes[0])
    copy(tmp_path / "frames", tmp_path / "a.mp4")
    assert probe(tmp_path / "a.mp4").n_frames_hint == 4
    (tmp_path / "frames" / names[2]).unlink()
    with pytest.raises(InputError, match="no image number 2 "):
        probe(tmp_path / "frames")


def test_one_picture(make_clip, tmp_path):
    clip = make_clip(frames=3)
    with pytest.raises(UsageError, match="one picture"):
        open_writer(tmp_path / "a.png", probe(clip))

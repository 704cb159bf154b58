"""Inputs that cannot be read: one line, the right exit code, nothing opened besides."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from vidswap.errors import InputError
from vidswap.video import open_frames, probe
from vidswap.video.container import file_url


def _refused(path, words):
    with pytest.raises(InputError, match=words) as caught:
        probe(path)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


def test_missing_and_empty(tmp_path):
    _refused(tmp_path / "none.mp4", "no such file")
    (tmp_path / "empty.mp4").touch()
    _refused(tmp_path / "empty.mp4", "0 bytes")
    _refused(tmp_path, "no images")
    _refused("http://localhost/clip.mp4", "no such file")
    _refused("concat:a.ts|b.ts", "no such file")
    _refused(os.devnull, "not an ordinary file")


def test_text_and_noise(tmp_path):
    (tmp_path / "text.mp4").write_text("just words\n" * 40)
    _refused(tmp_path / "text.mp4", "not a video")
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    _refused(tmp_path / "noise.mp4", "not a video")


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile {clip}\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{clip}\n#EXT-X-ENDLIST\n",
    ],
)
def test_lists_that_open_other_files(make_clip, tmp_path, text):
    """A text file named as a video must not make the demuxer open what it names."""
    clip = make_clip(frames=3)
    named = tmp_path / "list.mp4"
    named.write_text(text.format(clip=clip.name))
    _refused(named, "not a video")


def test_sound_alone(tmp_path):
    path = tmp_path / "sound.m4a"
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate = 48000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    _refused(path, "no video stream.*audio only")


def test_index_missing(make_clip, tmp_path):
    clip = make_clip(frames=20)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[:3000])
    _refused(cut, "not a video")


def test_file_that_breaks_off(make_clip, tmp_path):
    clip = make_clip(frames=40, container_options={"movflags": "faststart"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[: int(clip.stat().st_size * 0.8)])
    assert probe(cut).is_truncated and not probe(clip).is_truncated
    with pytest.raises(InputError, match="breaks off"), open_frames(cut) as frames:
        next(frames)
    with open_frames(cut, allow_damaged=True) as frames:
        count = sum(1 for _ in frames)
        assert 5 < count < 40
        assert frames.frames_read == count


def test_damaged_packets_are_counted(make_clip, tmp_path):
    clip = bytearray(make_clip(frames=40, size_wh=(128, 96)).read_bytes())
    start = clip.index(b"mdat")
    middle = slice(start + 4000, start + 4000 + 1200)
    clip[middle] = np.random.default_rng(0).bytes(1200)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(clip)
    with open_frames(broken) as frames:
        assert sum(1 for _ in frames) > 10
    assert frames.corrupt_packets + frames.corrupt_frames > 0
    assert "damaged" in frames.damage


STARVED = """
import resource, sys
from vidswap.errors import InputError
from vidswap.video import open_frames, probe
info = probe(sys.argv[1])
with open(f"/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
shown = 0
try:
    with open_frames(sys.argv[1], threads=1, info=info) as frames:
        for shown, frame in enumerate(frames, 1):
            if shown == 1:  # room for no more pictures from here on
                resource.setrlimit(resource.RLIMIT_AS, (used, resource.RLIM_INFINITY))
    print("shown", shown)
except InputError as error:
    print("refused", "memory" in str(error), chr(10) in str(error))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux to count memory")
def test_no_memory_is_not_taken_for_damage(make_clip):
    """A decoder without memory once passed for damaged packets: the clip came out shorter.

    (FFmpeg's H.264 decoder itself calls it damage, and its Matroska demuxer an end: both are said.)
    """
    clip = make_clip("clip.avi", frames=12, size_wh=(2560, 1440), codec="ffv1")
    result = subprocess.run(
        [sys.executable, "-c", STARVED, str(clip)], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )  # fmt: skip
    assert result.stdout in ("refused True False\n", "shown 12\n"), result.stdout + result.stderr


def test_an_end_that_is_not_reached_is_said(make_clip):
    clip = make_clip("clip.mkv", frames=50)
    with open_frames(clip) as frames:
        assert sum(1 for _ in frames) == 50
    assert frames.damage is None
    clip.write_bytes(clip.read_bytes()[: int(clip.stat().st_size * 0.6)])
    with open_frames(clip) as frames:
        shown = sum(1 for _ in frames)
    assert 5 < shown < 50
    assert frames.missing_seconds == pytest.approx((50 - shown) / 25, abs=0.1)
    assert "could not be read" in frames.damage


def test_pictures_too_large(make_clip):
    clip = make_clip(frames=2, size_wh=(64, 48))
    with pytest.raises(InputError, match="64x48.*more than 3000"):
        probe(clip, max_pixels=3000)
    with pytest.raises(InputError), open_frames(clip, max_pixels=3000) as frames:
        next(frames)


@pytest.mark.parametrize(
    "name", ["b:c.mp4", "-o.mp4", "%03d.mp4", "sp ace é.mp4", "line\nbreak.mp4", "a?b&c#d.mp4"]
)
def test_awkward_names_are_only_names(make_clip, tmp_path, name):
    os.replace(make_clip(frames=2), tmp_path / name)
    assert probe(tmp_path / name).size_wh == (64, 48)
    assert file_url(name).startswith("file:/")


def test_empty_range_is_said(make_clip):
    clip = make_clip(frames=5)
    with (
        pytest.raises(InputError, match="no frame from 9"),
        open_frames(clip, start_seconds=9) as frames,
    ):
        next(frames)

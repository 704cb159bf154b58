"""Every kind of clip through reader, writer and remux: what it was, it stays."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from vidswap.config import VideoConfig
from vidswap.video import (
    open_frames,
    open_writer,
    probe,
    read_region,
    remux,
    write_region,
)

FAST = VideoConfig(encoder_preset="ultrafast", crf=4)


def copy_clip(clip, output, *, config=FAST, change=None, **window):
    """Decode, write, join. Gives the times that were read, and the warnings."""
    info = probe(clip)
    video = output.with_name("video-" + output.name)
    times = []
    with (
        open_frames(clip, info=info, **window) as frames,
        open_writer(video, info, config) as writer,
    ):
        for frame in frames:
            times.append(frame.pts * frame.time_base)
            writer.write(change(frame) if change else frame)
    return times, writer.warnings + remux(video, clip, output, **window)


def times_of(path):
    with open_frames(path) as frames:
        return [frame.pts * frame.time_base for frame in frames]


HDR = (9, 16, 9)
KINDS = {
    "plain": {},
    "variable rate": {"pts": [0, 1, 2, 7, 8, 20, 21, 22, 60], "time_base": Fraction(1, 1000)},
    "rotated": {"rotation_ccw": -90},
    "upside down": {"rotation_ccw": 180},
    "odd size": {"size_wh": (61, 47), "pix_fmt": "yuv444p"},
    "wide pixels": {"sar": Fraction(4, 3)},
    "10 bit HDR": {"pix_fmt": "yuv420p10le", "colors": HDR},
    "422": {"pix_fmt": "yuv422p"},
    "444": {"pix_fmt": "yuv444p"},
    "full range": {"full_range": True},
    "grey": {"pix_fmt": "gray"},
    "one frame": {"frames": 1},
    "one pixel": {"size_wh": (1, 1), "pix_fmt": "yuv444p", "frames": 3},
    "1000 fps": {"pts": range(40), "time_base": Fraction(1, 1000)},
    "late": {"pts": range(25_000, 25_012)},
    "a day's hole": {"pts": [0, 1, 2, 25 * 86_400, 25 * 86_400 + 1]},
    "many B frames": {"b_frames": 5, "frames": 30},
}


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("kind", KINDS)
def test_times_and_tags_survive(make_clip, tmp_path, kind, suffix):
    clip = make_clip(**KINDS[kind])
    output = tmp_path / f"output{suffix}"
    times, warnings = copy_clip(clip, output)
    assert warnings == []
    assert times_of(output) == times
    before, after = probe(clip), probe(output)
    for name in (
        "size_wh", "layout", "rotation", "sample_aspect_ratio", "color_codes", "display_size_wh",
    ):  # fmt: skip
        assert getattr(after, name) == getattr(before, name), name
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [clip.name, output.name, "video-" + output.name]
    )


def test_times_are_those_that_were_encoded(make_clip):
    """The reader against the list that the clip was made from."""
    pts = [0, 3, 4, 11, 12, 13, 40]
    clip = make_clip(pts=pts, time_base=Fraction(1, 100))
    assert times_of(clip) == [Fraction(p, 100) for p in pts]


def test_negative_start_is_moved_to_zero(make_clip, tmp_path):
    """Matroska may start before 0 and then says no times; every frame is kept all the same."""
    clip = make_clip(
        "early.mkv", pts=range(-500, 500, 40), time_base=Fraction(1, 1000),
        container_options={"avoid_negative_ts": "disabled"},
    )  # fmt: skip
    times, _ = copy_clip(clip, tmp_path / "output.mp4")
    assert len(times) == 25
    moved = times_of(tmp_path / "output.mp4")
    assert moved == [time - times[0] for time in times]


def test_broadcast_clock_starts_at_zero(make_clip, tmp_path):
    clip = make_clip("late.ts", pts=range(25_000, 25_020), tones=[(440, None)])
    times, _ = copy_clip(clip, tmp_path / "output.mp4")
    assert times[0] > 990
    moved = times_of(tmp_path / "output.mp4")
    assert 0 <= moved[0] < 0.1
    assert [t - moved[0] for t in moved] == [t - times[0] for t in times]


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv420p10le", "yuv444p"])
def test_samples_reach_the_encoder_untouched(make_clip, tmp_path, pix_fmt):
    """Lossless encoding shows what the encoder was given: all but the blended box bit for bit."""
    clip = make_clip(pix_fmt=pix_fmt, frames=6)
    box = (16, 8, 48, 40)
    alpha = np.zeros((32, 32), np.float32)
    alpha[4:28, 4:28] = 0.7

    def change(frame):
        return write_region(frame, box, 1 - read_region(frame, box), alpha)

    codec = VideoConfig(codec="ffv1")
    copy_clip(clip, tmp_path / "output.mkv", config=codec, change=change)
    with open_frames(clip) as old, open_frames(tmp_path / "output.mkv") as new:
        for before, after in zip(old, new, strict=True):
            wanted = change(before)
            assert all(
                np.array_equal(a, b) for a, b in zip(wanted.planes, after.planes, strict=True)
            )
            assert not np.array_equal(before.planes[0], after.planes[0])
            outside = np.ones(before.planes[0].shape, bool)
            outside[8:40, 16:48] = False
            assert np.array_equal(before.planes[0][outside], after.planes[0][outside])


def test_alpha_of_webm_is_kept(make_clip, tmp_path):
    clip = make_clip("clear.webm", codec="libvpx-vp9", pix_fmt="yuva420p", frames=5)
    with open_frames(clip) as frames:
        frame = next(frames)
    assert frame.layout.has_alpha and frame.planes[3][20, 5] < 60 and frame.planes[3][20, 60] > 200
    copy_clip(clip, tmp_path / "output.webm")
    with open_frames(tmp_path / "output.webm") as frames:
        after = next(frames)
    assert np.abs(after.planes[3].astype(int) - frame.planes[3]).mean() < 3
    _, warnings = copy_clip(clip, tmp_path / "output.mp4")
    assert "transparency" in warnings[0]


def test_odd_size_in_420_becomes_444(make_clip, tmp_path):
    clip = make_clip("odd.webm", codec="libvpx-vp9", size_wh=(61, 47), frames=4)
    copy_clip(clip, tmp_path / "output.mp4")
    after = probe(tmp_path / "output.mp4")
    assert after.size_wh == (61, 47) and after.layout.name == "yuv444p"


def test_interlaced_becomes_progressive(tmp_path):
    import av

    path = tmp_path / "woven.mp4"
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"x264-params": "tff=1"})
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        for number in range(8):
            rgb = np.full((64, 64, 3), 60, np.uint8)
            rgb[::2, 8 * (number % 6) : 8 * (number % 6) + 8] = 220
            rgb[1::2, 8 * (number % 6) + 4 : 8 * (number % 6) + 12] = 220
            out.mux(video.encode(av.VideoFrame.from_ndarray(rgb, "rgb24")))
        out.mux(video.encode(None))
    info = probe(path)
    assert info.is_interlaced

    def combing(planes):
        luma = planes[0].astype(float)
        return np.abs(luma[1:-1] - (luma[:-2] + luma[2:]) / 2).mean()

    with open_frames(path, deinterlace=False) as frames:
        raw = [(frame.pts, combing(frame.planes)) for frame in frames]
    with open_frames(path) as frames:
        woven = [(frame.pts, combing(frame.planes)) for frame in frames]
    assert [pts for pts, _ in woven] == [pts for pts, _ in raw]
    assert np.mean([c for _, c in woven[1:-1]]) < 0.5 * np.mean([c for _, c in raw[1:-1]])


def test_reading_holds_no_frames(make_clip):
    """Two frames that are both held differ: the decoder does not write into what it gave."""
    with open_frames(make_clip(frames=12)) as frames:
        first = next(frames)
        kept = first.planes[0].copy()
        for _ in frames:
            pass
    assert np.array_equal(first.planes[0], kept)


def test_start_in_the_middle_gives_the_same_samples(make_clip):
    clip = make_clip(frames=40, b_frames=3)
    with open_frames(clip) as frames:
        whole = {frame.pts: [plane.copy() for plane in frame.planes] for frame in frames}
    for start in (0.3, 0.52, 1.2):
        with open_frames(clip, start_seconds=start, end_seconds=start + 0.2) as frames:
            part = list(frames)
        assert len(part) == 5
        assert [frame.index for frame in part] == list(range(5))
        for frame in part:
            assert all(
                np.array_equal(a, b) for a, b in zip(whole[frame.pts], frame.planes, strict=True)
            )


def test_memory_does_not_wait_for_the_garbage_collector(make_clip):
    """A reference cycle a frame once made 1080p reading take 600 MB instead of 110."""
    import gc

    import av

    def pictures_alive():
        return sum(type(thing) is av.VideoFrame for thing in gc.get_objects())

    clip = make_clip(frames=30, rotation_ccw=90)
    gc.collect()
    before = pictures_alive()
    gc.disable()
    try:
        with open_frames(clip, threads=1) as frames:
            alive = [pictures_alive() - before for frame in frames if frame.rotation == 270]
    finally:
        gc.enable()
    assert len(alive) == 30
    assert max(alive) < 12  # what decoder and loop hold; with the cycle it is over 30

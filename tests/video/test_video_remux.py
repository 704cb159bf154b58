"""The target's other streams, and pieces that were encoded apart."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from vidswap.config import VideoConfig
from vidswap.errors import OutputError
from vidswap.video import (
    VideoWriter,
    count_packets,
    open_frames,
    open_writer,
    probe,
    remux,
)

FAST = VideoConfig(encoder_preset="ultrafast")
RICH = {
    "frames": 25, "tones": [(440, "eng"), (880, "deu")], "chapters": True, "subtitle": True,
    "metadata": {"title": "A tést"},
}  # fmt: skip


def packets_of(path, kind):
    """``(seconds, bytes)`` of each packet, a list for each stream of a kind."""
    with av.open(str(path)) as container:
        streams = [s for s in container.streams if s.type == kind]
        found = {stream.index: [] for stream in streams}
        for packet in container.demux(streams):
            if packet.size and packet.pts is not None:
                found[packet.stream.index].append(
                    (float(packet.pts * packet.time_base), bytes(packet))
                )
    return list(found.values())


def swap_pictures(clip, output, **window):
    info = probe(clip)
    video = output.with_name("video-" + output.name)
    with open_frames(clip, **window) as frames, open_writer(video, info, FAST) as writer:
        for frame in frames:
            writer.write(frame)
    return remux(video, clip, output, metadata={"comment": "made by a test"}, **window)


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_everything_else_is_copied(make_clip, tmp_path, container):
    attachment = {"attachment": b"some notes"} if container == "mkv" else {}
    clip = make_clip(f"rich.{container}", **RICH, **attachment)
    output = tmp_path / f"output.{container}"
    assert swap_pictures(clip, output) == []
    assert packets_of(output, "audio") == packets_of(clip, "audio")
    assert len(packets_of(output, "audio")) == 2
    assert packets_of(output, "subtitle") == packets_of(clip, "subtitle")
    before, after = probe(clip), probe(output)
    assert after.n_chapters == before.n_chapters == 2
    assert after.metadata["title"] == "A tést"
    tags = {key.lower(): value for key, value in after.metadata.items()}
    assert tags["comment"] == "made by a test"
    assert "vidswap_time_shift" not in tags

    def languages(info):
        return [(stream.type, stream.language) for stream in info.streams if stream.type == "audio"]

    assert languages(after) == languages(before) == [("audio", "eng"), ("audio", "deu")]
    if attachment:
        with av.open(str(output)) as opened:
            assert [s.data for s in opened.streams if s.type == "attachment"] == [b"some notes"]


def test_from_mp4_to_matroska_and_back(make_clip, tmp_path):
    """Audio bytes stay; text subtitles change their codec, not their words or times."""
    clip = make_clip("rich.mp4", **RICH)
    assert swap_pictures(clip, tmp_path / "there.mkv") == []
    assert swap_pictures(tmp_path / "there.mkv", tmp_path / "back.mp4") == []

    def words(path):
        found = packets_of(path, "subtitle")[0]
        return [(round(time, 3), data) for time, data in found if len(data) > 2]

    assert [data for _, data in words(tmp_path / "there.mkv")] == [b"Bonjour", "été".encode()]
    assert words(tmp_path / "back.mp4") == words(clip)
    audio = [[data for _, data in stream] for stream in packets_of(clip, "audio")]
    for output in ("there.mkv", "back.mp4"):
        found = packets_of(tmp_path / output, "audio")
        assert [[data for _, data in stream] for stream in found] == audio
    early = packets_of(clip, "audio")[0][0][0]
    assert packets_of(tmp_path / "there.mkv", "audio")[0][0][0] == pytest.approx(early, abs=1e-3)
    for output in ("there.mkv", "back.mp4"):
        with open_frames(tmp_path / output) as frames:
            assert next(frames).pts == 0


def test_what_the_container_cannot_hold_is_said(make_clip, tmp_path):
    clip = make_clip("rich.mkv", frames=10, tones=[(440, None)], attachment=b"notes")
    warnings = swap_pictures(clip, tmp_path / "output.mp4")
    assert len(warnings) == 1 and "notes.txt" in warnings[0] and "left out" in warnings[0]
    warnings = swap_pictures(clip, tmp_path / "output.webm")
    assert any("aac" in warning for warning in warnings)


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_cut_range_stays_in_step(make_clip, tmp_path, container):
    clip = make_clip(f"rich.{container}", **RICH)
    output = tmp_path / f"output.{container}"
    swap_pictures(clip, output, start_seconds=0.4, end_seconds=0.8)
    with open_frames(output) as frames:
        times = [frame.pts_seconds for frame in frames]
    assert times == pytest.approx([0.04 * n for n in range(10)], abs=1e-3)
    whole = {data: time for time, data in packets_of(clip, "audio")[0]}
    part = packets_of(output, "audio")[0]
    assert 0.35 < part[-1][0] - part[0][0] < 0.45
    for time, data in part:
        assert time + 0.4 == pytest.approx(whole[data], abs=2e-3)
    assert probe(output).n_chapters == 1  # the first one ends at 0.2 s


@pytest.mark.parametrize("output", ["output.mp4", "output.mkv"])
@pytest.mark.parametrize("clip", ["rich.mp4", "rich.mkv"])
def test_text_over_the_cut_is_shown_as_long_as_it_would_be(make_clip, tmp_path, clip, output):
    """From 0.04 to 0.16 s and from 0.24 to 0.36 s; Matroska lost the first, MP4 moved the second."""
    swap_pictures(make_clip(clip, **RICH), tmp_path / output, start_seconds=0.08, end_seconds=0.28)
    with av.open(str(tmp_path / output)) as container:
        (stream,) = container.streams.subtitles
        shown = [
            (float(packet.pts * packet.time_base), float(packet.duration * packet.time_base))
            for packet in container.demux(stream)
            if packet.size > 2
        ]
    assert shown == [pytest.approx((0.0, 0.08), abs=2e-3), pytest.approx((0.16, 0.04), abs=2e-3)]


def test_edit_list_of_the_target(make_clip, tmp_path):
    """Packets before the edit list's start are not shown; the sound stays where it was."""
    clip = make_clip("rich.mp4", frames=25, tones=[(440, None)])
    cut = tmp_path / "cut.mp4"
    with av.open(str(clip)) as source, av.open(str(cut), "w") as out:
        mapping = {s.index: out.add_stream_from_template(s, opaque=True) for s in source.streams}
        for packet in source.demux():
            if packet.size:
                packet.pts -= round(Fraction(2, 5) / packet.time_base)
                packet.dts -= round(Fraction(2, 5) / packet.time_base)
                packet.stream = mapping[packet.stream_index]
                out.mux(packet)
    with open_frames(cut) as frames:
        shown = [frame.pts_seconds for frame in frames]
    assert len(shown) == 15 and shown[0] == 0
    swap_pictures(cut, tmp_path / "output.mp4")
    with open_frames(tmp_path / "output.mp4") as frames:
        assert [frame.pts_seconds for frame in frames] == shown
    assert packets_of(tmp_path / "output.mp4", "audio") == packets_of(cut, "audio")


def _chunks(clip, folder, sizes, suffix=".mp4"):
    info = probe(clip)
    paths = []
    with open_frames(clip) as frames:
        for number, size in enumerate(sizes):
            path = folder / f"chunk-{number}{suffix}"
            with VideoWriter(path, info, encoder_preset="medium", crf=20) as writer:
                for _ in range(size):
                    writer.write(next(frames))
            paths.append(path)
    return paths


@pytest.mark.parametrize("late", [0, 500])
def test_chunks_with_b_frames_join_without_loss(make_clip, tmp_path, late):
    """Matroska chunks lost 64 of 100 frames here for want of decoding times; MP4 keeps all."""
    pts = [late + n + (9 if n >= 33 else 0) for n in range(60)]
    clip = make_clip(pts=pts, size_wh=(96, 64), tones=[(440, None)])
    paths = _chunks(clip, tmp_path, (20, 1, 13, 26))
    assert any(_reordered(path) for path in paths)
    decoded = []
    for path in paths:
        with open_frames(path) as frames:
            decoded += [frame.planes[0].copy() for frame in frames]
    joined = tmp_path / "joined.mp4"
    for video, output in ((paths, joined), (joined, tmp_path / "again.mp4"), (joined, tmp_path / "out.mkv")):
        remux(video, clip, output)
        assert count_packets(output) == 60
        with open_frames(output) as frames:
            result = [(frame.pts * frame.time_base, frame.planes[0].copy()) for frame in frames]
        assert [time for time, _ in result] == [Fraction(p, 25) for p in pts]
        assert all(np.array_equal(a, b) for (_, a), b in zip(result, decoded, strict=True))


def _reordered(path):
    with av.open(str(path)) as container:
        pts = [packet.pts for packet in container.demux(video=0) if packet.size]
    return pts != sorted(pts)


def test_matroska_pieces_join_too(make_clip, tmp_path):
    clip = make_clip(frames=30, size_wh=(96, 64))
    paths = _chunks(clip, tmp_path, (17, 13), ".mkv")
    remux(paths, clip, tmp_path / "output.mkv")
    with open_frames(tmp_path / "output.mkv") as frames:
        assert [frame.pts for frame in frames] == [40 * n for n in range(30)]


def test_pieces_that_do_not_belong_together_are_refused(make_clip, tmp_path):
    clip = make_clip(frames=20)
    first, second = _chunks(clip, tmp_path, (10, 10))
    with pytest.raises(OutputError, match="does not come after"):
        remux([second, first], clip, tmp_path / "joined.mp4")
    info = probe(clip)
    other = tmp_path / "other.mp4"
    with open_frames(clip, start_seconds=0.4) as frames:
        with VideoWriter(other, info, encoder_preset="ultrafast", crf=30) as writer:
            for frame in frames:
                writer.write(frame)
    with pytest.raises(OutputError, match="other settings"):
        remux([first, other], clip, tmp_path / "joined.mp4")
    assert not (tmp_path / "joined.mp4").exists()


def test_cover_art_is_not_video(make_clip, tmp_path):
    """Matroska keeps the cover; MP4 cannot beside our tags, and says so."""
    plain = make_clip("plain.mkv", frames=6)
    cover = tmp_path / "cover.mkv"
    native = av.VideoFrame.from_ndarray(np.full((200, 200, 3), 90, np.uint8), "rgb24")
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 200, 200, "rgb24"
    encoder.time_base = Fraction(1, 25)
    png = b"".join(bytes(p) for p in [*encoder.encode(native), *encoder.encode(None)])
    with av.open(str(plain)) as source, av.open(str(cover), "w") as out:
        video = out.add_stream_from_template(source.streams.video[0], opaque=True)
        out.add_attachment("cover.png", "image/png", png)
        for packet in source.demux():
            if packet.size:
                packet.stream = video
                out.mux(packet)
    info = probe(cover)
    assert info.size_wh == (64, 48)
    assert [stream.type for stream in info.streams] == ["video", "cover"]
    assert swap_pictures(cover, tmp_path / "output.mkv") == []
    assert [s.type for s in probe(tmp_path / "output.mkv").streams] == ["video", "cover"]
    (warning,) = swap_pictures(cover, tmp_path / "output.mp4")
    assert "cover" in warning

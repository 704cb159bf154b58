"""Clips that must come out right."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from fault_files import Pictures, case

SIZE_WH = (320, 240)
FRAMES = 50
RATE = 25
# With macroblock-tree rate control x264's vector code gives other bytes at each run for widths
# that are no multiple of 128 (seen with core 165 on x86-64).
_X264 = {"preset": "veryfast", "crf": "18", "x264-params": "no-mbtree=1"}


def writing(
    path: Path, container_format: str | None = None, options: Mapping[str, str] | None = None
) -> Any:
    """A container to write to, without the random numbers and dates that some formats take."""
    settings = {"fflags": "bitexact", **(options or {})}
    return av.open(str(path), "w", format=container_format, options=settings)


def write_clip(
    path: Path,
    pictures: Pictures,
    *,
    size_wh: tuple[int, int] = SIZE_WH,
    frames: int = FRAMES,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
    container_format: str | None = None,
    rate: int = RATE,
    pts: Iterable[int] | None = None,
    time_base: Fraction | None = None,
    audio_tracks: int = 0,
    prepare: Callable[[Any, Any], None] | None = None,
) -> None:
    """Encodes a clip; ``prepare(container, stream)`` is called before the first frame."""
    options = dict(_X264 if options is None and codec == "libx264" else options or {})
    with writing(path, container_format, container_options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size_wh
        stream.pix_fmt = pix_fmt
        stream.options = options
        stream.codec_context.thread_count = 1  # more threads, other bytes
        base = time_base or Fraction(1, rate)
        stream.codec_context.time_base = base
        sounds = [container.add_stream("aac", rate=44100) for _ in range(audio_tracks)]
        if prepare is not None:
            prepare(container, stream)
        times = list(range(frames) if pts is None else pts)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(pictures(number, *size_wh), format="rgb24")
            frame = frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = time, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for number, sound in enumerate(sounds):
            container.mux(tone(sound, seconds=len(times) / rate, hertz=220.0 * (number + 1)))


def tone(stream: Any, *, seconds: float, hertz: float) -> list[Any]:
    """Packets of a pure tone."""
    packets = []
    count, step = int(seconds * 44100), 1024
    for start in range(0, count, step):
        phase = np.arange(start, min(start + step, count)) * (2 * np.pi * hertz / 44100)
        samples = (0.2 * np.sin(phase)).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 44100, start, Fraction(1, 44100)
        packets += stream.encode(frame)
    return packets + stream.encode()


@case(1, "01_variable_rate.mkv", "frames at uneven times", "every pts kept")
def _variable_rate(path: Path, pictures: Pictures) -> None:
    times = [n * 40 for n in range(75) if n % 3]
    write_clip(path, pictures, pts=times, time_base=Fraction(1, 1000))


@case(2, "02_rotated.mp4", "a rotation tag of 90 degrees", "faces found and output upright")
def _rotated(path: Path, pictures: Pictures) -> None:
    def turned(number: int, width: int, height: int) -> np.ndarray:
        # Stored a quarter turn clockwise; the tag turns it back counter-clockwise.
        return np.ascontiguousarray(np.rot90(pictures(number, height, width), -1))

    write_clip(path, turned, prepare=lambda _, stream: stream.set_display_rotation(90))


@case(3, "03_odd_size.mkv", "321 by 241 pixels, 4:4:4", "size kept")
def _odd(path: Path, pictures: Pictures) -> None:
    write_clip(path, pictures, size_wh=(321, 241), pix_fmt="yuv444p")


@case(4, "04_pixel_aspect.mp4", "pixels of 4:3", "aspect ratio kept")
def _pixel_aspect(path: Path, pictures: Pictures) -> None:
    def prepare(_: Any, stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    write_clip(path, pictures, prepare=prepare)


@case(5, "05_interlaced.mp4", "fields woven into frames", "deinterlaced or refused", 0, 3)
def _interlaced(path: Path, pictures: Pictures) -> None:
    def woven(number: int, width: int, height: int) -> np.ndarray:
        image = pictures(2 * number, width, height).copy()
        image[1::2] = pictures(2 * number + 1, width, height)[1::2]
        return image

    write_clip(path, woven, options={**_X264, "x264-params": "tff=1:no-mbtree=1"})


@case(6, "06_hdr10.mp4", "10 bits, BT.2020, PQ", "kept, or tone-mapped with a warning")
def _hdr10(path: Path, pictures: Pictures) -> None:
    def prepare(_: Any, stream: Any) -> None:
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = 9, 16, 9

    write_clip(
        path,
        pictures,
        frames=10,
        codec="libx265",
        pix_fmt="yuv420p10le",
        options={"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1"},
        prepare=prepare,
    )


@case(7, "07_yuv422p.mp4", "4:2:2", "pixel format kept")
def _yuv422(path: Path, pictures: Pictures) -> None:
    write_clip(path, pictures, pix_fmt="yuv422p")


@case(7, "07_yuv444p.mp4", "4:4:4", "pixel format kept")
def _yuv444(path: Path, pictures: Pictures) -> None:
    write_clip(path, pictures, pix_fmt="yuv444p")


@case(8, "08_full_range.mp4", "full-range samples", "range kept, no change of light")
def _full_range(path: Path, pictures: Pictures) -> None:
    write_clip(path, pictures, pix_fmt="yuvj420p")


@case(9, "09_prores_alpha.mov", "ProRes 4444 with alpha, 10 bits", "alpha kept, or said")
def _prores(path: Path, pictures: Pictures) -> None:
    write_clip(path, pictures, frames=10, codec="prores_ks", pix_fmt="yuva444p10le")


@case(10, "10_vp9_alpha.webm", "VP9 with alpha", "alpha kept, or said")
def _vp9_alpha(path: Path, pictures: Pictures) -> None:
    write_clip(
        path,
        pictures,
        frames=20,
        codec="libvpx-vp9",
        pix_fmt="yuva420p",
        options={"deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "0"},
    )


@case(11, "11_negative_start.ts", "B-frames and a start before zero", "every pts kept")
def _negative(path: Path, pictures: Pictures) -> None:
    write_clip(
        path,
        pictures,
        options={**_X264, "bf": "3"},
        pts=range(-12, FRAMES - 12),
        container_options={"avoid_negative_ts": "disabled"},
    )


@case(12, "12_late_start.ts", "a start at 1000 seconds", "every pts kept")
def _late(path: Path, pictures: Pictures) -> None:
    write_clip(path, pictures, pts=range(25_000, 25_000 + FRAMES))


@case(13, "13_edit_list.mp4", "the first 18 of 50 frames cut by an edit list", "32 frames shown")
def _edit_list(path: Path, pictures: Pictures) -> None:
    # Frames before time zero reach the file only as what the edit list skips.
    write_clip(
        path,
        pictures,
        options={**_X264, "bf": "0", "g": "100"},
        pts=range(-18, FRAMES - 18),
        container_options={"avoid_negative_ts": "disabled", "use_editlist": "1"},
    )


@case(14, "14_no_duration.mkv", "a live recording without duration", "all frames")
def _live(path: Path, pictures: Pictures) -> None:
    write_clip(path, pictures, container_options={"live": "1"})


@case(14, "14_raw.h264", "a bare H.264 stream", "all frames", 0, 3)
def _raw(path: Path, pictures: Pictures) -> None:
    write_clip(path, pictures, container_format="h264")


@case(15, "15_many_streams.mkv", "two sound tracks, subtitles, chapters, a file", "all kept")
def _many_streams(path: Path, pictures: Pictures) -> None:
    def prepare(container: Any, _: Any) -> None:
        container.add_attachment("notes.txt", "text/plain", b"attached")
        container.set_chapters(
            [
                {"id": n, "start": n * 1000, "end": n * 1000 + 1000, "time_base": Fraction(1, 1000),
                 "metadata": {"title": f"part {n}"}}
                for n in range(2)
            ]
        )

    bare, text = path.with_suffix(".bare.mp4"), path.with_suffix(".srt")
    write_clip(bare, pictures, audio_tracks=2)
    text.write_text("1\n00:00:00,200 --> 00:00:01,000\nfirst line\n")
    with av.open(str(bare)) as clip, av.open(str(text)) as words, writing(path) as out:
        streams = [(clip, old) for old in clip.streams] + [(words, words.streams[0])]
        copies = {id(old): out.add_stream_from_template(old) for _, old in streams}
        prepare(out, None)
        for source in (clip, words):
            for packet in source.demux():
                if packet.size:  # the last ones only flush
                    packet.stream = copies[id(packet.stream)]
                    out.mux(packet)
    bare.unlink()
    text.unlink()


@case(16, "16_cover_art.mp4", "sound with a cover picture, which is no video", "refused", 3)
def _cover_art(path: Path, pictures: Pictures) -> None:
    with writing(path) as container:
        sound = container.add_stream("aac", rate=44100)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height = SIZE_WH
        cover.pix_fmt = "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(tone(sound, seconds=1, hertz=330.0))
        image = av.VideoFrame.from_ndarray(pictures(0, *SIZE_WH), format="rgb24")
        container.mux(cover.encode(image) + cover.encode())


@case(17, "17_two_videos.mp4", "two video streams", "one swapped, or refused with the reason", 0, 3)
def _two_videos(path: Path, pictures: Pictures) -> None:
    with writing(path) as container:
        streams = []
        for size_wh in (SIZE_WH, (160, 120)):
            stream = container.add_stream("libx264", rate=RATE)
            stream.width, stream.height = size_wh
            stream.pix_fmt, stream.options = "yuv420p", dict(_X264)
            stream.codec_context.thread_count = 1
            streams.append(stream)
        for number in range(FRAMES):
            for stream in streams:
                image = pictures(number, stream.width, stream.height)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())


@case(18, "18_animation.gif", "a GIF", "read and written")
def _gif(path: Path, pictures: Pictures) -> None:
    write_clip(path, pictures, frames=10, codec="gif", pix_fmt="rgb8", rate=10)


@case(20, "20_8k.mkv", "7680 by 4320 pixels", "memory stays bounded")
def _large(path: Path, pictures: Pictures) -> None:
    write_clip(path, pictures, size_wh=(7680, 4320), frames=2,
               options={"preset": "ultrafast", "crf": "30", "x264-params": "no-mbtree=1"})


@case(21, "21_one_frame.mp4", "one frame", "one frame")
def _one_frame(path: Path, pictures: Pictures) -> None:
    write_clip(path, pictures, frames=1)


@case(22, "22_one_pixel.mkv", "1 by 1 pixel", "passes unchanged")
def _one_pixel(path: Path, pictures: Pictures) -> None:
    write_clip(path, pictures, size_wh=(1, 1), codec="ffv1", pix_fmt="yuv444p")


@case(23, "23_size_change.ts", "the size changes in mid-file", "done, or refused", 0, 3)
def _size_change(path: Path, pictures: Pictures) -> None:
    first, second = path.with_suffix(".1.ts"), path.with_suffix(".2.ts")
    write_clip(first, pictures, frames=25)
    write_clip(second, pictures, frames=25, size_wh=(160, 120), pts=range(25, 50))
    path.write_bytes(first.read_bytes() + second.read_bytes())
    first.unlink()
    second.unlink()


@case(24, "24_1000_fps.mp4", "1000 frames a second", "every pts kept")
def _fast(path: Path, pictures: Pictures) -> None:
    write_clip(path, pictures, rate=1000)

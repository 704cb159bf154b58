"""Small clips that the tests make for themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vidswap.records import Frame, PixelLayout
from vidswap.video.pixels import plane_shapes, require_storage

Tone = tuple[int, str | None]
"""Frequency in Hz and language of an audio track."""


def picture(number: int, size_wh: tuple[int, int]) -> np.ndarray:
    """An RGB picture ``[h, w, 3]`` with colour ramps and a bar that moves with its number."""
    width, height = size_wh
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([60 + 120 * x / width, 60 + 120 * y / height, np.full(x.shape, 110.0)], axis=2)
    rgb[:, (number * 3) % width : (number * 3) % width + 4, 1] = 210
    return rgb.astype(np.uint8)


class ClipMaker:
    """Writes clips into a test's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self,
        name: str = "clip.mp4",
        *,
        size_wh: tuple[int, int] = (64, 48),
        pts: Sequence[int] | None = None,
        frames: int = 12,
        time_base: Fraction = Fraction(1, 25),
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        b_frames: int = 2,
        rotation_ccw: int | None = None,
        sar: Fraction = Fraction(1),
        full_range: bool = False,
        colors: tuple[int, int, int] | None = None,
        tones: Sequence[Tone] = (),
        chapters: bool = False,
        subtitle: bool = False,
        attachment: bytes | None = None,
        metadata: dict[str, str] | None = None,
        container_options: dict[str, str] | None = None,
    ) -> Path:
        path = self.folder / name
        pts = list(range(frames)) if pts is None else list(pts)
        options = {"preset": "ultrafast", "bf": str(b_frames), "g": "8"}
        if codec == "libvpx-vp9":
            options = {"deadline": "realtime", "cpu-used": "8"}
        elif codec == "ffv1":
            options = {}
        with av.open(str(path), "w", options=container_options or {}) as out:
            video = out.add_stream(codec, rate=25, options=options)
            video.width, video.height, video.pix_fmt = *size_wh, pix_fmt
            video.time_base = video.codec_context.time_base = time_base
            video.codec_context.sample_aspect_ratio = sar
            video.codec_context.color_range = 2 if full_range else 1
            if colors:
                context = video.codec_context
                context.color_primaries, context.color_trc, context.colorspace = colors
            if pix_fmt.startswith("yuva"):
                video.metadata["alpha_mode"] = "1"
            if rotation_ccw is not None:
                video.set_display_rotation(rotation_ccw)
            audio = [_add_audio(out, tone) for tone in tones]
            words = _add_subtitle(out) if subtitle else None
            if attachment is not None:
                out.add_attachment("notes.txt", "text/plain", attachment)
            if chapters:
                out.set_chapters(_chapters())
            out.metadata.update(metadata or {})
            for number, time in enumerate(pts):
                native = _native(picture(number, size_wh), pix_fmt, full_range)
                native.pts, native.time_base = time, time_base
                out.mux(video.encode(native))
            out.mux(video.encode(None))
            begin = float(pts[0] * time_base)
            seconds = float((pts[-1] + 1 - pts[0]) * time_base)
            for (frequency, _), stream in zip(tones, audio, strict=True):
                _write_tone(out, stream, frequency, begin, seconds)
            if words is not None:
                _write_words(out, words)
        return path


def _native(rgb: np.ndarray, pix_fmt: str, full_range: bool) -> av.VideoFrame:
    native = av.VideoFrame.from_ndarray(rgb, "rgb24")
    changed = native.reformat(format=pix_fmt, dst_color_range=2 if full_range else 1)
    if pix_fmt == "yuva420p":
        plane = changed.planes[3]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        rows[:, : rgb.shape[1] // 2] = 40
    return changed


def _add_audio(out: av.container.OutputContainer, tone: Tone) -> av.AudioStream:
    webm = out.format.name == "webm"
    stream = out.add_stream("libopus" if webm else "aac", rate=48000)
    stream.layout = "mono"
    if tone[1]:
        stream.metadata["language"] = tone[1]
    return stream


def _write_tone(
    out: av.container.OutputContainer,
    stream: av.AudioStream,
    hz: int,
    begin: float,
    seconds: float,
) -> None:
    rate = 48000
    first = round(begin * rate)
    times = np.arange(int(seconds * rate)) / rate
    wave = (0.2 * np.sin(2 * np.pi * hz * times)).astype(np.float32)
    for start in range(0, len(wave), 960):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + 960], "flt", "mono")
        frame.sample_rate, frame.pts = rate, first + start
        frame.time_base = Fraction(1, rate)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def _add_subtitle(out: av.container.OutputContainer) -> av.subtitles.stream.SubtitleStream:
    from vidswap.video.subtitles import add_text_stream

    codec = {"mp4": "mov_text", "mov": "mov_text", "matroska": "subrip"}[out.format.name]
    stream = add_text_stream(out, codec, Fraction(1, 1000))
    stream.metadata["language"] = "fra"
    return stream


def _write_words(out: av.container.OutputContainer, stream: object) -> None:
    for start, text in ((40, "Bonjour"), (240, "été")):
        payload = text.encode()
        if out.format.name in ("mp4", "mov"):
            payload = len(payload).to_bytes(2, "big") + payload
        packet = av.Packet(payload)
        packet.pts = packet.dts = start
        packet.duration, packet.time_base, packet.stream = 120, Fraction(1, 1000), stream
        packet.is_keyframe = True
        out.mux_one(packet)


def _chapters() -> list[dict]:
    base = Fraction(1, 1000)
    return [
        {"id": 1, "start": 0, "end": 200, "time_base": base, "metadata": {"title": "One"}},
        {"id": 2, "start": 200, "end": 480, "time_base": base, "metadata": {"title": "Two"}},
    ]


@pytest.fixture
def make_clip(tmp_path: Path) -> ClipMaker:
    return ClipMaker(tmp_path)


@pytest.fixture
def make_frame() -> Callable[..., Frame]:
    """A frame of a pixel format, its samples random but inside the RGB cube mostly."""

    def make(
        name: str,
        size_wh: tuple[int, int] = (40, 30),
        *,
        color_range: str = "tv",
        matrix: str = "bt709",
        rotation: int = 0,
        chroma_location: str = "left",
        sar: Fraction = Fraction(1),
        values: tuple[float, float] = (0.3, 0.7),
    ) -> Frame:
        random = np.random.default_rng(3)
        storage = require_storage(name)
        top = (1 << storage.bit_depth) - 1
        planes = tuple(
            (random.uniform(*values, shape) * top).astype(storage.dtype) << storage.left_shift
            for shape in plane_shapes(name, size_wh)
        )
        layout = PixelLayout(
            name, storage.bit_depth, storage.chroma_shift_wh, storage.is_rgb, storage.has_alpha,
            color_range, "rgb" if storage.is_rgb else matrix, chroma_location=chroma_location,
        )  # fmt: skip
        return Frame(
            0, 0, Fraction(1, 25), layout, planes, size_wh,
            rotation=rotation, sample_aspect_ratio=sar,
        )  # fmt: skip

    return make

"""Writes made-up clips: RGB pictures at a constant rate, and a mono sound beside them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from fractions import Fraction
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from vidswap.errors import UsageError
from vidswap.video.container import file_url
from vidswap.video.outputs import MP4_FAMILY, VIDEO_FORMATS, PartialOutput, output_errors

_BT709, _BT601_RGB = 1, 5
_AAC_SAMPLES = 1024


class SampleWriter(PartialOutput):
    """H.264 and AAC in one file; sound and picture start together at time 0.

    :param path: ``.mp4``, ``.mov`` or ``.mkv``.
    :param size_wh: size of the pictures, even numbers.
    :param fps: pictures a second.
    :param sound: ``[N]`` float32 in [-1, 1], the whole sound track.
    :param sound_rate_hz: its samples a second.
    :param metadata: tags of the file.
    :raises UsageError: a container that cannot hold this sound, or an odd size.
    :raises OutputError: the file cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        size_wh: tuple[int, int],
        fps: int,
        sound: NDArray[np.float32],
        sound_rate_hz: int,
        metadata: Mapping[str, str],
    ) -> None:
        super().__init__(path)
        container = VIDEO_FORMATS.get(self.path.suffix.lower())
        if container is None or container == "webm":
            raise UsageError(
                f"samples are H.264 with AAC, which {self.path.suffix or 'no suffix'} cannot be; "
                "name the output .mp4, .mov or .mkv"
            )
        if size_wh[0] % 2 or size_wh[1] % 2:
            raise UsageError(f"--size: expected even numbers, got {size_wh[0]}x{size_wh[1]}")
        self.size_wh, self.fps = size_wh, fps
        self._sound, self._rate, self._heard = sound.astype(np.float32), sound_rate_hz, 0
        self._container: Any = None
        with output_errors(self.path):
            self._open(container, metadata)

    def _open(self, container: str, metadata: Mapping[str, str]) -> None:
        flags = {"movflags": "+use_metadata_tags+faststart"} if container in MP4_FAMILY else {}
        self.part.touch()
        self._container = av.open(
            file_url(self.part), "w", format=container, container_options=flags
        )
        self._container.metadata.update(metadata)
        video = self._container.add_stream("libx264", rate=self.fps)
        video.width, video.height = self.size_wh
        video.pix_fmt = "yuv420p"
        video.time_base = video.codec_context.time_base = Fraction(1, self.fps * 512)
        video.codec_context.options = {"crf": "16", "preset": "fast"}
        context = video.codec_context
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = 1
        audio = self._container.add_stream("aac", rate=self._rate)
        audio.codec_context.layout = "mono"
        audio.codec_context.bit_rate = 128_000
        self._video, self._audio = video, audio

    def write(self, rgb: NDArray[np.uint8]) -> None:
        """Encode one picture ``[H, W, 3]``, and the sound up to its end."""
        native = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24").reformat(
            format="yuv420p", src_colorspace=_BT601_RGB, dst_colorspace=_BT709,
            src_color_range=2, dst_color_range=1,
        )  # fmt: skip
        native.pts, native.time_base = self.frames_written * 512, self._video.time_base
        with output_errors(self.path):
            self._container.mux(self._video.encode(native))
            self.frames_written += 1
            self._hear(round(self.frames_written * self._rate / self.fps), last=False)

    def _hear(self, until: int, *, last: bool) -> None:
        until = min(until, len(self._sound))
        while self._heard + _AAC_SAMPLES <= until or (last and self._heard < until):
            part = self._sound[self._heard : min(self._heard + _AAC_SAMPLES, until)]
            frame = av.AudioFrame.from_ndarray(part[None].copy(), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = self._rate, self._heard
            frame.time_base = Fraction(1, self._rate)
            self._container.mux(self._audio.encode(frame))
            self._heard += len(part)

    def _finish(self) -> None:
        self._hear(len(self._sound), last=True)
        for stream in (self._video, self._audio):
            self._container.mux(stream.encode(None))
        self._container.close()
        self._container = None

    def _abandon(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            with suppress(Exception):
                container.close()

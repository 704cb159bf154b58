"""Frames in, an encoded video out: times, colours, aspect ratio and rotation as in the target."""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from fractions import Fraction
from typing import Any

import av
import av.error

from vidswap.config import VideoConfig
from vidswap.errors import OutputError, UsageError
from vidswap.records import Frame
from vidswap.video.container import file_url, reason
from vidswap.video.encoders import choose_pix_fmt, encoder_options
from vidswap.video.outputs import MP4_FAMILY, VIDEO_FORMATS, PartialOutput, output_errors
from vidswap.video.pixels import MATRIX_CODES, planes_to_native, require_storage
from vidswap.video.preview import SWS_ACCURATE, SWS_BICUBIC
from vidswap.video.probe import VideoInfo
from vidswap.video.timing import rotation_matrix

SHIFT_TAG = "vidswap_time_shift"
"""Tag of a video that stands alone: seconds (a fraction) to add to its times; see remux."""


class VideoWriter(PartialOutput):
    """Encodes frames into a file that holds only this video stream.

    MP4 cannot hold times below 0, and a late start would become an edit list; so an MP4 starts
    at 0 and carries its true start as a tag, which :func:`vidswap.video.remux` reads.

    :param path: output, ``.mp4``, ``.mov``, ``.mkv`` or ``.webm``.
    :param info: the target, for size, time base, rotation, colour tags and aspect ratio.
    :param codec: FFmpeg name of the encoder.
    :param crf: constant rate factor.
    :param pix_fmt: pixel format; None keeps the target's where the encoder takes it.
    :param threads: encoder threads, 0 lets it choose.
    :raises UsageError: unknown codec or format, or one that the container cannot hold.
    :raises OutputError: the file cannot be made, the disk is full, or the encoder fails.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        info: VideoInfo,
        *,
        codec: str = "libx264",
        crf: int = 17,
        encoder_preset: str = "fast",
        pix_fmt: str | None = None,
        threads: int = 0,
    ) -> None:
        super().__init__(path)
        self.info = info
        self.format = VIDEO_FORMATS[self.path.suffix.lower()]
        if self.format == "webm" and codec == VideoConfig().codec:
            # WebM holds VP8, VP9 and AV1 only; the default must work for it too.
            codec = "libvpx-vp9"
        self.codec = codec
        self.pix_fmt, self.warnings = choose_pix_fmt(codec, info.layout, info.size_wh, pix_fmt)
        if info.kind == "gif":
            self.warnings = []  # every GIF is decoded with an alpha plane, opaque or not
        options = encoder_options(codec, crf=crf, encoder_preset=encoder_preset, info=info)
        self._shift: int | None = None
        self._last_pts: int | None = None
        self._durations: deque[tuple[int, int]] = deque()
        self._packets = 0
        self._resized = False
        self._converts_matrix = False
        self._container: Any = None
        with output_errors(self.path):
            self._open(options, threads)

    def _open(self, options: dict[str, str], threads: int) -> None:
        info = self.info
        container_options = {}
        if self.format in MP4_FAMILY:
            container_options["movflags"] = "+use_metadata_tags"
            container_options["video_track_timescale"] = str(info.time_base.denominator)
        # Made now, so that an unwritable place is found before the work.
        self.part.touch()
        self._container = av.open(
            file_url(self.part), "w", format=self.format, container_options=container_options,
            metadata_errors="replace",
        )  # fmt: skip
        rate = (info.average_rate or Fraction(25)).limit_denominator(100_000)
        try:
            stream = self._container.add_stream(self.codec, rate=rate)
        except ValueError as error:
            self.discard()
            raise UsageError(
                f"{self.path.suffix} files cannot hold {self.codec} video; use .mkv"
            ) from error
        self._stream, context = stream, stream.codec_context
        context.width, context.height = info.size_wh
        context.pix_fmt = self.pix_fmt
        context.time_base = stream.time_base = info.time_base
        context.sample_aspect_ratio = info.sample_aspect_ratio
        context.options = options
        context.thread_count = threads
        self._set_colors(context)
        if self.format not in MP4_FAMILY and require_storage(self.pix_fmt).has_alpha:
            stream.metadata["alpha_mode"] = "1"  # without it players do not look for the alpha
        matrix = info.display_matrix
        if matrix is None and info.rotation:
            matrix = rotation_matrix(info.rotation, info.size_wh)
        if matrix is not None:
            stream.set_display_matrix(matrix)
        if self.codec in ("libx265", "hevc_nvenc") and self.format in MP4_FAMILY:
            context.codec_tag = "hvc1"  # the variant that Apple's players open
        try:
            context.open()
        except (av.error.FFmpegError, ValueError) as error:
            self.discard()
            raise OutputError(
                f"the encoder {self.codec} refuses {info.size_wh[0]}x{info.size_wh[1]} "
                f"{self.pix_fmt} ({reason(error)}); try another --codec or --pix-fmt"
            ) from error

    def _set_colors(self, context: Any) -> None:
        primaries, transfer, matrix, color_range = self.info.color_codes
        storage = require_storage(self.pix_fmt)
        if self.info.layout.is_rgb and not storage.is_rgb:
            # Pictures that were RGB say so by no tag; what they become is BT.709.
            primaries, transfer, matrix, color_range = 1, transfer if transfer != 2 else 1, 1, 1
            self._converts_matrix = True
        elif storage.is_rgb:
            matrix = 0
        elif color_range == 0 and self.info.layout.color_range == "pc":
            color_range = 2
        context.color_primaries, context.color_trc = primaries, transfer
        context.colorspace, context.color_range = matrix, color_range

    def write(self, frame: Frame) -> None:
        """Encode one frame; frames come in the order of their pts.

        :raises ValueError: a pts not above the one before, or another time base.
        :raises OutputError: the disk is full, or the encoder fails.
        """
        if frame.time_base != self.info.time_base:
            raise ValueError(
                f"time_base: expected {self.info.time_base}, got {frame.time_base}"
            )
        if self._last_pts is not None and frame.pts <= self._last_pts:
            raise ValueError(f"pts: expected above {self._last_pts}, got {frame.pts}")
        self._last_pts = frame.pts
        with output_errors(self.path):
            if self._shift is None:
                self._start(frame.pts)
            assert self._shift is not None
            native = self._to_encode(frame)
            native.pts, native.time_base = frame.pts - self._shift, frame.time_base
            native.pict_type = 0  # else the encoder would repeat the target's choice of key frames
            self._durations.append((native.pts, frame.duration or self.info.nominal_step))
            self._mux(self._stream.encode(native))
        self.frames_written += 1

    def _start(self, first_pts: int) -> None:
        self._shift = first_pts if self.format in MP4_FAMILY or first_pts < 0 else 0
        if self._shift:
            self._container.metadata[SHIFT_TAG] = str(self._shift * self.info.time_base)
        self._container.start_encoding()

    def _to_encode(self, frame: Frame) -> Any:
        context = self._stream.codec_context
        native = frame.native
        if native is None or (
            native.format.name != self.pix_fmt and frame.layout.name == self.pix_fmt
        ):
            native = planes_to_native(frame)
        size_wh = (context.width, context.height)
        if native.format.name == self.pix_fmt and frame.size_wh == size_wh:
            return native
        if frame.size_wh != size_wh and not self._resized:
            self._resized = True
            self.warnings.append(
                f"frames of {frame.size_wh[0]}x{frame.size_wh[1]} are scaled to "
                f"{size_wh[0]}x{size_wh[1]}, the size of the first one"
            )
        source = MATRIX_CODES.get(frame.layout.matrix, 1)
        source = 5 if source in (0, 6) else source
        source_range = 2 if frame.layout.color_range == "pc" else 1
        target, target_range = source, source_range
        if self._converts_matrix:
            target, target_range = 1, 1
        return native.reformat(
            width=size_wh[0], height=size_wh[1], format=self.pix_fmt,
            src_colorspace=source, dst_colorspace=target,
            src_color_range=source_range, dst_color_range=target_range,
            interpolation=SWS_ACCURATE | SWS_BICUBIC, threads=1,
        )  # fmt: skip

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            packet.duration = self._duration_of(packet.pts)
            self._container.mux_one(packet)
            self._packets += 1

    def _duration_of(self, pts: int) -> int:
        for index, (own_pts, duration) in enumerate(self._durations):
            if own_pts == pts:
                del self._durations[index]
                return duration
        return self.info.nominal_step

    def _finish(self) -> None:
        if self.frames_written == 0:
            raise OutputError(f"no frame was written to {self.path}; nothing to keep")
        self._mux(self._stream.encode(None))
        self._container.close()
        self._container = None
        if self._packets != self.frames_written:
            raise OutputError(
                f"{self.path}: the encoder gave {self._packets} pictures for "
                f"{self.frames_written}; try another --codec"
            )

    def _abandon(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            with suppress(Exception):
                container.close()

"""Frames of a target, one after the other.

Nothing is kept: memory holds what the decoder holds. Times are those of the stream; a variable
frame rate stays variable, and a hole in time is not filled.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import av
import av.error
import av.filter

from vidswap.errors import InputError
from vidswap.records import Frame
from vidswap.video import images
from vidswap.video.container import MAX_PIXELS, open_input, positive
from vidswap.video.pixels import layout_of, native_planes, native_to_supported
from vidswap.video.probe import (
    UNDECODABLE,
    UNTIMED_START,
    VideoInfo,
    check_size,
    chroma_location_of,
    configure_decoder,
    decode_packets,
    probe,
)
from vidswap.video.timing import MonotonicClock, seconds_to_pts

log = logging.getLogger(__name__)


class FrameReader:
    """Iterator over the frames of a target; see :func:`open_frames`.

    Its counters are final once the iteration has ended.
    """

    def __init__(self, info: VideoInfo) -> None:
        self.info = info
        self.frames_read = 0
        self.corrupt_packets = 0
        """Packets that the container marked as damaged, or that could not be decoded."""
        self.corrupt_frames = 0
        """Pictures that the decoder marked as damaged; they are delivered all the same."""
        self.missing_seconds = 0.0
        """Time between the last picture and the end that the container declares for the pictures."""
        self._frames: Iterator[Frame] = iter(())

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        frame = next(self._frames)
        self.frames_read += 1
        return frame

    @property
    def damage(self) -> str | None:
        """One line on what was damaged, None when nothing was."""
        found = []
        if self.corrupt_packets or self.corrupt_frames:
            found.append(
                f"{self.corrupt_packets} damaged packets, "
                f"{self.corrupt_frames} damaged pictures in {self.frames_read} frames"
            )
        if self.missing_seconds:
            found.append(
                f"its last {self.missing_seconds:.2f} s could not be read (damage, a failing disk, no memory)"
            )
        return f"{self.info.path}: {'; '.join(found)}" if found else None


@contextmanager
def open_frames(
    path: str | os.PathLike[str],
    *,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    threads: int = 0,
    deinterlace: bool = True,
    allow_damaged: bool = False,
    max_pixels: int = MAX_PIXELS,
    info: VideoInfo | None = None,
) -> Iterator[FrameReader]:
    """Open a target for streaming; leaving the block closes it.

    :param start_seconds: first time wanted, counted from the first frame of the clip.
    :param end_seconds: time of the first frame that is no longer wanted.
    :param threads: decoding threads; 0 lets the decoder choose.
    :param deinterlace: weave interlaced pictures into progressive ones, one a frame.
    :param allow_damaged: read a file that breaks off as far as it goes.
    :param info: result of :func:`probe`, when it is there already.
    :raises InputError: unreadable (see :func:`probe`), truncated, or no frame in the range.
    """
    info = info or probe(path, max_pixels=max_pixels)
    if info.is_truncated and not allow_damaged:
        raise InputError(
            f"{info.path} breaks off before its end; copy it again, or remux it to keep what is there"
        )
    reader = FrameReader(info)
    if info.kind in ("image", "folder"):
        frames = _still_frames(info, start_seconds, end_seconds)
        reader._frames = _require_some(frames, info, start_seconds, end_seconds)
        yield reader
        return
    source = _VideoSource(reader, threads, deinterlace, max_pixels)
    frames = source.frames(start_seconds, end_seconds)
    reader._frames = _require_some(frames, info, start_seconds, end_seconds)
    try:
        yield reader
    finally:
        frames.close()
        source.close()
    if reader.damage:
        log.warning("%s", reader.damage)


def _require_some(
    frames: Iterator[Frame], info: VideoInfo, start: float | None, end: float | None
) -> Iterator[Frame]:
    empty = True
    for frame in frames:
        empty = False
        yield frame
    if empty and (start is not None or end is not None):
        length = f" of {info.duration_seconds:.2f} s" if info.duration_seconds else ""
        raise InputError(
            f"{info.path}: no frame from {start or 0} s to {end if end is not None else 'the end'}"
            f"{' s' if end is not None else ''} in the clip{length}; choose another range"
        )
    if empty:
        raise InputError(f"{info.path}: not one frame could be decoded; the file is damaged")


def _still_frames(
    info: VideoInfo, start: float | None, end: float | None
) -> Iterator[Frame]:
    files = info.files or (info.path,)
    first = seconds_to_pts(start or 0, info.time_base)
    stop = len(files) if end is None else seconds_to_pts(end, info.time_base)
    index = 0
    for pts, file in enumerate(files):
        if not first <= pts < stop:
            continue
        yield images.read_image(file, index=index, pts=pts, time_base=info.time_base)
        index += 1


class _VideoSource:
    """Decoding of one container, seeking and clean-up included."""

    def __init__(
        self, reader: FrameReader, threads: int, deinterlace: bool, max_pixels: int
    ) -> None:
        self.reader = reader
        self.info = reader.info
        self.threads = threads
        self.max_pixels = max_pixels
        self.deinterlace = deinterlace and self.info.is_interlaced
        self.container: Any = None
        self.starts_at_key = False
        self.last_end: int | None = None
        self._open()

    def _open(self) -> None:
        self.close()
        self.container = open_input(self.info.path, max_pixels=self.max_pixels)
        self.stream = self.container.streams[self.info.stream_index]
        self.context = configure_decoder(
            self.stream, self.info.decoder, threads=self.threads, max_pixels=self.max_pixels
        )

    def close(self) -> None:
        if self.container is not None:
            self.container.close()
            self.container = None

    def frames(self, start: float | None, end: float | None) -> Generator[Frame, None, None]:
        info = self.info
        first = None if not start else info.start_pts + seconds_to_pts(start, info.time_base)
        stop = None if end is None else info.start_pts + seconds_to_pts(end, info.time_base)
        pictures = self._from(first) if first is not None else self._timed_start()
        if self.deinterlace:
            pictures = _deinterlaced(pictures, self.stream)
        clock = MonotonicClock(info.nominal_step)
        index = 0
        for native in pictures:
            pts = clock.next(native.pts, native.duration or None)
            if first is not None and pts < first:
                continue
            if stop is not None and pts >= stop:
                return
            yield self._record(native, index, pts)
            index += 1
        self.reader.missing_seconds = self._unread()
        if clock.repaired:
            log.warning("%s: %d frames had no usable time", info.path, clock.repaired)

    def _unread(self) -> float:
        """Seconds that Matroska declares beyond the last picture: its demuxer ends without an error
        where it could not read on (no memory, a failing disk); others say so."""
        declared = self.info.declared_end_seconds
        if declared is None or self.last_end is None:
            return 0.0
        missing = declared - float(self.last_end * self.info.time_base)
        step = float(self.info.nominal_step * self.info.time_base)
        return missing if missing > 2.5 * step else 0.0

    def _timed_start(self) -> Iterator[Any]:
        """All pictures; those at the start without a time get one from the first that has."""
        pictures = self._pictures()
        held: list[Any] = []
        for native in pictures:
            held.append(native)
            if native.pts is not None or len(held) > UNTIMED_START:
                break
        if len(held) > 1 and held[-1].pts is not None:
            for index, native in enumerate(held[:-1]):
                native.pts = held[-1].pts - (len(held) - 1 - index) * self.info.nominal_step
        return chain(held, pictures)

    def _pictures(self) -> Generator[Any, None, None]:
        try:
            yield from self._decoded()
        except MemoryError as error:
            raise InputError(
                f"{self.info.path}: no memory left to decode a picture; close other programs (a damaged file "
                "may also ask for too much)"
            ) from error

    def _decoded(self) -> Generator[Any, None, None]:
        fresh = True
        for packet, pictures in decode_packets(self.container, self.stream, self.context):
            if fresh:
                self.starts_at_key, fresh = bool(packet.is_keyframe), False
            if packet.size and (packet.is_corrupt or packet.opaque == UNDECODABLE):
                self.reader.corrupt_packets += 1
            for native in pictures:
                check_size(self.info.path, native.width, native.height, self.max_pixels)
                if native.pts is not None:
                    self.last_end = max(self.last_end or 0, native.pts + (native.duration or 0))
                yield native

    def _from(self, first: int) -> Iterator[Any]:
        """Pictures from a key frame at or before a pts on.

        Indexes are by decoding time, so a key frame that is shown after the wanted time may be
        found, and a container without an index may land between key frames: then an earlier one
        is taken, at last the start of the file.
        """
        step = max(1, seconds_to_pts(1, self.info.time_base))
        for margin in (0, step // 2, 4 * step):
            goal = first - margin
            if goal <= self.info.start_pts:
                break
            try:
                self.container.seek(goal, stream=self.stream, backward=True)
            except (av.error.FFmpegError, OverflowError):
                break
            self.context.flush_buffers()
            self.reader.corrupt_packets = 0
            pictures = self._pictures()
            head = next(pictures, None)
            if head is not None and head.pts is not None and self.starts_at_key:
                if head.pts <= first:
                    return chain([head], pictures)
            pictures.close()
        self._open()
        self.reader.corrupt_packets = 0
        return self._timed_start()

    def _record(self, native: Any, index: int, pts: int) -> Frame:
        native = native_to_supported(native)
        if native.is_corrupt:
            self.reader.corrupt_frames += 1
        return Frame(
            index=index,
            pts=pts,
            time_base=self.info.time_base,
            layout=layout_of(native, chroma_location=chroma_location_of(self.info.codec)),
            planes=native_planes(native),
            size_wh=(native.width, native.height),
            # The clip's own, found once: a look at a frame's side data makes a reference cycle
            # that keeps its picture until the garbage collector happens to run.
            rotation=self.info.rotation,
            sample_aspect_ratio=self.info.sample_aspect_ratio,
            duration=native.duration or None,
            is_corrupt=bool(native.is_corrupt),
            native=native,
        )


def _deinterlaced(pictures: Iterator[Any], stream: Any) -> Iterator[Any]:
    """One progressive picture for each interlaced one, at its time."""
    graph: Any = None
    for native in pictures:
        if graph is None:
            graph = _deinterlacer(native, stream)
        graph.push(native)
        yield from _pull(graph, stream)
    if graph is not None:
        graph.push(None)
        yield from _pull(graph, stream)


def _deinterlacer(native: Any, stream: Any) -> Any:
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=native.width, height=native.height, format=native.format,
        name="in", time_base=stream.time_base,
    )  # fmt: skip
    weave = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
    sink = graph.add("buffersink")
    source.link_to(weave)
    weave.link_to(sink)
    graph.configure()
    return graph


def _pull(graph: Any, stream: Any) -> Iterator[Any]:
    while True:
        try:
            native = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        if native.pts is not None and positive(native.time_base):
            native.pts = round(native.pts * native.time_base / stream.time_base)
            native.time_base = stream.time_base
        yield native

"""Joining our picture with everything else of the target, by stream copy.

The new video is encoded to a file of its own first; what is robust about that: a chunk that is
whole stays whole, and a failure while joining loses no encoding. Then packets of audio, subtitles
and data are copied bit for bit from the target, on one timeline with the video.

Decoding times of the video are computed anew from its presentation times. Containers that store
none (Matroska) and pieces that were encoded apart would otherwise give some that go back, and
muxers drop such packets.
"""

from __future__ import annotations

import heapq
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from vidswap.errors import InputError, OutputError, UsageError
from vidswap.video.container import file_url, main_video_stream, open_input, reason
from vidswap.video.outputs import (
    DISK_ERRORS,
    MP4_FAMILY,
    VIDEO_FORMATS,
    PartialOutput,
    output_errors,
)
from vidswap.video.probe import VideoInfo, has_alpha_mode, probe
from vidswap.video.streams import CopiedStream, carry_over, chapters_within, video_metadata
from vidswap.video.timing import output_shift
from vidswap.video.writer import SHIFT_TAG

log = logging.getLogger(__name__)

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
_REORDER_WINDOW = 64
_NOT_CARRIED = frozenset(
    {"major_brand", "minor_version", "compatible_brands", "encoder", "duration", SHIFT_TAG}
)


@dataclass(frozen=True)
class _Piece:
    """One encoded file and its place in time."""

    path: Path
    shift: Fraction
    packets: int
    reorder_depth: int
    extradata: bytes
    time_base: Fraction
    first_seconds: Fraction


def remux(
    video: Paths,
    target: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    metadata: Mapping[str, str] | None = None,
    info: VideoInfo | None = None,
) -> list[str]:
    """Write ``output``: the pictures of ``video``, all else of ``target``.

    :param video: a file of :class:`vidswap.video.VideoWriter`, or its pieces in order.
    :param start_seconds: the range that was read from the target (see ``open_frames``); other
        streams are cut to it, to whole packets, and the output starts at 0.
    :param metadata: tags to add to those of the target.
    :param info: probe of the target, if there is one already.
    :return: warnings: what the container cannot hold, in words.
    :raises UsageError: a kind of container that cannot be written.
    :raises OutputError: the disk is full, or pictures got lost.
    """
    info = info or probe(target)
    pieces = [_examine(Path(path)) for path in _as_list(video)]
    _require_alike(pieces)
    with _Joint(output, info, pieces) as joint:
        joint.run(start_seconds, end_seconds, dict(metadata or {}))
    for warning in joint.warnings:
        log.info("%s", warning)
    return joint.warnings


def try_streams(piece: str | os.PathLike[str], output: str | os.PathLike[str], info: VideoInfo) -> list[str]:
    """What :func:`remux` will say of the target's streams, found out with the first finished piece and not
    after the last.

    :param output: a name that may be used for it, with the output's suffix; nothing is left there.
    :return: warnings: what the container cannot hold.
    :raises OutputError: it cannot hold these pictures.
    """
    joint = _Joint(output, info, [_examine(Path(piece))])
    try:
        joint.try_header()
    finally:
        joint.discard()
    return joint.warnings


def count_packets(path: str | os.PathLike[str]) -> int:
    """Pictures in a file, counted by reading it through (not decoded)."""
    with open_input(path) as container:
        stream = main_video_stream(container)
        return sum(1 for packet in container.demux(stream) if packet.size) if stream else 0


def _as_list(paths: Paths) -> list[str | os.PathLike[str]]:
    return [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)


def _examine(path: Path) -> _Piece:
    """Read through a piece: how many packets, how far they are out of order, where it starts."""
    try:
        with open_input(path) as container:
            stream = main_video_stream(container)
            if stream is None:
                raise OutputError(f"{path} holds no video; encode it again")
            tags = {key.lower(): value for key, value in container.metadata.items()}
            count, depth, first = 0, 0, None
            recent: list[int] = []
            for packet in container.demux(stream):
                if not packet.size:
                    continue
                if packet.pts is None:
                    raise OutputError(f"{path} has a picture without a time; encode it again")
                depth = max(depth, sum(pts > packet.pts for pts in recent))
                recent = [*recent[-_REORDER_WINDOW:], packet.pts]
                first = packet.pts if first is None else min(first, packet.pts)
                count += 1
            shift = Fraction(tags.get(SHIFT_TAG, "0"))
            time_base = stream.time_base
            extradata = stream.codec_context.extradata or b""
    except InputError as error:
        raise OutputError(f"an encoded piece cannot be read back: {error}") from error
    if first is None:
        raise OutputError(f"{path} holds no pictures; encode it again")
    return _Piece(
        path, shift, count, depth, bytes(extradata), time_base, first * time_base + shift
    )


def _require_alike(pieces: Sequence[_Piece]) -> None:
    if not pieces:
        raise OutputError("there are no encoded pieces to join; encode at least one frame")
    for before, piece in zip(pieces, pieces[1:], strict=False):
        if piece.extradata != pieces[0].extradata:
            raise OutputError(
                f"{piece.path.name} was encoded with other settings than {pieces[0].path.name}; "
                "encode both alike"
            )
        if piece.first_seconds <= before.first_seconds:
            raise OutputError(f"{piece.path.name} does not come after {before.path.name} in time")


class _Joint(PartialOutput):
    """The output while it is made."""

    def __init__(
        self, output: str | os.PathLike[str], info: VideoInfo | None, pieces: Sequence[_Piece]
    ) -> None:
        super().__init__(output)
        suffix = self.path.suffix.lower()
        if suffix not in VIDEO_FORMATS:
            raise UsageError(f"cannot write {suffix} files; name the output .mp4, .mov or .mkv")
        self.format = VIDEO_FORMATS[suffix]
        self.info = info
        self.pieces = pieces
        self._container: Any = None

    def run(self, start: float | None, end: float | None, metadata: dict[str, str]) -> None:
        first = self.pieces[0].first_seconds
        with ExitStack() as stack, output_errors(self.path):
            target = None
            window: tuple[Fraction | None, Fraction | None] = (None, None)
            shift = -first if self.info is None else self._shift(start, first)
            if self.info is not None and self.info.kind == "video":
                target = stack.enter_context(open_input(self.info.path))
                origin = self.info.start_pts * self.info.time_base
                window = (
                    first if start else None,
                    None if end is None else origin + Fraction(end),
                )
            template = stack.enter_context(open_input(self.pieces[0].path))
            video, others = self._open(template, target, shift, window, metadata)
            pictures = self._pictures(video, shift)
            rest = self._rest(target, others, shift, window)
            for packet in _in_order(pictures, rest):
                self._container.mux_one(packet)

    def try_header(self) -> None:
        """Begin the output, as far as its header."""
        with ExitStack() as stack, output_errors(self.path):
            target = None
            if self.info is not None and self.info.kind == "video":
                target = stack.enter_context(open_input(self.info.path))
            template = stack.enter_context(open_input(self.pieces[0].path))
            self._open(template, target, Fraction(0), (None, None), {})

    def _shift(self, start: float | None, first: Fraction) -> Fraction:
        assert self.info is not None
        return output_shift(
            self.info.container,
            self.info.start_seconds,
            first,
            trimmed_from_seconds=first if start else None,
        )

    def _open(
        self, template: Any, target: Any, shift: Fraction, window: Any, metadata: dict[str, str]
    ) -> tuple[Any, list[CopiedStream]]:
        """Header with as many of the target's streams as the container takes."""
        refused: list[str] = []
        for leave_out in ((), ("data",), ("data", "attachment", "cover"),
                          ("data", "attachment", "cover", "subtitle")):  # fmt: skip
            container = self._new_container(shift)
            warnings: list[str] = []
            try:
                video = self._add_video(container, template, target)
                others = (
                    carry_over(container, self.format, target, self.info, leave_out, warnings)
                    if target is not None and self.info is not None else []
                )  # fmt: skip
                self._set_metadata(container, target, shift, window, metadata)
                container.start_encoding()
            except (av.error.FFmpegError, ValueError) as error:
                container.close()
                if getattr(error, "errno", None) in DISK_ERRORS:
                    raise
                refused.append(reason(error))
                continue
            self._container = container
            self.warnings += warnings
            return video, others
        raise OutputError(
            f"{self.path.suffix} cannot hold these streams ({refused[-1]}); try .mkv as output"
        )

    def _new_container(self, shift: Fraction) -> Any:
        options = {}
        if self.format in MP4_FAMILY:
            options["movflags"] = "+use_metadata_tags"
            options["video_track_timescale"] = str(self.pieces[0].time_base.denominator)
        else:
            # Audio of an MP4 starts some 20 ms early. Left to itself, the muxer would move the
            # pictures for that; a block may well lie a little before its cluster's time.
            options["avoid_negative_ts"] = "disabled"
        return av.open(
            file_url(self.part), "w", format=self.format, container_options=options,
            metadata_errors="replace",
        )  # fmt: skip

    def _add_video(self, container: Any, template: Any, target: Any) -> Any:
        source: Any = main_video_stream(template)
        video = container.add_stream_from_template(source, opaque=True)
        video.time_base = source.time_base
        if has_alpha_mode(source):
            video.metadata["alpha_mode"] = "1"
        if self.format in MP4_FAMILY and source.codec_context.codec.canonical_name == "hevc":
            video.codec_context.codec_tag = "hvc1"
        if target is not None and self.info is not None:
            original = target.streams[self.info.stream_index]
            video.metadata.update(video_metadata(original.metadata))
            video.disposition = original.disposition
            # The timecode track is made from the tag and this rate.
            if self.info.average_rate:
                video.codec_context.framerate = self.info.average_rate.limit_denominator(100_000)
        return video

    def _set_metadata(
        self, container: Any, target: Any, shift: Fraction, window: Any, metadata: dict[str, str]
    ) -> None:
        tags: dict[str, str] = {}
        if target is not None:
            tags = {k: v for k, v in target.metadata.items() if k.lower() not in _NOT_CARRIED}
            container.set_chapters(chapters_within(target.chapters(), shift, window))
        elif self.info is None and self.pieces[0].first_seconds:
            tags[SHIFT_TAG] = str(self.pieces[0].first_seconds)
        container.metadata.update({**tags, **metadata})

    def _pictures(self, video: Any, shift: Fraction) -> Iterator[Any]:
        """Video packets of all pieces with new times."""
        depth = max(piece.reorder_depth for piece in self.pieces)
        time_base = self.pieces[0].time_base
        pending: list[int] = []
        rate = video.average_rate
        lead = max(1, round(1 / (rate * time_base))) if rate else 1
        given = 0
        first: int | None = None
        for piece in self.pieces:
            offset = (piece.shift + shift) / time_base
            with open_input(piece.path) as container:
                for packet in container.demux(main_video_stream(container)):
                    if not packet.size:
                        continue
                    pts = round(packet.pts * packet.time_base / time_base + offset)
                    first = pts if first is None else first
                    heapq.heappush(pending, pts)
                    if given < depth:
                        dts = first - (depth - given) * lead
                    else:
                        dts = heapq.heappop(pending)
                    given += 1
                    packet.time_base = time_base
                    packet.pts, packet.dts = pts, min(dts, pts)
                    packet.stream = video
                    self.frames_written += 1
                    yield packet

    def _rest(
        self, target: Any, others: list[CopiedStream], shift: Fraction, window: Any
    ) -> Iterator[Any]:
        if target is None or not others:
            return
        by_index = {stream.index: stream for stream in others}
        sources = [target.streams[index] for index in by_index]
        keep_early = self.format in MP4_FAMILY
        try:
            for packet in target.demux(sources):
                if not packet.size:
                    continue  # the empty ones at the end
                copied = by_index[packet.stream_index]
                placed = copied.place(packet, shift, window, keep_early=keep_early)
                if placed is not None:
                    yield placed
        except av.error.FFmpegError as error:
            self.warnings.append(f"the other streams break off early: {reason(error)}")

    def _finish(self) -> None:
        self._container.close()
        self._container = None
        expected = sum(piece.packets for piece in self.pieces)
        found = count_packets(self.part)
        if not self.frames_written == expected == found:
            raise OutputError(
                f"{self.path}: {found} of {expected} pictures arrived; is the disk full?"
            )

    def _abandon(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            container.close()


def _in_order(pictures: Iterator[Any], rest: Iterator[Any]) -> Iterator[Any]:
    """Two runs of packets merged by decoding time, so that the muxer need not hold back much."""

    def keyed(packets: Iterator[Any], rank: int) -> Iterator[tuple[Fraction, int, Any]]:
        for packet in packets:
            yield packet.dts * packet.time_base, rank, packet

    merged = heapq.merge(keyed(pictures, 0), keyed(rest, 1), key=lambda item: item[:2])
    for _, _, packet in merged:
        yield packet


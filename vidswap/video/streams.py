"""The target's other streams: which a container takes, and their packets on the new timeline."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.error

from vidswap.video.container import codec_name, open_input
from vidswap.video.outputs import MP4_FAMILY
from vidswap.video.probe import VideoInfo
from vidswap.video.subtitles import add_text_stream, converted, convertible

# Statistics of the old file, and what the muxer writes by itself.
_STALE = ("bps", "duration", "number_of_", "_statistics", "rotate", "encoder", "vendor_id")
_IMAGE_TYPES = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}
_JUMP_SECONDS = 1


@dataclass
class CopiedStream:
    """A stream on its way from target to output."""

    index: int
    """In the target."""
    out: Any
    """Stream of the output."""
    converts: tuple[str, str] | None = None
    """Text codecs of target and output, where subtitles have to change."""
    is_timed_text: bool = False
    """MP4's own subtitles, which hold an empty packet where nothing is shown."""
    is_subtitle: bool = False
    last_dts: int | None = None
    jump: int = 0

    def place(
        self,
        packet: Any,
        shift: Fraction,
        window: tuple[Fraction | None, Fraction | None],
        *,
        keep_early: bool,
    ) -> Any | None:
        """The packet on the output's timeline; None when it is left out.

        :param keep_early: keep a packet that begins before the cut and reaches into it.
        """
        start = packet.pts if packet.pts is not None else packet.dts
        if start is None or packet.time_base is None:
            return None
        base = packet.time_base
        begin, end = start * base, (start + (packet.duration or 0)) * base
        low, high = window
        if self.is_subtitle and packet.duration:  # shown as long as it would be, not moved or lost
            begin = begin if low is None else max(begin, low)
            end = end if high is None else min(end, high)
            if end <= begin:
                return None
            start = round(begin / base)
            packet.pts = packet.dts = start
            packet.duration = round(end / base) - start
        if low is not None and (end <= low or (begin < low and not keep_early)):
            return None
        if high is not None and begin >= high:
            return None
        if self.is_timed_text and not any(bytes(packet)):
            return None  # silence between two texts; the muxer writes its own
        if self.converts is not None:
            packet = converted(packet, *self.converts)
            if packet is None:
                return None
        move = round(shift / base) + self.jump
        dts = (packet.dts if packet.dts is not None else start) + move
        if self.last_dts is not None and dts <= self.last_dts:
            if (self.last_dts - dts) * base > _JUMP_SECONDS:
                # Two recordings joined byte by byte: go on from where the first ended.
                leap = self.last_dts + (packet.duration or 1) - dts
                self.jump += leap
                move += leap
                dts += leap
            else:
                dts = self.last_dts + 1
        self.last_dts = dts
        packet.pts, packet.dts = max(start + move, dts), dts
        packet.stream = self.out
        return packet


def carry_over(
    container: Any,
    muxer: str,
    target: Any,
    info: VideoInfo,
    leave_out: Collection[str],
    warnings: list[str],
) -> list[CopiedStream]:
    """Add every other stream of the target that the container takes.

    :param leave_out: types of streams not to try.
    :param warnings: gets a line for each stream that is left out.
    """
    copied = []
    for stream, words in zip(target.streams, info.streams, strict=False):
        if stream.index == info.stream_index or _made_by_muxer(stream, target, muxer):
            continue
        problem = "this container does not take it"
        if words.type not in leave_out:
            try:
                added = _add(container, muxer, stream, info, words.type)
                if added is not None:
                    copied.append(added)
                continue
            except (ValueError, av.error.FFmpegError, NotImplementedError) as error:
                problem = str(error)
        warnings.append(f"stream {words} is left out: {problem}")
    return copied


def _made_by_muxer(stream: Any, target: Any, muxer: str) -> bool:
    """Tracks that MP4 muxers write themselves from chapters and from the timecode tag."""
    if stream.type != "data" or muxer not in MP4_FAMILY:
        return stream.type == "data" and codec_name(stream) == "bin_data" and bool(
            target.chapters()
        )
    return "timecode" in stream.metadata or bool(target.chapters())


def _add(
    container: Any, muxer: str, stream: Any, info: VideoInfo, kind: str
) -> CopiedStream | None:
    """Add one stream; None for an attachment, which is written with the header.

    :raises ValueError: the container does not take it.
    """
    name = codec_name(stream)
    if kind == "cover" and muxer == "matroska":
        _attach_cover(container, stream, info, name)
        return None
    if kind == "attachment":
        if muxer != "matroska":
            raise ValueError(f"{muxer} files hold no attachments")
        container.add_attachment(
            stream.metadata.get("filename", f"attachment{stream.index}"),
            stream.metadata.get("mimetype", "application/octet-stream"), stream.data,
        )  # fmt: skip
        return None
    if kind == "cover":
        # The tags that mark the output as synthetic take the place where MP4 keeps its cover.
        raise ValueError(f"{muxer} files hold no cover beside the tags of this tool")
    if stream.type in ("audio", "video", "subtitle") and stream.codec_context is None:
        raise ValueError("its codec is not known here")
    converts = None
    try:
        out = container.add_stream_from_template(stream, opaque=True)
    except ValueError:
        own = convertible(name, muxer)
        if own is None:
            raise ValueError(f"{muxer} files do not hold {name}") from None
        out, converts = add_text_stream(container, own, stream.time_base), (name, own)
    out.time_base = stream.time_base
    out.metadata.update(
        {key: value for key, value in stream.metadata.items() if not _is_stale(key)}
    )
    out.disposition = stream.disposition
    return CopiedStream(
        stream.index, out, converts,
        is_timed_text=name == "mov_text", is_subtitle=stream.type == "subtitle",
    )  # fmt: skip


def _attach_cover(container: Any, stream: Any, info: VideoInfo, name: str) -> None:
    if name not in _IMAGE_TYPES:
        raise ValueError(f"a cover of kind {name} cannot be attached")
    with open_input(info.path) as again:
        packet = next((p for p in again.demux(again.streams[stream.index]) if p.size), None)
    if packet is None:
        raise ValueError("the cover is empty")
    file_name, mime = _IMAGE_TYPES[name]
    container.add_attachment(stream.metadata.get("filename", file_name), mime, bytes(packet))


def _is_stale(key: str) -> bool:
    return key.lower().startswith(_STALE)


def video_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Tags of the target's video stream that still hold for the new one."""
    return {
        key: value for key, value in metadata.items()
        if not _is_stale(key) and key.lower() != "alpha_mode"
    }  # fmt: skip


def chapters_within(
    chapters: Sequence[Mapping[str, Any]],
    shift: Fraction,
    window: tuple[Fraction | None, Fraction | None],
) -> list[dict[str, Any]]:
    """Chapters moved by ``shift`` seconds and cut to a window of the target's time."""
    kept = []
    low, high = window
    for chapter in chapters:
        base = chapter["time_base"]
        start, end = chapter["start"] * base, chapter["end"] * base
        if (low is not None and end <= low) or (high is not None and start >= high):
            continue
        start = max(start, low) if low is not None else start
        end = min(end, high) if high is not None else end
        kept.append(
            {
                "id": chapter["id"],
                "start": max(0, round((start + shift) / base)),
                "end": max(0, round((end + shift) / base)),
                "time_base": base,
                "metadata": dict(chapter.get("metadata") or {}),
            }
        )
    return kept


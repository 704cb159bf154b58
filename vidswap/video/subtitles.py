"""Text subtitles between the containers: MP4 holds timed text, Matroska SubRip, WebM WebVTT."""

from __future__ import annotations

import re
from typing import Any

import av

# What the encoders want to know about styles before they open; nothing of it reaches the packets.
_HEADER = (
    "[Script Info]\r\nScriptType: v4.00+\r\n\r\n[V4+ Styles]\r\n"
    "Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, "
    "Bold, Italic, Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, "
    "Shadow, Alignment, MarginL, MarginR, MarginV, Encoding\r\n"
    "Style: Default,Sans,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1\r\n"
    "\r\n[Events]\r\n"
    "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\r\n"
)
_CODECS = {"mp4": "mov_text", "mov": "mov_text", "matroska": "subrip", "webm": "webvtt"}
_READABLE = frozenset({"subrip", "text", "webvtt", "mov_text", "ass", "ssa"})


def convertible(codec: str, muxer: str) -> str | None:
    """Name of the container's own text codec that a subtitle can become, else None."""
    return _CODECS.get(muxer) if codec in _READABLE else None


def add_text_stream(container: Any, codec: str, time_base: Any) -> Any:
    """A subtitle stream of one of the containers' text codecs, ready for packets."""
    stream = container.add_stream(codec)
    stream.codec_context.subtitle_header = _HEADER.encode()
    stream.codec_context.time_base = stream.time_base = time_base
    return stream


def plain_text(payload: bytes, codec: str) -> str:
    """The words of a subtitle packet, without styles."""
    if codec == "mov_text":
        length = int.from_bytes(payload[:2], "big")
        return payload[2 : 2 + length].decode("utf-8", "replace")
    text = payload.decode("utf-8", "replace")
    if codec in ("ass", "ssa"):
        text = text.split(",", 8)[-1]
        text = re.sub(r"\{[^}]*\}", "", text).replace("\\N", "\n").replace("\\n", "\n")
        return text.replace("\\h", " ")
    return re.sub(r"</?[a-zA-Z][^>]*>", "", text)


def converted(packet: Any, source: str, target: str) -> Any | None:
    """A packet of another text codec with the same words and times; None when it says nothing."""
    text = plain_text(bytes(packet), source).strip("\r\n\0")
    if not text:
        return None
    payload = text.encode()
    if target == "mov_text":
        payload = len(payload).to_bytes(2, "big") + payload
    changed = av.Packet(payload)
    changed.time_base = packet.time_base
    changed.pts, changed.dts, changed.duration = packet.pts, packet.dts, packet.duration
    changed.is_keyframe = True
    return changed

"""Targets in, clips out: the only room that uses PyAV and decord."""

from __future__ import annotations

from vidswap.video.images import read_image, write_image
from vidswap.video.preview import display_rgb, read_rgb8
from vidswap.video.probe import StreamInfo, VideoInfo, probe
from vidswap.video.reader import FrameReader, open_frames
from vidswap.video.regions import read_region, write_region

__all__ = [
    "FrameReader",
    "StreamInfo",
    "VideoInfo",
    "display_rgb",
    "open_frames",
    "probe",
    "read_image",
    "read_region",
    "read_rgb8",
    "write_image",
    "write_region",
]

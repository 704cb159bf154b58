"""Targets in, clips out: the only room that uses PyAV and decord."""

from __future__ import annotations

from vidswap.video.grab import grab_frame
from vidswap.video.images import pictures_in, read_image, write_image
from vidswap.video.outputs import check_output, output_kind, real_folder
from vidswap.video.preview import display_rgb, read_rgb8
from vidswap.video.probe import StreamInfo, VideoInfo, probe
from vidswap.video.reader import FrameReader, open_frames
from vidswap.video.regions import read_region, write_region
from vidswap.video.remux import count_packets, remux, try_streams
from vidswap.video.stills_out import (
    FolderWriter,
    GifWriter,
    ImageWriter,
    PackedWriter,
    count_packed,
    open_writer,
    publish_folder,
    unpack_pictures,
)
from vidswap.video.writer import VideoWriter

__all__ = [
    "FolderWriter",
    "FrameReader",
    "GifWriter",
    "ImageWriter",
    "PackedWriter",
    "StreamInfo",
    "VideoInfo",
    "VideoWriter",
    "check_output",
    "count_packed",
    "count_packets",
    "display_rgb",
    "grab_frame",
    "open_frames",
    "open_writer",
    "output_kind",
    "pictures_in",
    "probe",
    "publish_folder",
    "read_image",
    "real_folder",
    "read_region",
    "read_rgb8",
    "remux",
    "try_streams",
    "unpack_pictures",
    "write_image",
    "write_region",
]

"""Outputs that are pictures: GIF, one image, a folder of images."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import av.filter
import numpy as np
from PIL import Image

from vidswap.cache import fsync_folder
from vidswap.config import VideoConfig
from vidswap.errors import OutputError, UsageError
from vidswap.records import Frame
from vidswap.video.container import file_url
from vidswap.video.images import StillTags, still_tags_of, write_image
from vidswap.video.outputs import PartialOutput, output_errors, output_kind
from vidswap.video.preview import read_rgb8
from vidswap.video.probe import VideoInfo
from vidswap.video.writer import VideoWriter

_GIF_TIME_BASE = Fraction(1, 100)


class GifWriter(PartialOutput):
    """An animated GIF: a palette of its own for each frame, times to 1/100 s.

    The picture is written as it is shown: upright and with square pixels.
    """

    def __init__(self, path: str | os.PathLike[str], info: VideoInfo) -> None:
        super().__init__(path)
        self.info = info
        self._container: Any = None
        self._graph: Any = None
        self._first: int | None = None
        self._last_tick = -1
        self._pending: Any = None
        with output_errors(self.path):
            self.part.touch()

    def write(self, frame: Frame) -> None:
        """Add one frame; frames nearer than 1/100 s to the one before are left out."""
        with output_errors(self.path):
            native = _gif_source(frame)
            if self._container is None:
                self._open(native)
            self._first = frame.pts if self._first is None else self._first
            tick = round((frame.pts - self._first) * frame.time_base / _GIF_TIME_BASE)
            self.frames_written += 1
            if tick <= self._last_tick:
                if not self.warnings:
                    self.warnings.append("GIF holds at most 100 frames a second; some are left out")
                return
            self._last_tick = tick
            native.pts, native.time_base = tick, _GIF_TIME_BASE
            self._graph.push(native)
            self._drain(frame.duration or self.info.nominal_step)

    def _open(self, native: Any) -> None:
        self._container = av.open(file_url(self.part), "w", format="gif")
        stream = self._container.add_stream("gif", rate=self.info.average_rate or 25)
        stream.width, stream.height, stream.pix_fmt = native.width, native.height, "pal8"
        stream.time_base = stream.codec_context.time_base = _GIF_TIME_BASE
        self._stream = stream
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=native.width, height=native.height, format=native.format, name="in",
            time_base=_GIF_TIME_BASE,
        )  # fmt: skip
        split = graph.add("split")
        generate = graph.add("palettegen", "stats_mode=single")
        use = graph.add("paletteuse", "new=1:dither=sierra2_4a")
        sink = graph.add("buffersink")
        source.link_to(split)
        split.link_to(generate, 0, 0)
        split.link_to(use, 1, 0)
        generate.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()
        self._graph = graph

    def _drain(self, duration: int) -> None:
        while True:
            try:
                picture = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            picture.pict_type = 0
            ticks = max(1, round(duration * self.info.time_base / _GIF_TIME_BASE))
            for packet in self._stream.encode(picture):
                packet.duration = ticks
                self._container.mux_one(packet)

    def _finish(self) -> None:
        if self._container is None:
            raise OutputError(f"no frame was written to {self.path}; nothing to keep")
        self._graph.push(None)
        self._drain(self.info.nominal_step)
        self._container.mux(self._stream.encode(None))
        self._container.close()
        self._container = None

    def _abandon(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            container.close()


def _gif_source(frame: Frame) -> Any:
    """The shown picture as an RGB(A) frame of the media library."""
    if frame.layout.name in ("rgba", "bgra") and frame.display_size_wh == frame.size_wh:
        order = [frame.layout.name.index(channel) for channel in "rgba"]
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.planes[0][..., order]), "rgba")
    return av.VideoFrame.from_ndarray(read_rgb8(frame)[0], "rgb24")


class ImageWriter(PartialOutput):
    """One still image."""

    def __init__(self, path: str | os.PathLike[str], info: VideoInfo) -> None:
        super().__init__(path)
        if info.kind != "image":
            raise UsageError(
                f"the output {self.path.name} is one picture, the target is a clip; "
                "name a video or a folder"
            )
        self.source = info.path

    def write(self, frame: Frame) -> None:
        """Write the picture.

        :raises UsageError: a second frame came.
        """
        if self.frames_written:
            raise UsageError(f"the output {self.path.name} holds one picture; name a folder")
        with output_errors(self.path):
            write_image(frame, self.part, tags=still_tags_of(self.source))
        self.frames_written = 1

    def _finish(self) -> None:
        if not self.frames_written:
            raise OutputError(f"no frame was written to {self.path}; nothing to keep")


class FolderWriter(PartialOutput):
    """A folder of PNG images: numbered, or named as in the folder they came from."""

    is_folder = True

    def __init__(self, path: str | os.PathLike[str], info: VideoInfo) -> None:
        super().__init__(path)
        self.info = info
        stems = {file.stem for file in info.files}
        self._unique_stems = len(stems) == len(info.files)
        with output_errors(self.path):
            shutil.rmtree(self.part, ignore_errors=True)
            self.part.mkdir()

    def write(self, frame: Frame) -> None:
        """Write one frame as an image."""
        name, tags = f"frame_{frame.index:06d}.png", StillTags()
        if self.info.files and 0 <= frame.pts < len(self.info.files):
            file = self.info.files[frame.pts]
            name = (file.stem if self._unique_stems else file.name) + ".png"
            tags = still_tags_of(file)
        elif self.info.kind == "image":
            tags = still_tags_of(self.info.path)
        with output_errors(self.path):
            write_image(frame, self.part / name, tags=tags)
        self.frames_written += 1

    def _publish(self) -> None:
        publish_folder(self.part, self.path)

    def _finish(self) -> None:
        if not self.frames_written:
            raise OutputError(f"no frame was written to {self.path}; nothing to keep")


class PackedWriter(FolderWriter):
    """A stretch of a folder of images as one file (ZIP, not compressed), for runs in chunks."""

    def _publish(self) -> None:
        packed = self.part.with_name(self.part.name + ".zip")
        try:
            with zipfile.ZipFile(packed, "w") as archive:
                for image in sorted(self.part.iterdir()):
                    # Without the time of the file, so that the same pictures give the same bytes.
                    archive.writestr(zipfile.ZipInfo(image.name), image.read_bytes())
            os.replace(packed, self.path)
        finally:
            packed.unlink(missing_ok=True)
        shutil.rmtree(self.part, ignore_errors=True)


def count_packed(path: Path) -> int:
    """Pictures in a file of :class:`PackedWriter`, every one decoded; -1 where one is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with Image.open(io.BytesIO(archive.read(name)), formats=("PNG",)) as image:
                    image.load()
            return len(archive.namelist())
    except (OSError, SyntaxError, ValueError, zipfile.BadZipFile):
        return -1


def unpack_pictures(pieces: Sequence[Path], folder: Path) -> int:
    """Put the pictures of all pieces into a new folder; how many there are.

    :param folder: what is there from an earlier try is removed.
    :raises OutputError: the disk is full, or a piece is damaged.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with output_errors(folder):
        folder.mkdir()
        for piece in pieces:
            try:
                with zipfile.ZipFile(piece) as archive:
                    for name in archive.namelist():
                        (folder / Path(name).name).write_bytes(archive.read(name))
            except zipfile.BadZipFile as error:
                raise OutputError(f"{piece} was damaged; check the disk and run the command again") from error
        return sum(1 for _ in folder.iterdir())


def publish_folder(made: Path, path: Path) -> None:
    """Give a finished folder its name: at once, or picture by picture where a filled one is there.

    :raises OutputError: the system refuses.
    """
    path = Path(path)
    with output_errors(path):
        for image in made.iterdir():
            with open(image, "rb") as file:
                os.fsync(file.fileno())
        if not path.is_dir() or not any(path.iterdir()):
            os.replace(made, path)
        else:
            for image in sorted(made.iterdir()):
                os.replace(image, path / image.name)
            made.rmdir()
        fsync_folder(path)
        fsync_folder(path.absolute().parent)


def open_writer(
    path: str | os.PathLike[str], info: VideoInfo, config: VideoConfig | None = None
) -> VideoWriter | GifWriter | ImageWriter | FolderWriter:
    """The writer for an output, by its name; use it in a ``with`` block.

    A video is written without the target's other streams: see :func:`vidswap.video.remux`.

    :param path: ``.mp4``, ``.mov``, ``.mkv``, ``.webm``; ``.gif``; a still image's suffix; or a
        folder (exists, ends in a slash, or has no suffix).
    :raises UsageError: the kind is not known or does not fit the target.
    """
    config = config or VideoConfig()
    kind = output_kind(path)
    if kind == "gif":
        return GifWriter(path, info)
    if kind == "image":
        return ImageWriter(path, info)
    if kind == "folder":
        return FolderWriter(path, info)
    return VideoWriter(
        path, info, codec=config.codec, crf=config.crf, encoder_preset=config.encoder_preset,
        pix_fmt=config.pix_fmt,
    )  # fmt: skip

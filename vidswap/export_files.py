"""Files of an export, written as the frames come: memory does not grow with the clip (composer level)."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from vidswap.config import VideoConfig
from vidswap.geometry import quad_box
from vidswap.records import FloatArray, Frame, PixelLayout
from vidswap.video import VideoInfo, open_writer
from vidswap.warp import paste_sample

_NAMES = {"int64": "I64", "float32": "F32"}
_MASK_LAYOUT = PixelLayout("gray", 8, (0, 0), False, False, "pc", "bt709")


@dataclass(frozen=True)
class Column:
    """One tensor of a table; rows are added one at a time."""

    name: str
    dtype: str
    """``int64`` or ``float32``."""
    shape: tuple[int, ...] = ()
    """Of one row."""


class TensorTable:
    """Tensors whose first axis grows, spooled to disk and put together as safetensors in the end.

    :param path: ``NAME.safetensors``; spools lie beside it until :meth:`finish`.
    :param columns: int64 ones first, so that all data lies at multiples of its size.
    """

    def __init__(self, path: Path, columns: Sequence[Column]) -> None:
        self.path = path
        self.columns = tuple(columns)
        self.rows = 0
        self._spools: dict[str, BinaryIO] = {}
        for column in self.columns:
            self._spools[column.name] = open(self._spool(column), "wb")  # noqa: SIM115 - closed below

    def append(self, **values: Any) -> None:
        """Add one row; a value for each column.

        :raises ValueError: a column is missing, or a value has another shape.
        """
        if set(values) != set(self._spools):
            raise ValueError(f"row: expected {sorted(self._spools)}, got {sorted(values)}")
        made = {}
        for column in self.columns:
            array = np.asarray(values[column.name], np.dtype(column.dtype).newbyteorder("<"))
            if array.shape != column.shape:
                raise ValueError(f"{column.name}: expected {column.shape}, got {array.shape}")
            made[column.name] = array.tobytes()
        for name, data in made.items():
            self._spools[name].write(data)
        self.rows += 1

    def finish(self, metadata: Mapping[str, str], *, npz: bool = False) -> list[Path]:
        """Write the file (and ``NAME.npz`` with the same tensors), remove the spools."""
        self.close()
        header: dict[str, Any] = {"__metadata__": dict(metadata)}
        start = 0
        for column in self.columns:
            shape = [self.rows, *column.shape]
            size = int(np.prod(shape)) * np.dtype(column.dtype).itemsize
            header[column.name] = {
                "dtype": _NAMES[column.dtype], "shape": shape, "data_offsets": [start, start + size],
            }  # fmt: skip
            start += size
        text = json.dumps(header, separators=(",", ":")).encode("utf-8")
        text += b" " * (-len(text) % 8)
        with open(self.path, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for column in self.columns:
                with open(self._spool(column), "rb") as spool:
                    shutil.copyfileobj(spool, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        made = [self.path]
        if npz:
            made.append(self._write_npz(metadata))
        for column in self.columns:
            self._spool(column).unlink()
        return made

    def _write_npz(self, metadata: Mapping[str, str]) -> Path:
        path = self.path.with_suffix(".npz")
        arrays: dict[str, Any] = {}
        for column in self.columns:
            shape = (self.rows, *column.shape)
            dtype = np.dtype(column.dtype).newbyteorder("<")
            # Mapped, not read: a long clip's codes need not fit into memory.
            arrays[column.name] = (
                np.memmap(self._spool(column), dtype, "r", shape=shape)
                if self.rows else np.zeros(shape, dtype)
            )  # fmt: skip
        np.savez(path, metadata=np.array(json.dumps(dict(metadata))), **arrays)
        return path

    def close(self) -> None:
        """Close the spools; safe to call again."""
        for spool in self._spools.values():
            spool.close()

    def _spool(self, column: Column) -> Path:
        return self.path.with_name(f".{self.path.stem}-{column.name}.spool")


class JsonLines:
    """One JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._file: io.TextIOBase = open(path, "w", encoding="utf-8", newline="\n")  # noqa: SIM115

    def append(self, row: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(row, separators=(",", ":"), allow_nan=False) + "\n")
        self.rows += 1

    def close(self) -> None:
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()


def rounded(array: np.ndarray, digits: int = 3) -> list[Any]:
    """Nested lists of numbers with so many digits after the point."""
    return np.round(np.asarray(array, np.float64), digits).tolist()


def write_png(path: Path, picture: FloatArray) -> None:
    """``[H, W]`` or ``[H, W, 3]`` in [0, 1] as an 8-bit PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
    Image.fromarray(samples).save(path, compress_level=3)


def frame_mask(mask: FloatArray, quad: np.ndarray, frame: Frame) -> FloatArray:
    """A crop's mask ``[S, S]`` at the pixels of the frame, ``[H, W]`` upright, stored pixels.

    The very sampling of paste-back, so that a swap and its mask agree.
    """
    width, height = frame.upright_size_wh
    whole = np.zeros((height, width), np.float32)
    stored = np.asarray(quad, np.float64) / frame.display_scale_xy
    box = quad_box(stored, (width, height), margin=1)
    if box is not None:
        pixels, coverage = paste_sample(mask, stored, box, mode="bilinear")
        left, top, right, bottom = box
        whole[top:bottom, left:right] = pixels[..., 0] * coverage
    return whole


@dataclass
class MaskVideo:
    """The masks of all faces together as lossless FFV1, a picture for every frame of the clip."""

    path: Path
    info: VideoInfo
    _writer: Any = field(default=None, init=False)

    def append(self, frame: Frame, masks: Sequence[FloatArray]) -> None:
        """:param masks: ``[H, W]`` in [0, 1] of the frame's faces."""
        if self._writer is None:
            self._open(frame)
        width, height = self._size_wh
        plane = np.zeros((height, width), np.uint8)
        for mask in masks:
            if mask.shape == plane.shape:
                plane = np.maximum(plane, (mask * 255 + 0.5).astype(np.uint8))
        self._writer.write(
            replace(
                frame, layout=_MASK_LAYOUT, planes=(plane,), size_wh=(width, height), rotation=0,
                sample_aspect_ratio=self._ratio, native=None,
            )
        )  # fmt: skip

    def _open(self, frame: Frame) -> None:
        self._size_wh = frame.upright_size_wh
        ratio = frame.sample_aspect_ratio or Fraction(1)
        self._ratio = 1 / ratio if frame.rotation in (90, 270) else ratio
        info = replace(
            self.info, size_wh=self._size_wh, rotation=0, display_matrix=None, layout=_MASK_LAYOUT,
            sample_aspect_ratio=self._ratio, color_codes=(2, 2, 2, 2), hdr_metadata={},
        )  # fmt: skip
        self._writer = open_writer(self.path, info, VideoConfig(codec="ffv1", pix_fmt="gray"))

    def close(self) -> None:
        """Finish the file; a clip without frames gives none."""
        if self._writer is not None:
            self._writer.close()

    def discard(self) -> None:
        if self._writer is not None:
            self._writer.discard()


def all_files(folder: Path) -> Iterator[Path]:
    """Files below a folder, in a stable order."""
    yield from sorted(path for path in folder.rglob("*") if path.is_file())


class NewFolder:
    """A folder that gets its name only when it is whole; leaving by an exception removes it.

    :param path: absent, empty, or (with ``force``) to be replaced as a whole.
    """

    def __init__(self, path: Path, temporary: Path) -> None:
        self.path = path
        self.temporary = temporary

    def __enter__(self) -> Path:
        self.temporary.mkdir()
        return self.temporary

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            shutil.rmtree(self.temporary, ignore_errors=True)
            return
        if self.path.is_dir() and any(self.path.iterdir()):
            old = self.temporary.with_name(f"{self.temporary.name}-old")
            os.replace(self.path, old)
            os.replace(self.temporary, self.path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(self.temporary, self.path)

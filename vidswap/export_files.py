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
import torch
from PIL import Image

from vidswap.config import VideoConfig
from vidswap.geometry import quad_box
from vidswap.identities import to_tensor
from vidswap.parquet_rows import LandmarkRows
from vidswap.records import FloatArray, Frame, PixelLayout
from vidswap.session import Session
from vidswap.video import VideoInfo, open_writer
from vidswap.warp import paste_sample
from vidswap.works import FaceWork, Work

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


_INDEX = (Column("pts", "int64"), Column("frame", "int64"), Column("track", "int64"))


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
        part = pixels[..., 0]
        whole[top:bottom, left:right] = part if coverage is None else part * coverage
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


class ExportFiles:
    """The open files of an export."""

    def __init__(
        self,
        folder: Path,
        kinds: frozenset[str],
        mask_format: str,
        info: VideoInfo,
        session: Session,
        parquet: Mapping[str, str] | None = None,
    ) -> None:
        """:param parquet: metadata of landmarks that are to be Parquet; None: they are JSON lines."""
        self.folder = folder
        self.kinds = kinds
        self.session = session
        self.index = JsonLines(folder / "frames.jsonl")
        self.lines: dict[str, JsonLines | LandmarkRows] = {
            kind: JsonLines(folder / f"{kind}.jsonl")
            for kind in ("landmarks", "quads")
            if kind in kinds and not (kind == "landmarks" and parquet is not None)
        }
        if "landmarks" in kinds and parquet is not None:
            self.lines["landmarks"] = LandmarkRows(folder / "landmarks.parquet", parquet)
        self.tables: dict[str, TensorTable] = {}
        if "latents" in kinds:
            codes = Column("codes", "float32", (session.generator.n_styles, 512))
            self.tables["latents"] = TensorTable(
                folder / "latents.safetensors", (*_INDEX, codes, Column("error", "float32"))
            )
        if "embeddings" in kinds:
            self.tables["embeddings"] = TensorTable(
                folder / "embeddings.safetensors", (*_INDEX, Column("embeddings", "float32", (128,)))
            )
        in_video = "masks" in kinds and mask_format == "ffv1"
        self.video = MaskVideo(folder / "masks.mkv", info) if in_video else None

    def append(self, work: Work) -> None:
        """Write what is wanted of one frame."""
        frame = work.frame
        self.index.append(
            {
                "frame": frame.index, "pts": frame.pts, "seconds": round(frame.pts_seconds, 6),
                "shot": work.shot, "tracks": [face.face.track_id for face in work.faces],
            }
        )  # fmt: skip
        for face in work.faces:
            self._lines(face, frame)
            self._tables(face, frame)
            if "crops" in self.kinds:
                write_png(self._picture("crops", face, frame), face.crop.image)
        if "masks" in self.kinds:
            masks = [frame_mask(face.solid, face.quad, frame) for face in work.faces]
            if self.video is not None:
                self.video.append(frame, masks)
            else:
                for face, mask in zip(work.faces, masks, strict=True):
                    write_png(self._picture("masks", face, frame), mask)

    def _lines(self, face: FaceWork, frame: Frame) -> None:
        found = face.face
        row: dict[str, Any] = {"frame": frame.index, "pts": frame.pts, "track": found.track_id}
        if "quads" in self.lines:
            self.lines["quads"].append({**row, "quad": rounded(face.quad)})
        if "landmarks" in self.lines:
            self.lines["landmarks"].append(
                {
                    **row,
                    "score": round(float(found.score), 4),
                    "box": rounded(found.box_xyxy),
                    "keypoints": rounded(found.keypoints_xy),
                    "mesh": None if found.mesh_xyz is None else rounded(found.mesh_xyz),
                    "iris": None if found.iris_xy is None else rounded(found.iris_xy),
                }
            )

    def _tables(self, face: FaceWork, frame: Frame) -> None:
        row = {"pts": frame.pts, "frame": frame.index, "track": face.face.track_id}
        if "latents" in self.tables:
            self.tables["latents"].append(**row, codes=face.pivot.latent, error=face.pivot.error)
        if "embeddings" in self.tables:
            with torch.no_grad():
                image = to_tensor(face.crop.image, self.session.device)
                embedding = self.session.identity.embed_aligned(image)[0].cpu().numpy()
            self.tables["embeddings"].append(**row, embeddings=embedding)

    def _picture(self, kind: str, face: FaceWork, frame: Frame) -> Path:
        return self.folder / kind / f"track-{face.face.track_id}" / f"{frame.index:06d}.png"

    def finish(self, metadata: dict[str, str], *, npz: bool) -> None:
        """Close everything and put the tables together."""
        for lines in self._all_lines():
            lines.close()
        for kind, table in self.tables.items():
            own = {"format": f"vidswap-{kind}", **metadata}
            table.finish(own, npz=npz and kind == "latents")
        if self.video is not None:
            self.video.close()
            self.video = None

    def abandon(self) -> None:
        """Let go of what is still open; without effect after :meth:`finish`."""
        for lines in self._all_lines():
            lines.close()
        for table in self.tables.values():
            table.close()
        if self.video is not None:
            self.video.discard()

    def _all_lines(self) -> Iterator[JsonLines | LandmarkRows]:
        yield self.index
        yield from self.lines.values()


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
        try:
            if kind is None:
                self._publish()
        finally:
            shutil.rmtree(self.temporary, ignore_errors=True)

    def _publish(self) -> None:
        if self.path.is_dir() and any(self.path.iterdir()):
            old = self.temporary.with_name(f"{self.temporary.name}-old")
            os.replace(self.path, old)
            os.replace(self.temporary, self.path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(self.temporary, self.path)

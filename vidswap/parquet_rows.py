"""Landmarks of an export as Parquet, in the columns that the JSON lines have (composer level).

Parquet is written by pyarrow, which vidswap does not ask for: ``pip install pyarrow``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidswap.errors import UsageError

_ROWS_A_GROUP = 512


def require_pyarrow() -> None:
    """:raises UsageError: pyarrow is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise UsageError("--format parquet needs pyarrow: pip install pyarrow, or use jsonl") from error


class LandmarkRows:
    """``landmarks.parquet``, a row a face, written a group of rows at a time.

    Columns: ``frame``, ``pts``, ``track`` int64, ``score`` float32, ``box`` float32 x 4, ``keypoints``
    5 x 2, ``mesh`` 468 x 3 and ``iris`` 2 x 5 x 2 as nested lists of float32, the last two null where there
    is none. The file's metadata are those of the tables, ``format`` is ``vidswap-landmarks``.
    """

    def __init__(self, path: Path, metadata: Mapping[str, str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        points = pa.list_(pa.list_(pa.float32()))
        integers = [pa.field(name, pa.int64()) for name in ("frame", "pts", "track")]
        self._schema = pa.schema(
            [
                *integers, pa.field("score", pa.float32()), pa.field("box", pa.list_(pa.float32())),
                pa.field("keypoints", points), pa.field("mesh", points), pa.field("iris", pa.list_(points)),
            ],
            metadata={"format": "vidswap-landmarks", **metadata},
        )  # fmt: skip
        self._table = pa.Table
        self._writer: Any = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._waiting: list[Mapping[str, Any]] = []
        self.rows = 0

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row, as :class:`vidswap.export_files.JsonLines` takes it."""
        self._waiting.append(row)
        self.rows += 1
        if len(self._waiting) >= _ROWS_A_GROUP:
            self._write()

    def _write(self) -> None:
        if self._waiting:
            self._writer.write_table(self._table.from_pylist(self._waiting, self._schema))
            self._waiting = []

    def close(self) -> None:
        """Write what is left; safe to call again."""
        if self._writer is not None:
            self._write()
            self._writer.close()
            self._writer = None

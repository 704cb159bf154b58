"""Weights files that are damaged, or that run code when they are read carelessly.

The code only leaves a file named EXECUTED in the working folder, so that a test can see it.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from fault_files import Pictures, case

MARK = "EXECUTED"
_STAMP = (2020, 1, 1, 0, 0, 0)


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return open, (MARK, "w")


def _zipped(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, _STAMP), data, zipfile.ZIP_DEFLATED)


def _tensors() -> bytes:
    return save({"weight": np.arange(4096, dtype=np.float32)})


@case(57, "57_truncated.safetensors", "weights cut in half", "refused; nothing runs", 5)
def _truncated(path: Path, pictures: Pictures) -> None:
    path.write_bytes(_tensors()[:8000])


@case(58, "58_altered.safetensors", "weights with one bit flipped", "refused by the hash", 5)
def _altered(path: Path, pictures: Pictures) -> None:
    data = bytearray(_tensors())
    data[9000] ^= 1
    path.write_bytes(data)


@case(59, "59_runs_code.pt", "a .pt that runs code", "refused; nothing runs", 5)
def _runs_code(path: Path, pictures: Pictures) -> None:
    pickled = pickle.dumps({"weight": _Evil()}, protocol=2)
    _zipped(path, {"archive/data.pkl": pickled, "archive/version": b"3\n"})


@case(60, "60_generator.pkl", "a generator's .pkl that runs code", "refused; nothing runs", 5)
def _generator(path: Path, pictures: Pictures) -> None:
    path.write_bytes(pickle.dumps({"G_ema": _Evil(), "training_set_kwargs": {}}, protocol=4))


@case(61, "61_outside.onnx", "ONNX data outside of its folder", "refused; nothing outside read", 5)
def _outside(path: Path, pictures: Pictures) -> None:
    # ModelProto.graph (7) . initializer (5): dims 1, float, name, external_data (13), EXTERNAL (14)
    def field(number: int, data: bytes) -> bytes:
        return _varint(number << 3 | 2) + _varint(len(data)) + data

    location = field(1, b"location") + field(2, b"../../../../etc/hostname")
    tensor = _varint(1 << 3) + _varint(1) + _varint(2 << 3) + _varint(1)
    tensor += field(8, b"weight") + field(13, location) + _varint(14 << 3) + _varint(1)
    path.write_bytes(_varint(1 << 3) + _varint(8) + field(7, field(2, b"g") + field(5, tensor)))


def _varint(value: int) -> bytes:
    out = io.BytesIO()
    while value > 127:
        out.write(bytes([value & 127 | 128]))
        value >>= 7
    out.write(bytes([value]))
    return out.getvalue()


@case(62, "62_bomb.pt", "a .pt of 1 GB packed into 1 MB", "refused by the sum of its sizes", 5)
def _bomb(path: Path, pictures: Pictures) -> None:
    pickled = pickle.dumps({}, protocol=2)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("archive/data.pkl", _STAMP), pickled)
        info = zipfile.ZipInfo("archive/data/0", _STAMP)
        info.compress_type = zipfile.ZIP_DEFLATED
        block = bytes(1 << 20)
        with archive.open(info, "w", force_zip64=True) as stream:
            for _ in range(1 << 10):
                stream.write(block)

"""Writing safetensors files, byte for byte the same every time.

The library's own writer keeps metadata in a hash map, so two writings of the same tensors
may differ; a catalogue that pins the finished file by hash needs one order. The format is
eight bytes of header length, a JSON header, then the data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}


def to_safetensors(
    tensors: Mapping[str, NDArray[np.generic]], metadata: Mapping[str, str] | None = None
) -> bytes:
    """Serializes arrays of any shape; the result depends on names and values alone.

    Raises:
        ValueError: a dtype that the format does not know, or a reserved name.
    """
    header: dict[str, object] = {}
    if metadata:
        header["__metadata__"] = {key: str(metadata[key]) for key in sorted(metadata)}
    blobs: list[bytes] = []
    offset = 0
    # Widest elements first keep every tensor aligned to its own element size.
    for name in sorted(tensors, key=lambda key: (-tensors[key].dtype.itemsize, key)):
        array = tensors[name]
        dtype = _DTYPES.get(array.dtype.name)
        if dtype is None or name == "__metadata__":
            raise ValueError(f"tensor {name!r}: cannot store dtype {array.dtype} under this name")
        data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [offset, offset + len(data)],
        }
        offset += len(data)
        blobs.append(data)
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, *blobs))

"""ONNX files may keep tensors in other files, named by a path inside the model.

A runtime opens that path as it stands, so a model can read any file of the user's. Before a
user's model goes to a runtime, :func:`check_onnx` walks its Protocol Buffers message (wire
format only, no ``onnx`` package) and refuses every path that leaves the model's folder.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from vidswap.errors import WeightsError

_MAX_DEPTH = 64

# Fields of onnx.proto3 that lead to a TensorProto: message -> field number -> message.
_CHILDREN: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
}


def check_onnx(path: Path) -> list[Path]:
    """Checks the external data of an ONNX model.

    Returns:
        The files besides the model that it uses, each inside its folder.

    Raises:
        WeightsError: no ONNX file; or a path that is absolute, has ``..``, is or passes
            through a symbolic link, is a hard link to something else, is no plain file, or
            is shorter than the model says.
    """
    path = Path(path)
    try:
        data = memoryview(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}); check the path") from error
    try:
        entries = list(_external_entries(data, "Model", 0))
    except (ValueError, IndexError, RecursionError) as error:
        raise WeightsError(f"{path} is truncated or no ONNX model ({error})") from error
    used: list[Path] = []
    for location, offset, length in entries:
        found = _checked_location(path, location)
        size = found.stat().st_size
        if offset < 0 or length < 0 or offset + length > size:
            raise WeightsError(
                f"{path}: wants bytes {offset} to {offset + length} of {location!r}, "
                f"which has {size}; get the model again"
            )
        if found not in used:
            used.append(found)
    return used


def _checked_location(model: Path, location: str) -> Path:
    """The file that a location names, if it is one that the model may open."""

    def refuse(why: str) -> WeightsError:
        return WeightsError(f"{model}: external data {location!r} {why}; it was not opened")

    pure = PurePosixPath(location)
    # Rules of both systems on both: a model is made on one and opened on another.
    if not location or "\0" in location or "\\" in location:
        raise refuse("is no plain relative path")
    if pure.is_absolute() or PureWindowsPath(location).drive:
        raise refuse("is an absolute path")
    if ".." in pure.parts:
        raise refuse("leaves the model's folder")
    at = model.parent
    for part in pure.parts:
        at = at / part
        try:
            info = os.lstat(at)
        except OSError as error:
            raise refuse("is not there") from error
        if stat.S_ISLNK(info.st_mode):
            raise refuse("is a symbolic link")
    if not stat.S_ISREG(info.st_mode):
        raise refuse("is no plain file")
    if info.st_nlink != 1:
        raise refuse("is a hard link")
    return at


def _external_entries(data: memoryview, message: str, depth: int) -> Iterator[tuple[str, int, int]]:
    """Location, offset and length of all external tensors below a message."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"messages nested more than {_MAX_DEPTH} deep")
    children = _CHILDREN.get(message, {})
    offset = length = 0
    locations: list[str] = []
    for field, value in _fields(data):
        child = children.get(field)
        if child is None:
            continue
        if not isinstance(value, memoryview):
            raise ValueError(f"field {field} of {message} is no message")
        if child != "Entry":
            yield from _external_entries(value, child, depth + 1)
            continue
        key, text = _key_and_value(value)
        if key == "location":
            locations.append(text)
        elif key == "offset":
            offset = int(text)
        elif key == "length":
            length = int(text)
    # A key given twice is the reader's choice; all of them must be harmless.
    for location in locations:
        yield location, offset, length


def _key_and_value(data: memoryview) -> tuple[str, str]:
    found = {1: "", 2: ""}
    for field, value in _fields(data):
        if field in found and isinstance(value, memoryview):
            found[field] = bytes(value).decode("utf-8")
    return found[1], found[2]


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers and values of one Protocol Buffers message; numbers of fixed size as 0."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        field, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield field, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > len(data):
            raise ValueError("a field reaches beyond the end")
        yield field, data[at : at + size] if wire == 2 else 0
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes")

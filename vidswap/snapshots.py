"""States of stages as named arrays, exactly: what a killed run needs to go on (composer level).

Numbers survive bit for bit (floats as their hexadecimal spelling, arrays and tensors as they are),
and nothing is ever executed when a snapshot is read: only the records named here are made.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vidswap.cache import canonical_json
from vidswap.compositing import (
    ColorState,
    FrownState,
    HeldOcclusion,
    LidState,
    MotionState,
    TeethState,
)
from vidswap.faces.finder import FinderState, Followed
from vidswap.faces.track import Track
from vidswap.inversion import Correction, Hidden, WarmState
from vidswap.mixing import Response
from vidswap.records import Face, Pivot

Array = NDArray[Any]

_RECORDS = {
    kind.__name__: kind
    for kind in (
        ColorState, Correction, Face, FinderState, Followed, FrownState, HeldOcclusion, Hidden, LidState,
        MotionState, Pivot, Response, TeethState, Track, WarmState,
    )  # fmt: skip
}
_TREE = "tree"


def pack(value: Any) -> dict[str, Array]:
    """A value as arrays by name, for a safetensors file.

    :param value: None, booleans, numbers, strings, lists, tuples, dicts with any such keys, arrays,
        tensors, and the states of stages and finder.
    :raises TypeError: something else is in it, which would be lost.
    """
    arrays: dict[str, Array] = {}
    text = canonical_json(_tree(value, arrays))
    arrays[_TREE] = np.frombuffer(text.encode("ascii"), np.uint8).copy()
    return arrays


def unpack(arrays: Mapping[str, Array], device: torch.device) -> Any:
    """What :func:`pack` was given; tensors on ``device``.

    :raises ValueError: not a snapshot of this version.
    """
    import json

    try:
        tree = json.loads(arrays[_TREE].tobytes())
        return _value(tree, arrays, device)
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"not a snapshot of this version: {error}") from error


def squeeze(picture: NDArray[np.uint8]) -> dict[str, Any]:
    """A picture or map ``[h, w, ...]`` of 8 bits, to be kept in less room; exactly."""
    # Neighbours are alike: the differences along rows are mostly small.
    change = np.diff(picture, axis=1, prepend=np.zeros_like(picture[:, :1]))
    data = zlib.compress(np.moveaxis(change, 1, -1).tobytes(), 1)
    return {"shape": list(picture.shape), "zlib": np.frombuffer(data, np.uint8)}


def unsqueeze(kept: Mapping[str, Any]) -> NDArray[np.uint8]:
    """What :func:`squeeze` was given.

    :raises ValueError: it is something else.
    """
    height, width, *rest = kept["shape"]
    count = int(np.prod(kept["shape"]))
    data = zlib.decompressobj().decompress(kept["zlib"].tobytes(), count)
    if len(data) != count:
        raise ValueError(f"expected {count} samples, got {len(data)}")
    change = np.frombuffer(data, np.uint8).reshape(height, *rest, width)
    return np.ascontiguousarray(np.moveaxis(np.cumsum(change, -1, dtype=np.uint8), -1, 1))


def _tree(value: Any, arrays: dict[str, Array]) -> Any:
    if value is None or isinstance(value, (bool, str)) or type(value) is int:
        return value
    if isinstance(value, float):
        return {"float": float(value).hex()}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_tree(item, arrays) for item in value]}
    if isinstance(value, Mapping):
        return {"dict": [[_tree(k, arrays), _tree(v, arrays)] for k, v in value.items()]}
    if isinstance(value, torch.Tensor):
        return {"tensor": _keep(value.detach().cpu().numpy(), arrays)}
    if isinstance(value, np.generic):
        return {"scalar": _keep(np.asarray([value]), arrays)}
    if isinstance(value, np.ndarray):
        return {"array": _keep(value, arrays)}
    name = type(value).__name__
    if is_dataclass(value) and _RECORDS.get(name) is type(value):
        members = {f.name: _tree(getattr(value, f.name), arrays) for f in fields(value)}
        return {"record": [name, members]}
    raise TypeError(f"a state holds a {name}, which snapshots do not know")


def _keep(array: Array, arrays: dict[str, Array]) -> str:
    name = f"a{len(arrays)}"
    arrays[name] = np.array(array)  # a copy: the run goes on and may change its own
    return name


def _value(tree: Any, arrays: Mapping[str, Array], device: torch.device) -> Any:
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "float":
        return float.fromhex(content)
    if kind in ("list", "tuple"):
        items = [_value(item, arrays, device) for item in content]
        return items if kind == "list" else tuple(items)
    if kind == "dict":
        return {_value(k, arrays, device): _value(v, arrays, device) for k, v in content}
    if kind == "tensor":
        return torch.from_numpy(arrays[content]).to(device)
    if kind == "scalar":
        return arrays[content][0]
    if kind == "array":
        return arrays[content]
    name, members = content
    return _RECORDS[name](**{k: _value(v, arrays, device) for k, v in members.items()})

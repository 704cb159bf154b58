"""NVIDIA's StyleGAN pickles, read without the code that they carry.

StyleGAN2-ADA and StyleGAN3 (``torch_utils/persistence.py`` there) save every network as a call of
``_reconstruct_persistent_obj`` with the source text of its module, which the original loader
executes. Here the unpickler finds names in a fixed table and nowhere else: the call makes an
inert record that keeps the state and drops the source, ``EasyDict`` is a dictionary, and
torch's storages are read with ``weights_only=True``. A name outside the table ends the reading.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from vidswap.errors import WeightsError
from vidswap.weights.flatten import flatten


class _Refused(pickle.UnpicklingError):
    """A name that a file of weights has no business with."""


class _Record(dict):  # type: ignore[type-arg]
    """A network or dictionary of the file, as plain data."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, Mapping):
            self.update(state)


class _Ignored:
    """Takes the place of settings that are no tensors: numpy scalars and arrays, devices."""

    __slots__ = ()

    def __new__(cls, *_: Any) -> _Ignored:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


class _Call:
    """An allowed function. A pickle can set attributes of what it names, but not of this."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise _Refused("it tries to change a function")


def _reconstruct_persistent_obj(meta: Any) -> _Record:
    """Stands in for NVIDIA's function of this name: keeps the state, ignores the source."""
    if not isinstance(meta, Mapping):
        raise _Refused("a network without a description")
    state = meta.get("state")
    return _Record(state if isinstance(state, Mapping) else {})


def _bytes_of_protocol_2(text: Any, encoding: Any = "latin1") -> bytes:
    """Old pickles write bytes as a call of ``_codecs.encode``, with this encoding only."""
    if not isinstance(text, str) or encoding != "latin1":
        raise _Refused(f"a text in the encoding {encoding!r}")
    return text.encode("latin1")


def _storage_from_bytes(data: Any) -> Any:
    """Stands in for ``torch.storage._load_from_bytes``, which would unpickle anything."""
    if not isinstance(data, bytes):
        raise _Refused("a storage that is not bytes")
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _rebuild_tensor(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any = False,
    backward_hooks: Any = None,
    metadata: Any = None,
) -> torch.Tensor:
    """``torch._utils._rebuild_tensor_v2`` without hooks; torch checks the storage's bounds."""
    if not isinstance(storage, torch.storage.TypedStorage):
        raise _Refused("a tensor without a storage")
    tensor = torch.empty(0, dtype=storage.dtype)
    # Not storage.untyped(): the old class warns at every use, and users cannot act on it.
    return tensor.set_(storage._untyped_storage, int(offset), tuple(size), tuple(stride))


def _rebuild_parameter(data: Any, requires_grad: Any = False, hooks: Any = None) -> torch.Tensor:
    if not isinstance(data, torch.Tensor):
        raise _Refused("a parameter that is no tensor")
    return data


_DTYPES = {
    f"torch.{name}": getattr(torch, name)
    for name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool")
}

_ALLOWED: Mapping[str, object] = {
    "torch_utils.persistence._reconstruct_persistent_obj": _Call(_reconstruct_persistent_obj),
    "dnnlib.util.EasyDict": _Record,
    "dnnlib.EasyDict": _Record,
    "collections.OrderedDict": _Call(OrderedDict),
    "torch._utils._rebuild_tensor_v2": _Call(_rebuild_tensor),
    "torch._utils._rebuild_parameter": _Call(_rebuild_parameter),
    "torch.storage._load_from_bytes": _Call(_storage_from_bytes),
    "torch.Size": _Call(tuple),
    "_codecs.encode": _Call(_bytes_of_protocol_2),
    "builtins.set": _Call(set),
    "__builtin__.set": _Call(set),
    **dict.fromkeys(
        (
            "torch.device",
            "numpy.dtype",
            "numpy.ndarray",
            "numpy.core.multiarray.scalar",
            "numpy.core.multiarray._reconstruct",
            "numpy.core.numeric._frombuffer",
            "numpy._core.multiarray.scalar",
            "numpy._core.multiarray._reconstruct",
            "numpy._core.numeric._frombuffer",
        ),
        _Ignored,
    ),
    **_DTYPES,
}


class _InertUnpickler(pickle.Unpickler):
    """Knows the names of :data:`_ALLOWED` and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[f"{module}.{name}"]
        except KeyError:
            raise _Refused(f"it asks for {module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("it refers to objects outside of the file")


def read_stylegan_pickle(path: Path, *, max_bytes: int) -> dict[str, torch.Tensor]:
    """Tensors under the names that ``state_dict`` would give, after ``G``, ``D`` or ``G_ema``.

    Raises:
        WeightsError: truncated, damaged, too large, or asking for anything but StyleGAN's parts.
    """
    size = path.stat().st_size
    if size > max_bytes:
        raise WeightsError(f"{path} has {size} bytes, more than {max_bytes}: it was not opened")
    try:
        with open(path, "rb") as stream:
            root = _InertUnpickler(stream).load()
        return flatten(root, children=_children)
    except _Refused as error:
        raise WeightsError(
            f"{path} is no StyleGAN2-ADA or StyleGAN3 pickle: {error}; nothing of it was run"
        ) from error
    # A damaged pickle can raise nearly anything; none of it may reach the user as a traceback.
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise WeightsError(
            f"{path} is truncated or damaged ({(reason or [type(error).__name__])[0][:160]}); "
            "nothing of it was run"
        ) from error


def _children(value: Any) -> Iterable[tuple[Any, Any]]:
    """Named parts of a network or dictionary. Of a network, only what holds tensors."""
    if isinstance(value, _Record) and ("_parameters" in value or "_modules" in value):
        for part in ("_parameters", "_buffers", "_modules"):
            items = value.get(part) or {}
            if not isinstance(items, Mapping):
                raise _Refused(f"a network whose {part} is no dictionary")
            yield from items.items()
    elif isinstance(value, Mapping):
        yield from value.items()

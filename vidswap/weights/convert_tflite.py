"""TFLite flatbuffers to named tensors and a list of operators, read without TensorFlow.

The file format is a FlatBuffer: tables whose fields are found through a vtable of 16-bit
offsets. Only the part of the schema that float networks use is read; field numbers are those
of TensorFlow Lite's ``schema.fbs`` (version 3). Nothing in the file is executed, and every
offset is checked, so that a damaged file ends in a :class:`WeightsError`.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidswap.errors import WeightsError

GRAPH_VERSION = 1
"""Version of the ``graph`` metadata written by :func:`convert`."""

_DTYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype("<f4"), 1: np.dtype("<f2"), 2: np.dtype("<i4"), 3: np.dtype("u1"),
    4: np.dtype("<i8"), 6: np.dtype("?"), 7: np.dtype("<i2"), 9: np.dtype("i1"),
}  # fmt: skip
_OPERATORS = {
    0: "ADD", 1: "AVERAGE_POOL_2D", 2: "CONCATENATION", 3: "CONV_2D", 4: "DEPTHWISE_CONV_2D",
    6: "DEQUANTIZE", 9: "FULLY_CONNECTED", 14: "LOGISTIC", 17: "MAX_POOL_2D", 18: "MUL",
    19: "RELU", 21: "RELU6", 22: "RESHAPE", 23: "RESIZE_BILINEAR", 34: "PAD", 54: "PRELU",
}  # fmt: skip
_ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH")
_PADDINGS = ("SAME", "VALID")
Part = tuple[str, str]
"""Names of the tensors that a part of a graph begins and ends with."""

# Operator -> {attribute: (field number, struct format, default)}; letters p and a stand for a
# byte that names a padding and a fused activation.
_ATTRIBUTES: dict[str, dict[str, tuple[int, str, int]]] = {
    "CONV_2D": {
        "padding": (0, "p", 0), "stride_w": (1, "i", 0), "stride_h": (2, "i", 0),
        "activation": (3, "a", 0), "dilation_w": (4, "i", 1), "dilation_h": (5, "i", 1),
    },
    "DEPTHWISE_CONV_2D": {
        "padding": (0, "p", 0), "stride_w": (1, "i", 0), "stride_h": (2, "i", 0),
        "activation": (4, "a", 0), "dilation_w": (5, "i", 1), "dilation_h": (6, "i", 1),
    },
    "MAX_POOL_2D": {
        "padding": (0, "p", 0), "stride_w": (1, "i", 0), "stride_h": (2, "i", 0),
        "filter_w": (3, "i", 0), "filter_h": (4, "i", 0), "activation": (5, "a", 0),
    },
    "ADD": {"activation": (0, "a", 0)},
    "MUL": {"activation": (0, "a", 0)},
    "CONCATENATION": {"axis": (0, "i", 0), "activation": (1, "a", 0)},
    "FULLY_CONNECTED": {"activation": (0, "a", 0), "keep_dims": (2, "?", 0)},
    "RESIZE_BILINEAR": {"align_corners": (2, "?", 0), "half_pixel_centers": (3, "?", 0)},
}  # fmt: skip
_ATTRIBUTES["AVERAGE_POOL_2D"] = _ATTRIBUTES["MAX_POOL_2D"]


class _Table:
    """A FlatBuffer table at a byte position; fields by number."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data = data
        self.position = position
        self.vtable = position - self._read("i", position)
        if self.vtable < 0:
            raise WeightsError("vtable before the start of the file")
        self.vtable_bytes = self._read("H", self.vtable)

    def _read(self, kind: str, position: int) -> Any:
        if position < 0:
            raise WeightsError("offset before the start of the file")
        return struct.unpack_from("<" + kind, self.data, position)[0]

    def _field(self, number: int) -> int:
        """Byte position of a field; 0 when absent."""
        slot = 4 + 2 * number
        if slot + 2 > self.vtable_bytes:
            return 0
        offset = self._read("H", self.vtable + slot)
        return self.position + offset if offset else 0

    def scalar(self, number: int, kind: str, default: int = 0) -> Any:
        position = self._field(number)
        return self._read(kind, position) if position else default

    def _follow(self, position: int) -> int:
        return position + self._read("I", position)

    def table(self, number: int) -> _Table | None:
        position = self._field(number)
        return _Table(self.data, self._follow(position)) if position else None

    def raw_vector(self, number: int, item_bytes: int) -> tuple[int, int]:
        """Position of the first item and number of items; (0, 0) when absent."""
        position = self._field(number)
        if not position:
            return 0, 0
        start = self._follow(position)
        count = self._read("I", start)
        if start + 4 + count * item_bytes > len(self.data):
            raise WeightsError("a vector reaches beyond the end of the file")
        return start + 4, count

    def numbers(self, number: int, dtype: str) -> NDArray[Any]:
        kind = np.dtype(dtype)
        start, count = self.raw_vector(number, kind.itemsize)
        return np.frombuffer(self.data, kind, count, start)

    def tables(self, number: int) -> list[_Table]:
        start, count = self.raw_vector(number, 4)
        return [_Table(self.data, self._follow(start + 4 * i)) for i in range(count)]

    def text(self, number: int) -> str:
        start, count = self.raw_vector(number, 1)
        return self.data[start : start + count].decode("utf-8", "replace")


def _constant(tensor: _Table, buffers: list[_Table]) -> NDArray[Any] | None:
    """The values of a constant tensor in its stored shape; None for an activation."""
    index = tensor.scalar(2, "I")
    if index == 0:  # by convention the empty buffer of all activations
        return None
    if index >= len(buffers):
        raise WeightsError(f"buffer {index} of {len(buffers)}")
    raw = buffers[index].numbers(0, "u1")
    if raw.size == 0:
        return None
    code = tensor.scalar(1, "b")
    if code not in _DTYPES:
        raise WeightsError(f"tensor {tensor.text(3)!r} has the unsupported type {code}")
    if tensor.table(6) is not None:
        raise WeightsError(f"tensor {tensor.text(3)!r} is sparse; use the dense model")
    shape = tensor.numbers(0, "<i4").tolist()
    dtype = _DTYPES[code]
    if any(size < 0 for size in shape) or raw.size != dtype.itemsize * int(np.prod(shape)):
        raise WeightsError(f"tensor {tensor.text(3)!r}: {raw.size} bytes do not fill {shape}")
    array = raw.view(dtype).reshape(shape)
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise WeightsError(f"tensor {tensor.text(3)!r} holds NaN or infinity")
    return array.copy()


def _operator_name(code: _Table) -> str:
    # Old files hold the code in a byte (field 0); codes above 126 only fit field 3.
    number = max(code.scalar(0, "b"), code.scalar(3, "i"))
    if number not in _OPERATORS:
        raise WeightsError(f"operator code {number} {code.text(1)} is not supported")
    return _OPERATORS[number]


def _attributes(name: str, options: _Table | None) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    for key, (number, kind, default) in _ATTRIBUTES.get(name, {}).items():
        value: Any = default
        if options is not None:
            value = options.scalar(number, "b" if kind in "pa" else kind, default)
        if kind in "pa":
            names = _PADDINGS if kind == "p" else _ACTIVATIONS
            if not 0 <= value < len(names):
                raise WeightsError(f"{name}: unsupported {key} {value}")
            value = names[value]
        attributes[key] = value
    return attributes


def _read_model(data: bytes, part: Part | None) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    model = _Table(data, struct.unpack_from("<I", data, 0)[0])
    subgraphs = model.tables(2)
    if len(subgraphs) != 1:
        raise WeightsError(f"expected one subgraph, got {len(subgraphs)}")
    graph = subgraphs[0]
    codes = model.tables(1)
    buffers = model.tables(4)
    tensors = graph.tables(0)
    operators = graph.tables(3)
    ends = [graph.numbers(number, "<i4").tolist() for number in (1, 2)]
    if part is not None:
        names = [tensor.text(3) for tensor in tensors]
        ends = [[_named(names, name)] for name in part]
        operators = _between(operators, *ends)
    constants: dict[int, NDArray[Any]] = {}
    for index, tensor in enumerate(tensors):
        values = _constant(tensor, buffers)
        if values is not None:
            constants[index] = values

    ops: list[dict[str, Any]] = []
    for operator in operators:
        name = _operator_name(codes[operator.scalar(0, "I")])
        inputs = operator.numbers(1, "<i4").tolist()
        outputs = operator.numbers(2, "<i4").tolist()
        if any(not -1 <= i < len(tensors) for i in inputs + outputs):
            raise WeightsError(f"{name} refers to a tensor that is not there")
        if name == "DEQUANTIZE" and inputs[0] in constants:
            if constants[inputs[0]].dtype.kind != "f":
                raise WeightsError("integer-quantised weights are not supported")
            constants[outputs[0]] = constants[inputs[0]]  # fp16 storage, widened by the executor
            continue
        options = _attributes(name, operator.table(4))
        ops.append({"op": name, "inputs": inputs, "outputs": outputs, "attributes": options})

    used = {i for op in ops for i in op["inputs"] if i in constants}
    named = sorted({i for op in ops for i in op["inputs"] + op["outputs"] if i >= 0})
    layout = {
        "version": GRAPH_VERSION,
        "inputs": ends[0],
        "outputs": ends[1],
        "tensors": {
            str(i): {"name": tensors[i].text(3), "shape": tensors[i].numbers(0, "<i4").tolist()}
            for i in named
        },
        "ops": ops,
    }
    return {f"t{i}": constants[i] for i in sorted(used)}, {"graph": json.dumps(layout)}


def _named(names: list[str], name: str) -> int:
    if names.count(name) != 1:
        raise WeightsError(f"{names.count(name)} tensors are called {name!r}")
    return names.index(name)


def _between(operators: list[_Table], inputs: list[int], outputs: list[int]) -> list[_Table]:
    """The operators that the outputs need, back to the inputs, in their order."""
    makers: dict[int, int] = {}
    for place, operator in enumerate(operators):
        makers.update(dict.fromkeys(operator.numbers(2, "<i4").tolist(), place))
    wanted, kept = list(outputs), set()
    while wanted:
        tensor = wanted.pop()
        maker = makers.get(tensor)
        if tensor in inputs or maker is None or maker in kept:
            continue
        kept.add(maker)
        wanted += operators[maker].numbers(1, "<i4").tolist()
    return [operators[place] for place in sorted(kept)]


def convert(
    tflite_bytes: bytes, part: Part | None = None
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read a float TFLite model.

    Constants keep TFLite's own layouts (convolution ``[out, h, w, in]``, depthwise
    ``[1, h, w, channels]``) and their stored precision; fp16 weights behind a DEQUANTIZE are
    returned as fp16 under the dequantised tensor, and the DEQUANTIZE is dropped.

    :param tflite_bytes: the whole file.
    :param part: names of the tensors that a part of the graph begins and ends with; the rest may then hold
        anything. None reads the whole graph.
    :return: tensors ``t{index}`` and metadata for safetensors: ``graph`` is JSON with
        ``version``, ``inputs`` and ``outputs`` (tensor indices), ``tensors`` (index to name and
        NHWC shape) and ``ops`` in order, each with ``op``, ``inputs``, ``outputs``,
        ``attributes``.
    :raises WeightsError: when the file is no TFLite model, damaged, sparse, integer-quantised,
        or uses an operator that is not supported.
    """
    if len(tflite_bytes) < 8 or tflite_bytes[4:8] != b"TFL3":
        raise WeightsError(
            f"not a TFLite model ({len(tflite_bytes)} bytes, expected the mark TFL3); "
            "fetch the weights again"
        )
    try:
        return _read_model(bytes(tflite_bytes), part)
    except WeightsError as error:
        raise WeightsError(f"cannot read the TFLite model: {error}; fetch it again") from error
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise WeightsError(f"damaged TFLite model ({error}); fetch the weights again") from error

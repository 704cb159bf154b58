"""TensorFlow.js graph models to the tensors and operators that ``TfliteGraph`` runs.

A graph model is a JSON file (nodes of a frozen TensorFlow graph, and a list of weights) beside one
binary file with the weights' values one after another. Nothing of it is executed. What the exporter
spelled out is put together again, so that the network costs what it should: bias and scale go into the
convolution before them; ``min(max(x, 0), 6)`` becomes ReLU6, ``max(x, 0) + a * min(x, 0)`` PReLU.
"""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidswap.errors import WeightsError

_Array = NDArray[Any]
_DTYPES = {"float32": "<f4", "float16": "<f2", "int32": "<i4"}
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def convert(members: Mapping[str, bytes], *, output: str) -> tuple[dict[str, _Array], dict[str, str]]:
    """Read the part of a float graph model that leads to one of its nodes.

    :param members: the ``.json`` and the ``.bin`` file.
    :param output: name of the node whose value is wanted; what it does not need is left out.
    :return: tensors ``t{index}`` and metadata as :func:`vidswap.weights.convert_tflite.convert` gives.
    :raises WeightsError: damaged, or an operator that is not supported.
    """
    try:
        topology = next(data for name, data in members.items() if name.endswith(".json"))
        values = next(data for name, data in members.items() if name.endswith(".bin"))
        model = json.loads(topology)
        constants = _read_weights(model["weightsManifest"], values)
        nodes = {node["name"]: node for node in model["modelTopology"]["node"]}
        return _Lowering(nodes, constants).run(output)
    except (StopIteration, KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
        raise WeightsError(
            f"cannot read the TensorFlow.js model ({error!r}): fetch the weights again"
        ) from error


def _read_weights(manifest: list[Any], data: bytes) -> dict[str, _Array]:
    found: dict[str, _Array] = {}
    start = 0
    for entry in (weight for group in manifest for weight in group["weights"]):
        stored = entry.get("quantization", {}).get("dtype", entry["dtype"])
        dtype, count = np.dtype(_DTYPES[stored]), math.prod(entry["shape"])
        array = np.frombuffer(data, dtype, count, start).reshape(entry["shape"])
        if dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{entry['name']} holds NaN or infinity")
        found[entry["name"]] = array.astype(np.float32) if dtype.kind == "f" else array
        start += dtype.itemsize * count
    if start != len(data):
        raise ValueError(f"{len(data)} bytes of weights, the list names {start}")
    return found


class _Lowering:
    """One pass over the nodes that the output needs, in order of use."""

    def __init__(self, nodes: Mapping[str, Any], constants: Mapping[str, _Array]) -> None:
        self.nodes, self.constants = nodes, constants
        self.ops: list[dict[str, Any]] = []
        self.stored: list[_Array | None] = []  # by tensor index; None for what is computed
        self.names: list[str] = []
        self.shape: list[int] = []
        self.index: dict[str, int] = {}  # node -> tensor
        self.flat: set[int] = set()  # computed tensors of rank two
        self.halves: dict[str, tuple[str, str, _Array | None]] = {}  # halves of a PReLU

    def run(self, output: str) -> tuple[dict[str, _Array], dict[str, str]]:
        order = self._order(output)
        self.uses = Counter(name for node in order for name in self._inputs(node))
        start = self._tensor("input")
        for node in order:
            self._lower(node, start)
        ops = self._fuse_activations(self.index[output])
        used = sorted({i for op in ops for i in op["inputs"] if self.stored[i] is not None})
        named = sorted({i for op in ops for i in (*op["inputs"], *op["outputs"])})
        graph = {
            "version": 1,
            "inputs": [start],
            "outputs": [self.index[output]],
            "tensors": {
                str(i): {"name": self.names[i], "shape": self.shape if i == start else []} for i in named
            },
            "ops": ops,
        }  # fmt: skip
        return {f"t{i}": np.ascontiguousarray(self.stored[i]) for i in used}, {"graph": json.dumps(graph)}

    def _inputs(self, name: str) -> list[str]:
        return [text.split(":")[0] for text in self.nodes[name].get("input", [])]

    def _order(self, output: str) -> list[str]:
        done: dict[str, None] = {}

        def visit(name: str) -> None:
            if name not in done and name not in self.constants:
                for other in self._inputs(name):
                    visit(other)
                done[name] = None

        visit(output)
        return list(done)

    def _tensor(self, name: str, value: _Array | None = None) -> int:
        self.names.append(name)
        self.stored.append(value)
        return len(self.names) - 1

    def _add(self, name: str, op: str, inputs: list[int], **attributes: Any) -> None:
        self.index[name] = self._tensor(name)
        if op in ("MEAN", "FULLY_CONNECTED") or inputs[0] in self.flat:
            self.flat.add(self.index[name])
        self.ops.append(
            {"op": op, "inputs": inputs, "outputs": [self.index[name]], "attributes": attributes}
        )

    def _lower(self, name: str, start: int) -> None:
        node = self.nodes[name]
        kind, attributes = node["op"], node.get("attr", {})
        if kind == "Placeholder":
            self.index[name] = start
            self.shape = [int(size["size"]) for size in attributes["shape"]["shape"]["dim"]]
            return
        handlers: dict[str, Callable[[str, list[str], Mapping[str, Any]], None]] = {
            "Conv2D": self._convolution, "DepthwiseConv2dNative": self._convolution, "Pad": self._pad,
            "MatMul": self._matmul, "_FusedMatMul": self._fused_matmul, "Mean": self._mean,
            "Relu": self._relu, "Maximum": self._extreme, "Minimum": self._extreme,
            "Mul": self._arithmetic, "Add": self._arithmetic, "AddV2": self._arithmetic,
            "Sub": self._arithmetic, "Reshape": self._reshape,
        }  # fmt: skip
        if kind not in handlers:
            raise ValueError(f"operator {kind} is not supported")
        handlers[kind](name, self._inputs(name), attributes)

    def _convolution(self, name: str, inputs: list[str], attributes: Mapping[str, Any]) -> None:
        weight = self.constants[inputs[1]]  # [h, w, in, out or multiplier]
        if self.nodes[name]["op"] == "Conv2D":
            op, weight = "CONV_2D", weight.transpose(3, 0, 1, 2)
        else:
            op, weight = "DEPTHWISE_CONV_2D", weight.reshape(1, *weight.shape[:2], -1)
        steps = [int(i) for i in attributes["strides"]["list"]["i"]]
        padding = base64.b64decode(attributes["padding"]["s"]).decode()
        if padding not in ("SAME", "VALID"):
            raise ValueError(f"{name}: padding {padding}")
        self._add(
            name, op, [self.index[inputs[0]], self._tensor(inputs[1], weight)],
            padding=padding, stride_h=steps[1], stride_w=steps[2], dilation_h=1, dilation_w=1,
            activation="NONE",
        )  # fmt: skip

    def _matmul(self, name: str, inputs: list[str], attributes: Mapping[str, Any]) -> None:
        weight = self._tensor(inputs[1], self.constants[inputs[1]].T)
        tensors = [self.index[inputs[0]], weight]
        self._add(name, "FULLY_CONNECTED", tensors, keep_dims=False, activation="NONE")

    def _fused_matmul(self, name: str, inputs: list[str], attributes: Mapping[str, Any]) -> None:
        fused = [base64.b64decode(text).decode() for text in attributes["fused_ops"]["list"]["s"]]
        if fused not in (["BiasAdd"], ["BiasAdd", "Relu"]):
            raise ValueError(f"{name}: a product fused with {fused}")
        weight = self._tensor(inputs[1], self.constants[inputs[1]].T)
        tensors = [self.index[inputs[0]], weight, self._tensor(inputs[2], self.constants[inputs[2]])]
        activation = "RELU" if "Relu" in fused else "NONE"
        self._add(name, "FULLY_CONNECTED", tensors, keep_dims=False, activation=activation)

    def _reshape(self, name: str, inputs: list[str], attributes: Mapping[str, Any]) -> None:
        if len(self.constants[inputs[1]]) != 2:
            raise ValueError(f"{name}: only flattening is supported")
        self.index[name] = self.index[inputs[0]]  # a fully connected layer flattens by itself

    def _pad(self, name: str, inputs: list[str], attributes: Mapping[str, Any]) -> None:
        self._add(name, "PAD", [self.index[inputs[0]], self._tensor(inputs[1], self.constants[inputs[1]])])

    def _mean(self, name: str, inputs: list[str], attributes: Mapping[str, Any]) -> None:
        if self.constants[inputs[1]].tolist() != [1, 2]:
            raise ValueError(f"{name}: a mean over other axes than height and width")
        self._add(name, "MEAN", [self.index[inputs[0]]])

    def _relu(self, name: str, inputs: list[str], attributes: Mapping[str, Any]) -> None:
        self._add(name, "RELU", [self.index[inputs[0]]])

    def _extreme(self, name: str, inputs: list[str], attributes: Mapping[str, Any]) -> None:
        """Clipping at 6 or 0 after a ReLU, or one half of a PReLU."""
        bounds = [self.constants[i] for i in inputs if i in self.constants]
        (source,) = (i for i in inputs if i not in self.constants)
        bound = float(np.asarray(bounds[0]).reshape(()))
        before = self._maker(source)
        lower = self.nodes[name]["op"] == "Maximum"
        if before is not None and before["op"] in ("RELU", "RELU6") and self.uses[source] == 1:
            if not lower and bound == 6:
                before["op"] = "RELU6"
            elif not (lower and bound == 0):
                raise ValueError(f"{name}: clipping at {bound}")
            self.index[name] = self.index[source]
        elif bound == 0:
            self.halves[name] = ("positive" if lower else "negative", source, None)
        else:
            raise ValueError(f"{name}: clipping at {bound}")

    def _arithmetic(self, name: str, inputs: list[str], attributes: Mapping[str, Any]) -> None:
        kind = self.nodes[name]["op"]
        known = [self.constants[i] for i in inputs if i in self.constants]
        if kind == "Mul" and known and any(i in self.halves for i in inputs):
            (source,) = (i for i in inputs if i in self.halves)
            self.halves[name] = ("leak", self.halves[source][1], known[0])
        elif all(i in self.halves for i in inputs):
            parts = {self.halves[i][0]: self.halves[i] for i in inputs}
            _, source, slope = parts["leak"]
            if parts["positive"][1] != source or slope is None:
                raise ValueError(f"{name}: not a PReLU")
            self._add(name, "PRELU", [self.index[source], self._tensor(name + "/slope", slope)])
        elif not known:
            if kind == "Sub":
                raise ValueError(f"{name}: a difference of two computed values")
            op = "MUL" if kind == "Mul" else "ADD"
            self._add(name, op, [self.index[i] for i in inputs], activation="NONE")
        elif kind == "Sub" and inputs[0] in self.constants:
            raise ValueError(f"{name}: subtracts from a constant")
        else:
            (source,) = (i for i in inputs if i not in self.constants)
            value = -known[0] if kind == "Sub" else known[0]
            if not self._fold(name, source, value, kind == "Mul"):
                before = self.index[source]
                if value.size == 1:
                    value = value.reshape(())
                elif before not in self.flat:  # one number a channel, in TFLite's NHWC
                    value = value.reshape(1, 1, 1, -1)
                tensors = [before, self._tensor(name + "/constant", value)]
                self._add(name, "MUL" if kind == "Mul" else "ADD", tensors, activation="NONE")

    def _fold(self, name: str, source: str, value: _Array, scales: bool) -> bool:
        """Puts a constant of one number a channel into the weighted operator before it."""
        op = self._maker(source)
        if op is None or op["op"] not in _WEIGHTED or self.uses[source] != 1:
            return False
        weight = self.stored[op["inputs"][1]]
        assert weight is not None
        channels = weight.shape[-1 if op["op"] == "DEPTHWISE_CONV_2D" else 0]
        value = np.broadcast_to(value.reshape(-1), (channels,)).astype(np.float32)
        bias = self.stored[op["inputs"][2]] if len(op["inputs"]) > 2 else np.zeros(channels, np.float32)
        if scales:
            first = op["op"] != "DEPTHWISE_CONV_2D"
            self.stored[op["inputs"][1]] = weight * (
                value.reshape(-1, *[1] * (weight.ndim - 1)) if first else value
            )
        new = bias * value if scales else bias + value
        op["inputs"] = [*op["inputs"][:2], self._tensor(name + "/bias", new)]
        self.index[name] = self.index[source]
        return True

    def _maker(self, name: str) -> dict[str, Any] | None:
        for op in reversed(self.ops):
            if name in self.index and op["outputs"] == [self.index[name]]:
                return op
        return None

    def _fuse_activations(self, output: int) -> list[dict[str, Any]]:
        """A ReLU that alone reads a weighted operator becomes its activation."""
        readers = Counter(i for op in self.ops for i in op["inputs"])
        makers = {op["outputs"][0]: op for op in self.ops}
        kept = []
        for op in self.ops:
            before = makers.get(op["inputs"][0])
            if (
                op["op"] in ("RELU", "RELU6") and before is not None and before["op"] in _WEIGHTED
                and readers[op["inputs"][0]] == 1 and op["inputs"][0] != output
            ):  # fmt: skip
                before["attributes"]["activation"] = op["op"]
                before["outputs"] = op["outputs"]
            else:
                kept.append(op)
        return kept

"""TensorFlow.js graph models: what is folded together computes what was spelled out."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from vidswap.errors import WeightsError
from vidswap.models.tflite_graph import TfliteGraph
from vidswap.weights.convert_tfjs import convert

RNG = np.random.default_rng(3)
WEIGHTS: dict[str, np.ndarray] = {
    "middle": np.float32([127.5]), "spread": np.float32([1 / 128]),
    "w1": RNG.normal(0, 0.4, (3, 3, 3, 4)).astype(np.float32), "b1": RNG.normal(0, 1, 4).astype(np.float32),
    "zero": np.float32(0.0), "six": np.float32(6.0),
    "dw": RNG.normal(0, 0.5, (3, 3, 4, 1)).astype(np.float32), "gain": RNG.normal(1, 1, 4).astype(np.float32),
    "shift": RNG.normal(0, 1, 4).astype(np.float32), "slope": np.float32([0.3, -0.2, 0.1, 1.5]),
    "axes": np.int32([1, 2]), "edges": np.int32([[0, 0], [1, 1], [1, 1], [0, 0]]),
    "fc": RNG.normal(0, 1, (4, 5)).astype(np.float32), "fb": RNG.normal(0, 1, 5).astype(np.float32),
}  # fmt: skip


def text(value: str) -> dict[str, str]:
    return {"s": base64.b64encode(value.encode()).decode()}


def node(name: str, op: str, *inputs: str, **attributes: Any) -> dict[str, Any]:
    return {"name": name, "op": op, "input": list(inputs), "attr": attributes}


def convolution(name: str, op: str, *inputs: str, padding: str, step: int) -> dict[str, Any]:
    strides = {"list": {"i": ["1", str(step), str(step), "1"]}}
    return node(name, op, *inputs, padding=text(padding), strides=strides)


NODES = [
    node("in", "Placeholder", shape={"shape": {"dim": [{"size": s} for s in ("-1", "9", "9", "3")]}}),
    node("centred", "Sub", "in", "middle"),
    node("scaled", "Mul", "centred", "spread"),
    convolution("c1", "Conv2D", "scaled", "w1", padding="SAME", step=2),
    node("c1b", "Add", "c1", "b1"),
    node("r", "Relu", "c1b"),
    node("r6", "Minimum", "r", "six"),
    node("clip", "Maximum", "r6", "zero"),
    node("wide", "Pad", "clip", "edges"),
    convolution("d", "DepthwiseConv2dNative", "wide", "dw", padding="VALID", step=1),
    node("dg", "Mul", "d", "gain"),
    node("ds", "AddV2", "dg:0", "shift"),
    node("up", "Maximum", "zero", "ds"),
    node("down", "Minimum", "zero", "ds"),
    node("leak", "Mul", "slope", "down"),
    node("prelu", "AddV2", "up", "leak"),
    node("skip", "AddV2", "prelu", "clip"),
    node("mean", "Mean", "skip", "axes"),
    node("m", "MatMul", "mean", "fc"),
    node("out", "AddV2", "m", "fb"),
    node("head", "Softmax", "out"),
]


def members(nodes: list[dict[str, Any]] = NODES, *, half: bool = False) -> dict[str, bytes]:
    entries, data = [], b""
    for name, value in WEIGHTS.items():
        entry: dict[str, Any] = {"name": name, "shape": list(value.shape), "dtype": value.dtype.name}
        if half and value.dtype.kind == "f":
            entry["quantization"] = {"dtype": "float16", "original_dtype": "float32"}
            value = value.astype(np.float16)
        entries.append(entry)
        data += value.tobytes()
    constants = [{"name": name, "op": "Const"} for name in WEIGHTS]
    model = {
        "modelTopology": {"node": constants + nodes},
        "weightsManifest": [{"paths": ["net.bin"], "weights": entries}],
    }
    return {"net.json": json.dumps(model).encode(), "net.bin": data}


def reference(x: torch.Tensor, *, half: bool = False) -> torch.Tensor:
    kind = np.float16 if half else np.float32
    w = {n: torch.from_numpy(np.array(v, kind).astype(np.float32)) for n, v in WEIGHTS.items()}
    x = (x - w["middle"]) * w["spread"]
    x = functional.conv2d(x, w["w1"].permute(3, 2, 0, 1), w["b1"], 2, 1).clamp(0, 6)  # 9 px: 1 and 1
    y = functional.conv2d(x, w["dw"].permute(2, 3, 0, 1), None, 1, 1, groups=4)
    y = y * w["gain"].view(4, 1, 1) + w["shift"].view(4, 1, 1)
    y = y.clamp(min=0) + w["slope"].view(4, 1, 1) * y.clamp(max=0)
    return (x + y).mean((2, 3)) @ w["fc"] + w["fb"]


@pytest.mark.parametrize("half", [False, True])
def test_computes_what_the_graph_says(half: bool) -> None:
    graph = TfliteGraph(*convert(members(half=half), output="out"))
    x = torch.rand(2, 3, 9, 9) * 255
    torch.testing.assert_close(graph(x)[0], reference(x, half=half), atol=1e-4, rtol=1e-4)
    assert graph.input_shape == (-1, 9, 9, 3)


def test_folds_what_belongs_together() -> None:
    kinds = [op["op"] for op in TfliteGraph(*convert(members(), output="out")).graph["ops"]]
    assert kinds == [
        "ADD", "MUL", "CONV_2D", "PAD", "DEPTHWISE_CONV_2D", "PRELU", "ADD", "MEAN", "FULLY_CONNECTED",
    ]  # fmt: skip


def test_a_value_that_two_read_is_not_folded() -> None:
    # The unclipped convolution is read again: neither bias nor activation may change it in place.
    nodes = [*NODES[:8], node("again", "AddV2", "clip", "c1"), node("mean", "Mean", "again", "axes")]
    x = torch.rand(1, 3, 9, 9) * 255
    found = TfliteGraph(*convert(members(nodes), output="mean"))(x)[0]
    w = {n: torch.from_numpy(v) for n, v in WEIGHTS.items() if v.ndim}
    plain = functional.conv2d((x - 127.5) / 128, w["w1"].permute(3, 2, 0, 1), None, 2, 1)
    wanted = ((plain + w["b1"].view(4, 1, 1)).clamp(0, 6) + plain).mean((2, 3))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("case", ["head", "absent", "short", "long", "json", "nan", "no file"])
def test_what_cannot_be_read_is_refused_in_one_line(case: str) -> None:
    files, output = members(), "out"
    if case in ("head", "absent"):
        output = case
    elif case == "short":
        files["net.bin"] = files["net.bin"][:-4]
    elif case == "long":
        files["net.bin"] += b"\0\0\0\0"
    elif case == "json":
        files["net.json"] = files["net.json"][:200]
    elif case == "nan":
        files["net.bin"] = np.float32(np.nan).tobytes() + files["net.bin"][4:]
    else:
        del files["net.bin"]
    with pytest.raises(WeightsError, match="TensorFlow.js model") as caught:
        convert(files, output=output)
    assert "\n" not in str(caught.value)

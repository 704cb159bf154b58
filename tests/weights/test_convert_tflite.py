"""Reading TFLite files: what is in them, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from vidswap.errors import WeightsError
from vidswap.weights.convert_tflite import convert


def _load(name: str) -> ModuleType:
    path = Path(__file__).parent.parent / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


files = _load("tflite_models")


def _small(weight: Any = None, bias: Any = None) -> Any:
    """A 3x3 convolution from 2 to 4 channels; the file under construction and its output."""
    file = files.TfliteFile((1, 6, 5, 2))
    weight = np.arange(72, dtype=np.float32).reshape(4, 3, 3, 2) if weight is None else weight
    inputs = [file.input, file.constant(weight)]
    inputs.append(file.constant(np.zeros(4, np.float32) if bias is None else bias))
    out = file.add(
        "CONV_2D", inputs, (1, 3, 3, 4), "Conv2DOptions", padding=0, strideH=2, strideW=2,
        dilationHFactor=1, dilationWFactor=1, fusedActivationFunction=3,
    )  # fmt: skip
    return file, out


def test_tensors_and_operators_are_read() -> None:
    file, out = _small()
    tensors, metadata = convert(file.finish([out]))
    graph = json.loads(metadata["graph"])
    assert graph["inputs"] == [0] and graph["outputs"] == [out]
    assert graph["tensors"]["0"] == {"name": "input", "shape": [1, 6, 5, 2]}
    (op,) = graph["ops"]
    assert op["op"] == "CONV_2D" and op["inputs"] == [0, 1, 2] and op["outputs"] == [out]
    assert op["attributes"] == {
        "padding": "SAME", "stride_w": 2, "stride_h": 2, "activation": "RELU6",
        "dilation_w": 1, "dilation_h": 1,
    }  # fmt: skip
    assert sorted(tensors) == ["t1", "t2"]
    np.testing.assert_array_equal(tensors["t1"].ravel(), np.arange(72))
    assert tensors["t1"].shape == (4, 3, 3, 2)


def test_half_precision_weights_skip_their_dequantize() -> None:
    file = files.TfliteFile((1, 3))
    half = file.constant(np.arange(6, dtype=np.float16).reshape(2, 3))
    weight = file.add("DEQUANTIZE", [half], (2, 3))
    out = file.add(
        "FULLY_CONNECTED", [file.input, weight, -1], (1, 2), "FullyConnectedOptions",
        fusedActivationFunction=0, weightsFormat=0, keepNumDims=False,
    )  # fmt: skip
    tensors, metadata = convert(file.finish([out]))
    assert [op["op"] for op in json.loads(metadata["graph"])["ops"]] == ["FULLY_CONNECTED"]
    assert tensors[f"t{weight}"].dtype == np.float16


def test_the_result_is_the_same_every_time() -> None:
    """Converted files are checked by hash, so nothing in them may depend on the run."""
    file, out = _small()
    data = file.finish([out])
    first, second = convert(data), convert(data)
    assert first[1] == second[1] and list(first[0]) == list(second[0])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a TFLite model"),
        (b"PK\x03\x04 a zip file, say", "not a TFLite model"),
        (b"\xff\xff\xff\x7fTFL3" + bytes(64), "damaged TFLite model"),
        (b"\x08\0\0\0TFL3" + b"\x01\0\0\x80" + bytes(32), "TFLite model"),
    ],
)
def test_other_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        convert(data)


def test_unsupported_content_is_named() -> None:
    file, out = _small(weight=np.zeros((4, 3, 3, 2), np.float32))
    cast = file.add("CAST", [out], (1, 3, 3, 4), "CastOptions")
    with pytest.raises(WeightsError, match="operator code 53"):
        convert(file.finish([cast]))

    file, out = _small(bias=np.array([0, np.nan, 0, 0], np.float32))
    with pytest.raises(WeightsError, match="NaN"):
        convert(file.finish([out]))

    file = files.TfliteFile((1, 3))
    weight = file.add("DEQUANTIZE", [file.constant(np.ones((2, 3), np.int8))], (2, 3))
    out = file.add("FULLY_CONNECTED", [file.input, weight, -1], (1, 2), "FullyConnectedOptions")
    with pytest.raises(WeightsError, match="integer-quantised"):
        convert(file.finish([out]))


def test_a_constant_of_the_wrong_size_is_refused() -> None:
    file, out = _small()
    file.tensors[1].shape = [4, 3, 3, 3]
    with pytest.raises(WeightsError, match="do not fill"):
        convert(file.finish([out]))


def test_truncated_and_flipped_files_never_crash() -> None:
    """FAULTS 57: either the file still reads, or it is one clear WeightsError."""
    file, out = _small()
    data = file.finish([out])
    rng = np.random.default_rng(1)
    refused = 0
    mutants = [data[:n] for n in range(0, len(data), 7)]
    for _ in range(400):
        broken = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            broken[at] = rng.integers(0, 256)
        mutants.append(bytes(broken))
    for mutant in mutants:
        try:
            convert(mutant)
        except WeightsError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > len(mutants) // 4


def _chain() -> tuple[Any, list[int]]:
    """An input, an operator that nothing here knows, and two that it does."""
    file = files.TfliteFile((1, 3))
    cast = file.add("CAST", [file.input], (1, 3), "CastOptions")
    first = file.add("ADD", [cast, file.constant(np.ones((1, 3), np.float32))], (1, 3), "AddOptions")
    last = file.add("LOGISTIC", [first], (1, 3))
    side = file.add("RELU", [cast], (1, 3))
    return file, [cast, first, last, side]


def test_a_part_of_a_graph_is_read_on_its_own() -> None:
    file, (cast, first, last, side) = _chain()
    data = file.finish([last, side])
    with pytest.raises(WeightsError, match="operator code 53"):
        convert(data)
    tensors, metadata = convert(data, (f"tensor{cast}", f"tensor{last}"))
    graph = json.loads(metadata["graph"])
    assert [op["op"] for op in graph["ops"]] == ["ADD", "LOGISTIC"]
    assert graph["inputs"] == [cast] and graph["outputs"] == [last]
    assert sorted(tensors) == [f"t{first - 1}"]  # the constant of the addition


def test_parts_must_be_named_for_sure() -> None:
    file, (cast, first, last, side) = _chain()
    file.tensors[side].name = f"tensor{last}"
    data = file.finish([last, side])
    with pytest.raises(WeightsError, match="0 tensors are called 'nothing'"):
        convert(data, ("nothing", f"tensor{first}"))
    with pytest.raises(WeightsError, match="2 tensors are called"):
        convert(data, (f"tensor{cast}", f"tensor{last}"))

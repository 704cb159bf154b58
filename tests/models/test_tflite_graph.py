"""TFLite graphs in PyTorch against LiteRT: single operators, the mesh, the irises."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vidswap.errors import WeightsError
from vidswap.models.mesh import FaceMeshNet, IrisNet
from vidswap.models.tflite_graph import TfliteGraph, same_padding
from vidswap.weights.convert_tflite import convert


def _load(name: str) -> ModuleType:
    path = Path(__file__).parent.parent / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


files = _load("tflite_models")
SAME, VALID = 0, 1
NONE, RELU, RELU6 = 0, 1, 3


def _normal(*shape: int) -> NDArray[np.float32]:
    return np.random.standard_normal(shape).astype(np.float32)


def _compare(data: bytes, x: NDArray[np.float32], atol: float = 2e-5) -> None:
    graph = TfliteGraph(*convert(data))
    expected = files.run_litert(data, x)
    got = graph(torch.from_numpy(x).permute(0, 3, 1, 2))
    for theirs, ours in zip(expected, got, strict=True):
        if ours.ndim == 4:
            ours = ours.permute(0, 2, 3, 1)
        assert tuple(ours.shape) == theirs.shape
        np.testing.assert_allclose(ours.numpy(), theirs, atol=atol, rtol=1e-5)


@pytest.mark.parametrize(
    ("size_hw", "kernel_hw", "stride_hw", "dilation", "padding"),
    [
        ((8, 8), (3, 3), (2, 2), 1, SAME),  # one pixel, at the bottom and right only
        ((7, 9), (3, 3), (2, 2), 1, SAME),
        ((8, 11), (4, 2), (1, 3), 1, SAME),
        ((9, 9), (3, 3), (1, 1), 2, SAME),
        ((8, 10), (3, 2), (2, 1), 1, VALID),
    ],
)
@pytest.mark.parametrize("depthwise", [False, True])
def test_convolutions_pad_as_tflite_does(
    size_hw: tuple[int, int],
    kernel_hw: tuple[int, int],
    stride_hw: tuple[int, int],
    dilation: int,
    padding: int,
    depthwise: bool,
) -> None:
    channels, leaving = 3, 3 if depthwise else 5
    out_hw = [
        -(-size // stride) if padding == SAME else (size - kernel) // stride + 1
        for size, kernel, stride in zip(size_hw, kernel_hw, stride_hw, strict=True)
    ]
    file = files.TfliteFile((1, *size_hw, channels))
    weight = _normal(1, *kernel_hw, 3) if depthwise else _normal(5, *kernel_hw, channels)
    name = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    extra = {"depthMultiplier": 1} if depthwise else {}
    result = file.add(
        name,
        [file.input, file.constant(weight), file.constant(_normal(leaving))],
        (1, *out_hw, leaving),
        "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions",
        padding=padding, strideH=stride_hw[0], strideW=stride_hw[1],
        dilationHFactor=dilation, dilationWFactor=dilation,
        fusedActivationFunction=RELU6, **extra,
    )  # fmt: skip
    _compare(file.finish([result]), 3 * _normal(1, *size_hw, channels))


@pytest.mark.parametrize("name", ["MAX_POOL_2D", "AVERAGE_POOL_2D"])
@pytest.mark.parametrize("padding", [SAME, VALID])
def test_pools_do_not_count_the_padding(name: str, padding: int) -> None:
    file = files.TfliteFile((1, 7, 8, 2))
    out = (1, 4, 4, 2) if padding == SAME else (1, 3, 3, 2)
    result = file.add(
        name, [file.input], out, "Pool2DOptions", padding=padding, strideH=2, strideW=2,
        filterHeight=3, filterWidth=3, fusedActivationFunction=NONE,
    )  # fmt: skip
    # All negative: a padding of zeros would win the maximum.
    _compare(file.finish([result]), -1 - np.abs(_normal(1, 7, 8, 2)))


def _many_operators() -> tuple[bytes, tuple[int, ...]]:
    """PRELU, PAD, MUL, CONCATENATION, RESIZE, RESHAPE, FULLY_CONNECTED, LOGISTIC, fp16 weights."""
    file = files.TfliteFile((1, 4, 6, 2))
    slope = file.constant(np.array([[[0.1, 0.7]]], np.float32))
    a = file.add("PRELU", [file.input, slope], (1, 4, 6, 2))
    pads = file.constant(np.array([[0, 0], [1, 0], [0, 2], [0, 1]], np.int32))
    b = file.add("PAD", [a, pads], (1, 5, 8, 3), "PadOptions")
    scale = file.constant(_normal(1, 5, 8, 3))
    c = file.add("MUL", [b, scale], (1, 5, 8, 3), "MulOptions", fusedActivationFunction=RELU)
    d = file.add(
        "CONCATENATION", [b, c], (1, 5, 8, 6), "ConcatenationOptions",
        axis=3, fusedActivationFunction=NONE,
    )  # fmt: skip
    size = file.constant(np.array([10, 12], np.int32))
    e = file.add(
        "RESIZE_BILINEAR", [d, size], (1, 10, 12, 6), "ResizeBilinearOptions",
        alignCorners=False, halfPixelCenters=True, version=3,
    )  # fmt: skip
    shape = file.constant(np.array([1, 720], np.int32))
    f = file.add("RESHAPE", [e, shape], (1, 720), "ReshapeOptions", newShape=[1, 720])
    half = file.constant(_normal(4, 720).astype(np.float16))
    weight = file.add("DEQUANTIZE", [half], (4, 720), version=2)
    g = file.add(
        "FULLY_CONNECTED", [f, weight, file.constant(_normal(4))], (1, 4),
        "FullyConnectedOptions", fusedActivationFunction=NONE, weightsFormat=0,
        keepNumDims=False,
    )  # fmt: skip
    h = file.add("LOGISTIC", [g], (1, 4))
    return file.finish([h, e]), (1, 4, 6, 2)


def test_other_operators_agree_with_litert() -> None:
    data, shape = _many_operators()
    _compare(data, 0.2 * _normal(*shape), atol=1e-4)


def test_a_batch_equals_its_images() -> None:
    data, shape = _many_operators()
    graph = TfliteGraph(*convert(data))
    x = torch.randn(3, shape[3], shape[1], shape[2])
    together = graph(x)
    for i in range(3):
        for whole, alone in zip(together, graph(x[i : i + 1]), strict=True):
            torch.testing.assert_close(whole[i : i + 1], alone)


def test_weights_are_float32_and_frozen() -> None:
    graph = TfliteGraph(*convert(_many_operators()[0]))
    floats = [b for b in graph.buffers() if b.is_floating_point()]
    assert floats and {b.dtype for b in floats} == {torch.float32}
    assert not list(graph.parameters())


def test_wrong_shapes_and_graphs_are_refused() -> None:
    tensors, metadata = convert(_many_operators()[0])
    with pytest.raises(ValueError, match=r"expected \[B, 2, 4, 6\], got \[1, 2, 6, 4\]"):
        TfliteGraph(tensors, metadata)(torch.zeros(1, 2, 6, 4))
    with pytest.raises(WeightsError, match="do not fit"):
        TfliteGraph(tensors, {})
    graph = json.loads(metadata["graph"])
    graph["ops"][0]["op"] = "WHILE"
    with pytest.raises(WeightsError, match="WHILE is not supported"):
        TfliteGraph(tensors, {"graph": json.dumps(graph)})
    with pytest.raises(WeightsError, match="FaceMeshNet: expected a 192 px input"):
        FaceMeshNet.from_tensors(tensors, metadata)


def test_missing_and_broken_files_are_weights_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.safetensors", tmp_path / "broken.safetensors"):
        if path.stem == "broken":
            path.write_bytes(b"\x10\0\0\0\0\0\0\0not json at all!")
        with pytest.raises(WeightsError, match=path.stem):
            FaceMeshNet.load(path)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [(192, 3, 2, (0, 1)), (7, 3, 2, (1, 1)), (8, 3, 1, (1, 1)), (8, 2, 2, (0, 0))],
)
def test_same_padding(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    assert same_padding(size, kernel, stride) == expected


# --- the real networks -----------------------------------------------------------------------


def _pictures(size: int) -> list[NDArray[np.float32]]:
    """Noise, blocks, a ramp and a crude face."""
    noise = np.random.random((size, size, 3))
    blocks = np.kron(np.random.random((8, 8, 3)), np.ones((size // 8, size // 8, 1)))
    y, x = np.mgrid[:size, :size] / size - 0.5
    ramp = np.stack([x + 0.5, y + 0.5, 0.5 + 0 * x], -1)
    face = np.full((size, size, 3), 0.3)
    face[(x / 0.28) ** 2 + (y / 0.36) ** 2 < 1] = (0.85, 0.65, 0.55)
    eyes_and_mouth = ((-0.12, -0.08, 0.05, 0.02), (0.12, -0.08, 0.05, 0.02), (0, 0.2, 0.1, 0.03))
    for cx, cy, rx, ry in eyes_and_mouth:
        face[((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1] = 0.15
    return [p.astype(np.float32)[None] for p in (noise, blocks, ramp, face)]


@pytest.mark.parametrize(
    ("kind", "name", "tflite"),
    [(FaceMeshNet, "facemesh-torch", "facemesh"), (IrisNet, "iris-torch", "iris")],
)
def test_networks_agree_with_litert(kind: Any, name: str, tflite: str, weights_home: Path) -> None:
    """Issue 3 asks for 1e-2 px; rounding alone is a hundred times less."""
    from vidswap.weights import locate

    network = kind.load(locate(name))
    data = locate(tflite).read_bytes()
    for picture in _pictures(network.size):
        expected = {v.size: v.ravel() for v in files.run_litert(data, picture)}
        with torch.no_grad():
            got = network(torch.from_numpy(picture).permute(0, 3, 1, 2))
        for value in got:
            theirs = expected[value.numel()]
            np.testing.assert_allclose(value.numpy().ravel(), theirs, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "name"), [(FaceMeshNet, "facemesh-torch"), (IrisNet, "iris-torch")]
)
def test_gradients_are_the_finite_differences(kind: Any, name: str, weights_home: Path) -> None:
    from vidswap.weights import locate

    network = kind.load(locate(name)).double()
    x = torch.from_numpy(_pictures(network.size)[3]).permute(0, 3, 1, 2).double()
    x = x + 0.02 * torch.rand_like(x)  # off the kinks of pooling
    x.requires_grad_(True)
    direction = torch.randn_like(x)

    def value(picture: torch.Tensor) -> torch.Tensor:
        points, second = network(picture)
        return points.square().mean() + second.square().mean()

    (gradient,) = torch.autograd.grad(value(x), x)
    step = 1e-7
    with torch.no_grad():
        slope = (value(x + step * direction) - value(x - step * direction)) / (2 * step)
    assert float(gradient.abs().max()) > 0
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-3, atol=1e-6)

"""A TFLite float graph as a differentiable PyTorch module.

The graph comes from :func:`vidswap.weights.convert_tflite.convert`. Activations of rank four
are kept ``[B, C, H, W]`` in channels-last memory (TFLite's own NHWC order in memory), others as
they are. TFLite's SAME padding puts the odd pixel at the bottom and right, which PyTorch's
symmetric padding cannot express: such layers pad explicitly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from vidswap.errors import WeightsError

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "NONE": None,
    "RELU": torch.relu,
    "RELU6": F.relu6,
    "RELU_N1_TO_1": lambda x: x.clamp(-1.0, 1.0),
    "TANH": torch.tanh,
}
_NCHW_AXIS = (0, 2, 3, 1)  # where each axis of NHWC lies in NCHW


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Pixels that TFLite's SAME padding puts before and after an axis of ``size`` pixels."""
    reach = (kernel - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def _spatial_padding(x: Tensor, kernel_hw: tuple[int, ...], a: Mapping[str, Any]) -> list[int]:
    """Left, right, top, bottom (the order of ``F.pad``)."""
    if a["padding"] == "VALID":
        return [0, 0, 0, 0]
    height, width = x.shape[-2:]
    left_right = same_padding(width, kernel_hw[1], a["stride_w"], a.get("dilation_w", 1))
    top_bottom = same_padding(height, kernel_hw[0], a["stride_h"], a.get("dilation_h", 1))
    return [*left_right, *top_bottom]


def _convolution(
    a: Mapping[str, Any], x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    left, right, top, bottom = _spatial_padding(x, tuple(weight.shape[-2:]), a)
    if left != right or top != bottom:
        x = F.pad(x, (left, right, top, bottom))
        left = top = 0
    if weight.shape[1] == 0 or x.shape[1] % weight.shape[1]:
        raise ValueError(f"input has {x.shape[1]} channels, the filter {weight.shape[1]}")
    return F.conv2d(
        x, weight, bias, (a["stride_h"], a["stride_w"]), (top, left),
        (a["dilation_h"], a["dilation_w"]), x.shape[1] // weight.shape[1],
    )  # fmt: skip


def _max_pool(a: Mapping[str, Any], x: Tensor) -> Tensor:
    kernel = (a["filter_h"], a["filter_w"])
    padding = _spatial_padding(x, kernel, a)
    if any(padding):  # never the largest: padding does not count
        x = F.pad(x, padding, value=float("-inf"))
    return F.max_pool2d(x, kernel, (a["stride_h"], a["stride_w"]))


def _average_pool(a: Mapping[str, Any], x: Tensor) -> Tensor:
    kernel, stride = (a["filter_h"], a["filter_w"]), (a["stride_h"], a["stride_w"])
    padding = _spatial_padding(x, kernel, a)
    if not any(padding):
        return F.avg_pool2d(x, kernel, stride)
    inside = F.pad(torch.ones_like(x[:1, :1]), padding)  # TFLite averages over real pixels only
    return F.avg_pool2d(F.pad(x, padding), kernel, stride) / F.avg_pool2d(inside, kernel, stride)


def _pad(a: Mapping[str, Any], x: Tensor) -> Tensor:
    pairs = a["paddings"]  # NHWC or the tensor's own order
    if x.ndim == 4:
        pairs = [pairs[0], pairs[3], pairs[1], pairs[2]]
    return F.pad(x, [amount for pair in reversed(pairs) for amount in pair])


def _reshape(a: Mapping[str, Any], x: Tensor) -> Tensor:
    if x.ndim == 4:
        x = x.permute(0, 2, 3, 1)
    shape = [x.shape[0], *a["shape"][1:]]  # the file is made for one image; keep the batch
    x = x.reshape(shape)
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x


def _concatenation(a: Mapping[str, Any], *parts: Tensor) -> Tensor:
    axis = a["axis"] % parts[0].ndim
    return torch.cat(parts, _NCHW_AXIS[axis] if parts[0].ndim == 4 else axis)


def _fully_connected(
    a: Mapping[str, Any], x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    if x.ndim == 4:
        x = x.permute(0, 2, 3, 1)
    if not a["keep_dims"]:
        x = x.reshape(-1, weight.shape[1])
    x = F.linear(x, weight, bias)
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x


def _resize_bilinear(a: Mapping[str, Any], x: Tensor) -> Tensor:
    if not (a["align_corners"] or a["half_pixel_centers"]):
        raise ValueError("RESIZE_BILINEAR with the legacy pixel grid is not supported")
    return F.interpolate(x, a["size_hw"], mode="bilinear", align_corners=bool(a["align_corners"]))


class _FrozenPrelu(torch.autograd.Function):
    """PReLU without a gradient to its slopes: PyTorch's own always makes one, as large as the
    activation, which took a third of the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return F.prelu(x, slope)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        x, slope = ctx.saved_tensors
        above = torch.ops.aten.threshold_backward(gradient, x, 0)  # the gradient where x > 0
        slope = slope.view(-1, *[1] * (x.ndim - 2))
        return torch.lerp(above, gradient, slope), None


def _prelu(a: Mapping[str, Any], x: Tensor, slope: Tensor) -> Tensor:
    if not torch.is_grad_enabled():  # applying a Function costs a few microseconds
        return F.prelu(x, slope)
    return _FrozenPrelu.apply(x, slope)


_OPERATORS: dict[str, Callable[..., Tensor]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "PRELU": _prelu,
    "ADD": lambda a, x, y: x + y,
    "MUL": lambda a, x, y: x * y,
    "MAX_POOL_2D": _max_pool,
    "AVERAGE_POOL_2D": _average_pool,
    "PAD": _pad,
    "RESHAPE": _reshape,
    "CONCATENATION": _concatenation,
    "FULLY_CONNECTED": _fully_connected,
    "RESIZE_BILINEAR": _resize_bilinear,
    "LOGISTIC": lambda a, x: torch.sigmoid(x),
    "RELU": lambda a, x: torch.relu(x),
    "RELU6": lambda a, x: F.relu6(x),
    "DEQUANTIZE": lambda a, x: x.float(),
    "MEAN": lambda a, x: x.mean((2, 3)),  # over height and width
}


class TfliteGraph(nn.Module):
    """Runs a converted TFLite graph; differentiable, any batch size, frozen fp32 weights.

    :param tensors: constants ``t{index}`` from the converter (or a safetensors file).
    :param metadata: must hold ``graph``, the converter's JSON.
    :raises WeightsError: when the two do not fit together or hold something unsupported.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
        super().__init__()
        try:
            self.graph = json.loads(metadata["graph"])
            self._constants: set[int] = set()
            self._steps = [self._step(op, tensors) for op in self.graph["ops"]]
            self._last_use = self._find_last_uses()
            shapes = self.graph["tensors"]
            self.input_shape = tuple(shapes[str(self.graph["inputs"][0])]["shape"])
            """NHWC shape that the file declares for its input."""
            self.output_names = [shapes[str(i)]["name"] for i in self.graph["outputs"]]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise WeightsError(
                f"the graph and its tensors do not fit ({error!r}); fetch the weights again"
            ) from error

    @classmethod
    def load(cls, path: str | Path) -> TfliteGraph:
        """Read a safetensors file written from the converter's output.

        :raises WeightsError: when the file is missing, damaged or of another kind.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="numpy") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise WeightsError(
                f"cannot read weights {str(path)!r} ({error}); fetch them again"
            ) from error
        return cls(tensors, metadata)

    def _constant(self, index: int, array: NDArray[Any], role: str) -> None:
        if index in self._constants:
            return
        array = np.asarray(array)
        tensor = torch.from_numpy(array.astype(np.float32) if array.dtype.kind == "f" else array)
        if role == "CONV_2D":  # [out, h, w, in] -> [out, in, h, w]
            tensor = tensor.permute(0, 3, 1, 2)
        elif role == "DEPTHWISE_CONV_2D":  # [1, h, w, channels] -> [channels, 1, h, w]
            tensor = tensor.permute(3, 0, 1, 2)
        elif role == "PRELU":
            if tensor.numel() != tensor.shape[-1]:
                raise ValueError(f"PRELU slope {tuple(tensor.shape)} is not one a channel")
            tensor = tensor.reshape(-1)
        elif tensor.ndim == 4:
            tensor = tensor.permute(0, 3, 1, 2)
        layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
        self.register_buffer(f"t{index}", tensor.contiguous(memory_format=layout))
        self._constants.add(index)

    def _step(self, op: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> tuple[Any, ...]:
        """Registers the constants of one operator and settles what can be settled now."""
        name, inputs = op["op"], list(op["inputs"])
        if name not in _OPERATORS:
            raise ValueError(f"operator {name} is not supported")
        attributes = dict(op["attributes"])
        if name == "PAD":
            attributes["paddings"] = np.asarray(tensors[f"t{inputs[1]}"]).tolist()
            inputs = inputs[:1]
        elif name == "RESIZE_BILINEAR":
            attributes["size_hw"] = np.asarray(tensors[f"t{inputs[1]}"]).tolist()
            inputs = inputs[:1]
        elif name == "RESHAPE":
            attributes["shape"] = self.graph["tensors"][str(op["outputs"][0])]["shape"]
            inputs = inputs[:1]
        for position, index in enumerate(inputs):
            if f"t{index}" in tensors:
                role = name if position == 1 else ""
                self._constant(index, tensors[f"t{index}"], role)
        activation = _ACTIVATIONS[attributes.get("activation", "NONE")]
        return _OPERATORS[name], attributes, inputs, op["outputs"][0], activation

    def _find_last_uses(self) -> list[list[int]]:
        """For each step, the activations that no later step reads: freed there."""
        keep = set(self.graph["outputs"]) | self._constants
        freed: list[list[int]] = []
        for _, _, inputs, _, _ in reversed(self._steps):
            done = [i for i in dict.fromkeys(inputs) if i >= 0 and i not in keep]
            keep.update(done)
            freed.append(done)
        return freed[::-1]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Run the graph.

        :param x: ``[B, C, H, W]`` of the height and width in ``input_shape``.
        :return: the outputs in the file's order; rank four as ``[B, C, H, W]``.
        :raises ValueError: when the input has another shape.
        """
        _, height, width, channels = self.input_shape
        if x.ndim != 4 or tuple(x.shape[1:]) != (channels, height, width):
            raise ValueError(
                f"input: expected [B, {channels}, {height}, {width}], got {list(x.shape)}"
            )
        values: dict[int, Tensor | None] = {-1: None}
        values.update((i, getattr(self, f"t{i}")) for i in self._constants)
        values[self.graph["inputs"][0]] = x.contiguous(memory_format=torch.channels_last)
        for step, freed in zip(self._steps, self._last_use, strict=True):
            operator, attributes, inputs, output, activation = step
            result = operator(attributes, *(values[i] for i in inputs))
            values[output] = result if activation is None else activation(result)
            for index in freed:
                del values[index]
        return [values[i] for i in self.graph["outputs"]]  # type: ignore[misc]

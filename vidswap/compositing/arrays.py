"""Small shared helpers of this room: numpy images to kornia tensors and back, resizing."""

from __future__ import annotations

import kornia
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from vidswap.records import FloatArray


def smoothstep(value: NDArray[np.floating]) -> FloatArray:
    """Cubic step, 0 below 0 and 1 above 1, flat at both ends."""
    t = np.clip(value, 0.0, 1.0).astype(np.float32, copy=False)
    return t * t * (3.0 - 2.0 * t)


def to_tensor(image: NDArray[np.floating]) -> torch.Tensor:
    """``[H, W]`` or ``[H, W, C]`` to float32 ``[1, C, H, W]`` without copying where possible."""
    array = np.ascontiguousarray(image, dtype=np.float32)
    if array.ndim == 2:
        return torch.from_numpy(array)[None, None]
    return torch.from_numpy(array).permute(2, 0, 1)[None]


def to_array(tensor: torch.Tensor) -> FloatArray:
    """``[1, C, H, W]`` to ``[H, W, C]``, or to ``[H, W]`` when C is 1."""
    if tensor.shape[1] == 1:
        return tensor[0, 0].numpy()
    return np.ascontiguousarray(tensor[0].permute(1, 2, 0).numpy())


def resize(tensor: torch.Tensor, size: int) -> torch.Tensor:
    """Square resize by pixel centres: area average when shrinking, bilinear when growing."""
    height, width = tensor.shape[-2:]
    if height == size and width == size:
        return tensor
    if size < height and height % size == 0 and width == height:
        return F.avg_pool2d(tensor, height // size)
    if size < height:
        return F.interpolate(
            tensor, size=(size, size), mode="bilinear", align_corners=False, antialias=True
        )
    return F.interpolate(tensor, size=(size, size), mode="bilinear", align_corners=False)


def resize_map(values: NDArray[np.floating], size: int) -> FloatArray:
    """Resize a ``[n, n]`` map or ``[n, n, c]`` image to ``size``; see :func:`resize`."""
    return to_array(resize(to_tensor(values), size))


def gaussian_blur(tensor: torch.Tensor, sigma: float) -> torch.Tensor:
    """Separable Gaussian with mirrored borders; ``sigma`` in pixels, 0 returns the input."""
    if sigma < 0.15:
        return tensor
    side = min(tensor.shape[-2:])
    radius = min(max(1, int(np.ceil(3.0 * sigma))), side - 1)
    kernel = 2 * radius + 1
    return kornia.filters.gaussian_blur2d(tensor, (kernel, kernel), (sigma, sigma))


def luma(tensor: torch.Tensor) -> torch.Tensor:
    """Rec. 709 weighted grey ``[B, 1, H, W]`` of gamma-encoded RGB."""
    weights = tensor.new_tensor([0.2126, 0.7152, 0.0722]).view(1, 3, 1, 1)
    return (tensor * weights).sum(dim=1, keepdim=True)

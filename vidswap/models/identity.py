"""dlib's face recognition network in PyTorch: 128-d identity embeddings, differentiable.

A ResNet with 29 convolutions (King, dlib 19.3, CC0) on 150 px RGB chips. Two photos of one person are
usually less than 0.6 apart (L2); different people about 0.75.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from vidswap.errors import WeightsError
from vidswap.models import channels_last

CHIP_SIZE = 150
_MEAN = (122.782, 117.001, 104.298)
# (width, is_down) of the blocks in order of use
_BLOCKS = (
    [(32, False)] * 3
    + [(64, True)] + [(64, False)] * 3
    + [(128, True)] + [(128, False)] * 2
    + [(256, True)] + [(256, False)] * 2
    + [(256, True)]
)  # fmt: skip


class _Unit(nn.Module):
    """Convolution with the affine layer of its folded batch norm."""

    def __init__(self, entering: int, leaving: int, size: int, stride: int) -> None:
        super().__init__()
        padding = size // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(entering, leaving, size, stride, padding)

    def fold(self, weight: Tensor, bias: Tensor, gain: Tensor, shift: Tensor) -> None:
        self.conv.load_state_dict({"weight": weight * gain[:, None, None, None], "bias": bias * gain + shift})

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class _Block(nn.Module):
    def __init__(self, entering: int, width: int, is_down: bool) -> None:
        super().__init__()
        self.is_down = is_down
        self.first = _Unit(entering, width, 3, 2 if is_down else 1)
        self.second = _Unit(width, width, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(functional.relu(self.first(x)))
        if self.is_down:
            x = functional.avg_pool2d(x, 2)
        # dlib pads the smaller of the two with zeros, in channels, rows and columns
        rows, columns = max(x.shape[2], y.shape[2]), max(x.shape[3], y.shape[3])
        channels = max(x.shape[1], y.shape[1])
        return functional.relu(_pad(x, channels, rows, columns) + _pad(y, channels, rows, columns))


def _pad(x: Tensor, channels: int, rows: int, columns: int) -> Tensor:
    extra = (0, columns - x.shape[3], 0, rows - x.shape[2], 0, channels - x.shape[1])
    return functional.pad(x, extra) if any(extra) else x


class DlibIdentity(nn.Module):
    """Identity embeddings.

    :meth:`forward` takes chips ``[B, 3, 150, 150]`` RGB in [0, 255]; :meth:`embed_aligned` takes
    FFHQ-aligned faces of any size in [-1, 1] and cuts the chip at a fixed place.
    """

    chip_box = (0.1567, 0.2580, 0.8493, 0.9510)
    """Left, top, right, bottom of the chip in an FFHQ-aligned crop, as fractions of its side."""
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Unit(3, 32, 7, 2)
        widths = [32] + [width for width, _ in _BLOCKS]
        self.blocks = nn.ModuleList(
            _Block(entering, width, down)
            for entering, (width, down) in zip(widths, _BLOCKS, strict=False)
        )
        self.fc = nn.Linear(256, 128, bias=False)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))

    @classmethod
    def load(cls, path: Path) -> DlibIdentity:
        """Read converted weights. :raises WeightsError: when they are another network's."""
        model = cls()
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        units = [module for module in model.modules() if isinstance(module, _Unit)]
        try:
            for index, unit in enumerate(units):
                unit.fold(
                    tensors[f"conv.{index}.weight"],
                    tensors[f"conv.{index}.bias"],
                    tensors[f"affine.{index}.gain"],
                    tensors[f"affine.{index}.bias"],
                )
            model.fc.weight.data.copy_(tensors["fc.weight"])
        except (KeyError, RuntimeError) as error:
            raise WeightsError(
                f"{path.name}: not dlib's recognition network ({error}); run 'vidswap weights fetch'"
            ) from error
        return channels_last(model.eval().requires_grad_(False))

    def forward(self, chips: Tensor) -> Tensor:
        """Embeddings ``[B, 128]`` of chips ``[B, 3, 150, 150]``, RGB in [0, 255]."""
        if chips.ndim != 4 or chips.shape[1:] != (3, CHIP_SIZE, CHIP_SIZE):
            raise ValueError(f"chips: expected [B, 3, 150, 150], got {tuple(chips.shape)}")
        return self.fc(self.trunk((chips - self.mean) / 256).mean((2, 3)))

    def trunk(self, x: Tensor) -> Tensor:
        """Features of the last block; input normalised."""
        return self.tapped(x, (len(self.blocks) - 1,))[0]

    def tapped(self, x: Tensor, taps: tuple[int, ...]) -> list[Tensor]:
        """Features of the blocks numbered in ``taps``, in their order; input normalised."""
        x = functional.max_pool2d(functional.relu(self.stem(x)), 3, 2)
        kept = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in taps:
                kept.append(x)
            if len(kept) == len(taps):
                break
        return kept

    def trunk_end(self, x: Tensor) -> Tensor:
        """The blocks after number 12, given its output."""
        for block in self.blocks[13:]:
            x = block(x)
        return x

    def chips(self, images: Tensor) -> Tensor:
        """Chips in [0, 255] of FFHQ-aligned images ``[B, 3, S, S]`` in [-1, 1]."""
        left, top, right, bottom = self.chip_box
        step = (torch.arange(CHIP_SIZE, device=images.device, dtype=images.dtype) + 0.5) / CHIP_SIZE
        x = (left + step * (right - left)) * 2 - 1
        y = (top + step * (bottom - top)) * 2 - 1
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)
        while images.shape[-1] > 3.2 * CHIP_SIZE:  # sampling four neighbours only needs a smaller picture
            images = functional.avg_pool2d(images, 2)
        grid = grid[None].expand(images.shape[0], -1, -1, -1)
        sampled = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
        return (sampled + 1) * 127.5

    def embed_aligned(self, images: Tensor) -> Tensor:
        """Embeddings ``[B, 128]`` of FFHQ-aligned images ``[B, 3, S, S]`` in [-1, 1]."""
        return self(self.chips(images))

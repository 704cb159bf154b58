"""Identity networks besides dlib's: one judges and took no part in our training, one taught the mixer.

Both come from TensorFlow.js packages (``vidswap weights fetch judge`` / ``teacher``) and look at a fixed
part of an FFHQ-aligned picture, so nothing needs to be found in it and gradients reach its pixels.

- ``faceres``: the MobileNet of Savchenko (PeerJ CS 2019, "Efficient facial representations for age, gender
  and identity recognition"), trained to tell people apart on VGGFace2; 1024-d, before its age and gender
  heads. The better judge: on real frames it separates people better than dlib's network. ``faceres-ages`` is
  the same with its head of ages.
- ``mobileface``: version 3 of becauseofAI's MobileFace, 256-d, small (95.5 % on LFW by its own account).

Outputs equal those of TensorFlow.js 4 (CPU backend, the package's own files) to 2e-6 of their length on
three real and generated faces; ``tests/models/test_judge_tfjs.py`` keeps a comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vidswap.models.tflite_graph import TfliteGraph


@dataclass(frozen=True)
class Recipe:
    """How a network wants its picture."""

    title: str
    box: tuple[float, float, float, float]
    """Left, top, right, bottom in an FFHQ-aligned picture, as fractions of its side."""
    is_bgr: bool
    mean: tuple[float, float, float]
    """Taken off the values in [0, 255], in the network's own order of channels."""


# The box was chosen among five on real frames; the network's authors cut a detector's box. The package feeds
# RGB in [0, 255]; BGR less the mean of the training (Caffe's VGGFace) is better.
_FACERES = Recipe(
    "HSE-FaceRes MobileNet, VGGFace2", (0.15, 0.2, 0.85, 0.9), True, (103.939, 116.779, 123.68)
)

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "faceres": _FACERES,
        # Where ArcFace's five points lie in the mean aligned face; the graph itself scales the values.
        "mobileface": Recipe("MobileFace V3", (0.126, 0.1248, 0.8762, 0.875), False, (0.0, 0.0, 0.0)),
    }
)


class _TfjsFaces(nn.Module):
    """A network that looks at a part of FFHQ-aligned pictures; frozen, differentiable in the picture."""

    mean: Tensor

    def __init__(self, recipe: Recipe, graph: TfliteGraph) -> None:
        super().__init__()
        self.recipe, self.graph = recipe, graph
        self.chip_size = int(graph.input_shape[1])
        self.register_buffer("mean", torch.tensor(recipe.mean).view(1, 3, 1, 1))

    def chips(self, images: Tensor) -> Tensor:
        """What the network sees of images ``[B, 3, S, S]`` in [0, 1]: ``[B, 3, size, size]``, its range."""
        left, top, right, bottom = self.recipe.box
        size = self.chip_size
        # Bilinear sampling sees two neighbours; more pixels than that would alias.
        while images.shape[-1] * (right - left) > 2 * size and images.shape[-1] % 2 == 0:
            images = functional.avg_pool2d(images, 2)
        step = (torch.arange(size, device=images.device, dtype=images.dtype) + 0.5) / size
        x, y = (left + step * (right - left)) * 2 - 1, (top + step * (bottom - top)) * 2 - 1
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)
        grid = grid[None].expand(images.shape[0], -1, -1, -1)
        found = functional.grid_sample(images, grid, padding_mode="border", align_corners=False) * 255
        return (found.flip(1) if self.recipe.is_bgr else found) - self.mean

    def answers(self, images: Tensor) -> Tensor:
        """The network's own output ``[B, D]``, of FFHQ-aligned images ``[B, 3, S, S]`` RGB in [0, 1]."""
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
            raise ValueError(f"images: expected [B, 3, S, S], got {list(images.shape)}")
        return self.graph(self.chips(images))[0]


class TfjsIdentity(_TfjsFaces):
    """Identity embeddings."""

    def __init__(self, name: str, graph: TfliteGraph) -> None:
        super().__init__(RECIPES[name], graph)
        self.key = name

    @classmethod
    def load(cls, name: str, path: Path) -> TfjsIdentity:
        """Read converted weights.

        :param name: one of :data:`RECIPES`. :param path: its file, ``weights.locate(name)``.
        :raises WeightsError: when the file is damaged or another kind.
        """
        return cls(name, TfliteGraph.load(path)).eval()

    @property
    def name(self) -> str:
        """For reports."""
        return f"{self.key} ({self.recipe.title})"

    def embed_aligned(self, images: Tensor) -> Tensor:
        """Embeddings ``[B, D]`` of length one, of FFHQ-aligned images ``[B, 3, S, S]`` RGB in [0, 1]."""
        return functional.normalize(self.answers(images))

    def forward(self, images: Tensor) -> Tensor:
        """Same as :meth:`embed_aligned`."""
        return self.embed_aligned(images)

    @torch.no_grad()
    def embed_picture(self, image: NDArray[np.floating]) -> NDArray[np.float32]:
        """Embedding ``[D]`` of one FFHQ-aligned picture ``[S, S, 3]`` in [0, 1]; compare by cosine."""
        planes = np.ascontiguousarray(np.asarray(image, np.float32).transpose(2, 0, 1))
        tensor = torch.from_numpy(planes)[None].to(self.mean.device)
        return self.embed_aligned(tensor)[0].cpu().numpy()


class TfjsAges(_TfjsFaces):
    """Ages as the head of ``faceres`` reads them, a class a year; it teaches the direction of age."""

    @classmethod
    def load(cls, path: Path) -> TfjsAges:
        """Read converted weights. :raises WeightsError: when the file is damaged or another kind."""
        return cls(_FACERES, TfliteGraph.load(path)).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Expected age ``[B]`` in years, of FFHQ-aligned images ``[B, 3, S, S]`` RGB in [0, 1]."""
        shares = self.answers(images).softmax(1)
        return shares @ torch.arange(shares.shape[1], dtype=shares.dtype, device=shares.device)

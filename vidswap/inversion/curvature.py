"""What a step of a fit does to its loss, known beforehand.

The loss of an inversion is close to a sum of squares, so its second derivative is close to Gauss and
Newton's ``J' A J``: how the picture depends on the code, weighted as the loss weighs the picture. From face
to face it changes little, and few directions of W+ hold nearly all of it. So it is measured once, on random
codes, by gradients of random combinations of what the loss compares (Hutchinson's way of sampling a
matrix), and kept as its leading eigenvectors. Steps scaled by its inverse go as far along a direction that
the picture hardly feels as along one that it feels strongly; Adam needs some hundred for that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from vidswap.inversion.losses import (
    FEATURE_WEIGHT,
    IDENTITY_WEIGHT,
    edges,
    ellipse,
    identity_features,
    pixel_weights,
)
from vidswap.models import Generator
from vidswap.models.identity import DlibIdentity

_APART = math.sqrt(0.5)
"""Styles that move apart count this much, against all moving together: faces differ more by the latter."""
_PIXEL, _EDGE = 1.4, 4.0
"""Weights of the squares that the loss of pixels and of edges is close to. Its absolute differences ``c |d|``
bend as ``c / 2|d|`` does, at the usual difference of pixels (0.12) and of edges (0.06)."""


@dataclass(frozen=True)
class Curvature:
    """Mean second derivative of the fit's loss by the code, in its leading directions.

    In units of W's mean standard deviation, after :func:`_whitened`.
    """

    directions: Tensor
    """``[R, n_styles * 512]`` orthonormal."""
    values: Tensor
    """``[R]`` along each."""
    damping: float
    """Second derivative that all other directions are taken to have."""
    unit: float
    """W's mean standard deviation."""

    generator: str
    """Identifier of the generator that it was measured on."""

    @classmethod
    def load(cls, path: Path, device: torch.device | None = None) -> Curvature:
        """Read what :meth:`save` wrote."""
        with safe_open(path, "pt") as file:
            told = file.metadata()
            directions, values = (file.get_tensor(key).float() for key in ("directions", "values"))
        return cls(
            directions.to(device), values.to(device),
            float(told["damping"]), float(told["unit"]), told["generator"],
        )  # fmt: skip

    def save(self, path: Path) -> None:
        """Write a safetensors file, directions in half precision."""
        tensors = {"directions": self.directions.half().cpu().contiguous(), "values": self.values.cpu()}
        told = {"generator": self.generator, "damping": str(self.damping), "unit": str(self.unit)}
        save_file(tensors, path, told)

    def newton_step(self, gradient: Tensor) -> Tensor:
        """The step that would end at the minimum, were the loss the mean one: ``[1, n_styles, 512]``."""
        flat = _whitened(gradient * self.unit).flatten()
        along = self.directions @ flat
        rest = flat - along @ self.directions
        step = (along / (self.values + self.damping)) @ self.directions + rest / self.damping
        return -_whitened(step.view_as(gradient)) * self.unit


def _whitened(codes: Tensor) -> Tensor:
    """Shrinks what differs between the styles of ``[B, n_styles, 512]``."""
    return torch.lerp(codes.mean(1, keepdim=True), codes, _APART)


def measure_curvature(
    generator: Generator,
    identity: DlibIdentity,
    codes: Iterable[Tensor],
    *,
    size: int,
    rank: int,
    probes: int = 2,
    damping: float = 1e-3,
    seed: int = 0,
) -> Curvature:
    """Sample the curvature.

    :param codes: ``[1, n_styles, 512]`` each, like those of inversions.
    :param size: of the synthesis path, pixels.
    :param rank: leading directions to keep.
    :param probes: random gradients a code; one pass forwards serves them all.
    """
    random = torch.Generator().manual_seed(seed)
    weight = pixel_weights(ellipse(size, generator.w_avg.device))
    rows = []
    for code in codes:
        code = code.detach().requires_grad_(True)
        made = generator.synthesize(code, size=size)
        seen = _compared(made, weight, identity)
        for probe in range(probes):
            total = sum(((part * _noise(part, random)).sum() for part in seen), torch.zeros(()))
            (row,) = torch.autograd.grad(total, code, retain_graph=probe + 1 < probes)
            rows.append(_whitened(row * float(generator.w_std)).flatten().cpu())
    directions, values = _leading(torch.stack(rows), rank)
    return Curvature(directions, values, damping, float(generator.w_std), generator.identifier)


def _compared(made: Tensor, weight: Tensor, identity: DlibIdentity) -> list[Tensor]:
    """What the loss compares, scaled so that it is half the sum of squared differences."""
    edge = edges(made)
    features, embedding = identity_features(identity, made)
    scaled = [
        made * (2 * _PIXEL * weight / made[0].numel()).sqrt(),
        edge * (2 * _EDGE * weight[:, :, :-1, :-1] / edge[0].numel()).sqrt(),
        embedding * math.sqrt(2 * IDENTITY_WEIGHT),
    ]
    return scaled + [part * math.sqrt(2 * FEATURE_WEIGHT / part[0, 0].numel()) for part in features]


def _noise(like: Tensor, random: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=random).to(like.device)


def _leading(rows: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Leading eigenvectors ``[R, D]`` and -values of the mean outer product of rows ``[N, D]``."""
    rows = rows / math.sqrt(len(rows))
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    values, vectors = values.flip(0)[:rank], vectors.flip(1)[:, :rank]
    kept = values > 1e-12
    values, vectors = values[kept], vectors[:, kept]
    return (rows.T @ vectors / values.sqrt()).T.contiguous(), values

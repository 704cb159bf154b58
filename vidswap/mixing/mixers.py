"""Mixers: (source code, target code, strength) to the swapped code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from vidswap.config import MixConfig
from vidswap.errors import UsageError, did_you_mean
from vidswap.models.mixer import load_mixer


class Mixer(Protocol):
    """Codes are ``[B, n_styles, 512]``; strength 0 gives the target's code back, 1 the full swap."""

    name: str

    def __call__(self, source: Tensor, target: Tensor, strength: float = 1.0) -> Tensor: ...


class LayerMixer:
    """Copies some styles from the source; needs no training.

    Which styles carry what was measured (``vidswap train analyse``): 5 to 13 carry identity, with part of
    the expression; coarser ones the pose, finer ones the colours.
    """

    name = "layers"

    def __init__(self, styles: Sequence[int], n_styles: int) -> None:
        outside = [style for style in styles if not 0 <= style < n_styles]
        if outside:
            raise UsageError(f"mix.layers: styles are 0 to {n_styles - 1}, got {outside}")
        self.share = torch.zeros(1, n_styles, 1)
        self.share[:, list(styles)] = 1.0

    def __call__(self, source: Tensor, target: Tensor, strength: float = 1.0) -> Tensor:
        return target + strength * self.share.to(target) * (source - target)


class NetworkMixer:
    """A trained mixer."""

    name = "gated"

    def __init__(self, network: torch.nn.Module) -> None:
        self.network = network

    def __call__(self, source: Tensor, target: Tensor, strength: float = 1.0) -> Tensor:
        return self.network(source.expand_as(target), target, strength)


def parse_layers(text: str) -> list[int]:
    """Style numbers of a text such as ``5-13`` or ``0,3-5``. :raises UsageError: when it is none."""
    styles: list[int] = []
    try:
        for part in text.split(","):
            low, dash, high = part.strip().partition("-")
            styles += range(int(low), int(high if dash else low) + 1)
    except ValueError as error:
        raise UsageError(f"mix.layers: expected numbers such as 5-13 or 0,3-5, got {text!r}") from error
    return styles


_Factory = Callable[[MixConfig, int, Callable[[str], Path], torch.device], Mixer]


def _gated(
    config: MixConfig, n_styles: int, locate: Callable[[str], Path], device: torch.device
) -> Mixer:
    del config, n_styles
    return NetworkMixer(load_mixer(locate("mixer-gated")).to(device))


def _layers(
    config: MixConfig, n_styles: int, locate: Callable[[str], Path], device: torch.device
) -> Mixer:
    del locate, device
    return LayerMixer(parse_layers(config.layers), n_styles)


MIXERS: dict[str, _Factory] = {
    "gated": _gated,
    "layers": _layers,
}


def make_mixer(
    config: MixConfig,
    n_styles: int,
    *,
    locate: Callable[[str], Path],
    available: Callable[[str], bool],
    device: torch.device,
) -> Mixer:
    """The mixer that the settings name; ``auto`` is the trained one when its weights are there.

    :raises UsageError: for an unknown name. :raises WeightsError: when its weights are missing.
    """
    name = config.mixer
    if name == "auto":
        name = "gated" if available("mixer-gated") else "layers"
    if name not in MIXERS:
        hint = did_you_mean(name, MIXERS, f"choose auto, {', '.join(MIXERS)}")
        raise UsageError(f"mix.mixer: {config.mixer!r} is unknown; {hint}")
    return MIXERS[name](config, n_styles, locate, device)


def blend_sources(codes: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """One source from several: photos of one person, or several people (as MFIM does, arXiv 2308.01536).

    :param codes: of one shape, codes ``[1, n_styles, 512]`` or embeddings ``[1, 128]``.
    :param weights: shares, normalised to sum 1; equal when None.
    :raises ValueError: when the counts differ or the weights do not sum to more than 0.
    """
    shares = [1.0] * len(codes) if weights is None else list(weights)
    if len(shares) != len(codes) or sum(shares) <= 0 or min(shares) < 0:
        raise ValueError(f"source weights: expected {len(codes)} numbers >= 0, not all 0, got {shares}")
    total = sum(shares)
    parts = ((share / total) * code for share, code in zip(shares, codes, strict=True))
    return sum(parts, torch.zeros_like(codes[0]))

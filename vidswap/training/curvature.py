"""Codes to measure the curvature of inversions on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vidswap.models.mobile_stylegan import MobileStyleGAN
from vidswap.training.sampling import LatentSampler


@dataclass(frozen=True)
class CurvatureOptions:
    """Settings of ``vidswap train curvature``."""

    codes: int = 1400
    """Codes to measure it on."""
    probes: int = 2
    """Random gradients a code."""
    rank: int = 256
    """Leading directions to keep."""
    damping: float = 1e-3
    """Curvature that all others are taken to have, in units of W's standard deviation."""
    size: int = 128
    """Pixels of the synthesis path."""
    seed: int = 999


@torch.no_grad()
def codes_of_inversions(
    generator: MobileStyleGAN,
    encoder: nn.Module | None,
    options: CurvatureOptions,
    *,
    log: Callable[[str], None],
) -> Iterator[Tensor]:
    """Random codes ``[1, n_styles, 512]``; every other one as the encoder sees its picture."""
    sampler = LatentSampler(generator, seed=options.seed)
    for number in range(options.codes):
        code = sampler.draw(1)
        if number % 2 and encoder is not None:
            code = encoder(generator.synthesize(code, size=options.size))
        yield code
        if (number + 1) % 50 == 0:
            log(f"{number + 1} of {options.codes} codes")

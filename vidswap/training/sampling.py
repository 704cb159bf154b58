"""Random latents that look like those that inversion gives.

Inverted real faces lie at an rms distance of 0.6 to 0.9 of W's standard deviation from the mean, and
most of that is difference between the styles; a plain sample of W is 1.0 and 0. Networks that must work
on real faces are trained on codes of all these kinds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from vidswap.models.mobile_stylegan import MobileStyleGAN


@dataclass
class LatentSampler:
    """Seeded source of W+ codes ``[B, n_styles, 512]``."""

    generator: MobileStyleGAN
    seed: int = 0
    plain_share: float = 0.3
    """Share of codes that are one W sample for all styles."""
    random: torch.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.random = torch.Generator().manual_seed(self.seed)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=self.random)

    def w(self, count: int) -> Tensor:
        """Samples of W relative to its mean, ``[count, 512]``, without truncation."""
        z = torch.randn(count, self.generator.w_dim, generator=self.random)
        return (self.generator.map(z.to(self.generator.device)) - self.generator.w_avg).cpu()

    @torch.no_grad()
    def draw(self, count: int) -> Tensor:
        """Codes of all kinds: plain, style-mixed and with differences between styles."""
        codes = [self._one() for _ in range(count)]
        return torch.stack(codes).to(self.generator.device) + self.generator.w_avg

    def _one(self) -> Tensor:
        n = self.generator.n_styles
        psi = float(self.uniform(0.45, 0.95, 1))
        base = self.w(1)
        kind = float(torch.rand(1, generator=self.random))
        if kind < self.plain_share:
            return psi * base.expand(n, -1)
        if kind < self.plain_share + 0.25:  # coarse styles of one, fine styles of another
            cut = int(torch.randint(2, n - 2, (1,), generator=self.random))
            other = self.w(1)
            styles = torch.arange(n)[:, None]
            return psi * torch.where(styles < cut, base, other)
        # a weaker base plus differences between styles that are smooth over a few neighbours
        strength = float(self.uniform(0.4, 1.0, 1))
        parts = self.w(n)
        reach = int(torch.randint(0, 4, (1,), generator=self.random))
        if reach:
            kernel = torch.exp(-0.5 * ((torch.arange(n)[:, None] - torch.arange(n)) / reach) ** 2)
            parts = kernel @ parts / kernel.square().sum(1, keepdim=True).sqrt()
        return psi * (float(self.uniform(0.3, 0.9, 1)) * base + 0.8 * strength * parts)

"""Codes as fitting leaves them.

A fit through a cheap path goes where its head is wrong: a difference that only the head draws costs the
loss as little as a real one. A head that never saw such codes gets worse with every step of the fit, so
half of what it learns from are codes that were fitted through it as it is now, to faces that the
generator cannot draw quite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vidswap.models.mobile_stylegan import MobileStyleGAN
from vidswap.training.augment import augment

Fit = Callable[[Tensor, Tensor, int, float], Tensor]
"""Picture ``[1, 3, S, S]``, start ``[1, n_styles, 512]``, steps, their size as a share of the usual: gives
the fitted code, found through the cheap path of ``S`` pixels."""

_CHAINS = 24
_RESTART = 0.12
"""Chance that a chain begins anew; a chain is then fitted some eight times, as a track is."""
_STEPS = (4, 20)


@dataclass
class _Chain:
    code: Tensor
    """``[1, n_styles, 512]``."""
    person: Tensor
    """``[1, 3, S, S]``."""
    fits: int = 0


class FittedCodes:
    """Seeded source of fitted codes.

    :param generator: its heads are the ones that are being trained.
    :param fit: how faces are inverted.
    :param encoder: where inversions start, ``[1, 3, S, S]`` to W+; None: all start at the mean.
    :param restart: chance that a chain begins anew.
    """

    def __init__(
        self,
        generator: MobileStyleGAN,
        fit: Fit,
        encoder: nn.Module | None,
        *,
        seed: int,
        restart: float = _RESTART,
    ) -> None:
        self._generator, self._fit, self._encoder, self._restart = generator, fit, encoder, restart
        self._random = torch.Generator().manual_seed(seed)
        self._chains: list[_Chain] = []

    def draw(self, pictures: Sequence[Tensor]) -> Tensor:
        """A code ``[1, n_styles, 512]``, some fits away from a start.

        :param pictures: of other codes, ``[1, 3, S, S]``; what the fits aim at, altered.
        """
        number = int(torch.randint(_CHAINS, (), generator=self._random))
        if number >= len(self._chains):
            self._chains.append(self._begun(pictures))
            number = len(self._chains) - 1
        chain = self._chains[number]
        if self._chance(self._restart):
            chain = self._chains[number] = self._begun(pictures)
        target = augment(self._graded(chain.person), self._random).to(self._generator.device)
        first = chain.fits == 0
        steps = int(torch.randint(*_STEPS, (), generator=self._random))
        chain.code = self._fit(target, chain.code, steps, 1.0 if first else 0.4).detach()
        chain.fits += 1
        return chain.code

    def _begun(self, pictures: Sequence[Tensor]) -> _Chain:
        one, other = (
            pictures[int(torch.randint(len(pictures), (), generator=self._random))].cpu() for _ in "ab"
        )
        if self._chance(0.4):  # a face that is nobody's: no code draws it whole
            one = torch.lerp(one, other, self._cut_out(one.shape[-1]))
        mean = self._generator.w_avg.expand(1, self._generator.n_styles, -1)
        if self._encoder is None or self._chance(0.2):
            return _Chain(mean, one)
        with torch.no_grad():
            return _Chain(self._encoder(one.to(mean.device)), one)

    def _cut_out(self, size: int) -> Tensor:
        """A soft half-plane through the middle of the face, or a weak blend of all of it."""
        if self._chance(0.4):
            return torch.full((1, 1, size, size), float(self._between(0.2, 0.5)))
        axis = (torch.arange(size) + 0.5) / size - 0.55
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        angle = self._between(0, 6.283)
        side = x * angle.cos() + y * angle.sin() + self._between(-0.15, 0.15)
        return torch.sigmoid(side * self._between(15, 60))[None, None]

    def _graded(self, image: Tensor) -> Tensor:
        """Another light: saturation, tint, and a slope of brightness over the face."""
        gray = image.mean(1, keepdim=True)
        image = gray + (image - gray) * self._between(0.1, 1.5)
        axis = torch.linspace(-1, 1, image.shape[-1])
        slope = self._between(-0.3, 0.3) * axis[None, :] + self._between(-0.3, 0.3) * axis[:, None]
        tint = 0.08 * torch.randn(1, 3, 1, 1, generator=self._random)
        return (image * (1 + slope) + 0.3 * slope + tint).clamp(-1, 1)

    def _between(self, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand((), generator=self._random)

    def _chance(self, probability: float) -> bool:
        return float(torch.rand((), generator=self._random)) < probability

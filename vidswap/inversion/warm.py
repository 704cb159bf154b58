"""Inversion along a track: each frame starts from the better of encoder and frame before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vidswap.config import InversionConfig
from vidswap.inversion.fit import FitResult, fit_pivot, path_correction
from vidswap.inversion.losses import FitTarget, fit_target, reconstruction_loss
from vidswap.models import Generator
from vidswap.models.identity import DlibIdentity
from vidswap.models.rgb_head import area_downsample
from vidswap.records import Pivot

_MANY_STEPS = 12
"""From this many steps on a fresh fit is worth rounds."""
_CORRECT_EVERY = 30
"""Frames after which the correction of the cheap path is measured again."""


@dataclass(frozen=True)
class WarmState:
    """What a track carries from frame to frame."""

    code: Tensor
    """``[1, n_styles, 512]`` fitted code of the frame before."""
    encoded: Tensor | None
    """What the encoder said of that frame, ``[1, n_styles, 512]``."""
    psnr: float
    """PSNR in the face that the fit reached, dB."""
    correction: Tensor | None = None
    """Of the cheap path near this code; see :func:`vidswap.inversion.fit.path_correction`."""
    correction_age: int = 0
    """Frames since it was measured."""


@dataclass(frozen=True)
class Inverter:
    """The networks and settings of inversion; no state of its own."""

    generator: Generator
    identity: DlibIdentity
    config: InversionConfig
    encoder: torch.nn.Module | None = None
    """``[B, 3, S, S]`` in [-1, 1] to ``[B, n_styles, 512]``; None: start from the mean latent."""

    def first(self, image: Tensor, *, face: Tensor | None = None, steps: int | None = None) -> Pivot:
        """Invert a face with no history (a source photo, the first frame of a track)."""
        pivot, _ = self.step(image, None, face=face, steps=steps)
        return pivot

    def step(
        self,
        image: Tensor,
        state: WarmState | None,
        *,
        face: Tensor | None = None,
        steps: int | None = None,
    ) -> tuple[Pivot, WarmState]:
        """Invert one frame of a track.

        :param image: ``[1, 3, S, S]`` aligned face in [-1, 1].
        :param state: of the frame before; None at the start, after a cut or a lost face.
        :param face: ``[1, 1, S, S]`` where the face is visible.
        :param steps: overrides the number of steps of the settings.
        :return: the pivot and the state for the next frame.
        """
        encoded = self._encode(image)
        if state is None:
            origin, result, correction = self._fresh(image, encoded, face, steps)
            wanted, age = result.psnr, 0
        else:
            origin, result, correction, age = self._following(image, encoded, state, face, steps)
            # What the first frame reached is asked of the next ones, so easy frames cost few steps.
            wanted = max(state.psnr - 0.02, min(state.psnr, result.psnr))
        code = result.w_plus.detach()
        pivot = Pivot(
            latent=code[0].cpu().numpy(),
            generator=self.generator.identifier,
            error=10 ** (-result.psnr / 10),
            steps=result.steps,
            started_from=origin,
        )
        return pivot, WarmState(code, encoded, wanted, correction, age)

    def _fresh(
        self, image: Tensor, encoded: Tensor | None, face: Tensor | None, steps: int | None
    ) -> tuple[str, FitResult, Tensor | None]:
        """A fit with no history, in rounds: the cheap path is set right before each but the first."""
        origin, code = "encoder", encoded
        if code is None:
            origin, code = "mean", self.generator.w_avg.expand(1, self.generator.n_styles, -1)
        total = self.config.first_steps if steps is None else steps
        rounds = [total] if total < _MANY_STEPS else [total // 2, total // 4, total - total // 2 - total // 4]
        correction, spent = None, 0
        for number, count in enumerate(rounds):
            if number:
                correction = path_correction(self.generator, code, self.config.fast_size)
            last = number == len(rounds) - 1
            result = fit_pivot(
                self.generator, self.identity, image, code,
                config=self.config, steps=count, face=face, correction=correction,
                full_steps=self.config.full_steps if last else 0,
                rate_scale=0.5**number,
            )  # fmt: skip
            code, spent = result.w_plus, spent + result.steps
        return origin, replace(result, steps=spent), correction

    def _following(
        self,
        image: Tensor,
        encoded: Tensor | None,
        state: WarmState,
        face: Tensor | None,
        steps: int | None,
    ) -> tuple[str, FitResult, Tensor | None, int]:
        config = self.config
        correction, age = state.correction, state.correction_age + 1
        if correction is not None and age >= _CORRECT_EVERY:
            correction, age = path_correction(self.generator, state.code, config.fast_size), 0
        starts = _candidates(encoded, state)
        origin, start = self._best(starts, image, face, correction)
        result = fit_pivot(
            self.generator, self.identity, image, start,
            config=config, steps=config.next_steps if steps is None else steps,
            full_steps=config.full_steps, face=face, rate_scale=config.next_rate,
            target_psnr=state.psnr, correction=correction,
        )  # fmt: skip
        return origin, result, correction, age

    @torch.no_grad()
    def _encode(self, image: Tensor) -> Tensor | None:
        return None if self.encoder is None or not self.config.encoder else self.encoder(image)

    @torch.no_grad()
    def _best(
        self,
        starts: Sequence[tuple[str, Tensor]],
        image: Tensor,
        face: Tensor | None,
        correction: Tensor | None,
    ) -> tuple[str, Tensor]:
        if len(starts) == 1:
            return starts[0]
        size = self.config.fast_size
        small_face = None if face is None else area_downsample(face, size)
        target = fit_target(area_downsample(image, size), self.identity, face=small_face)
        losses = [self._loss(code, target, size, correction) for _, code in starts]
        return starts[losses.index(min(losses))]

    def _loss(
        self, code: Tensor, target: FitTarget, size: int, correction: Tensor | None
    ) -> float:
        made = self.generator.synthesize(code, size=size)
        if correction is not None:
            made = made + correction
        return float(reconstruction_loss(made, target, None))


def _candidates(encoded: Tensor | None, state: WarmState) -> list[tuple[str, Tensor]]:
    """Where a fit may start: the frame before, moved as the encoder says; or the encoder itself."""
    if encoded is None or state.encoded is None:
        return [("previous", state.code)]
    moved = state.code + (encoded - state.encoded)
    return [("previous", moved), ("encoder", encoded)]

"""Inversion along a track: each frame starts from the better of encoder and frame before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vidswap.config import InversionConfig
from vidswap.inversion.fit import fit_pivot
from vidswap.inversion.losses import FitTarget, fit_target, reconstruction_loss
from vidswap.models import Generator
from vidswap.models.identity import DlibIdentity
from vidswap.models.rgb_head import area_downsample
from vidswap.records import Pivot


@dataclass(frozen=True)
class WarmState:
    """What a track carries from frame to frame."""

    code: Tensor
    """``[1, n_styles, 512]`` fitted code of the frame before."""
    encoded: Tensor | None
    """What the encoder said of that frame, ``[1, n_styles, 512]``."""
    psnr: float
    """PSNR in the face that the fit reached, dB."""


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
        config = self.config
        encoded = self._encode(image)
        starts = _candidates(encoded, state)
        if not starts:
            starts = [("mean", self.generator.w_avg.expand(1, self.generator.n_styles, -1))]
        origin, start = self._best(starts, image, face)
        fresh = state is None
        count = steps if steps is not None else (config.first_steps if fresh else config.next_steps)
        result = fit_pivot(
            self.generator, self.identity, image, start,
            config=config, steps=count, full_steps=config.full_steps, face=face,
            rate_scale=1.0 if fresh else config.next_rate,
            target_psnr=None if fresh or state is None else state.psnr,
        )  # fmt: skip
        # What the first frame reached is asked of the next ones, so easy frames cost few steps.
        wanted = result.psnr if fresh else max(state.psnr - 0.02, min(state.psnr, result.psnr))
        code = result.w_plus.detach()
        pivot = Pivot(
            latent=code[0].cpu().numpy(),
            generator=self.generator.identifier,
            error=10 ** (-result.psnr / 10),
            steps=result.steps,
            started_from=origin,
        )
        return pivot, WarmState(code, encoded, wanted)

    @torch.no_grad()
    def _encode(self, image: Tensor) -> Tensor | None:
        return None if self.encoder is None or not self.config.encoder else self.encoder(image)

    @torch.no_grad()
    def _best(
        self, starts: Sequence[tuple[str, Tensor]], image: Tensor, face: Tensor | None
    ) -> tuple[str, Tensor]:
        if len(starts) == 1:
            return starts[0]
        size = self.config.fast_size
        small_face = None if face is None else area_downsample(face, size)
        target = fit_target(area_downsample(image, size), self.identity, face=small_face)
        losses = [self._loss(code, target, size) for _, code in starts]
        return starts[losses.index(min(losses))]

    def _loss(self, code: Tensor, target: FitTarget, size: int) -> float:
        made = self.generator.synthesize(code, size=size)
        return float(reconstruction_loss(made, target, None))


def _candidates(encoded: Tensor | None, state: WarmState | None) -> list[tuple[str, Tensor]]:
    """Where a fit may start: the encoder; the frame before, moved as the encoder says."""
    if state is None:
        return [] if encoded is None else [("encoder", encoded)]
    if encoded is None or state.encoded is None:
        return [("previous", state.code)]
    moved = state.code + (encoded - state.encoded)
    return [("previous", moved), ("encoder", encoded)]

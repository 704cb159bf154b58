"""Inversion along a track: each frame starts from the better of encoder and frame before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypedDict

import torch
from torch import Tensor

from vidswap.config import InversionConfig
from vidswap.inversion.curvature import Curvature
from vidswap.inversion.fit import FitResult, Pairs, fit_pivot, follow_pivot, path_correction
from vidswap.inversion.losses import fit_target
from vidswap.models import Generator
from vidswap.models.identity import DlibIdentity
from vidswap.models.rgb_head import area_downsample
from vidswap.records import Pivot

_MANY_STEPS = 12
"""From this many steps on a fresh fit is worth rounds."""
_CORRECT_EVERY = 8
"""Frames after which the correction of the cheap path is measured again."""
_CORRECT_MOVED = 0.12
"""Way of the code since it was measured, root mean square in units of W's standard deviation, after which it
is measured sooner: it errs by a quarter of that (of 2), mostly in colour. A crying face behind a hand moved
by 0.26 in eight frames, and its skin turned yellow."""
_ANCHOR = 0.03
"""Share a frame by which the start is drawn back to where the track began, moved as the encoder says. What
the fit feels it wins back at once; what it does not feel cannot wander off."""
_BROKEN = 3.0
"""A correction of the cheap path this many times the first one's size: the full picture has fallen apart."""
_MOTION = 0.5
"""Share of the encoder's change since the frame before that the start is moved by. The whole of it starts
no better (the encoder's own noise is in it) and makes the codes tremble twice as much."""
_SOON = 12
"""Frames over which it is remembered where the face was covered."""
_CAME_TO_LIGHT = 0.05
"""Share of the face, as its pixels count, that was covered and no longer is, from which on the frame is
inverted afresh: what the generator drew there is nobody's mouth, and a fit of few steps does not get away
from it. A hand that left a mouth showed 0.09; hair and hands that only move in place 0.01 to 0.04."""
_SPACED = 6
"""Frames from one such inversion to the next at least: a hand that waves is not worth one a frame."""

Anchor = tuple[Tensor, Tensor | None]
"""Code of a track's first frame, and what the encoder said of it."""


class Maps(TypedDict):
    """What a fit is told of a picture, by the names that :func:`fit_target` has for it; ``[1, 1, S, S]``."""

    face: Tensor | None
    """Where the face is visible."""
    covered: Tensor | None
    """Where something is in front of it."""


@dataclass(frozen=True)
class Correction:
    """What the cheap path gets wrong; see :func:`vidswap.inversion.fit.path_correction`."""

    added: Tensor
    """``[1, 3, s, s]`` that is added to its pictures."""
    code: Tensor
    """``[1, n_styles, 512]`` that it was measured at."""
    age: int = 0
    """Frames since then."""

    @property
    def size(self) -> float:
        """Root mean square."""
        return float(self.added.square().mean().sqrt())


@dataclass(frozen=True)
class Hidden:
    """What was in front of a face of late."""

    covered: Tensor
    """``[1, 1, s, s]`` in [0, 1], since it was last inverted afresh."""
    since: int = 0
    """Frames since then."""


@dataclass(frozen=True)
class WarmState:
    """What a track carries from frame to frame."""

    code: Tensor
    """``[1, n_styles, 512]`` fitted code of the frame before."""
    encoded: Tensor | None
    """What the encoder said of that frame, ``[1, n_styles, 512]``."""
    psnr: float
    """PSNR in the face that the fit reached, dB."""
    correction: Correction | None = None
    """Of the cheap path, measured near this code."""
    moments: Tensor | None = None
    """Mean square of the fit's gradients; see :func:`vidswap.inversion.fit.follow_pivot`."""
    pairs: Pairs = ()
    """What its last steps taught of the curvature."""
    rested: bool = False
    """Whether the frame before was left at its prediction."""
    anchor: Anchor | None = None
    first_correction: float = 0.0
    """Root mean square of the correction at the track's first frame."""
    hidden: Hidden | None = None
    """None where nothing tells what is in front."""


@dataclass(frozen=True)
class Inverter:
    """The networks and settings of inversion; no state of its own."""

    generator: Generator
    identity: DlibIdentity
    config: InversionConfig
    encoder: torch.nn.Module | None = None
    """``[B, 3, S, S]`` in [-1, 1] to ``[B, n_styles, 512]``; None: start from the mean latent."""
    curvature: Curvature | None = None
    """What scales the steps; None: Adam."""

    def first(
        self,
        image: Tensor,
        *,
        face: Tensor | None = None,
        covered: Tensor | None = None,
        steps: int | None = None,
    ) -> Pivot:
        """Invert a face with no history (a source photo, the first frame of a track)."""
        pivot, _ = self.step(image, None, face=face, covered=covered, steps=steps)
        return pivot

    def step(
        self,
        image: Tensor,
        state: WarmState | None,
        *,
        face: Tensor | None = None,
        covered: Tensor | None = None,
        steps: int | None = None,
    ) -> tuple[Pivot, WarmState]:
        """Invert one frame of a track.

        :param image: ``[1, 3, S, S]`` aligned face in [-1, 1].
        :param state: of the frame before; None at the start, after a cut or a lost face. Not looked at where
            the settings say that each frame is inverted on its own, and little where much of the face was
            covered that no longer is.
        :param face: ``[1, 1, S, S]`` where the face is visible.
        :param covered: ``[1, 1, S, S]`` where something is in front of it.
        :param steps: overrides the number of steps of the settings.
        :return: the pivot and the state for the next frame.
        """
        if not self.config.warm:
            state = None
        encoded = self._encode(image)
        seen: Maps = {"face": face, "covered": covered}
        now = None if covered is None else area_downsample(covered, self.config.fast_size)
        correction, afresh = None, state is None or self._uncovered(state, now, face)
        if state is not None and not afresh:
            correction = self._renewed(state)
            afresh = self._broken(state, correction)
        if state is None or afresh:
            origin, start = self._beginning(encoded, state)
            result, correction = self._fresh(image, start, seen, steps)
            wanted = result.psnr
        else:
            origin, result = self._following(image, encoded, state, correction, seen, steps)
            # What the first frame reached is asked of the next ones, so easy frames cost few steps.
            wanted = max(state.psnr - 0.02, min(state.psnr, result.psnr)) if result.steps else state.psnr
        if state is None:
            anchor: Anchor | None = (result.w_plus.detach(), encoded)
            size = 0.0 if correction is None else correction.size
        else:
            anchor, size = state.anchor, state.first_correction
        code = result.w_plus.detach()
        pivot = Pivot(
            latent=code[0].cpu().numpy(),
            generator=self.generator.identifier,
            error=10 ** (-result.psnr / 10),
            steps=result.steps,
            started_from=origin,
        )
        return pivot, WarmState(
            code, encoded, wanted, correction, result.moments, result.pairs,
            rested=state is not None and result.steps == 0,
            anchor=anchor, first_correction=size,
            hidden=_hidden(None if state is None or afresh else state.hidden, now),
        )  # fmt: skip

    def _uncovered(self, state: WarmState, now: Tensor | None, face: Tensor | None) -> bool:
        """Whether much of what was covered of late came to light just now.

        :param now: ``[1, 1, s, s]`` where the face is covered. :param face: where it is visible.
        """
        if now is None or state.hidden is None or state.hidden.since + 1 < _SPACED:
            return False
        weight = torch.ones_like(now) if face is None else area_downsample(face, now.shape[-1])
        newly_seen = ((state.hidden.covered - now).clamp_min(0) * weight).sum()
        return bool(newly_seen > _CAME_TO_LIGHT * weight.sum())

    def _renewed(self, state: WarmState) -> Correction | None:
        """The correction of the cheap path for the next frame, measured again when it is too old."""
        if state.correction is None:
            return None
        correction = replace(state.correction, age=state.correction.age + 1)
        if correction.age < _CORRECT_EVERY and self._apart(state.code, correction.code) <= _CORRECT_MOVED:
            return correction
        return self._measured(state.code)

    def _broken(self, state: WarmState, correction: Correction | None) -> bool:
        """Whether the full picture of the frame before has fallen apart."""
        if correction is None or correction.age > 0:  # not measured just now
            return False
        return correction.size > _BROKEN * max(state.first_correction, 0.02)

    def _beginning(self, encoded: Tensor | None, state: WarmState | None = None) -> tuple[str, Tensor]:
        """Where a fit that does not follow the frame before starts."""
        anchor = None if state is None else _moved_anchor(state, encoded)
        if encoded is None:
            mean = self.generator.w_avg.expand(1, self.generator.n_styles, -1)
            return ("mean", mean) if anchor is None else ("previous", anchor)
        if anchor is None:
            return "encoder", encoded
        # What the cheap path does not compute with is the look of skin and light. The track's is kept: a
        # source that was refined for it came out with orange spots in another.
        own = self.generator.own_styles(self.config.fast_size)
        return "encoder", torch.cat([encoded[:, :own], anchor[:, own:]], 1)

    def _fresh(
        self, image: Tensor, code: Tensor, seen: Maps, steps: int | None
    ) -> tuple[FitResult, Correction | None]:
        """A fit with no history, in rounds: the cheap path is set right before each but the first."""
        total = self.config.first_steps if steps is None else steps
        rounds = [total] if total < _MANY_STEPS else [total // 2, total // 4, total - total // 2 - total // 4]
        correction, spent = None, 0
        pairs: Pairs = ()
        for number, count in enumerate(rounds):
            if number:
                correction = self._measured(code)
            last = number == len(rounds) - 1
            result = fit_pivot(
                self.generator, self.identity, image, code,
                config=self.config, steps=count, correction=_added(correction), **seen,
                full_steps=self.config.full_steps if last else 0,
                rate_scale=0.5**number, curvature=self.curvature, pairs=pairs,
            )  # fmt: skip
            code, pairs, spent = result.w_plus, result.pairs, spent + result.steps
        return replace(result, steps=spent), correction

    def _following(
        self,
        image: Tensor,
        encoded: Tensor | None,
        state: WarmState,
        correction: Correction | None,
        seen: Maps,
        steps: int | None,
    ) -> tuple[str, FitResult]:
        config = self.config
        start = _predicted(state, encoded)
        size = config.fast_size
        face, covered = (
            None if each is None else area_downsample(each, size) for each in (seen["face"], seen["covered"])
        )
        target = fit_target(area_downsample(image, size), self.identity, face=face, covered=covered)
        result = follow_pivot(
            self.generator, self.identity, target, start, state.moments,
            config=config, steps=config.next_steps if steps is None else steps,
            target_psnr=state.psnr, slack_db=0.0 if state.rested else config.rest_db,
            correction=_added(correction), other=encoded, curvature=self.curvature, pairs=state.pairs,
        )  # fmt: skip
        if config.full_steps > 0:
            polished = fit_pivot(
                self.generator, self.identity, image, result.w_plus,
                config=config, steps=0, full_steps=config.full_steps,
                rate_scale=config.next_rate, **seen,
            )  # fmt: skip
            steps_spent = result.steps + polished.steps
            result = replace(result, w_plus=polished.w_plus, steps=steps_spent)
        return "encoder" if result.switched else "previous", result

    def _measured(self, code: Tensor) -> Correction:
        return Correction(path_correction(self.generator, code, self.config.fast_size), code)

    def _apart(self, one: Tensor, two: Tensor) -> float:
        return float((one - two).square().mean().sqrt() / self.generator.w_std)

    @torch.no_grad()
    def _encode(self, image: Tensor) -> Tensor | None:
        return None if self.encoder is None or not self.config.encoder else self.encoder(image)


def _hidden(before: Hidden | None, now: Tensor | None) -> Hidden | None:
    """What is remembered after a frame whose face is covered as ``now`` says; ``before`` None begins anew."""
    if now is None:
        return None
    if before is None:
        return Hidden(now)
    return Hidden(torch.lerp(before.covered, now, 1 / _SOON), before.since + 1)


def _predicted(state: WarmState, encoded: Tensor | None) -> Tensor:
    """Where the fit of the next frame starts."""
    start = state.code
    if encoded is not None and state.encoded is not None:
        start = start + _MOTION * (encoded - state.encoded)
    anchor = _moved_anchor(state, encoded)
    return start if anchor is None else torch.lerp(start, anchor, _ANCHOR)


def _moved_anchor(state: WarmState, encoded: Tensor | None) -> Tensor | None:
    """Where the track began, moved as the encoder says; None without a beginning."""
    if state.anchor is None:
        return None
    anchor, said = state.anchor
    return anchor if encoded is None or said is None else anchor + _MOTION * (encoded - said)


def _added(correction: Correction | None) -> Tensor | None:
    return None if correction is None else correction.added

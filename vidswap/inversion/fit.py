"""Fitting the pivot: the W+ latent whose picture is the face (PTI's first half, Roich et al., 2106.05744)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from vidswap.config import InversionConfig
from vidswap.inversion.curvature import Curvature
from vidswap.inversion.losses import FitTarget, face_psnr, fit_target, reconstruction_loss, w_pull
from vidswap.models import Generator
from vidswap.models.identity import DlibIdentity
from vidswap.models.rgb_head import area_downsample

_FAR_DB = 1.5
"""A face this much worse than in the frame before is worth another start, and more steps."""
_PAIRS = 10
"""Steps that a quasi-Newton fit remembers."""
_NEWTON_RATE = 1.4
"""Length of its steps before it knows better: the mean curvature of faces is a cautious guess."""
_FOLLOW_PAIRS = 6
_FOLLOW_RATE = 1.0
"""The same for a frame that follows another."""
_REACH = 0.15
"""Longest step, root mean square in units of W's standard deviation."""
_FOLLOW_DAMPING = 8.0
"""What the picture hardly feels moves so many times less from frame to frame: it would only tremble."""
_LATE = 0.1
"""Share of their steps that styles take which the cheap path does not compute with. With all of them a face
behind a hand turned from grey to yellow and back within 20 frames; without any, the face lags behind a scene
that darkens."""
_BENDS = 1e-2
"""Cosine between a step and the change of the gradient, from which on they are believed."""
_MUCH_WORSE = 1.02
"""A loss this many times the best one: the step was too long."""
_FRESH = 0.1
"""Share of the newest gradient in the running mean square."""


Pairs = tuple[tuple[Tensor, Tensor], ...]
"""Steps ``[1, n_styles, 512]`` and the changes of the gradient by them, oldest first."""


@dataclass(frozen=True)
class FitResult:
    """A fitted code and how good it is."""

    w_plus: Tensor
    """``[1, n_styles, 512]``."""
    psnr: float
    """dB on the cheap path where there were steps on it, else at full size; pixels weighed as the target says
    (:attr:`FitTarget.weight`)."""
    steps: int
    moments: Tensor | None = None
    """``[1, n_styles, 512]`` running mean square of the gradient, in the loss of the cheap path; what a
    warm start scales its steps by."""
    pairs: Pairs = ()
    """What the last steps taught of the curvature; what a quasi-Newton warm start goes on from."""
    switched: bool = False
    """Whether the fit left its start for the other one that it was offered."""


def fit_pivot(
    generator: Generator,
    identity: DlibIdentity,
    image: Tensor,
    start: Tensor,
    *,
    config: InversionConfig,
    steps: int,
    full_steps: int = 0,
    face: Tensor | None = None,
    covered: Tensor | None = None,
    rate_scale: float = 1.0,
    target_psnr: float | None = None,
    correction: Tensor | None = None,
    curvature: Curvature | None = None,
    pairs: Pairs = (),
) -> FitResult:
    """Fit W+ to an aligned face.

    :param image: ``[1, 3, S, S]`` in [-1, 1], S at least ``config.fast_size``.
    :param start: ``[1, n_styles, 512]`` code to start from.
    :param steps: steps on the cheap path.
    :param full_steps: steps at the generator's full resolution after them.
    :param face: ``[1, 1, S, S]`` where the face is visible, and ``covered`` where something is in front of
        it; see :func:`fit_target`.
    :param rate_scale: of Adam's steps; quasi-Newton steps find their own length.
    :param correction: of the cheap path, see :func:`path_correction`.
    :param target_psnr: stop as soon as this PSNR is reached, dB; see :attr:`FitResult.psnr`.
    :param curvature: of the generator: quasi-Newton steps from it, in place of Adam's.
    :param pairs: what a fit of the same face on the cheap path taught of it before; of another correction,
        too, since that hardly bends the loss.
    :return: the best code seen, never worse (in loss) than the start.
    """
    result = FitResult(start.detach().clone(), float("nan"), 0)
    stages = [(config.fast_size, steps, 1.0), (generator.resolution, full_steps, 0.5)]
    for size, count, scale in stages:
        if count <= 0:
            continue
        small = area_downsample(image, size)
        here, hidden = (None if each is None else area_downsample(each, size) for each in (face, covered))
        target = fit_target(small, identity, face=here, covered=hidden)
        cheap = size == config.fast_size
        evaluate = partial(
            _loss, generator, identity, target, config=config, correction=correction if cheap else None
        )
        mover: _Mover
        if curvature is None:
            mover = _Adam(config.learning_rate * scale * rate_scale * float(generator.w_std), count)
        else:
            known = pairs if cheap else ()
            mover = _QuasiNewton(curvature, _NEWTON_RATE, deque(known, maxlen=_PAIRS))
        found = _descend(evaluate, result.w_plus, mover, steps=count, target_psnr=target_psnr)
        found = replace(found, steps=result.steps + found.steps)
        if not cheap:  # what a warm start on the cheap path goes on from
            found = replace(found, moments=result.moments, pairs=result.pairs)
            found = replace(found, psnr=result.psnr if steps > 0 else found.psnr)
        result = found
    return result


def follow_pivot(
    generator: Generator,
    identity: DlibIdentity,
    target: FitTarget,
    start: Tensor,
    moments: Tensor | None,
    *,
    config: InversionConfig,
    steps: int,
    target_psnr: float,
    slack_db: float = 0.0,
    correction: Tensor | None = None,
    other: Tensor | None = None,
    curvature: Curvature | None = None,
    pairs: Pairs = (),
) -> FitResult:
    """Fit a frame from the frame before it, in a few steps on the cheap path.

    A fresh Adam begins with steps of one size on every axis, which is noise on most of them and shows as
    jitter. Here steps are scaled by the curvature of faces and by what the frames before taught of it; where
    a generator has no curvature, by the mean square of the gradient, which is carried along the track. The
    last step is taken on trust: its picture is judged by the next frame.

    Styles that the cheap path does not compute with move little: its head feels them otherwise than the
    generator does, and along a track the two would drift apart.

    :param target: of the cheap path, see :func:`fit_target`.
    :param moments: ``[1, n_styles, 512]`` from the frame before; None: begin with this gradient's.
    :param steps: the usual number; up to three times as many while the face stays far off.
    :param target_psnr: what the frame before reached, dB; the fit stops there.
    :param slack_db: the start is left as it is when the face is at most this much worse.
    :param other: a second start, tried when the first is far off.
    :param curvature: of the generator. :param pairs: from the frame before.
    """
    code = start.detach()
    own = generator.own_styles(target.image.shape[-1])
    best = FitResult(code, float("-inf"), 0, moments, pairs)
    mover: _Mover
    if curvature is None:
        mover = _MeanSquares(config.learning_rate * config.next_rate * float(generator.w_std), moments)
    else:
        damped = replace(curvature, damping=_FOLLOW_DAMPING * curvature.damping)
        mover = _QuasiNewton(damped, _FOLLOW_RATE, deque(pairs, maxlen=_FOLLOW_PAIRS))
    best_loss, switched = float("inf"), False
    step = 0
    while True:
        code = code.detach().requires_grad_(True)
        loss, psnr = _loss(generator, identity, target, code, config=config, correction=correction)
        value = _finite(loss)
        if step == 0 and other is not None and psnr < target_psnr - _FAR_DB:
            with torch.no_grad():
                other_loss, _ = _loss(
                    generator, identity, target, other, config=config, correction=correction
                )
            if float(other_loss) < value:
                code, other, switched = other, None, True
                continue
        worse = value > best_loss
        if not worse:
            best = replace(best, w_plus=code.detach(), psnr=psnr, steps=step, switched=switched)
            best_loss = value
        far = psnr < target_psnr - _FAR_DB
        good = psnr >= target_psnr - (slack_db if step == 0 else 0.0)
        if good or step >= (3 * steps if far else steps) or (worse and step + 1 >= steps):
            break
        (gradient,) = torch.autograd.grad(loss, code)
        before = code.detach()
        moved = mover.moved(before, gradient, value)
        code = torch.cat([moved[:, :own], torch.lerp(before[:, own:], moved[:, own:], _LATE)], 1)
        step += 1
        best = replace(best, moments=mover.moments, pairs=tuple(mover.pairs))
        if step >= steps and not far:
            return replace(best, w_plus=code, steps=step) if not worse else best
    return best


def _loss(
    generator: Generator,
    identity: DlibIdentity,
    target: FitTarget,
    code: Tensor,
    *,
    config: InversionConfig,
    correction: Tensor | None,
) -> tuple[Tensor, float]:
    """What a fit minimises, and the PSNR where it matters."""
    made = generator.synthesize(code, size=target.image.shape[-1])
    if correction is not None:
        made = made + correction
    loss = reconstruction_loss(made, target, identity)
    loss = loss + config.w_pull * w_pull(code, generator.w_avg, generator.w_std)
    return loss, face_psnr(made.detach(), target, target.weight)


@torch.no_grad()
def path_correction(generator: Generator, code: Tensor, size: int) -> Tensor:
    """What the cheap path gets wrong at a code: the full picture, downsampled, minus the cheap one.

    Fitting through the cheap path bends the code to make up for the errors of its head; they change
    slowly with the code, so adding their difference at a nearby code takes them out (the space mapping
    of multi-fidelity optimisation, Bandler et al., 1994).

    :return: ``[1, 3, size, size]``.
    """
    full = area_downsample(generator.synthesize(code, size=generator.resolution // 2), size)
    return full - generator.synthesize(code, size=size)


Evaluate = Callable[[Tensor], tuple[Tensor, float]]
"""Loss of a code ``[1, n_styles, 512]``, and the PSNR in the face."""


class _Mover(Protocol):
    """Where a fit goes next. What it learnt on the way is left in ``moments`` and ``pairs`` (see
    :class:`FitResult`), in the one that it uses."""

    @property
    def moments(self) -> Tensor | None: ...

    @property
    def pairs(self) -> Iterable[tuple[Tensor, Tensor]]: ...

    def moved(self, code: Tensor, gradient: Tensor, loss: float) -> Tensor: ...


def _descend(
    evaluate: Evaluate, start: Tensor, mover: _Mover, *, steps: int, target_psnr: float | None
) -> FitResult:
    """The best code of so many steps."""
    code = start.detach()
    best, best_loss, step = FitResult(code, float("nan"), 0), float("inf"), 0
    for step in range(steps + 1):
        with torch.set_grad_enabled(step < steps):  # the last pass only judges the last step
            code = code.requires_grad_(step < steps)
            loss, psnr = evaluate(code)
        value = _finite(loss)
        if value < best_loss:
            best, best_loss = FitResult(code.detach(), psnr, step), value
            if target_psnr is not None and psnr >= target_psnr:
                break
        if step < steps:
            (gradient,) = torch.autograd.grad(loss, code)
            code = mover.moved(code.detach(), gradient, value)
    return replace(best, steps=step, moments=mover.moments, pairs=tuple(mover.pairs))


def _finite(loss: Tensor) -> float:
    """A loss as a number; one that is none is the worst there is."""
    value = float(loss.detach())
    return value if math.isfinite(value) else float("inf")


@dataclass
class _Adam:
    """Adam, whose rate falls over the last half: short runs need the large steps early."""

    rate: float
    steps: int
    pairs: Pairs = ()
    _optimizer: torch.optim.Adam | None = None
    _code: Tensor | None = None
    _moved: int = 0

    @property
    def moments(self) -> Tensor | None:
        state = {} if self._optimizer is None else self._optimizer.state
        return state[self._code].get("exp_avg_sq") if self._code in state else None

    def moved(self, code: Tensor, gradient: Tensor, _loss: float) -> Tensor:
        if self._optimizer is None or self._code is None:
            self._code = code.clone()
            self._optimizer = torch.optim.Adam([self._code], betas=(0.9, 0.95))
        self._moved += 1
        (group,) = self._optimizer.param_groups
        group["lr"] = self.rate * min(1.0, 2.1 - 2 * self._moved / max(self.steps, 1))
        self._code.grad = gradient
        self._optimizer.step()
        return self._code.detach().clone()


@dataclass
class _MeanSquares:
    """Steps scaled by the mean square of the gradient, with momentum."""

    rate: float
    moments: Tensor | None
    pairs: Pairs = ()
    _momentum: Tensor | None = None

    def moved(self, code: Tensor, gradient: Tensor, _loss: float) -> Tensor:
        square = gradient.square()
        moments = square if self.moments is None else torch.lerp(self.moments, square, _FRESH)
        momentum = gradient if self._momentum is None else 0.6 * self._momentum + gradient
        self.moments, self._momentum = moments, momentum
        # Shares of the means keep axes and styles that the cheap path hardly feels from taking large
        # steps: nothing would hold them, and the full picture falls apart within some hundred frames.
        floor = 0.2 * moments.mean((0, 2), keepdim=True) + 0.1 * moments.mean()
        return code - self.rate * momentum / ((moments + floor).sqrt() + 1e-12)


@dataclass
class _QuasiNewton:
    """L-BFGS (Nocedal, 1980) whose first guess of the curvature is the mean one of faces.

    A step that makes things worse is taken back, and the next ones are half as long.
    """

    curvature: Curvature
    rate: float
    pairs: deque[tuple[Tensor, Tensor]]
    moments: None = None
    _best: tuple[float, Tensor, Tensor] | None = None
    """Loss, code and gradient."""
    _before: tuple[Tensor, Tensor] | None = None

    def moved(self, code: Tensor, gradient: Tensor, loss: float) -> Tensor:
        if self._best is None or loss < self._best[0]:
            self._best = loss, code, gradient
        if loss > _MUCH_WORSE * self._best[0]:
            _, code, gradient = self._best
            self.rate *= 0.5
            self.pairs.clear()
        elif self._before is not None:
            step, change = code - self._before[0], gradient - self._before[1]
            # Where the loss hardly bends, or downwards, there is nothing to learn.
            if float((step * change).sum()) > _BENDS * float(step.norm() * change.norm()):
                self.pairs.append((step, change))
        self._before = code, gradient
        move = self.rate * self._step(gradient)
        length = float(move.square().mean().sqrt())
        if not math.isfinite(length):
            self.pairs.clear()
            return code
        return code + move * min(1.0, _REACH * self.curvature.unit / max(length, 1e-12))

    def _step(self, gradient: Tensor) -> Tensor:
        """The two-loop recursion."""
        shares = []
        for step, change in reversed(self.pairs):
            share = (step * gradient).sum() / (step * change).sum()
            gradient = gradient - share * change
            shares.append(share)
        found = self.curvature.newton_step(gradient)
        for (step, change), share in zip(self.pairs, reversed(shares), strict=True):
            found = found - (share + (change * found).sum() / (step * change).sum()) * step
        return found

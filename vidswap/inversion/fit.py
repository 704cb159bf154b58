"""Fitting the pivot: the W+ latent whose picture is the face (PTI's first half, Roich et al., 2106.05744)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vidswap.config import InversionConfig
from vidswap.inversion.losses import FitTarget, face_psnr, fit_target, reconstruction_loss, w_pull
from vidswap.models import Generator
from vidswap.models.identity import DlibIdentity
from vidswap.models.rgb_head import area_downsample

_FAR_DB = 1.5
"""A face this much worse than in the frame before is worth another start, and more steps."""
_FRESH = 0.1
"""Share of the newest gradient in the running mean square."""


@dataclass(frozen=True)
class FitResult:
    """A fitted code and how good it is."""

    w_plus: Tensor
    """``[1, n_styles, 512]``."""
    psnr: float
    """In the face, dB, at the size of the last step."""
    steps: int
    moments: Tensor | None = None
    """``[1, n_styles, 512]`` running mean square of the gradient, in the loss of the cheap path; what a
    warm start scales its steps by."""
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
    rate_scale: float = 1.0,
    target_psnr: float | None = None,
    correction: Tensor | None = None,
) -> FitResult:
    """Fit W+ to an aligned face.

    :param image: ``[1, 3, S, S]`` in [-1, 1], S at least ``config.fast_size``.
    :param start: ``[1, n_styles, 512]`` code to start from.
    :param steps: steps on the cheap path.
    :param full_steps: steps at the generator's full resolution after them.
    :param face: ``[1, 1, S, S]`` where the face is visible; see :func:`fit_target`.
    :param correction: of the cheap path, see :func:`path_correction`.
    :param target_psnr: stop as soon as the face reaches this PSNR in dB.
    :return: the best code seen, never worse (in loss) than the start.
    """
    result = FitResult(start.detach().clone(), float("nan"), 0)
    stages = [(config.fast_size, steps, 1.0), (generator.resolution, full_steps, 0.5)]
    for size, count, scale in stages:
        if count <= 0:
            continue
        small = area_downsample(image, size)
        here = None if face is None else area_downsample(face, size)
        target = fit_target(small, identity, face=here)
        cheap = size == config.fast_size
        found = _descend(
            generator, identity, target, result.w_plus,
            steps=count, config=config,
            rate=config.learning_rate * scale * rate_scale, target_psnr=target_psnr,
            correction=correction if cheap else None,
        )  # fmt: skip
        moments = found.moments if cheap else result.moments
        result = replace(found, steps=result.steps + found.steps, moments=moments)
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
) -> FitResult:
    """Fit a frame from the frame before it, in a few steps on the cheap path.

    A fresh Adam begins with steps of one size on every axis, which is noise on most of them and shows as
    jitter. Here the mean square of the gradient is carried along the track, so that the first step is
    well scaled already. The last step is taken on trust: its picture is judged by the next frame.

    :param target: of the cheap path, see :func:`fit_target`.
    :param moments: ``[1, n_styles, 512]`` from the frame before; None: begin with this gradient's.
    :param steps: the usual number; up to three times as many while the face stays far off.
    :param target_psnr: what the frame before reached in the face, dB; the fit stops there.
    :param slack_db: the start is left as it is when the face is at most this much worse.
    :param other: a second start, tried when the first is far off.
    """
    rate = config.learning_rate * config.next_rate * float(generator.w_std)
    code, momentum = start.detach(), torch.zeros_like(start)
    best = FitResult(code, float("-inf"), 0, moments)
    best_loss, switched = float("inf"), False
    step = 0
    while True:
        code = code.detach().requires_grad_(True)
        loss, psnr = _loss(generator, identity, target, code, config, correction)
        value = float(loss.detach())
        if step == 0 and other is not None and psnr < target_psnr - _FAR_DB:
            with torch.no_grad():
                other_loss, _ = _loss(generator, identity, target, other, config, correction)
            if float(other_loss) < value:
                code, other, switched = other, None, True
                continue
        worse = value > best_loss
        if not worse:
            best = FitResult(code.detach(), psnr, step, moments, switched)
            best_loss = value
        far = psnr < target_psnr - _FAR_DB
        good = psnr >= target_psnr - (slack_db if step == 0 else 0.0)
        if good or step >= (3 * steps if far else steps) or (worse and step + 1 >= steps):
            break
        (gradient,) = torch.autograd.grad(loss, code)
        square = gradient.square()
        moments = square if moments is None else torch.lerp(moments, square, _FRESH)
        momentum = gradient if step == 0 else 0.6 * momentum + gradient
        # Shares of the means keep axes and styles that the cheap path hardly feels from taking large
        # steps: nothing would hold them, and the full picture falls apart within some hundred frames.
        floor = 0.2 * moments.mean((0, 2), keepdim=True) + 0.1 * moments.mean()
        usual = (moments + floor).sqrt() + 1e-12
        code = code.detach() - rate * momentum / usual
        step += 1
        best = replace(best, moments=moments)
        if step >= steps and not far:
            return replace(best, w_plus=code, steps=step) if not worse else best
    return best


def _loss(
    generator: Generator,
    identity: DlibIdentity,
    target: FitTarget,
    code: Tensor,
    config: InversionConfig,
    correction: Tensor | None,
) -> tuple[Tensor, float]:
    """What a fit minimises, and the PSNR in the face."""
    made = generator.synthesize(code, size=target.image.shape[-1])
    if correction is not None:
        made = made + correction
    loss = reconstruction_loss(made, target, identity)
    loss = loss + config.w_pull * w_pull(code, generator.w_avg, generator.w_std)
    return loss, face_psnr(made.detach(), target)


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


def _descend(
    generator: Generator,
    identity: DlibIdentity,
    target: FitTarget,
    start: Tensor,
    *,
    steps: int,
    config: InversionConfig,
    rate: float,
    target_psnr: float | None,
    correction: Tensor | None,
) -> FitResult:
    code = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([code], lr=rate * float(generator.w_std), betas=(0.9, 0.95))
    best, best_loss, best_psnr, step = start, float("inf"), float("nan"), 0
    for step in range(1, steps + 2):
        with torch.set_grad_enabled(step <= steps):  # the last pass only judges the last step
            loss, psnr = _loss(generator, identity, target, code, config, correction)
        if float(loss.detach()) < best_loss:
            best, best_loss, best_psnr = code.detach().clone(), float(loss.detach()), psnr
            if target_psnr is not None and psnr >= target_psnr:
                break
        if step > steps:
            break
        _set_rate(optimizer, rate * float(generator.w_std), step, steps)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    seen = optimizer.state[code].get("exp_avg_sq") if code in optimizer.state else None
    return FitResult(best, best_psnr, min(step, steps), seen)


def _set_rate(optimizer: torch.optim.Optimizer, rate: float, step: int, steps: int) -> None:
    """Constant, then a linear fall over the last half: short runs need the large steps early."""
    fraction = step / max(steps, 1)
    for group in optimizer.param_groups:
        group["lr"] = rate * min(1.0, 2.1 - 2 * fraction)

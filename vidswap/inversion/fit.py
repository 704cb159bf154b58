"""Fitting the pivot: the W+ latent whose picture is the face (PTI's first half, Roich et al., 2106.05744)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vidswap.config import InversionConfig
from vidswap.inversion.losses import FitTarget, face_psnr, fit_target, reconstruction_loss, w_pull
from vidswap.models import Generator
from vidswap.models.identity import DlibIdentity
from vidswap.models.rgb_head import area_downsample


@dataclass(frozen=True)
class FitResult:
    """A fitted code and how good it is."""

    w_plus: Tensor
    """``[1, n_styles, 512]``."""
    psnr: float
    """In the face, dB, at the size of the last step."""
    steps: int


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
    code = start.detach().clone()
    psnr, spent = float("nan"), 0
    stages = [(config.fast_size, steps, 1.0), (generator.resolution, full_steps, 0.5)]
    for size, count, scale in stages:
        if count <= 0:
            continue
        small = area_downsample(image, size)
        here = None if face is None else area_downsample(face, size)
        target = fit_target(small, identity, face=here)
        code, psnr, done = _descend(
            generator, identity, target, code,
            size=size, steps=count, config=config,
            rate=config.learning_rate * scale * rate_scale, target_psnr=target_psnr,
            correction=correction if size == config.fast_size else None,
        )  # fmt: skip
        spent += done
    return FitResult(code, psnr, spent)


@torch.no_grad()
def path_correction(generator: Generator, code: Tensor, size: int) -> Tensor:
    """What the cheap path gets wrong at a code: the full picture, downsampled, minus the cheap one.

    Fitting through the cheap path bends the code to make up for the errors of its head; they change
    slowly with the code, so adding their difference at a nearby code takes them out (the space mapping
    of multi-fidelity optimisation, Bandler et al., 1994).

    :return: ``[1, 3, size, size]``.
    """
    full = area_downsample(generator.synthesize(code), size)
    return full - generator.synthesize(code, size=size)


def _descend(
    generator: Generator,
    identity: DlibIdentity,
    target: FitTarget,
    start: Tensor,
    *,
    size: int,
    steps: int,
    config: InversionConfig,
    rate: float,
    target_psnr: float | None,
    correction: Tensor | None,
) -> tuple[Tensor, float, int]:
    code = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([code], lr=rate * float(generator.w_std), betas=(0.9, 0.95))
    best, best_loss, best_psnr, step = start, float("inf"), float("nan"), 0
    for step in range(1, steps + 2):
        made = generator.synthesize(code, size=size)
        if correction is not None:
            made = made + correction
        loss = reconstruction_loss(made, target, identity)
        loss = loss + config.w_pull * w_pull(code, generator.w_avg, generator.w_std)
        if float(loss.detach()) < best_loss:
            best, best_loss = code.detach().clone(), float(loss.detach())
            best_psnr = face_psnr(made.detach(), target)
            if target_psnr is not None and best_psnr >= target_psnr:
                break
        if step > steps:  # the last pass only judges the last step
            break
        _set_rate(optimizer, rate * float(generator.w_std), step, steps)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return best, best_psnr, min(step, steps)


def _set_rate(optimizer: torch.optim.Optimizer, rate: float, step: int, steps: int) -> None:
    """Constant, then a linear fall over the last half: short runs need the large steps early."""
    fraction = step / max(steps, 1)
    for group in optimizer.param_groups:
        group["lr"] = rate * min(1.0, 2.1 - 2 * fraction)

"""Pivotal tuning (PTI, Roich et al., 2106.05744): the generator's weights bent around the pivots of a shot.

Plain tuning wrecks the generator for every other latent, and the swapped latent is another latent. So
the weights are held in three ways: small steps (as STIT, 2201.08361), only the convolutions of the
middle stages, and locality regularisation: codes between the pivots and random samples must give the
same picture, and the same identity features, as before.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vidswap.config import InversionConfig
from vidswap.inversion.fit import path_correction
from vidswap.inversion.losses import (
    FitTarget,
    edges,
    face_psnr,
    fit_target,
    identity_features,
    reconstruction_loss,
)
from vidswap.inversion.warm import Maps
from vidswap.models import Generator
from vidswap.models.identity import DlibIdentity
from vidswap.models.rgb_head import area_downsample


@dataclass(frozen=True)
class TuningReport:
    """What tuning changed."""

    psnr_before: float
    psnr_after: float
    """Mean PSNR in the face over the pivots, dB."""
    drift: float
    """Mean identity distance of held-out random latents to their picture before tuning."""


def tune_generator(
    generator: Generator,
    identity: DlibIdentity,
    images: Sequence[Tensor],
    codes: Sequence[Tensor],
    *,
    config: InversionConfig,
    seen: Sequence[Maps] | None = None,
    size: int | None = None,
    seed: int = 0,
) -> tuple[Generator, TuningReport]:
    """Tune a copy of the generator on keyframes.

    :param images: aligned faces ``[1, 3, S, S]`` in [-1, 1], one a keyframe.
    :param codes: their pivots ``[1, n_styles, 512]``.
    :param seen: where each shows the face and what covers it, ``[1, 1, s, s]``; a hand is not to be tuned
        into the weights.
    :param size: synthesis size to tune at; ``config.fast_size`` when None.
    :return: the tuned copy (its ``identifier`` says so) and what it cost. The given one is unchanged.
    :raises ValueError: when there is no keyframe.
    """
    if not images or len(images) != len(codes):
        raise ValueError(f"images, codes: expected as many, at least 1; got {len(images)}, {len(codes)}")
    size = size or config.fast_size
    tuned = copy.deepcopy(generator)
    parameters = _tunable(tuned)
    # Step sizes are meant for weights of unit deviation (StyleGAN's equalised learning rate); these are
    # folded and small, so each tensor's step is measured by its own size.
    groups = [
        {"params": [p], "lr": config.tune_learning_rate * float(p.detach().square().mean().sqrt())}
        for p in parameters
    ]
    optimizer = torch.optim.Adam(groups)
    maps = seen or [Maps(face=None, covered=None)] * len(images)
    targets = []
    for image, own in zip(images, maps, strict=True):
        face, covered = (
            None if found is None else area_downsample(found, size) for found in (own["face"], own["covered"])
        )
        targets.append(fit_target(area_downsample(image, size), identity, face=face, covered=covered))
    # What the cheap path gets wrong is not the weights' fault, and must not be tuned into them.
    offsets = [
        0.0 if size == generator.resolution else path_correction(generator, code, size) for code in codes
    ]
    before = _mean_psnr(tuned, targets, codes, offsets)
    for step in range(config.tune_steps):
        turn = step % len(codes)
        target, code, offset = targets[turn], codes[turn], offsets[turn]
        optimizer.zero_grad(set_to_none=True)
        reconstruction_loss(tuned.synthesize(code, size=size) + offset, target, identity).backward()
        if config.locality > 0:
            near = _nearby(generator, code, seed * 7919 + step)
            (config.locality * _locality(generator, tuned, identity, near, size)).backward()
        optimizer.step()
    for parameter in parameters:
        parameter.requires_grad_(False)
    tuned.identifier = f"{generator.identifier}+tuned"
    report = TuningReport(
        before, _mean_psnr(tuned, targets, codes, offsets), drift(generator, tuned, identity, size=size)
    )
    return tuned, report


def _tunable(generator: Generator) -> list[torch.nn.Parameter]:
    parameters = []
    for name, parameter in generator.named_parameters():
        parameter.requires_grad_(False)
        if name.startswith("convs.") and name.endswith((".weight", ".depthwise", ".bias")):
            parameter.requires_grad_(True)
            parameters.append(parameter)
    return parameters


@torch.no_grad()
def _nearby(generator: Generator, code: Tensor, seed: int) -> Tensor:
    """A code at a random place between the pivot and a random sample (PTI uses a fixed short step)."""
    random = torch.Generator().manual_seed(seed)
    far = generator.sample(1_000_000 + seed, psi=0.8)[:, None]
    share = 0.3 + 0.7 * float(torch.rand((), generator=random))
    return torch.lerp(code, far.expand_as(code), share)


def _locality(
    before: Generator, after: Generator, identity: DlibIdentity, code: Tensor, size: int
) -> Tensor:
    with torch.no_grad():
        old = before.synthesize(code, size=size)
        features, embedding = identity_features(identity, old)
    new = after.synthesize(code, size=size)
    new_features, new_embedding = identity_features(identity, new)
    loss = (new - old).square().mean() + 0.3 * (edges(new) - edges(old)).abs().mean()
    for mine, theirs in zip(new_features, features, strict=True):
        loss = loss + 0.15 * (mine - theirs).square().sum(1).mean()
    return loss + (new_embedding - embedding).square().sum()


@torch.no_grad()
def _mean_psnr(
    generator: Generator,
    targets: Sequence[FitTarget],
    codes: Sequence[Tensor],
    offsets: Sequence[Tensor | float],
) -> float:
    values = [
        face_psnr(generator.synthesize(code, size=target.image.shape[-1]) + offset, target)
        for code, target, offset in zip(codes, targets, offsets, strict=True)
    ]
    return sum(values) / len(values)


@torch.no_grad()
def drift(
    before: Generator, after: Generator, identity: DlibIdentity, *, size: int, count: int = 16
) -> float:
    """Mean L2 distance of identity embeddings of ``count`` random latents, before against after."""
    total = 0.0
    for seed in range(count):
        code = before.sample(500_000 + seed, psi=0.7)[:, None].expand(1, before.n_styles, -1)
        old = identity.embed_aligned(before.synthesize(code, size=size))
        new = identity.embed_aligned(after.synthesize(code, size=size))
        total += float((old - new).norm()) / count
    return total

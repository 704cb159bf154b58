"""Refining a source for the faces it is put on.

What an inversion of a photo loses of the person, and what the mixer loses of the inversion, can be won
back once a track: the source's code is moved, by a few steps through the frozen mixer and generator, so
that the mixed faces are closer to the photo itself in the identity network, and stay what they were
elsewhere. The mixer still decides what of the source is used, so pose and light remain the target's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from vidswap.mixing.mixers import Mixer
from vidswap.models import Generator
from vidswap.models.identity import DlibIdentity


@dataclass(frozen=True)
class Refined:
    """A refined source."""

    code: Tensor
    """``[1, n_styles, 512]``."""
    distance_before: float
    distance_after: float
    """Mean identity distance (L2) of the mixed faces to the photo."""


def refine_source(
    generator: Generator,
    identity: DlibIdentity,
    mixer: Mixer,
    source: Tensor,
    embedding: Tensor,
    targets: Sequence[Tensor],
    *,
    steps: int,
    learning_rate: float = 0.03,
    keep: float = 0.6,
    hold: float = 0.05,
    size: int = 128,
    shape: Callable[[Tensor], Tensor] | None = None,
    shape_weight: float = 4.0,
) -> Refined:
    """Move a source's code closer to the person of the photo, as seen through the mixer.

    :param source: ``[1, n_styles, 512]``. :param embedding: ``[1, 128]`` of the photo.
    :param targets: ``[1, n_styles, 512]`` pivots of the track, one or a few.
    :param learning_rate: in units of W's mean standard deviation.
    :param keep: weight of the difference to the unrefined faces, in the means of 8-pixel blocks.
    :param shape: what must stay the target's (pose, expression, ...): images ``[1, 3, size, size]`` to
        ``[1, K]``; compared with the target's own pictures, so it also mends what the mixer got wrong.
    :param shape_weight: weight of the mean difference of those. On four pairs, 8 steps: without it pose
        4.5 degrees and identity 0.33 (dlib, at 1024 px), at weight 10 pose 1.0 and identity 0.39.
    :param hold: weight of the distance of the code from where it was.
    :return: the best code seen.
    """
    if not targets:
        raise ValueError("targets: expected at least one code, got none")
    code = source.detach().clone().requires_grad_(True)
    scale = float(generator.w_std)
    optimizer = torch.optim.Adam([code], lr=learning_rate * scale, betas=(0.9, 0.95))
    with torch.no_grad():
        wanted = [_blocks(generator.synthesize(mixer(source, t), size=size)) for t in targets]
        shapes = [None if shape is None else shape(generator.synthesize(t, size=size)) for t in targets]
    best, best_loss, first, last = source, float("inf"), float("nan"), float("nan")
    for step in range(steps + 1):
        losses, distances = [], []
        for target, blocks, asked in zip(targets, wanted, shapes, strict=True):
            image = generator.synthesize(mixer(code, target), size=size)
            away = (identity.embed_aligned(image) - embedding).square().sum()
            kept = keep * functional.l1_loss(_blocks(image), blocks)
            if shape is not None:
                kept = kept + shape_weight * functional.smooth_l1_loss(shape(image), asked, beta=0.02)
            losses.append(away + kept)
            distances.append(float(away.detach().sqrt()))
        loss = torch.stack(losses).mean() + hold * ((code - source) / scale).square().mean()
        distance = sum(distances) / len(distances)
        first = distance if step == 0 else first
        if float(loss.detach()) < best_loss:
            best, best_loss, last = code.detach().clone(), float(loss.detach()), distance
        if step == steps:
            break
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return Refined(best, first, last)


def _blocks(image: Tensor) -> Tensor:
    return functional.avg_pool2d(image, 8)

"""Distils the second identity network on generated faces.

Faces are drawn once, half of them by the mixer, and kept with what the teacher says of them. The network
sees them moved, mirrored, blurred, noisy and in other light, and is to say the same: so it cannot hold on to
single pixels, by which a face could be made to look like another to it and to nobody else.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vidswap.models import channels_last
from vidswap.models.judge_tfjs import TfjsIdentity
from vidswap.models.mobile_stylegan import MobileStyleGAN
from vidswap.models.second_identity import CHIP_SIZE, SecondIdentity, second_identity_metadata
from vidswap.training.checkpoint import Checkpoint, save_weights
from vidswap.training.sampling import LatentSampler

FACES_A_FILE = 200
_PICTURE = 128
_CENTRED = 0.5
"""Weight of the agreement once the mean face is taken off, which all faces share."""
_WARM_UP = 200
"""Steps in which the learning rate rises, at most; of short runs a tenth."""


@dataclass(frozen=True)
class IdentityOptions:
    """Settings of ``vidswap train identity``."""

    faces: int = 12_000
    """Faces that it learns on, a multiple of 200; 200 further ones are held out."""
    faces_seed: int = 61
    """Seed of the faces; they are made once and kept in the folder."""
    mixed: float = 0.5
    """Share of them that the mixer draws."""
    steps: int = 8000
    batch: int = 48
    """Faces a step."""
    learning_rate: float = 2e-3
    seed: int = 5
    """Fixes the order and the changes of the faces, and the start."""
    log_every: int = 100
    save_every: int = 200
    """Steps between checkpoints."""


@dataclass(frozen=True)
class TaughtFaces:
    """Columns of equal length N."""

    images: Tensor
    """``[N, 3, 128, 128]`` uint8."""
    embeddings: Tensor
    """``[N, 256]`` of the teacher, of length one."""

    def __len__(self) -> int:
        return len(self.images)


def build_taught_faces(
    folder: Path,
    *,
    generator: MobileStyleGAN,
    teacher: TfjsIdentity,
    mixer: nn.Module | None,
    numbers: range,
    seed: int,
    mixed: float,
    log: Callable[[str], None],
) -> TaughtFaces:
    """The faces of a seed; those that are not in ``folder`` are drawn, file by file.

    Every file has a seed of its own, so that an interrupted or a larger bank begins alike.

    :param mixer: draws a share of ``mixed``; None leaves all as they are sampled.
    :param numbers: files of 200 faces.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images, embeddings = [], []
    for number in numbers:
        path = folder / f"taught-{seed}-{number:04d}.npz"
        if not path.exists():
            sampler = LatentSampler(generator, seed=seed * 1_000_003 + number)
            drawn = _shard(generator, teacher, mixer, sampler, mixed)
            temporary = path.with_name(path.name + ".part")
            with temporary.open("wb") as file:
                np.savez(file, images=drawn.images.numpy(), embeddings=drawn.embeddings.numpy())
            os.replace(temporary, path)
            log(f"faces: {FACES_A_FILE * (number + 1)}/{FACES_A_FILE * numbers.stop}")
        with np.load(path) as columns:
            images.append(torch.from_numpy(columns["images"]))
            embeddings.append(torch.from_numpy(columns["embeddings"]))
    return TaughtFaces(torch.cat(images), torch.cat(embeddings))


@torch.no_grad()
def _shard(
    generator: MobileStyleGAN,
    teacher: TfjsIdentity,
    mixer: nn.Module | None,
    sampler: LatentSampler,
    mixed: float,
) -> TaughtFaces:
    images, embeddings = [], []
    for _ in range(FACES_A_FILE):
        code = sampler.draw(1)
        if mixer is not None and float(sampler.uniform(0, 1, 1)) < mixed:
            code = mixer(sampler.draw(1), code, 1.0)
        picture = generator.synthesize(code, size=_PICTURE)
        images.append(((picture.clamp(-1, 1) + 1) * 127.5).round().byte().cpu())
        embeddings.append(teacher.embed_aligned((picture.clamp(-1, 1) + 1) / 2).float().cpu())
    return TaughtFaces(torch.cat(images), torch.cat(embeddings))


def changed_chips(net: SecondIdentity, images: Tensor, random: torch.Generator) -> Tensor:
    """Chips ``[B, 3, 96, 96]`` of images ``[B, 3, S, S]`` in [-1, 1], each as another picture of its face."""
    count = len(images)

    def between(low: float, high: float, *shape: int) -> Tensor:
        return (low + (high - low) * torch.rand(*shape, generator=random)).to(images.device)

    def some(share: float) -> Tensor:
        return (between(0, 1, count, 1, 1, 1) < share).float()

    turn, scale = between(-0.09, 0.09, count), between(0.94, 1.06, count)
    mirrored = torch.where(between(0, 1, count) < 0.5, -1.0, 1.0)
    cos, sin = scale * turn.cos(), scale * turn.sin()
    linear = torch.stack((torch.stack((cos * mirrored, -sin), 1), torch.stack((sin * mirrored, cos), 1)), 1)
    moves = torch.cat((linear, between(-0.05, 0.05, count, 2, 1)), 2)
    chips = net.chips(images, moves)
    if float(between(0, 1, 1)) < 0.5:
        small = int(between(40, 90, 1))
        chips = functional.interpolate(chips, (small, small), mode="bilinear", antialias=True)
        chips = functional.interpolate(chips, (CHIP_SIZE, CHIP_SIZE), mode="bilinear")
    tint = 1 + some(0.5) * between(-0.2, 0.2, count, 3, 1, 1)
    chips = chips * tint * between(0.85, 1.15, count, 1, 1, 1) + between(-0.1, 0.1, count, 1, 1, 1)
    noise = torch.randn(chips.shape, generator=random).to(images.device)
    return chips + between(0, 0.04, 1) * noise


def train_identity(
    faces: TaughtFaces,
    unseen: TaughtFaces,
    net: SecondIdentity,
    output: Path,
    options: IdentityOptions,
    *,
    device: torch.device,
    log: Callable[[str], None],
) -> dict[str, float]:
    """Train ``net``, resuming from a checkpoint beside ``output``; gives :func:`evaluate_identity`."""
    channels_last(net.to(device))
    decayed = [weight for weight in net.parameters() if weight.ndim > 1]
    others = [weight for weight in net.parameters() if weight.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 1e-3}, {"params": others, "weight_decay": 0.0}],
        lr=options.learning_rate,
    )
    checkpoint = Checkpoint(output.with_suffix(".ckpt.pt"))
    mean = faces.embeddings.mean(0).to(device)
    warm_up = max(1, min(_WARM_UP, options.steps // 10))
    running = math.nan
    for step in range(checkpoint.resume({"net": net, "optimizer": optimizer}) + 1, options.steps + 1):
        random = torch.Generator().manual_seed(options.seed * 1_000_003 + step)  # the same after a resume
        rise, rest = min(1.0, step / warm_up), math.cos(math.pi * min(1.0, step / options.steps))
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * rise * (0.01 + 0.99 * 0.5 * (1 + rest))
        chosen = torch.randint(len(faces), (options.batch,), generator=random)
        images = faces.images[chosen].to(device).float() / 127.5 - 1
        wanted = faces.embeddings[chosen].to(device)
        net.train()
        chips = changed_chips(net, images, random).contiguous(memory_format=torch.channels_last)
        found = net(chips)
        loss = (1 - (found * wanted).sum(1)).mean()
        loss = loss + _CENTRED * (1 - functional.cosine_similarity(found - mean, wanted - mean)).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        value = float(loss.detach())
        running = value if math.isnan(running) else 0.98 * running + 0.02 * value
        if step % options.log_every == 0:
            log(f"step {step}/{options.steps}: loss {running:.4f}")
        if step % options.save_every == 0 or step == options.steps:
            checkpoint.save(step, {"net": net, "optimizer": optimizer})
            facts = {"steps": step, "faces": len(faces), "seed": options.seed, "teacher": "mobileface"}
            kept = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
            save_weights(output, kept, second_identity_metadata(net, **facts))
    return evaluate_identity(unseen, net, mean)


@torch.no_grad()
def evaluate_identity(faces: TaughtFaces, net: SecondIdentity, mean: Tensor) -> dict[str, float]:
    """How well the network agrees with its teacher: mean cosine, the same with the mean face taken off, and
    the correlation of the likeness (cosine) of all pairs of faces.

    :param mean: ``[256]`` of the faces that it learned on.
    """
    net.eval()
    parts = faces.images.split(50)
    found = torch.cat([net.embed_aligned(part.to(mean.device).float() / 127.5 - 1) for part in parts])
    wanted = faces.embeddings.to(mean.device)
    pairs = torch.triu_indices(len(faces), len(faces), 1)
    likeness = torch.stack([(each @ each.T)[pairs[0], pairs[1]] for each in (found, wanted)])
    return {
        "cosine": float((found * wanted).sum(1).mean()),
        "centred": float(functional.cosine_similarity(found - mean, wanted - mean).mean()),
        "pairs": float(torch.corrcoef(likeness)[0, 1]),
    }

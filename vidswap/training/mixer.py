"""Training of the latent mixer on the generator's own samples (LatentSwap, arXiv 2402.18351).

Each step mixes random pairs of codes, renders the result on the 128 px path and asks for the identity of
the source, for everything else of the target: the picture outside the face, light and colour (means of
blocks), expression, mouth, eyelids, gaze and head pose (differentiable face mesh and irises), and for a
small change of the latent.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from vidswap.landmarks import INNER_MOUTH
from vidswap.models import aligned_mesh as shape
from vidswap.models.aligned_mesh import AlignedMesh
from vidswap.models.identity import DlibIdentity
from vidswap.models.judge_tfjs import TfjsIdentity
from vidswap.models.mixer import GatedMixer, ResidualMixer, mixer_metadata
from vidswap.models.mobile_stylegan import MobileStyleGAN
from vidswap.training.bank import Bank, filled
from vidswap.training.checkpoint import Checkpoint, save_weights

_SMALL = 0.02
"""Errors of mouth, eyes, gaze and pose under this are let go more easily."""


@dataclass(frozen=True)
class MixerOptions:
    """Settings of ``vidswap train mixer``."""

    steps: int = 3000
    pairs: int = 8
    """Pairs a step; on a CPU they are run one by one."""
    learning_rate: float = 2.5e-3
    seed: int = 1
    same_share: float = 0.05
    """Share of pairs of a face with itself. (The gated form is exact on them.)"""
    fitted_share: float = 0.6
    """Share of faces whose codes were fitted, as inversions are, where the bank has such."""
    identity: float = 1.4
    teacher: float = 0.6
    """Weight of the second identity network (one minus the cosine), when there is one."""
    outside: float = 1.2
    light: float = 1.0
    latent: float = 0.03
    expression: float = 2.0
    mouth: float = 3.0
    lips: float = 0.5
    """Weight of the picture between the lips: teeth and dark are the target's."""
    eyes: float = 1.0
    gaze: float = 1.0
    pose: float = 1.0
    save_every: int = 50
    held_out: int = 64
    """Codes at the end of each bank that are never trained on."""


@dataclass(frozen=True)
class Networks:
    """What the losses look through; all frozen."""

    generator: MobileStyleGAN
    identity: DlibIdentity
    meshes: AlignedMesh
    teacher: TfjsIdentity | None = None
    """A second identity network. What pleases two is less likely to please the networks alone."""


@torch.no_grad()
def teacher_embeddings(nets: Networks, bank: Bank) -> Tensor | None:
    """What the second identity network says of a bank's pictures, ``[N, D]``."""
    if nets.teacher is None:
        return None
    return torch.cat([nets.teacher((bank.image(i) + 1) / 2) for i in range(len(bank))])


def _target_features(bank: Bank, index: int) -> dict[str, Tensor]:
    mesh, iris = bank.meshes[index : index + 1], bank.irises[index : index + 1]
    return {
        "expression": shape.expression_vector(mesh),
        "mouth": shape.mouth_opening(mesh),
        "eyes": shape.eye_aspect(mesh),
        "gaze": shape.gaze(mesh, iris),
        "pose": shape.pose_features(mesh),
    }


def pair_losses(
    nets: Networks,
    bank: Bank,
    source: int,
    target: int,
    mixed: Tensor,
    taught: Tensor | None = None,
) -> dict[str, Tensor]:
    """Unweighted losses of one mixed code ``[1, n_styles, 512]``.

    :param taught: :func:`teacher_embeddings` of the bank, for the loss of the second identity network.
    """
    image = nets.generator.synthesize(mixed, size=128)
    wanted = bank.image(target)
    embedding = nets.identity.embed_aligned(image)
    mesh, _, iris = nets.meshes(image)
    made = {
        "expression": shape.expression_vector(mesh),
        "mouth": shape.mouth_opening(mesh),
        "eyes": shape.eye_aspect(mesh),
        "gaze": shape.gaze(mesh, iris),
        "pose": shape.pose_features(mesh),
    }
    asked = _target_features(bank, target)
    outside = 1 - functional.max_pool2d(bank.faces[target][None, None].float() / 255, 5, 1, 2)
    deviation = (mixed - bank.codes[target : target + 1]) / nets.generator.w_std
    losses = {
        "identity": (embedding - bank.embeddings[source : source + 1]).square().sum(),
        "outside": ((image - wanted).abs() * outside).sum() / (3 * outside.sum() + 1),
        "light": functional.l1_loss(functional.avg_pool2d(image, 16), functional.avg_pool2d(wanted, 16)),
        "latent": deviation.square().mean(),
        "lips": _between_lips(image, wanted, bank.meshes[target]),
        "expression": (made["expression"] - asked["expression"]).view(-1, 2).norm(dim=1).mean(),
    }
    if nets.teacher is not None and taught is not None:
        likeness = (nets.teacher((image + 1) / 2) * taught[source : source + 1]).sum()
        losses["teacher"] = 1 - likeness
    for name in ("mouth", "eyes", "gaze", "pose"):
        losses[name] = functional.smooth_l1_loss(made[name], asked[name], beta=_SMALL)
    return losses


def _between_lips(image: Tensor, wanted: Tensor, mesh: Tensor) -> Tensor:
    """Mean difference of two pictures ``[1, 3, 128, 128]`` between the lips of the second one's mesh
    ``[468, 3]``, and two pixels around."""
    inside = filled(mesh, INNER_MOUTH).to(image.device)[None, None].float() / 255
    inside = functional.max_pool2d(inside, 5, 1, 2)
    return ((image - wanted).abs() * inside).sum() / (3 * inside.sum() + 1)


def _weights(options: MixerOptions) -> dict[str, float]:
    names = (
        "identity", "teacher", "outside", "light", "latent", "lips", "expression", "mouth", "eyes", "gaze",
        "pose",
    )  # fmt: skip
    return {name: getattr(options, name) for name in names}


def train_mixer(
    nets: Networks,
    bank: Bank,
    mixer: GatedMixer | ResidualMixer,
    output: Path,
    options: MixerOptions,
    *,
    log: Callable[[str], None],
    fitted: int = 0,
    workers: int = 2,
) -> None:
    """Train, resuming from a checkpoint beside ``output``; publishes fp16 weights as it goes.

    :param fitted: so many faces at the end of the bank have fitted codes.
    :param workers: pairs run side by side on this many threads. On a CPU set torch to one thread and
        this to the number of cores: two whole passes at once beat one pass on two cores, above all
        when other programs run (threads of one pass wait for each other).
    """
    if isinstance(mixer, GatedMixer):
        mixer.center.copy_(nets.generator.w_avg)
        mixer.scale.fill_(0.7 * float(nets.generator.w_std))
    optimizer = torch.optim.Adam(_groups(mixer, options.learning_rate), betas=(0.9, 0.98))
    checkpoint = Checkpoint(output.with_suffix(".ckpt.pt"))
    start = checkpoint.resume({"mixer": mixer, "optimizer": optimizer})
    weights = _weights(options)
    running: dict[str, float] = {}
    taught = teacher_embeddings(nets, bank)
    pool = ThreadPoolExecutor(workers)
    for step in range(start, options.steps):
        random = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
        rate = options.learning_rate * min(1.0, (step + 1) / 30)
        rate *= 0.5 * (1 + math.cos(math.pi * step / options.steps)) + 0.02
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        optimizer.zero_grad(set_to_none=True)
        sources, targets = (_drawn(len(bank), fitted, options, random) for _ in "st")
        same = torch.rand(options.pairs, generator=random) < options.same_share
        sources = torch.where(same, targets, sources)
        mixed = mixer(bank.codes[sources], bank.codes[targets])
        jobs = zip(sources.tolist(), targets.tolist(), mixed.detach().split(1), strict=True)
        found = list(pool.map(lambda job: _pair_gradient(nets, bank, weights, taught, *job), jobs))
        mixed.backward(torch.cat([gradient for gradient, _ in found]) / options.pairs)
        for _, losses in found:
            for name, seen in losses.items():
                running[name] = 0.99 * running.get(name, seen) + 0.01 * seen
        torch.nn.utils.clip_grad_norm_(mixer.parameters(), 5.0)
        optimizer.step()
        if (step + 1) % 25 == 0:
            _report(output, step + 1, running, log)
        if (step + 1) % options.save_every == 0 or step + 1 == options.steps:
            checkpoint.save(step + 1, {"mixer": mixer, "optimizer": optimizer})
            save_weights(
                output, mixer.state_dict(), mixer_metadata(mixer, steps=step + 1, seed=options.seed)
            )
    pool.shutdown()


def _drawn(faces: int, fitted: int, options: MixerOptions, random: torch.Generator) -> Tensor:
    """Numbers of a bank's faces, one a pair."""
    kind = torch.rand(options.pairs, generator=random) < options.fitted_share
    any_of, of_fitted = (
        torch.randint(count, (options.pairs,), generator=random) for count in (faces - fitted, fitted or 1)
    )
    return torch.where(kind, faces - fitted + of_fitted, any_of) if fitted else any_of


def _pair_gradient(
    nets: Networks,
    bank: Bank,
    weights: dict[str, float],
    taught: Tensor | None,
    source: int,
    target: int,
    mixed: Tensor,
) -> tuple[Tensor, dict[str, float]]:
    """Gradient of a pair's total loss in its mixed code ``[1, n_styles, 512]``, and the losses."""
    mixed = mixed.clone().requires_grad_(True)
    losses = pair_losses(nets, bank, source, target, mixed, taught)
    total = sum((weights[name] * value for name, value in losses.items()), torch.zeros(()))
    (gradient,) = torch.autograd.grad(total, mixed)
    return gradient, {name: float(value.detach()) for name, value in losses.items()}


def _groups(mixer: torch.nn.Module, rate: float) -> list[dict]:
    """Biases (of the gates above all) may move faster than weights that meet many inputs."""
    biases = [p for name, p in mixer.named_parameters() if name.endswith("bias")]
    weights = [p for name, p in mixer.named_parameters() if not name.endswith("bias")]
    return [
        {"params": weights, "lr": rate, "factor": 0.4},
        {"params": biases, "lr": rate, "factor": 4.0},
    ]


def _report(output: Path, step: int, running: dict[str, float], log: Callable[[str], None]) -> None:
    path = output.with_suffix(".csv")
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow(["step", *running])
        writer.writerow([step, *(f"{value:.5f}" for value in running.values())])
    log(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in running.items()))


@torch.no_grad()
def evaluate_mixer(
    nets: Networks, bank: Bank, mix: Callable[[Tensor, Tensor], Tensor], *, pairs: int
) -> dict[str, float]:
    """Mean losses, and mean identity distance to the source, on pairs of a bank."""
    random = torch.Generator().manual_seed(4242)
    totals: dict[str, float] = {}
    taught = teacher_embeddings(nets, bank)
    for _ in range(pairs):
        source, target = torch.randperm(len(bank), generator=random)[:2].tolist()
        mixed = mix(bank.codes[source : source + 1], bank.codes[target : target + 1])
        losses = pair_losses(nets, bank, source, target, mixed, taught)
        values = {name: float(value) for name, value in losses.items()}
        values["distance_to_source"] = math.sqrt(values.pop("identity"))
        for name, value in values.items():
            totals[name] = totals.get(name, 0.0) + value / pairs
    return totals

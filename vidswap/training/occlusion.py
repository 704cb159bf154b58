"""Trains the occlusion network, and the one that sees glasses, on generated faces."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from vidswap.errors import UsageError, WeightsError
from vidswap.machine import multiplies_bfloat16
from vidswap.models import channels_last
from vidswap.models.occlusion_net import (
    GLASSES_SIZE,
    INPUT_SIZE,
    OcclusionNet,
    occlusion_metadata,
    read_occlusion_net,
)
from vidswap.training.checkpoint import Checkpoint, save_weights
from vidswap.training.occlusion_scenes import DrawScene, Scenes, draw_scene
from vidswap.training.pictures import Pictures

_HELD_OUT_SEED = 900_001
_CEILING = 3.0
"""Loss of a pixel that is called covered and labelled face, at most: the generator draws glasses and fringes
that nobody labelled, and the network must not unlearn them at any price."""


@dataclass(frozen=True)
class OcclusionOptions:
    """Settings of ``vidswap train occlusion``."""

    steps: int = 6000
    batch: int = 8
    """Scenes a step."""
    learning_rate: float = 3e-3
    seed: int = 1
    """Fixes the scenes and the start."""
    size: int = INPUT_SIZE
    """Side of the scenes in pixels."""
    save_every: int = 100
    """Steps between checkpoints."""
    learnt: float = 1.0
    """Share of the trained weights in those that are written; the rest are those that the run began with
    (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022): less of what they knew is forgotten."""


@dataclass(frozen=True)
class GlassesOptions(OcclusionOptions):
    """Settings of ``vidswap train glasses``."""

    steps: int = 2400
    size: int = GLASSES_SIZE
    """Side of the scenes in pixels: rims are thin."""


def occlusion_loss(logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Cross entropy a pixel of the face plus one minus the soft overlap of a scene.

    Tensors are ``[B, 1, S, S]``; ``truth`` and ``weight`` in [0, 1].
    """
    each = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    each = torch.where(truth < 0.5, _CEILING * torch.tanh(each / _CEILING), each)
    entropy = (weight * each).sum() / weight.sum().clamp_min(1.0)
    said, covered = torch.sigmoid(logits) * weight, truth * weight
    both = (said * covered).sum((1, 2, 3))
    either = (said + covered - said * truth).sum((1, 2, 3))
    # The constant lets a scene without occluders ask for silence, and no more than that.
    overlap = (both + 50.0) / (either + 50.0)
    return entropy + 0.3 * (1 - overlap).mean()


def train_occlusion(
    pictures: Pictures,
    net: OcclusionNet,
    output: Path,
    options: OcclusionOptions,
    *,
    device: torch.device,
    log: Callable[[str], None],
    workers: int = 1,
    evaluate_on: int = 96,
    begin: Path | None = None,
    draw: DrawScene = draw_scene,
) -> dict[str, float]:
    """Train ``net``, resuming from a checkpoint beside ``output``; gives figures on unseen scenes.

    :param workers: processes that draw scenes; they change nothing but the speed.
    :param begin: published weights to go on from where there is no checkpoint.
    :param draw: maker of the scenes, and of what is to be seen in them.
    :raises WeightsError: these are no such weights.
    :raises UsageError: a share of what was learnt, and nothing that the run began with.
    """
    if not 0 < options.learnt <= 1:
        raise UsageError(f"learnt: expected more than 0 and at most 1, got {options.learnt:g}")
    begun = None
    if options.learnt < 1:
        if begin is None:
            raise UsageError("learnt: a share below 1 needs the weights to begin with")
        begun = copy.deepcopy(net)
        resume_published(begun, begin)
    channels_last(net.to(device))
    optimizer = torch.optim.AdamW(net.parameters(), lr=options.learning_rate, weight_decay=1e-4)
    checkpoint = Checkpoint(output.with_suffix(".ckpt.pt"))
    start = checkpoint.resume({"net": net, "optimizer": optimizer})
    if start == 0 and begin is not None:
        start = resume_published(net, begin)
    scenes = Scenes(pictures, seed=options.seed, size=options.size, draw=draw)
    loader = DataLoader(
        scenes, batch_size=options.batch, num_workers=workers,
        sampler=range(start * options.batch, options.steps * options.batch),
    )  # fmt: skip
    pays = device.type == "cuda" or multiplies_bfloat16()
    running = {"loss": math.nan, "iou": math.nan, "false alarms": math.nan}
    for step, batch in enumerate(loader, start + 1):
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * _schedule(step, options.steps)
        image, truth, weight = (part.to(device) for part in batch)
        with torch.autocast(device.type, torch.bfloat16, enabled=pays):  # nearly twice as fast
            logits = net(image.contiguous(memory_format=torch.channels_last))
        logits = logits.float()
        loss = occlusion_loss(logits, truth, weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 2.0)
        optimizer.step()
        counts = overlap_counts(logits.detach() > 0, truth > 0.5, weight)
        _follow(running, {"loss": float(loss.detach()), **overlap_figures(counts)})
        if step % 25 == 0:
            log(f"step {step}/{options.steps}: " + ", ".join(f"{k} {v:.4f}" for k, v in running.items()))
        if step % options.save_every == 0 or step == options.steps:
            checkpoint.save(step, {"net": net, "optimizer": optimizer})
            publish(net, output, step, options, begun)
    if begun is not None:  # also where nothing was left to train
        publish(net, output, max(start, options.steps), options, begun)
        resume_published(net, output)
    return evaluate_occlusion(
        pictures, net, count=evaluate_on, size=options.size, device=device, draw=draw
    )


def _schedule(step: int, steps: int) -> float:
    """Share of the learning rate: a short rise, then a cosine down to a hundredth."""
    return min(1.0, step / 60) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))


def _follow(running: dict[str, float], fresh: dict[str, float]) -> None:
    for name in running:
        if name in fresh and not math.isnan(fresh[name]):
            before = running[name]
            running[name] = fresh[name] if math.isnan(before) else 0.97 * before + 0.03 * fresh[name]


def overlap_counts(said: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Weighted pixels ``[4]``: rightly covered, wrongly covered, missed, rightly face."""
    cases = (said & truth, said & ~truth, ~said & truth, ~said & ~truth)
    return torch.stack([(weight * case).sum() for case in cases]).double().cpu()


def overlap_figures(counts: Tensor) -> dict[str, float]:
    """IoU, recall, precision of what is covered, and the share of bare face that is called covered."""
    hit, wrong, missed, bare = counts.tolist()

    def share(part: float, whole: float) -> float:
        return part / whole if whole > 0 else math.nan

    return {
        "iou": share(hit, hit + wrong + missed),
        "recall": share(hit, hit + missed),
        "precision": share(hit, hit + wrong),
        "false alarms": share(wrong, wrong + bare),
    }


@torch.no_grad()
def evaluate_occlusion(
    pictures: Pictures,
    net: OcclusionNet,
    *,
    count: int,
    size: int,
    device: torch.device,
    draw: DrawScene = draw_scene,
) -> dict[str, float]:
    """Figures of :func:`overlap_figures` over scenes that no training run draws."""
    was_training = net.training
    net.eval()
    scenes = Scenes(pictures, seed=_HELD_OUT_SEED, size=size, draw=draw)
    total = torch.zeros(4, dtype=torch.float64)
    for number in range(count):
        image, truth, weight = (part[None].to(device) for part in scenes[number])
        total += overlap_counts(net(image) > 0, truth > 0.5, weight)
    net.train(was_training)
    return overlap_figures(total)


@torch.no_grad()
def occlusion_sheet(
    pictures: Pictures,
    net: OcclusionNet,
    path: Path,
    *,
    size: int,
    device: torch.device,
    count: int = 24,
    draw: DrawScene = draw_scene,
) -> None:
    """Scenes with truth and answer beside them, in red, four across."""
    was_training = net.training
    net.eval()
    scenes = Scenes(pictures, seed=_HELD_OUT_SEED, size=size, draw=draw)
    cells = []
    for number in range(count):
        image, truth, weight = scenes[number]
        said = torch.sigmoid(net(image[None].to(device)))[0].cpu()
        cells.append(np.concatenate([_seen(image), _seen(image, truth * weight), _seen(image, said)], 1))
    net.train(was_training)
    rows: list[np.ndarray] = [np.concatenate(cells[i : i + 4], 1) for i in range(0, count - count % 4, 4)]
    Image.fromarray(np.concatenate(rows)).save(path)


def _seen(image: Tensor, red: Tensor | None = None) -> np.ndarray:
    shown = (image + 1) / 2
    if red is not None:
        share = 0.6 * red
        shown = shown * (1 - share) + share * torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    return (shown * 255).round().byte().permute(1, 2, 0).numpy()


def resume_published(net: OcclusionNet, path: Path) -> int:
    """Take over what :func:`publish` wrote; gives the steps that it was trained for.

    :raises WeightsError: the file holds something else, or a network of other widths.
    """
    try:
        published, facts = read_occlusion_net(path)
        net.load_state_dict(published.state_dict())
        return int(facts.get("steps", 0))
    except (WeightsError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{path}: not the weights of this occlusion network ({error})") from error


def publish(
    net: OcclusionNet, output: Path, step: int, options: OcclusionOptions, begun: OcclusionNet | None = None
) -> None:
    """Write the weights as they are used.

    :param begun: what the run began with, and of which the options keep a share.
    """
    facts: Sequence[tuple[str, object]] = (("steps", step), ("batch", options.batch), ("seed", options.seed))
    kept = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    if begun is not None:
        before = begun.state_dict()
        kept = {k: torch.lerp(before[k].to(v), v, options.learnt) for k, v in kept.items()}
    save_weights(output, kept, occlusion_metadata(net, **dict(facts)))

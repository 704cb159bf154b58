"""Distils the RGB heads of the cheap paths from the full generator."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from vidswap.models.mobile_stylegan import MobileStyleGAN
from vidswap.models.rgb_head import RgbHead, area_downsample
from vidswap.training.checkpoint import Checkpoint, save_weights
from vidswap.training.sampling import LatentSampler

_SIZES = (128, 256)


@dataclass(frozen=True)
class HeadsOptions:
    """Settings of ``vidswap train heads``."""

    steps: int = 2000
    learning_rate: float = 2e-3
    seed: int = 1
    save_every: int = 100


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images in [-1, 1]."""
    return -10 * math.log10(float((a - b).square().mean()) / 4 + 1e-12)


def full_with_features(
    generator: MobileStyleGAN, w_plus: torch.Tensor
) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
    """The full picture and the features that the heads see, in one pass."""
    seen: dict[int, torch.Tensor] = {}
    hooks = [
        generator.convs[str(3 * stage + 3)].register_forward_hook(
            lambda _module, _inputs, output, size=size: seen.__setitem__(size, output)
        )
        for size, stage in zip(_SIZES, (4, 5), strict=True)
    ]
    try:
        return generator.synthesize(w_plus), seen
    finally:
        for hook in hooks:
            hook.remove()


def train_heads(
    generator: MobileStyleGAN,
    output: Path,
    options: HeadsOptions,
    *,
    log: Callable[[str], None],
    evaluate_on: int = 12,
) -> dict[int, float]:
    """Train both heads, resuming from a checkpoint beside ``output``; gives PSNR in dB a size."""
    heads = torch.nn.ModuleDict({str(size): generator.new_head(size) for size in _SIZES})
    heads.to(generator.device)
    optimizer = torch.optim.Adam(_groups(heads, options.learning_rate), betas=(0.9, 0.99))
    checkpoint = Checkpoint(output.with_suffix(".ckpt.pt"))
    start = checkpoint.resume({"heads": heads, "optimizer": optimizer})
    sampler = LatentSampler(generator, seed=options.seed * 1_000_003 + start)
    if start == 0:
        start_from_ridge(heads, generator, sampler)
    running = {size: 25.0 for size in _SIZES}
    for step in range(start, options.steps):
        fraction = step / options.steps
        for group in optimizer.param_groups:
            group["lr"] = group["top"] * min(1, (step + 1) / 30) * (1 - 0.97 * fraction)
        w_plus = sampler.draw(1)
        with torch.no_grad():
            full, features = full_with_features(generator, w_plus)
        optimizer.zero_grad(set_to_none=True)
        for size in _SIZES:
            target = area_downsample(full, size)
            made = heads[str(size)](features[size], _rest(heads[str(size)], generator, w_plus))
            loss = functional.mse_loss(made, target) + 0.1 * functional.l1_loss(made, target)
            loss.backward()
            running[size] = 0.95 * running[size] + 0.05 * psnr(made.detach(), target)
        optimizer.step()
        if (step + 1) % 50 == 0:
            log(f"step {step + 1}/{options.steps}: " + ", ".join(f"{s} px {running[s]:.2f} dB" for s in _SIZES))
        if (step + 1) % options.save_every == 0 or step + 1 == options.steps:
            checkpoint.save(step + 1, {"heads": heads, "optimizer": optimizer})
            _publish(heads, output, step + 1, options)
    return evaluate_heads(generator, heads, count=evaluate_on)


def _rest(head: RgbHead, generator: MobileStyleGAN, w_plus: torch.Tensor) -> torch.Tensor:
    return w_plus[:, -head.n_rest :] - generator.w_avg


def _groups(heads: torch.nn.ModuleDict, rate: float) -> list[dict]:
    """Smaller steps where many inputs meet in one output."""
    slow = [p for head in heads.values() for p in head.squeeze.parameters()]
    linear = [p for head in heads.values() for p in head.skip.parameters()]
    rest = [p for p in heads.parameters() if not any(p is q for q in slow + linear)]
    return [
        {"params": rest, "lr": rate, "top": rate},
        {"params": slow, "lr": 0.05 * rate, "top": 0.05 * rate},
        {"params": linear, "lr": 0.01 * rate, "top": 0.01 * rate},
    ]


@torch.no_grad()
def start_from_ridge(heads: torch.nn.ModuleDict, generator: MobileStyleGAN, sampler: LatentSampler) -> None:
    """Start the linear part of each head at the ridge solution, and whiten the input of the rest.

    From a random start the first few hundred steps would only find this.
    """
    moments = {size: [0.0, 0.0] for size in _SIZES}
    for _ in range(12):
        w_plus = sampler.draw(1)
        full, features = full_with_features(generator, w_plus)
        for size in _SIZES:
            x = features[size].flatten(2)[0].double()
            x = torch.cat((x, torch.ones(1, x.shape[1], device=x.device)))
            y = area_downsample(full, size).flatten(2)[0].double()
            moments[size][0] += x @ x.T / x.shape[1]
            moments[size][1] += x @ y.T / x.shape[1]
    for size in _SIZES:
        gram, cross = moments[size]
        ridge = 1e-4 * gram.diagonal().mean() * torch.eye(len(gram), device=gram.device)
        solution = torch.linalg.solve(gram + ridge, cross).float()
        head = heads[str(size)]
        head.skip.weight.copy_(solution[:-1].T[:, :, None, None])
        head.skip.bias.copy_(solution[-1])
        scale = gram.diagonal()[:-1].float().div(gram[-1, -1].float()).sqrt().clamp_min(1e-3)
        head.reduce.weight.div_(scale[None, :, None, None])
        head.out.weight.mul_(0.1)
        head.out.bias.zero_()


def _publish(heads: torch.nn.ModuleDict, output: Path, step: int, options: HeadsOptions) -> None:
    tensors = {}
    for size, head in heads.items():
        tensors.update({f"head{size}.{key}": value for key, value in head.state_dict().items()})
    save_weights(output, tensors, {"kind": "heads", "steps": str(step), "seed": str(options.seed)})


@torch.no_grad()
def evaluate_heads(
    generator: MobileStyleGAN, heads: torch.nn.ModuleDict, *, count: int, seed: int = 77_777
) -> dict[int, float]:
    """Mean PSNR in dB on unseen codes, against the area-downsampled full picture."""
    sampler = LatentSampler(generator, seed=seed)
    totals = {size: 0.0 for size in _SIZES}
    for _ in range(count):
        w_plus = sampler.draw(1)
        full, features = full_with_features(generator, w_plus)
        for size in _SIZES:
            made = heads[str(size)](features[size], _rest(heads[str(size)], generator, w_plus))
            totals[size] += psnr(made, area_downsample(full, size)) / count
    return totals

"""Distils the RGB heads of the cheap paths from the full generator.

On random codes, and on codes as fitting through these heads leaves them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from vidswap.models.mobile_stylegan import MobileStyleGAN
from vidswap.models.rgb_head import RgbHead, area_downsample
from vidswap.training.checkpoint import Checkpoint, save_weights
from vidswap.training.fitted import Fit, FittedCodes
from vidswap.training.sampling import LatentSampler

_SIZES = (128, 256)
_FACES = 40
"""Random pictures to choose from before the first fit."""


@dataclass(frozen=True)
class HeadsOptions:
    """Settings of ``vidswap train heads``."""

    steps: int = 2000
    learning_rate: float = 8e-4
    seed: int = 1
    save_every: int = 100
    sizes: tuple[int, ...] = _SIZES
    replay: int = 200
    """Passes of the full generator that are kept for further steps."""
    replays: int = 2
    """Further steps on kept passes after each fresh one."""
    fitted: float = 0.5
    """Share of the codes that were fitted through the heads as they are; the other ones are random."""
    fitted_from: int = 600
    """Step from which there are fitted codes; before it the heads draw too badly to be fitted through."""


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
    fit: Fit | None = None,
    encoder: torch.nn.Module | None = None,
    evaluate_on: int = 12,
) -> dict[int, float]:
    """Train the heads, resuming from a checkpoint beside ``output``; gives PSNR in dB a size.

    :param fit: how faces are inverted; None: no fitted codes.
    :param encoder: where fits start from; None: at the mean.

    A full pass costs more than a head's step, so recent passes are kept and used several times.
    """
    heads = torch.nn.ModuleDict({str(size): generator.new_head(size) for size in options.sizes})
    heads.to(generator.device)
    generator.heads = heads  # fits go through the heads as they are
    optimizer = torch.optim.Adam(_groups(heads, options.learning_rate), betas=(0.9, 0.99))
    checkpoint = Checkpoint(output.with_suffix(".ckpt.pt"))
    start = checkpoint.resume({"heads": heads, "optimizer": optimizer})
    sampler = LatentSampler(generator, seed=options.seed * 1_000_003 + start)
    if start == 0:
        start_from_ridge(heads, generator, sampler)
    fits = None
    if fit is not None and options.fitted > 0:
        fits = FittedCodes(generator, fit, encoder, seed=options.seed * 1_000_003 + start)
    kinds = ("px", "px fitted") if fits is not None else ("px",)
    running = {f"{size} {kind}": 25.0 for size in options.sizes for kind in kinds}
    recent: deque[dict[int, Sample]] = deque(maxlen=options.replay)
    faces: deque[dict[int, torch.Tensor]] = deque(maxlen=options.replay)
    random = torch.Generator().manual_seed(options.seed * 1_000_003 + start)
    for step in range(start, options.steps):
        fraction = step / options.steps
        for group in optimizer.param_groups:
            group["lr"] = group["top"] * min(1, (step + 1) / 30) * (1 - 0.97 * fraction)
        through = options.sizes[step % len(options.sizes)]
        fitting = fits is not None and step >= options.fitted_from and len(faces) >= _FACES
        fitting = fitting and float(torch.rand((), generator=random)) < options.fitted
        if fitting and fits is not None:
            heads.requires_grad_(False)
            code = fits.draw([face[through] for face in faces])
            heads.requires_grad_(True)
        else:
            code = sampler.draw(1)
        fresh = _sample(generator, code, options.sizes)
        recent.append(fresh)
        if not fitting:
            faces.append({size: picture for size, (_, _, picture) in fresh.items()})
        picks = torch.randint(len(recent), (options.replays,), generator=random).tolist()
        for number, sample in enumerate([fresh, *(recent[pick] for pick in picks)]):
            optimizer.zero_grad(set_to_none=True)
            for size, (features, modulations, target) in sample.items():
                made = heads[str(size)](features.float(), modulations)
                loss = functional.mse_loss(made, target) + 0.05 * functional.l1_loss(made, target)
                loss.backward()
                if number == 0:
                    name = f"{size} px fitted" if fitting else f"{size} px"
                    found = psnr(made.detach(), target)
                    running[name] = 0.96 * running[name] + 0.04 * found
            torch.nn.utils.clip_grad_norm_(heads.parameters(), 0.5)
            optimizer.step()
        if (step + 1) % 50 == 0:
            figures = ", ".join(f"{name} {value:.2f} dB" for name, value in running.items())
            log(f"step {step + 1}/{options.steps}: {figures}")
        if (step + 1) % options.save_every == 0 or step + 1 == options.steps:
            checkpoint.save(step + 1, {"heads": heads, "optimizer": optimizer})
            _publish(heads, output, step + 1, options)
    return evaluate_heads(generator, heads, count=evaluate_on)


Sample = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Features (half precision), modulations and the wanted picture."""


@torch.no_grad()
def _sample(
    generator: MobileStyleGAN, w_plus: torch.Tensor, sizes: tuple[int, ...]
) -> dict[int, Sample]:
    full, features = full_with_features(generator, w_plus)
    return {
        size: (
            features[size].half(),
            generator.rest_modulations(w_plus, size),
            area_downsample(full, size),
        )
        for size in sizes
    }


def _by_size(heads: torch.nn.ModuleDict) -> dict[int, RgbHead]:
    return {int(size): head for size, head in heads.items() if isinstance(head, RgbHead)}


def _groups(heads: torch.nn.ModuleDict, rate: float) -> list[dict]:
    """Smaller steps where many inputs meet in one output."""
    slow = [
        p
        for head in _by_size(heads).values()
        for part in (head.squeeze, head.style)
        for p in part.parameters()
    ]
    linear = [p for head in _by_size(heads).values() for p in head.skip.parameters()]
    rest = [p for p in heads.parameters() if not any(p is q for q in slow + linear)]
    return [
        {"params": rest, "lr": rate, "top": rate},
        {"params": slow, "lr": 0.25 * rate, "top": 0.25 * rate},
        {"params": linear, "lr": 0.01 * rate, "top": 0.01 * rate},
    ]


@torch.no_grad()
def start_from_ridge(heads: torch.nn.ModuleDict, generator: MobileStyleGAN, sampler: LatentSampler) -> None:
    """Start the linear part of each head at the ridge solution, and whiten the input of the rest.

    From a random start the first few hundred steps would only find this.
    """
    sizes = tuple(int(size) for size in heads)
    grams: dict[int, torch.Tensor] = {}
    crosses: dict[int, torch.Tensor] = {}
    for _ in range(12):
        for size, (features, _modulations, target) in _sample(generator, sampler.draw(1), sizes).items():
            x = features.flatten(2)[0].double()
            x = torch.cat((x, torch.ones(1, x.shape[1], device=x.device)))
            grams[size] = grams.get(size, 0.0) + x @ x.T / x.shape[1]
            crosses[size] = crosses.get(size, 0.0) + x @ target.flatten(2)[0].double().T / x.shape[1]
    codes = sampler.draw(256)
    for size, head in _by_size(heads).items():
        gram = grams[size]
        ridge = 1e-4 * gram.diagonal().mean() * torch.eye(len(gram), device=gram.device)
        solution = torch.linalg.solve(gram + ridge, crosses[size]).float()
        head.skip.load_state_dict({"weight": solution[:-1].T[:, :, None, None], "bias": solution[-1]})
        scale = gram.diagonal()[:-1].float().div(gram[-1, -1].float()).sqrt().clamp_min(1e-3)
        head.reduce.weight.div_(scale[None, :, None, None])
        head.out.weight.mul_(0.1)
        head.out.get_parameter("bias").zero_()
        modulations = generator.rest_modulations(codes, size)
        head.center.copy_(modulations.mean(0))
        head.spread.copy_(modulations.std(0).clamp_min(1e-3))


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
    sizes = tuple(int(size) for size in heads)
    totals = {size: 0.0 for size in sizes}
    for _ in range(count):
        for size, (features, modulations, target) in _sample(generator, sampler.draw(1), sizes).items():
            totals[size] += psnr(heads[str(size)](features.float(), modulations), target) / count
    return totals

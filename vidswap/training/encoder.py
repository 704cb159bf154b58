"""Training of the encoder on the generator's own samples.

First in closed form: ridge regression from features to W+ restricted to its principal components. Then
a small network on top learns what is not linear, by gradient, on the same rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from vidswap.models.encoder import FaceFeatures, LatentMap
from vidswap.models.mobile_stylegan import MobileStyleGAN
from vidswap.training.augment import augment
from vidswap.training.checkpoint import save_weights
from vidswap.training.sampling import LatentSampler


@dataclass(frozen=True)
class EncoderOptions:
    """Settings of ``vidswap train encoder``."""

    samples: int = 20000
    """Rows to learn from: 500, 1,000, 2,000 and 3,000 explained 22, 26, 30 and 32 % of unseen codes."""
    seed: int = 21
    rank: int = 384
    hidden: int = 768
    ridges: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    """Ridges of the closed-form part to choose from, in units of a sample's mean square."""
    epochs: int = 8
    batch: int = 128
    learning_rate: float = 3e-4
    held_out: int = 256
    shard: int = 500


@torch.no_grad()
def collect(
    generator: MobileStyleGAN,
    features: FaceFeatures,
    folder: Path,
    options: EncoderOptions,
    *,
    log: Callable[[str], None],
) -> tuple[Tensor, Tensor]:
    """Features ``[N, D]`` of degraded samples and their codes ``[N, n_styles * 512]``, half precision.

    Written in shards as they come, so that an interrupted run goes on where it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Tensor] = []
    codes: list[Tensor] = []
    for shard in range(options.samples // options.shard):
        path = folder / f"encoder-{options.seed}-{shard:04d}.safetensors"
        if not path.exists():
            save_file(_shard(generator, features, options, shard), path)
            log(f"samples: {(shard + 1) * options.shard}/{options.samples}")
        part = load_file(path)
        rows.append(part["features"])
        codes.append(part["codes"])
    return torch.cat(rows), torch.cat(codes)


def _shard(
    generator: MobileStyleGAN, features: FaceFeatures, options: EncoderOptions, shard: int
) -> dict[str, Tensor]:
    seed = options.seed * 100_003 + shard
    sampler = LatentSampler(generator, seed=seed)
    random = torch.Generator().manual_seed(seed)
    rows, codes = [], []
    for _ in range(options.shard):
        code = sampler.draw(1)
        image = augment(generator.synthesize(code, size=128), random)
        rows.append(features(image)[0].half())
        codes.append((code - generator.w_avg).flatten().half())
    return {"features": torch.stack(rows), "codes": torch.stack(codes)}


@torch.no_grad()
def solve_linear(
    rows: Tensor,
    codes: Tensor,
    w_avg: Tensor,
    n_styles: int,
    options: EncoderOptions,
    *,
    log: Callable[[str], None],
) -> LatentMap:
    """The closed-form part: ridge regression, then reduced to its own rank.

    Much of a code cannot be seen in its picture, so the ridge decides; it is chosen on a tenth of the rows
    that the first solution has not seen.
    """
    latents = LatentMap(rows.shape[1], options.rank, options.hidden, n_styles)
    x, y = rows.float(), codes.float()
    latents.center.copy_(x.mean(0))
    latents.spread.copy_(x.std(0).clamp_min(1e-4))
    x = ((x - latents.center) / latents.spread).clamp_(-6, 6)
    mean = y.mean(0)
    y = y - mean
    seen = torch.arange(len(x)) % 10 != 0
    ridge = _choose_ridge(x[seen], y[seen], x[~seen], y[~seen], options.ridges, log)
    weights = _ridge_weights(x, y, ridge)
    # reduced rank: the directions in which the predictions vary most
    _, _, basis = torch.svd_lowrank(x @ weights, q=options.rank, niter=3)
    latents.squeeze.weight.copy_((weights @ basis).T)
    latents.squeeze.bias.zero_()
    latents.expand.weight.copy_(basis)
    latents.expand.bias.copy_(mean + w_avg.repeat(n_styles))
    return latents


def _ridge_weights(x: Tensor, y: Tensor, ridge: float) -> Tensor:
    """``[D, K]`` of rows ``[N, D]`` and ``[N, K]``, through the smaller of the two square matrices."""
    dual = len(x) < x.shape[1]
    square = x @ x.T if dual else x.T @ x
    square.diagonal().add_(ridge * x.shape[1])
    return x.T @ torch.linalg.solve(square, y) if dual else torch.linalg.solve(square, x.T @ y)


def _choose_ridge(
    x: Tensor, y: Tensor, other_x: Tensor, other_y: Tensor, ridges: tuple[float, ...], log: Callable
) -> float:
    dual = len(x) < x.shape[1]
    values, vectors = torch.linalg.eigh(x @ x.T if dual else x.T @ x)
    seen = vectors.T @ (y if dual else x.T @ y)
    cross = (other_x @ x.T if dual else other_x) @ vectors
    found = {}
    for ridge in ridges:
        made = cross @ (seen / (values.clamp_min(0) + ridge * x.shape[1])[:, None])
        found[ridge] = 1 - float((made - other_y).square().sum() / other_y.square().sum())
    log("ridge: " + ", ".join(f"{ridge:g} explains {share:.4f}" for ridge, share in found.items()))
    return max(found, key=lambda ridge: found[ridge])


def train_encoder(
    rows: Tensor,
    codes: Tensor,
    w_avg: Tensor,
    n_styles: int,
    output: Path,
    options: EncoderOptions,
    *,
    log: Callable[[str], None],
) -> LatentMap:
    """Train on collected rows and publish fp16 weights; the last ``held_out`` rows are only judged."""
    train_x, train_y = rows[: -options.held_out], codes[: -options.held_out]
    test_x, test_y = rows[-options.held_out :].float(), codes[-options.held_out :].float()
    latents = solve_linear(train_x, train_y, w_avg, n_styles, options, log=log)
    offset = w_avg.repeat(n_styles)

    @torch.no_grad()
    def explained() -> float:
        made = latents(test_x).flatten(1) - offset
        return 1 - float((made - test_y).square().sum() / (test_y - train_y.float().mean(0)).square().sum())

    log(f"linear part: {explained():.4f} of the variance of unseen codes explained")
    latents.expand.weight.requires_grad_(False)
    optimizer = torch.optim.AdamW(
        [p for p in latents.parameters() if p.requires_grad], lr=options.learning_rate, weight_decay=0.05
    )
    random = torch.Generator().manual_seed(options.seed)
    mean = latents.expand.bias.detach() - offset
    wanted = (train_y.float() - mean) @ latents.expand.weight.detach()  # coefficients in the basis
    best, kept = explained(), {k: v.clone() for k, v in latents.state_dict().items()}
    for epoch in range(options.epochs):
        order = torch.randperm(len(train_x), generator=random)
        for picks in order.split(options.batch):
            x = train_x[picks].float()
            x = x + 0.02 * latents.spread * torch.randn(x.shape, generator=random)
            loss = functional.mse_loss(latents.coefficients(x), wanted[picks])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        now = explained()
        if now > best:
            best, kept = now, {k: v.clone() for k, v in latents.state_dict().items()}
        log(f"epoch {epoch + 1}: loss {float(loss.detach()):.5f}, explained {now:.4f}")
    latents.load_state_dict(kept)
    metadata = {
        "kind": "encoder", "n_styles": str(n_styles), "samples": str(len(train_x)),
        "seed": str(options.seed), "explained": f"{best:.4f}",
    }  # fmt: skip
    save_weights(output, latents.state_dict(), metadata)
    return latents

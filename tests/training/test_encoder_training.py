"""The encoder's closed-form part finds a known map, with more rows than features and with fewer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from vidswap.models.encoder import load_latent_map
from vidswap.training.encoder import EncoderOptions, _ridge_weights, solve_linear, train_encoder

OPTIONS = EncoderOptions(rank=6, hidden=8, held_out=40, epochs=1, batch=64, ridges=(1e-4, 1e-2, 1.0))
STYLES = 3


def quiet(_line: str) -> None:
    return None


def known_map(rows: int, features: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features, codes that follow from six combinations of them, and W's mean."""
    random = torch.Generator().manual_seed(1)
    x = torch.randn(rows, features, generator=random) * torch.linspace(0.5, 2, features) + 3
    inner = torch.randn(features, 6, generator=random) / features**0.5
    outer = torch.randn(6, STYLES * 512, generator=random)
    return x, x @ inner @ outer, torch.randn(512, generator=random)


@pytest.mark.parametrize(("rows", "features", "least"), [(600, 40, 0.99), (60, 80, 0.6)])
def test_a_known_map_is_found_again(rows: int, features: int, least: float) -> None:
    x, codes, w_avg = known_map(rows + 100, features)
    with torch.no_grad():
        latents = solve_linear(x[:rows], codes[:rows], w_avg, STYLES, OPTIONS, log=quiet)
        made = latents(x[rows:]).flatten(1) - w_avg.repeat(STYLES)
    wanted = codes[rows:]
    unexplained = (made - wanted).square().sum() / (wanted - codes[:rows].mean(0)).square().sum()
    assert 1 - float(unexplained) > least


def test_both_ways_to_solve_it_agree() -> None:
    x, codes, _ = known_map(50, 50)
    wide = torch.cat((x, torch.zeros(50, 1)), 1)  # one feature more than rows: the other matrix is inverted
    narrow, broad = (_ridge_weights(each, codes, 0.1 * 50 / each.shape[1]) for each in (x, wide))
    assert torch.allclose(narrow, broad[:50], rtol=1e-3, atol=1e-3)


def test_training_publishes_what_can_be_loaded(tmp_path: Path) -> None:
    x, codes, w_avg = known_map(400, 40)
    lines: list[str] = []
    path = tmp_path / "encoder.safetensors"
    made = train_encoder(x.half(), codes.half(), w_avg, STYLES, path, OPTIONS, log=lines.append)
    read = load_latent_map(path)
    with torch.no_grad():
        assert torch.allclose(read(x[:4]), made(x[:4]), atol=0.05)
    assert any(line.startswith("ridge: ") for line in lines) and any("epoch 1" in line for line in lines)

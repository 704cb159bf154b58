"""Codes as fits leave them, and heads that learn from them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from vidswap import weights
from vidswap.cli.train import train_group
from vidswap.errors import UsageError
from vidswap.inversion import Curvature
from vidswap.models import load_generator
from vidswap.training import heads as heads_training
from vidswap.training.curvature import CurvatureOptions, codes_of_inversions
from vidswap.training.fitted import FittedCodes
from vidswap.training.heads import HeadsOptions, train_heads


@pytest.fixture(scope="module")
def generator(weights_home: Path):
    return load_generator("mobilestylegan", weights.locate)


class Fits:
    """Stands in for inversions: notes what it was asked for, and moves the code a little."""

    def __init__(self) -> None:
        self.asked: list[tuple[torch.Tensor, torch.Tensor, int, float]] = []

    def __call__(self, picture: torch.Tensor, start: torch.Tensor, steps: int, scale: float) -> torch.Tensor:
        self.asked.append((picture, start, steps, scale))
        return start + 0.01


def test_chains_go_on_from_their_own_codes(generator) -> None:
    fits = Fits()
    codes = FittedCodes(generator, fits, None, seed=5)
    pictures = [torch.full((1, 3, 64, 64), shade) for shade in (-0.5, 0.0, 0.5)]
    drawn = [codes.draw(pictures) for _ in range(80)]
    mean = generator.w_avg.expand(1, generator.n_styles, -1)
    begun = [torch.equal(start, mean) for _, start, _, _ in fits.asked]
    assert 10 < sum(begun) < 60
    for (picture, start, steps, scale), first in zip(fits.asked, begun, strict=True):
        assert picture.shape == (1, 3, 64, 64) and float(picture.abs().max()) <= 1
        assert steps >= 1 and scale == (1.0 if first else pytest.approx(0.4))
        assert first or any(torch.equal(start, code) for code in drawn)


def test_the_same_seed_draws_the_same_codes(generator) -> None:
    pictures = [torch.rand(1, 3, 64, 64) * 2 - 1 for _ in range(3)]
    one, two = (FittedCodes(generator, Fits(), None, seed=7) for _ in "ab")
    for _ in range(6):
        assert torch.equal(one.draw(pictures), two.draw(pictures))
    assert torch.equal(one._fit.asked[-1][0], two._fit.asked[-1][0])


def test_codes_of_inversions_are_in_part_the_encoders(generator) -> None:
    said = generator.w_avg.expand(1, generator.n_styles, -1)
    lines: list[str] = []
    options = CurvatureOptions(codes=4, seed=3)
    found = list(codes_of_inversions(generator, lambda image: said, options, log=lines.append))
    assert [torch.equal(code, said) for code in found] == [False, True, False, True]
    alone = list(codes_of_inversions(generator, None, options, log=lines.append))
    assert not any(torch.equal(code, said) for code in alone)


def test_heads_learn_from_fitted_codes_and_go_on(generator, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(heads_training, "_FACES", 2)
    fits, lines = Fits(), []
    options = HeadsOptions(steps=5, sizes=(128,), fitted=1.0, fitted_from=2, replays=1, save_every=3)
    own = dict(generator.heads.items())
    try:
        found = train_heads(
            generator, tmp_path / "heads.safetensors", options, log=lines.append, fit=fits, evaluate_on=1
        )
        assert len(fits.asked) == 3
        assert found[128] > 15
        assert any("128 px" in line for line in lines) or not lines
        again = train_heads(
            generator, tmp_path / "heads.safetensors", options, log=lines.append, fit=fits, evaluate_on=1
        )
        assert len(fits.asked) == 3 and again == found
    finally:
        generator.heads = torch.nn.ModuleDict(own)


def test_the_curvature_command_measures_and_refuses_other_options(weights_home: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    arguments = ["curvature", "-o", str(tmp_path), "--device", "cpu", "--codes", "2", "--probes", "1"]
    made = runner.invoke(train_group, [*arguments, "--rank", "2"])
    assert made.exit_code == 0, made.output
    found = Curvature.load(tmp_path / "fit-curvature.safetensors")
    assert found.directions.shape[0] == 2 and float(found.values[0]) > float(found.values[1]) > 0
    other = runner.invoke(train_group, [*arguments, "--rank", "1"])
    assert isinstance(other.exception, UsageError) and "rank was 2, now 1" in str(other.exception)

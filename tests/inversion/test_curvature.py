"""The curvature that scales the steps of fits, and the fits that use it."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from vidswap import weights
from vidswap.config import InversionConfig, RunConfig
from vidswap.inversion import Curvature, Inverter, fit_pivot, measure_curvature
from vidswap.inversion.fit import _QuasiNewton
from vidswap.models import load_generator
from vidswap.models.identity import DlibIdentity
from vidswap.session import Session

CONFIG = InversionConfig(first_steps=8, next_steps=3, encoder=False)


@pytest.fixture(scope="module")
def networks(weights_home: Path):
    return load_generator("mobilestylegan", weights.locate), DlibIdentity.load(weights.locate("dlib-resnet"))


@pytest.fixture(scope="module")
def curvature() -> Curvature:
    return Curvature.load(weights.locate("fit-curvature"))


def code(generator, seed: int) -> torch.Tensor:
    return generator.sample(seed, psi=0.6)[:, None].repeat(1, generator.n_styles, 1)


def picture(generator, w_plus: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return generator.synthesize(w_plus, size=128)


def diagonal(values: list[float], damping: float) -> Curvature:
    """Of one style, whose axes are the leading directions."""
    return Curvature(torch.eye(len(values)), torch.tensor(values), damping, 1.0, "test")


def bowl(bends: list[float], goal: torch.Tensor):
    """A loss with its minimum at ``goal``, and so much second derivative along each axis."""
    return lambda code: 0.5 * (torch.tensor(bends) * (code - goal).square()).sum()


def descend(curvature: Curvature, start: torch.Tensor, loss, steps: int, rate: float = 1.0):
    mover, code = _QuasiNewton(curvature, rate, deque(maxlen=10)), start
    for _ in range(steps):
        code = code.detach().requires_grad_(True)
        value = loss(code)
        (gradient,) = torch.autograd.grad(value, code)
        code = mover.moved(code.detach(), gradient, float(value.detach()))
    return code, mover


def test_a_step_by_the_right_curvature_ends_at_the_minimum() -> None:
    goal = torch.tensor([[[0.01, -0.02, 0.03]]])
    loss = bowl([100.0, 1.0, 0.1], goal)
    code, _ = descend(diagonal([100.0, 1.0, 0.1], 1e-4), torch.zeros(1, 1, 3), loss, 1)
    assert torch.allclose(code, goal, atol=1e-4)


def test_what_is_not_known_beforehand_is_learnt_from_the_steps() -> None:
    loss = bowl([100.0, 1.0, 3.0], torch.tensor([[[0.01, -0.1, 0.05]]]))
    code, mover = descend(diagonal([100.0, 20.0, 20.0], 1e-4), torch.zeros(1, 1, 3), loss, 12)
    assert float(loss(code)) < 1e-4 * float(loss(torch.zeros(1, 1, 3)))
    assert mover.pairs


@pytest.mark.parametrize("bad", [1e9, float("inf")])
def test_a_step_that_makes_things_worse_is_taken_back(bad: float) -> None:
    mover = _QuasiNewton(diagonal([1.0, 1.0], 1e-4), 1.0, deque(maxlen=10))
    start, gradient = torch.zeros(1, 1, 2), torch.tensor([[[0.1, 0.0]]])
    after = mover.moved(start, gradient, 1.0)
    back = mover.moved(after, torch.full_like(gradient, float("nan")), bad)
    assert torch.allclose(back, 0.5 * after)
    assert not mover.pairs


def test_steps_have_a_longest_length() -> None:
    mover = _QuasiNewton(diagonal([1e-6, 1e-6], 1e-6), 1.0, deque(maxlen=10))
    after = mover.moved(torch.zeros(1, 1, 2), torch.tensor([[[5.0, -5.0]]]), 1.0)
    assert 0.05 < float(after.square().mean().sqrt()) < 0.3


def test_measured_directions_are_orthonormal_and_sorted(networks, tmp_path: Path) -> None:
    generator, identity = networks
    codes = [code(generator, seed) for seed in range(3)]
    found = measure_curvature(generator, identity, codes, size=128, rank=4, probes=2)
    assert found.directions.shape == (4, generator.n_styles * 512)
    assert torch.allclose(found.directions @ found.directions.T, torch.eye(4), atol=1e-3)
    assert (found.values.diff() <= 0).all() and float(found.values[-1]) > 0
    found.save(tmp_path / "c.safetensors")
    read = Curvature.load(tmp_path / "c.safetensors")
    assert read.generator == generator.identifier and read.damping == found.damping
    gradient = torch.randn(1, generator.n_styles, 512, generator=torch.Generator().manual_seed(1))
    expected, step = found.newton_step(gradient), read.newton_step(gradient)
    assert float((step - expected).norm()) < 0.01 * float(expected.norm())
    assert float((step * gradient).sum()) < 0


def test_a_fit_by_it_comes_further_in_as_many_steps(networks, curvature: Curvature) -> None:
    generator, identity = networks
    image = picture(generator, code(generator, 21) + 0.05 * torch.randn(1, 23, 512))
    start = generator.w_avg.expand(1, generator.n_styles, -1)
    plain, curved = (
        fit_pivot(generator, identity, image, start, config=CONFIG, steps=8, curvature=each)
        for each in (None, curvature)
    )
    assert curved.psnr > plain.psnr + 1.5
    assert curved.steps == plain.steps == 8


def test_a_track_carries_what_its_steps_taught(networks, curvature: Curvature) -> None:
    generator, identity = networks
    inverter = Inverter(generator, identity, replace(CONFIG, rest_db=0.0), None, curvature)
    first, last = code(generator, 3), code(generator, 4)
    _, state = inverter.step(picture(generator, first), None)
    _, state = inverter.step(picture(generator, torch.lerp(first, last, 0.15)), state)
    assert state.pairs and len(state.pairs[0]) == 2
    for step, change in state.pairs:
        assert float((step * change).sum()) > 0


def test_a_fit_goes_on_from_what_the_round_before_taught(networks, curvature: Curvature) -> None:
    generator, identity = networks
    gains = []
    for seed in (22, 24):
        noise = torch.randn(1, 23, 512, generator=torch.Generator().manual_seed(seed))
        image = picture(generator, code(generator, seed) + 0.05 * noise)
        fit = partial(fit_pivot, generator, identity, image, config=CONFIG, curvature=curvature)
        before = fit(generator.w_avg.expand(1, generator.n_styles, -1), steps=10)
        assert len(before.pairs) >= 2
        anew, on = fit(before.w_plus, steps=5), fit(before.w_plus, steps=5, pairs=before.pairs)
        gains.append(on.psnr - anew.psnr)
    assert sum(gains) > 0.3  # dB; it was 1.1


def test_it_is_used_for_the_generator_that_it_was_measured_on(weights_home: Path, networks) -> None:
    session = Session(RunConfig())
    assert session.curvature is not None and session.inverter.curvature is session.curvature
    other = Session(RunConfig())
    stranger = load_generator("mobilestylegan", weights.locate)
    stranger.identifier = "another:1"
    other.__dict__["full_generator"] = stranger
    other.__dict__["generator"] = stranger
    assert other.curvature is None

"""Which numbers the generator computes with, and how near its pictures stay."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from vidswap.config import RunConfig
from vidswap.session import Session


@pytest.fixture(scope="module")
def sessions(weights_home: Path) -> dict[str, Session]:
    return {name: Session(RunConfig(device="cpu", precision=name)) for name in ("full", "bfloat16", "auto")}


def test_auto_follows_the_processor(sessions: dict[str, Session], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, answer in (("bfloat16", True), ("full", False)):
        monkeypatch.setattr("vidswap.session.multiplies_bfloat16", lambda answer=answer: answer)
        assert Session(RunConfig(device="cpu")).precision == name
    assert sessions["full"].precision == "full"


@pytest.mark.parametrize(("asked", "beside_others", "alone"), [(0, 2, 4), (3, 3, 3)])
def test_what_works_alone_may_use_all_cores(
    monkeypatch: pytest.MonkeyPatch, asked: int, beside_others: int, alone: int
) -> None:
    monkeypatch.setattr("vidswap.session.usable_cores", lambda: 4)
    before = torch.get_num_threads()
    try:
        session = Session(RunConfig(device="cpu", threads=asked))
        assert session.device.type == "cpu" and torch.get_num_threads() == beside_others
        with pytest.raises(ValueError), session.alone():
            assert torch.get_num_threads() == alone
            raise ValueError
        assert torch.get_num_threads() == beside_others
    finally:
        torch.set_num_threads(before)


def test_pictures_and_gradients_stay_near(sessions: dict[str, Session]) -> None:
    full, half = sessions["full"].generator, sessions["bfloat16"].generator
    assert half.identifier == full.identifier  # latents of one are latents of the other
    code = full.sample(3)[:, None].repeat(1, full.n_styles, 1)
    for size in (1024, 512, 128):
        with torch.no_grad():
            one, other = full.synthesize(code, size=size), half.synthesize(code, size=size)
        assert other.dtype == torch.float32
        assert -10 * math.log10(float((one - other).square().mean()) / 4) > 45
    slopes = []
    for generator in (full, half):
        start = code.clone().requires_grad_(True)
        generator.synthesize(start, size=128).square().mean().backward()
        slopes.append(start.grad.flatten())
    assert float(torch.cosine_similarity(*slopes, dim=0)) > 0.99


def test_tuning_has_the_full_weights(sessions: dict[str, Session]) -> None:
    session = sessions["bfloat16"]
    assert session.full_generator.convs["5"].weight.dtype == torch.float32
    assert session.generator.convs["5"].weight.dtype == torch.bfloat16
    tuned = session.with_generator(session.full_generator)
    assert tuned.precision == "bfloat16"
    assert tuned.generator.convs["5"].weight.dtype == torch.bfloat16
    assert tuned.meshes is session.meshes  # loaded once, as all that tuning leaves alone

"""Refined source codes are kept, and made anew for whatever they depend on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vidswap import regenerate
from vidswap.config import RunConfig
from vidswap.session import Session


def session_with(**mix: float) -> Session:
    config = RunConfig(device="cpu", precision="full")
    quick = replace(config.mix, refine_steps=1, refine_full_steps=0, calm=0.0, **mix)
    return Session(replace(config, mix=quick))


@pytest.fixture
def codes(own_home: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = session_with().generator
    source, target = (generator.sample(seed)[:, None].repeat(1, generator.n_styles, 1) for seed in (3, 4))
    return source, torch.nn.functional.normalize(torch.randn(1, 128), dim=1), target


def test_a_refined_code_is_found_again_and_only_for_the_same_question(codes, monkeypatch) -> None:
    source, embedding, target = codes
    asked = []
    refine = regenerate.refine_source
    monkeypatch.setattr(
        regenerate, "refine_source", lambda *args, **named: asked.append(1) or refine(*args, **named)
    )
    made = regenerate.refined_code(session_with(), source, embedding, target)
    assert len(asked) == 1 and not torch.equal(made, source)
    # Another process would find it too: the session is a new one.
    assert torch.equal(regenerate.refined_code(session_with(), source, embedding, target), made)
    assert len(asked) == 1
    other = regenerate.refined_code(session_with(), source, embedding, 0.9 * target)
    assert len(asked) == 2 and not torch.equal(other, made)
    regenerate.refined_code(session_with(steering=0.0), source, embedding, target)
    assert len(asked) == 3


def test_nothing_is_refined_or_kept_when_it_is_off(codes, own_home: Path) -> None:
    source, embedding, target = codes
    kept = {*own_home.rglob("refined/**/*.safetensors")}
    assert regenerate.refined_code(session_with(strength=0.0), source, embedding, target) is source
    assert {*own_home.rglob("refined/**/*.safetensors")} == kept


@pytest.mark.parametrize(("asked", "expected"), [(0, 6), (3, 3)])
def test_refining_uses_all_cores_and_gives_them_back(codes, monkeypatch, asked, expected) -> None:
    """The whole run waits for it; before, half of the cores did."""
    monkeypatch.setattr("vidswap.session.usable_cores", lambda: 6)
    before, seen = torch.get_num_threads(), []
    refine = regenerate.refine_source
    monkeypatch.setattr(
        regenerate,
        "refine_source",
        lambda *args, **named: seen.append(torch.get_num_threads()) or refine(*args, **named),
    )
    session = session_with()
    session = Session(replace(session.config, threads=asked))
    try:
        session.device  # noqa: B018 - sets the usual number
        usual = torch.get_num_threads()
        assert usual == 3
        source, embedding, target = codes
        regenerate.refined_code(session, source, embedding, target * (0.5 + 0.1 * asked))  # new to the cache
        assert seen == [expected] and torch.get_num_threads() == usual
    finally:
        torch.set_num_threads(before)

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
    quick = replace(config.mix, refine_steps=1, refine_full_steps=0, calm=0.0)
    return Session(replace(config, mix=replace(quick, **mix)))


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
    # Steering is for drawn faces; that a source is calmed does not hang on it.
    assert torch.equal(regenerate.refined_code(session_with(steering=0.0), source, embedding, target), made)
    assert len(asked) == 2
    regenerate.refined_code(session_with(calm=1.0), source, embedding, target)
    assert len(asked) == 3
    alone = regenerate.refined_code(session_with(likeness=0.0), source, embedding, target)
    assert len(asked) == 4 and not torch.equal(alone, made)


def test_nothing_is_refined_or_kept_when_it_is_off(codes, own_home: Path) -> None:
    source, embedding, target = codes
    kept = {*own_home.rglob("refined/**/*.safetensors")}
    assert regenerate.refined_code(session_with(strength=0.0), source, embedding, target) is source
    assert {*own_home.rglob("refined/**/*.safetensors")} == kept

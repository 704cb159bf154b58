"""Latent edits in the drawing stage: they show, and steering does not take them for a leak."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from vidswap import landmarks, regenerate
from vidswap.config import RunConfig
from vidswap.errors import UsageError
from vidswap.identities import SourceIdentity, aligned_crop, to_image
from vidswap.mixing.response import LIMITS, Response
from vidswap.records import Frame, Pivot, PixelLayout
from vidswap.regenerate import Regenerate
from vidswap.session import Session
from vidswap.works import FaceWork, Work

SIDE, FRAMES = 512, 6
LAYOUT = PixelLayout("gray", 8, (0, 0), False, False, "tv", "bt709")


@pytest.fixture(scope="module")
def session(own_home: Path) -> Session:
    config = RunConfig(device="cpu", precision="full")
    return Session(replace(config, mix=replace(config.mix, refine_steps=0)))


def edited(session: Session, text: str | None) -> Session:
    """The same networks with another edit."""
    made = Session(replace(session.config, mix=replace(session.config.mix, edit=text)))
    names = ("device", "generator", "full_generator", "identity", "encoder", "mixer", "directions", "lips")
    made.__dict__.update({name: getattr(session, name) for name in names})
    return made


@pytest.fixture(scope="module")
def work(session: Session) -> Work:
    """A frame that shows one person, to be swapped with another; neither exists."""
    generator = session.generator
    target, source = (generator.sample(seed)[:, None].repeat(1, generator.n_styles, 1) for seed in (11, 5))
    with torch.no_grad():
        picture = to_image(generator.synthesize(target, size=SIDE))
        embedding = session.identity.embed_aligned(generator.synthesize(source, size=SIDE))
    (face,) = session.new_finder().find((picture * 255).round().astype(np.uint8), 0.0)
    quad = np.array([[0, 0], [0, SIDE], [SIDE, SIDE], [SIDE, 0]], np.float64)
    one = FaceWork(
        face, quad,
        source=SourceIdentity("other", source, embedding),
        crop=aligned_crop(picture, face, quad, size=SIDE),
        solid=np.ones((SIDE, SIDE), np.float32),
        pivot=Pivot(target[0].numpy(), generator.identifier),
    )  # fmt: skip
    frame = Frame(0, 0, Fraction(1, 25), LAYOUT, (np.zeros((8, 8), np.uint8),), (8, 8))
    return Work(frame, 0, (one,))


def mouth_drawn(session: Session, work: Work) -> float:
    """How far the mouth is open when the frame was drawn some times over."""
    stage = Regenerate(session)
    for _ in range(FRAMES):
        drawn = stage(work).faces[0].drawn
    assert drawn is not None
    return landmarks.mouth_opening(drawn.mesh)


def test_an_edit_shows_and_is_not_steered_out(session: Session, work: Work) -> None:
    plain = mouth_drawn(session, work)
    opened = mouth_drawn(edited(session, "mouth=1"), work)
    assert opened - plain > 0.05  # of 0.1 that a step stands for


def test_a_mouth_that_came_out_shut_is_drawn_again(
    session: Session, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was foreseen: here, that the mouth is to be closed as far as may be."""
    low = np.array([low for low, _ in LIMITS.values()]) * [1, 0, 0]
    monkeypatch.setattr(Response, "amounts", lambda _response, _wanted: low)
    opened = edited(session, "mouth=1")
    mended = mouth_drawn(opened, work)
    monkeypatch.setattr(regenerate, "_REDRAWN", 0)
    assert mended > mouth_drawn(opened, work) + 0.03


def test_what_makes_no_sense_is_refused(session: Session) -> None:
    assert edited(session, None).edits == {}
    assert edited(session, "smile=1,age=-0.5,smile=-0.25").edits == {"smile": 0.75, "age": -0.5}
    for text, why in (
        ("smiel=1", "did you mean 'smile'"),
        ("yaw=1", "out of its head"),
        ("beard=1", "choose .*age"),
        ("age=1.5", "expected -1 to 1 steps"),
        ("smile=-2.5", "expected -2 to 2 steps"),
        ("smile=1.5,smile=1.5", "smile=3: expected -2 to 2 steps"),
    ):
        with pytest.raises(UsageError, match=why):
            _ = edited(session, text).edits

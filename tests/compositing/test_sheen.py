"""Highlights of the footage on the new face's skin."""

from __future__ import annotations

import numpy as np
import pytest

from vidswap.compositing import lend_sheen
from vidswap.errors import UsageError

SIZE = 256


def spot(x: float, y: float, width: float) -> np.ndarray:
    """A round glint of height 1, ``[SIZE, SIZE, 1]``; place and width as parts of the side."""
    axis = (np.arange(SIZE) + 0.5) / SIZE
    return np.exp(-0.5 * ((axis[:, None] - y) ** 2 + (axis[None] - x) ** 2) / width**2)[..., None]


@pytest.fixture
def face() -> np.ndarray:
    return np.broadcast_to(np.float32([0.6, 0.42, 0.32]), (SIZE, SIZE, 3)).copy()


@pytest.fixture
def skin() -> np.ndarray:
    return np.pad(np.ones((64, 64), np.float32), 16)


def test_a_glint_on_the_targets_nose_is_on_the_new_one(face, skin) -> None:
    target = (face + 0.2 * spot(0.5, 0.5, 0.02)).astype(np.float32)
    lent = lend_sheen(face, target, skin)
    gained = lent - face
    assert gained.min() > -1e-6
    place = np.unravel_index(gained.sum(-1).argmax(), (SIZE, SIZE))
    assert np.abs(np.array(place) - SIZE / 2).max() < 0.02 * SIZE
    assert 0.4 < gained.max() / 0.2 < 1.0
    far = spot(0.5, 0.5, 0.06)[..., 0] < 0.1
    assert gained[far].max() < 0.01
    half = lend_sheen(face, target, skin, share=0.5) - face
    assert half.max() == pytest.approx(gained.max() / 2, rel=0.05)


def test_what_is_there_already_is_not_lent_again(face, skin) -> None:
    shiny = (face + 0.2 * spot(0.5, 0.5, 0.02)).astype(np.float32)
    assert lend_sheen(shiny, shiny, skin) is shiny
    # Nor is a highlight taken away that only the new face has.
    assert lend_sheen(shiny, face, skin) is shiny


def test_light_of_a_whole_cheek_and_noise_are_left_to_others(face, skin) -> None:
    lit = (face + 0.2 * spot(0.4, 0.6, 0.25)).astype(np.float32)
    assert np.abs(lend_sheen(face, lit, skin) - face).max() < 0.02
    noise = np.random.default_rng(3).normal(0, 0.02, (SIZE, SIZE, 1))
    assert np.abs(lend_sheen(face, (face + noise).astype(np.float32), skin) - face).max() < 0.01


def test_a_glint_has_the_colour_of_the_lamp(face, skin) -> None:
    lamp = np.array([0.05, 0.1, 0.2])
    target = (face + lamp * spot(0.5, 0.5, 0.02)).astype(np.float32)
    middle = (lend_sheen(face, target, skin) - face)[SIZE // 2, SIZE // 2]
    assert middle[2] > 1.5 * middle[1] > 2 * middle[0] > 0


def test_beyond_the_skin_nothing_changes(face, skin) -> None:
    target = (face + 0.2 * spot(0.5, 0.5, 0.02)).astype(np.float32)
    skin[40:56, 40:56] = 0
    assert np.abs(lend_sheen(face, target, skin) - face).max() < 0.02
    with pytest.raises(UsageError, match="sheen 2"):
        lend_sheen(face, target, skin, share=2)

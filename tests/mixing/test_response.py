"""The forecast of mouth and eyes, on lines that are known."""

from __future__ import annotations

import numpy as np
import pytest

from vidswap.mixing.response import LIMITS, Response


def test_nothing_is_added_before_anything_was_drawn() -> None:
    assert Response.unknown().amounts(np.array([0.4, 2.0])).tolist() == [0.0, 0.0]


def test_a_lazy_answer_is_put_right_at_once() -> None:
    """A mixer that gives half of what the target does, from a smile that is not the target's."""
    rng = np.random.default_rng(3)
    response = Response.unknown()
    for wanted in rng.uniform(0.0, 1.5, (80, 2)):
        response = response.learn(wanted, 0.5 * wanted + [0.3, 0.1])
    for wanted in ([0.2, 0.6], [1.2, 0.2]):
        added = response.amounts(np.array(wanted))
        missed = np.array(wanted) - (0.5 * np.array(wanted) + [0.3, 0.1] + added)
        without = np.array(wanted) - (0.5 * np.array(wanted) + [0.3, 0.1])
        assert (np.abs(missed) < 0.15 * np.abs(without) + 0.05).all()


def test_it_stays_within_limits_and_leaves_out_what_is_hidden() -> None:
    response = Response.unknown().learn(np.array([5.0, 5.0]), np.array([0.0, 9.0]))
    assert response.amounts(np.array([9.0, 4.0])).tolist() == [LIMITS["mouth"][1], LIMITS["eyes"][0]]
    hidden = response.learn(np.array([0.0, 0.0]), np.array([3.0, 3.0]), np.array([True, False]))
    assert hidden.moments[1].tolist() == response.moments[1].tolist()
    assert hidden.moments[0].tolist() != response.moments[0].tolist()


def test_old_frames_are_forgotten() -> None:
    response = Response.unknown()
    for _ in range(100):
        response = response.learn(np.array([0.5, 0.5]), np.array([0.9, 0.9]))
    for _ in range(150):
        response = response.learn(np.array([0.5, 0.5]), np.array([0.5, 0.5]))
    assert response.amounts(np.array([0.5, 0.5])) == pytest.approx(0.0, abs=0.02)

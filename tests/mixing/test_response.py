"""The forecast of mouth, eyes and brows, on lines that are known."""

from __future__ import annotations

import numpy as np
import pytest

from vidswap.mixing.response import LIMITS, Response


def test_nothing_is_added_before_anything_was_drawn() -> None:
    assert Response.unknown().amounts(np.array([0.4, 2.0, 1.0])).tolist() == [0.0, 0.0, 0.0]


def test_a_lazy_answer_is_put_right_at_once() -> None:
    """A mixer that gives half of what the target does, from a smile that is not the target's."""
    rng = np.random.default_rng(3)
    response = Response.unknown()
    for wanted in rng.uniform(0.0, 1.5, (80, 3)):
        response = response.learn(wanted, 0.5 * wanted + [0.3, 0.1, 0.9])
    for wanted in ([0.2, 0.6, 0.75], [1.2, 0.2, 0.75]):
        added = response.amounts(np.array(wanted))[:2]
        missed = np.array(wanted[:2]) - (0.5 * np.array(wanted[:2]) + [0.3, 0.1] + added)
        without = np.array(wanted[:2]) - (0.5 * np.array(wanted[:2]) + [0.3, 0.1])
        assert (np.abs(missed) < 0.15 * np.abs(without) + 0.05).all()


def test_brows_rest_where_the_new_face_has_them_and_move_as_the_targets() -> None:
    rng = np.random.default_rng(4)
    response = Response.unknown()
    heights = rng.uniform(0.0, 1.0, 80)
    for height in heights:
        response = response.learn(np.full(3, height), np.full(3, 0.5 * height + 2.0))
    low, high = (response.amounts(np.full(3, height))[2] for height in (0.1, 0.9))
    assert 0.25 < high - low < 0.45, "0.4 is missed, of which the ridge leaves a part"
    assert low < 0 < high and low + high == pytest.approx(0.0, abs=0.12)


def test_it_stays_within_limits_and_leaves_out_what_is_hidden() -> None:
    response = Response.unknown().learn(np.array([5.0, 5.0, 0.0]), np.array([0.0, 9.0, 5.0]))
    most = response.amounts(np.array([9.0, 4.0, 9.0]))
    assert most.tolist() == [LIMITS["mouth"][1], LIMITS["eyes"][0], LIMITS["brow"][1]]
    hidden = response.learn(np.zeros(3), np.full(3, 3.0), np.array([True, False, True]))
    assert hidden.moments[1].tolist() == response.moments[1].tolist()
    assert hidden.moments[0].tolist() != response.moments[0].tolist()


def test_old_frames_are_forgotten() -> None:
    response = Response.unknown()
    for _ in range(100):
        response = response.learn(np.full(3, 0.5), np.full(3, 0.9))
    for _ in range(150):
        response = response.learn(np.full(3, 0.5), np.full(3, 0.5))
    assert response.amounts(np.full(3, 0.5)) == pytest.approx(0.0, abs=0.02)


def test_lips_that_touch_do_not_unlearn_how_a_mouth_opens() -> None:
    """A face that draws 0.6 of its target's mouth and 0.3 more, and nothing below 0.17: lips touch there."""
    learnt = {}
    for told in (True, False):
        response = Response.unknown()
        for wanted in [*np.linspace(0.3, 1.5, 40), *np.zeros(60)]:
            added = response.amounts(np.full(3, wanted))[0]
            drawn = max(0.6 * wanted + 0.3 + added, 0.17)
            shut = np.array([drawn < 0.2, False, False])
            response = response.learn(
                np.full(3, wanted), np.full(3, drawn - added), at_most=shut if told else None
            )
        learnt[told] = response.foreseen(np.full(3, 0.6))[0]
    assert learnt[True] == pytest.approx(0.66, abs=0.03)
    assert learnt[False] > learnt[True] + 0.03, "without being told it teaches that little is to be added"
    # Where the line says that they would be open, that they are shut is news.
    response = Response.unknown().learn(np.full(3, 0.5), np.full(3, 0.9))
    taught = response.learn(np.full(3, 0.5), np.full(3, 0.4), at_most=np.array([True, False, False]))
    assert taught.foreseen(np.full(3, 0.5))[0] < 0.7
    same = response.learn(np.full(3, 0.5), np.full(3, 1.2), at_most=np.array([True, False, False]))
    assert same.moments[0].tolist() == response.moments[0].tolist() != same.moments[1].tolist()

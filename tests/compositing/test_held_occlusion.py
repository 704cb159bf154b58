"""Holding on to occluders: a hand that is lost stays, one that leaves goes, a false alarm passes."""

from __future__ import annotations

import numpy as np
import pytest

from vidswap.compositing import HeldOcclusion, hold_occlusion
from vidswap.compositing.arrays import gaussian_blur, to_array, to_tensor

SIZE = 96
FACE = np.ones((48, 48), np.float32)


@pytest.fixture(scope="module")
def texture() -> np.ndarray:
    """Soft spots on skin, and others on a hand, ``[96, 96, 3]`` each."""
    rng = np.random.default_rng(5)
    spots = rng.normal(0, 1, (2, SIZE, SIZE, 1)).astype(np.float32)
    soft = [to_array(gaussian_blur(to_tensor(each[..., 0]), 2.0)) for each in spots]
    return np.stack([np.array([0.75, 0.6, 0.5]) + 0.5 * each[..., None] for each in soft]).astype(np.float32)


def scene(texture: np.ndarray, left: int | None) -> tuple[np.ndarray, np.ndarray]:
    """A frame whose hand begins at this column, and where the hand is."""
    face, hand = texture
    truth = np.zeros((SIZE, SIZE), np.float32)
    picture = face.copy()
    if left is not None:
        truth[40:80, left : left + 36] = 1
        moved = np.roll(hand * np.float32(0.75), left, axis=1)
        picture = np.where(truth[..., None] > 0, moved, picture)
    return picture, truth


def truth_share(texture: np.ndarray) -> float:
    return float(scene(texture, 20)[1].mean())


def seen_for(texture: np.ndarray, frames: int, left: int = 20) -> HeldOcclusion:
    before = None
    for _ in range(frames):
        picture, truth = scene(texture, left)
        held, before = hold_occlusion(truth, picture, FACE, before)
        assert np.array_equal(held, truth)
    return before


def test_a_hand_that_is_lost_is_held_along_its_way_for_some_seconds_at_most(texture) -> None:
    before, nothing = seen_for(texture, 10), np.zeros((SIZE, SIZE), np.float32)
    inside = []
    for frame in range(90):
        picture, truth = scene(texture, 20 + min(frame, 15) // 2)
        held, before = hold_occlusion(nothing, picture, FACE, before)
        rim = (np.abs(np.gradient(truth)[0]) + np.abs(np.gradient(truth)[1])) > 0
        inside.append(float(held[(truth > 0) & ~rim].mean()))
        assert float(held[truth == 0].mean()) < 0.05
    assert min(inside[:25]) > 0.9
    assert max(inside[80:]) == 0.0


def test_a_hand_that_goes_is_let_go(texture) -> None:
    before, nothing = seen_for(texture, 10), np.zeros((SIZE, SIZE), np.float32)
    picture, _ = scene(texture, None)
    for _ in range(2):
        held, before = hold_occlusion(nothing, picture, FACE, before)
    assert held.mean() < 0.02 < truth_share(texture)


def test_what_a_leaving_hand_uncovers_is_let_go(texture) -> None:
    """The flow does not see all of it: the hand looks like skin, as hands do."""
    plain = np.full_like(texture, 0.6)
    before = None
    for frame in range(20):
        picture, truth = scene(plain, 20 + min(frame, 10))
        held, before = hold_occlusion(truth, picture, FACE, before)
    assert float(held[truth == 0].mean()) < 0.01


def test_a_finger_is_held_while_the_rest_of_the_hand_is_seen(texture) -> None:
    """A finger along the lips was lost within six frames, and a mouth drawn in its place."""
    before = seen_for(texture, 10)
    for frame in range(13):
        picture, truth = scene(texture, 20 + frame // 4)
        fresh = truth.copy()
        fresh[40:50] = 0
        held, before = hold_occlusion(fresh, picture, FACE, before)
        assert float(held[42:48][truth[42:48] > 0].mean()) > 0.9
        assert float(held[truth == 0].mean()) < 0.05


def test_one_false_alarm_passes(texture) -> None:
    before = seen_for(texture, 1)
    picture, truth = scene(texture, 20)
    held, _ = hold_occlusion(np.zeros_like(truth), picture, FACE, before)
    assert not held.any()


def test_what_is_seen_now_is_never_less(texture) -> None:
    before = seen_for(texture, 4)
    picture, _ = scene(texture, 20)
    fresh = np.random.default_rng(1).random((SIZE, SIZE)).astype(np.float32)
    held, now = hold_occlusion(fresh, picture, FACE, before)
    assert (held >= fresh).all() and held.max() <= 1
    assert now.evidence.min() >= 0 and now.evidence.max() <= 1

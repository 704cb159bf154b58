"""Maps of occluders over time: calm where the picture rests, prompt where it moves."""

from __future__ import annotations

import numpy as np

from vidswap.compositing import steady_occlusion


def test_flicker_over_a_still_picture_is_calmed() -> None:
    random = np.random.default_rng(0)
    picture = random.random((64, 64, 3)).astype(np.float32)
    raw, steady, memory = [], [], None
    for _ in range(30):
        fresh = np.clip(0.5 + 0.2 * random.standard_normal((32, 32)), 0, 1).astype(np.float32)
        memory = steady_occlusion(fresh, picture, memory, frames=1.5)
        raw.append(fresh)
        steady.append(memory[0])
    jumps = [np.abs(np.diff(np.stack(maps[5:]), axis=0)).mean() for maps in (raw, steady)]
    assert jumps[1] < 0.6 * jumps[0]
    assert abs(np.mean(steady) - np.mean(raw)) < 0.02


def test_a_hand_that_moves_leaves_no_trail() -> None:
    memory = None
    for frame in range(6):
        picture = np.full((64, 64, 3), 0.8, np.float32)
        picture[:, 8 * frame : 8 * frame + 12] = 0.3
        fresh = (picture[..., 0] < 0.5).astype(np.float32)
        memory = steady_occlusion(fresh, picture, memory, frames=3.0)
        assert np.abs(memory[0] - fresh).max() < 0.05


def test_zero_and_a_new_shot_switch_it_off() -> None:
    picture = np.zeros((8, 8, 3), np.float32)
    before = (np.ones((8, 8), np.float32), picture)
    fresh = np.zeros((8, 8), np.float32)
    assert steady_occlusion(fresh, picture, before, frames=0.0)[0] is fresh
    assert steady_occlusion(fresh, picture, None, frames=3.0)[0] is fresh
    assert steady_occlusion(fresh, picture, before, frames=3.0)[0].max() > 0.5

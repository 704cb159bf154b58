"""Tracks: places, identities, losses, cuts; and the detector of cuts."""

from __future__ import annotations

import numpy as np
import pytest

from vidswap.faces import Tracker, is_cut, small_rgb
from vidswap.records import Face

ALICE = np.zeros(128, np.float32)
BOB = np.eye(128, dtype=np.float32)[0]


def face(x: float, y: float = 100, side: float = 80, who: np.ndarray | None = None) -> Face:
    points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
    return Face(
        np.array([x, y, x + side, y + side], np.float32),
        0.9,
        (points * side + (x, y)).astype(np.float32),
        embedding=who,
    )


def ids(faces: list[Face]) -> list[int]:
    return [one.track_id for one in faces]


def test_people_keep_their_numbers_whatever_the_order() -> None:
    tracker = Tracker()
    for step in range(30):
        a, b = face(100 + 5 * step), face(600 - 5 * step, 300)
        faces = [a, b] if step % 2 else [b, a]
        found = tracker.update(faces, step / 25)
        assert ids(found) == ([1, 0] if step % 2 else [0, 1])
        assert [f.box_xyxy.tolist() for f in found] == [f.box_xyxy.tolist() for f in faces]


def test_fast_motion_is_followed_by_its_velocity() -> None:
    tracker = Tracker()
    for step in range(12):
        (found,) = tracker.update([face(20 + 70 * step)], step / 25)  # nearly its own width a frame
        assert found.track_id == 0


def test_a_short_loss_keeps_the_track_a_long_one_ends_it() -> None:
    tracker = Tracker(lost_seconds=1.0)
    tracker.update([face(100)], 0)
    tracker.update([], 0.5)
    assert ids(tracker.update([face(110)], 0.9)) == [0]
    tracker.update([], 1.5)
    assert ids(tracker.update([face(110)], 2.0)) == [1]
    assert [track.track_id for track in tracker.open] == [1]


def test_identity_rejoins_after_a_long_loss_elsewhere() -> None:
    tracker = Tracker(lost_seconds=1.0)
    assert ids(tracker.update([face(100, who=ALICE), face(500, who=BOB)], 0)) == [0, 1]
    tracker.update([], 3)
    near_bob = BOB + np.float32(0.02)
    assert ids(tracker.update([face(900, who=near_bob)], 5)) == [1]
    assert ids(tracker.update([face(900, who=near_bob), face(100, 400, who=ALICE)], 5.04)) == [1, 0]


def test_after_a_cut_places_mean_nothing() -> None:
    tracker = Tracker()
    tracker.update([face(100, who=ALICE), face(500, who=BOB)], 0)
    tracker.cut()
    assert ids(tracker.update([face(100, who=BOB), face(500, who=ALICE)], 0.04)) == [1, 0]
    tracker.cut()
    assert ids(tracker.update([face(100)], 0.08)) == [2]


def test_likeness_decides_where_places_do_not() -> None:
    tracker = Tracker()
    tracker.update([face(100, who=ALICE), face(160, who=BOB)], 0)
    # They crossed between two frames.
    assert ids(tracker.update([face(104, who=BOB), face(156, who=ALICE)], 0.04)) == [1, 0]


def test_another_person_at_the_same_place_is_another_track() -> None:
    tracker = Tracker()
    tracker.update([face(100, who=ALICE)], 0)
    assert ids(tracker.update([face(100, who=BOB)], 0.04)) == [1]


def test_embeddings_are_asked_for_when_they_help() -> None:
    tracker = Tracker(embed_every_seconds=1.0)
    assert tracker.wants_embedding([face(100)], 0) == [True]
    tracker.update([face(100, who=ALICE)], 0)
    assert tracker.wants_embedding([face(102), face(700)], 0.04) == [False, True]
    assert tracker.wants_embedding([face(102)], 1.04) == [True]
    assert tracker.wants_embedding([face(102), face(150)], 0.2) == [True, True]  # crowded
    before = (tracker.next_id, len(tracker.open))
    tracker.wants_embedding([face(1000)], 9)
    assert before == (tracker.next_id, len(tracker.open))


def test_going_back_in_time_starts_anew() -> None:
    tracker = Tracker()
    tracker.update([face(100)], 5)
    assert ids(tracker.update([face(100)], 1)) == [1]


def test_what_is_remembered_is_bounded() -> None:
    tracker = Tracker(lost_seconds=0.1)
    rng = np.random.default_rng(0)
    for step in range(300):
        tracker.update([face(100, who=rng.normal(0, 1, 128).astype(np.float32))], float(step))
    assert len(tracker.open) == 1 and len(tracker.closed) == 256


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="lost_seconds"):
        Tracker(lost_seconds=-1)


def scene(seed: int, height: int = 96, width: int = 160) -> np.ndarray:
    """Soft blobs in a palette of their own."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / height
    image = np.ones((height, width, 3)) * rng.uniform(0, 255, 3)
    for _ in range(12):
        cx, cy, r = rng.uniform(0, 1.8), rng.uniform(0, 1), rng.uniform(0.05, 0.35)
        blob = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / r**2)[..., None]
        image = image * (1 - blob) + rng.uniform(0, 255, 3) * blob
    return image.astype(np.uint8)


def test_different_shots_are_cuts() -> None:
    hits = [is_cut(small_rgb(scene(i)), scene(i + 100)) for i in range(20)]
    assert sum(hits) >= 18  # chance may make two shots alike; a miss costs little


def test_motion_flash_fade_and_noise_are_no_cuts() -> None:
    rng = np.random.default_rng(0)
    for seed in range(8):
        now = scene(seed)
        small = small_rgb(now)
        pan = np.roll(now, 10, axis=1)
        flash = np.clip(now * 1.4 + 50, 0, 255).astype(np.uint8)
        dark = (now * 0.6).astype(np.uint8)
        noisy = np.clip(now + rng.normal(0, 25, now.shape), 0, 255).astype(np.uint8)
        walker = now.copy()
        walker[20:, 50:64] = (40, 30, 60)  # someone steps in from behind a door
        for name, changed in (
            ("pan", pan),
            ("flash", flash),
            ("dark", dark),
            ("noise", noisy),
            ("walker", walker),
            ("same", now),
        ):
            assert not is_cut(small, changed), (seed, name)


def test_black_frames() -> None:
    black = np.zeros((90, 160, 3), np.uint8)
    assert not is_cut(small_rgb(black), black)
    assert not is_cut(small_rgb(black), black + np.uint8(3))

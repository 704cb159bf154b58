"""Stages on made-up frames: look-ahead, smoothing, selection, masks' windows."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from vidswap.landmarks import EYE_CORNERS, LEFT_BROW, LEFT_EYE, MOUTH, RIGHT_BROW, RIGHT_EYE
from vidswap.records import AlignedCrop, Face, Frame, Pivot, PixelLayout, Swap
from vidswap.regenerate import covered_measures, mask_window
from vidswap.settings import load_config
from vidswap.stages import (
    FaceWork,
    FixedLagStage,
    PasteFaces,
    Selection,
    Work,
    _as_filmed,
    smooth_latents,
    smooth_quads,
)

LAYOUT = PixelLayout("gray", 8, (0, 0), False, False, "tv", "bt709")
SQUARE = np.array([[0.0, 0.0], [0.0, 100.0], [100.0, 100.0], [100.0, 0.0]])


def frame(index: int) -> Frame:
    planes = (np.zeros((8, 8), np.uint8),)
    return Frame(index, index, Fraction(1, 25), LAYOUT, planes, (8, 8))


def face(track: int = 0, size: float = 50.0) -> Face:
    box = np.array([0, 0, size, size], np.float32)
    return Face(box, 1.0, np.zeros((5, 2), np.float32), track_id=track)


def work(index: int, *, shift: float = 0.0, shot: int = 0, track: int = 0, level: float = 0.0) -> Work:
    pivot = Pivot(np.full((23, 512), level, np.float32), "test")
    one = FaceWork(face(track), SQUARE + shift, source=None, pivot=pivot)
    return Work(frame(index), shot, (one,))


def run(stage: FixedLagStage, works: list[Work]) -> list[Work]:
    out = [made for item in works for made in stage.process(item)]
    return out + list(stage.flush())


@pytest.mark.parametrize("lag", [0, 1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 20])
def test_look_ahead_gives_every_work_once_in_order_with_its_neighbours(lag: int, count: int) -> None:
    seen = []

    def record(here: Work, near: list[tuple[int, Work]]) -> Work:
        seen.append((here.frame.index, [other.frame.index for _, other in near]))
        assert [other.frame.index - here.frame.index for _, other in near] == [o for o, _ in near]
        return here

    out = run(FixedLagStage(lag, record), [work(i) for i in range(count)])
    assert [made.frame.index for made in out] == list(range(count))
    for index, near in seen:
        assert near == list(range(max(0, index - lag), min(count, index + lag + 1)))


def test_look_ahead_holds_back_no_more_than_its_lag() -> None:
    stage = FixedLagStage(2, lambda here, near: here)
    for index in range(200):
        given = list(stage.process(work(index)))
        assert len(given) == (1 if index >= 2 else 0)


def test_smoothing_of_quads_takes_out_jitter_and_no_straight_motion() -> None:
    random = np.random.default_rng(0)
    jitter = random.normal(0, 1.0, 60)
    moved = [work(i, shift=3.0 * i) for i in range(60)]
    shaken = [work(i, shift=3.0 * i + jitter[i]) for i in range(60)]
    steady = run(FixedLagStage(2, smooth_quads(1.0)), moved)
    calmed = run(FixedLagStage(2, smooth_quads(1.0)), shaken)
    for made, wanted in zip(steady, moved, strict=True):  # at the ends too, where windows are one-sided
        np.testing.assert_allclose(made.faces[0].quad, wanted.faces[0].quad, atol=1e-9)
    left = np.array([made.faces[0].quad[0, 0] - 3.0 * i for i, made in enumerate(calmed)])
    assert left[2:-2].std() < 0.75 * jitter[2:-2].std()


def test_smoothing_never_reaches_over_a_cut_or_into_another_track() -> None:
    works = [work(i, shift=0.0, shot=0) for i in range(5)]
    works += [work(5 + i, shift=500.0, shot=1) for i in range(5)]
    out = run(FixedLagStage(2, smooth_quads(1.0)), works)
    assert [round(made.faces[0].quad[0, 0], 6) for made in out] == [0.0] * 5 + [500.0] * 5
    works = [work(i, shift=100.0 * (i % 2), track=i % 2) for i in range(8)]
    out = run(FixedLagStage(2, smooth_quads(1.0)), works)
    assert [made.faces[0].quad[0, 0] for made in out] == [100.0 * (i % 2) for i in range(8)]


def test_smoothing_of_latents_follows_a_sudden_change_and_calms_noise() -> None:
    random = np.random.default_rng(1)
    noise = random.normal(0, 0.05, 40)
    level = np.where(np.arange(40) < 20, 0.0, 2.0)
    works = [work(i, level=float(level[i] + noise[i])) for i in range(40)]
    out = run(FixedLagStage(2, smooth_latents(1.0)), works)
    made = np.array([item.faces[0].pivot.latent[0, 0] for item in out])
    assert abs(made[19] - 0.0) < 0.15 and abs(made[20] - 2.0) < 0.15  # no smear over the jump
    quiet = np.r_[3:17, 23:37]
    assert (made - level)[quiet].std() < 0.85 * noise[quiet].std()


def test_the_largest_face_is_kept_while_it_is_comparable() -> None:
    source = object()
    selection = Selection("largest", source)
    assert selection([face(1, 100), face(2, 60)])[0][0].track_id == 1
    assert selection([face(1, 80), face(2, 100)])[0][0].track_id == 1
    assert selection([face(1, 40), face(2, 100)])[0][0].track_id == 2
    assert selection([]) == []


def test_faces_are_chosen_by_number_and_each_gets_its_source() -> None:
    first, second = object(), object()
    assert [f.track_id for f, _ in Selection("1,3", first)([face(1), face(2), face(3)])] == [1, 3]
    pairs = Selection("largest", None, {0: first, 2: second})([face(0), face(1), face(2)])
    assert [(f.track_id, source) for f, source in pairs] == [(0, first), (2, second)]


def test_the_window_holds_the_mask_with_room_around() -> None:
    mask = np.zeros((512, 512), np.float32)
    assert mask_window(mask) is None
    mask[200:300, 100:160] = 0.5
    window = left, top, right, bottom = mask_window(mask)
    assert left <= 100 // 4 - 3 and top <= 200 // 4 - 3 and right >= 160 // 4 + 3 and bottom >= 300 // 4 + 3
    assert max(right - left - (60 // 4 + 6), bottom - top - (100 // 4 + 6)) < 2 * 4
    mask[:] = 0  # a little elsewhere: pictures of the same size
    mask[202:302, 101:161] = 0.5
    assert mask_window(mask) == window
    mask[:] = 1
    assert mask_window(mask) == (0, 0, 128, 128)


def test_what_a_hand_covers_is_not_steered_by() -> None:
    mesh = np.full((468, 3), 0.5, np.float32)
    mesh[list(MOUTH), :2] = (0.5, 0.8)
    crop = AlignedCrop(np.zeros((8, 8, 3), np.float32), SQUARE.astype(np.float32), mesh, None, None)
    covered = np.zeros((192, 192), np.float32)
    covered[140:] = 1.0  # the lower part of the crop
    names = ("yaw", "mouth", "smile", "eyes")
    hidden = covered_measures(FaceWork(face(), SQUARE, None, crop=crop, occluded=covered), names)
    assert hidden.tolist() == [False, True, True, False]
    assert covered_measures(FaceWork(face(), SQUARE, None, crop=crop), names) is None


def test_near_faces_are_matched_at_the_footage_s_own_resolution() -> None:
    """Their crop of 512 px lacks the finest detail, and the new face was softened down to it."""
    rng = np.random.default_rng(0)
    filmed = rng.integers(0, 256, (1000, 1000), np.uint8)
    big = replace(frame(0), planes=(filmed,), size_wh=(1000, 1000))
    quad = np.array([[50.0, 50.0], [50.0, 950.0], [950.0, 950.0], [950.0, 50.0]])
    crop = AlignedCrop(np.zeros((512, 512, 3), np.float32), quad.astype(np.float32), None, None, None)
    near = FaceWork(face(), quad, crop=crop, swap=Swap(np.zeros((1024, 1024, 3), np.float32), None, quad, 0))
    seen = _as_filmed(near, big)
    shown = (filmed[50:950, 50:950].astype(np.float32) - 16) / 219  # video levels
    assert seen.shape == (900, 900, 3)
    assert np.abs(seen[..., 1] - shown.clip(0, 1)).mean() < 0.02
    far = replace(near, quad=quad / 2)
    assert _as_filmed(far, big) is crop.image


def test_closed_lids_of_near_faces_have_the_footage_s_own_detail() -> None:
    angle = np.linspace(0, 2 * np.pi, 468, endpoint=False)
    mesh = np.stack([0.5 + 0.3 * np.cos(angle), 0.5 + 0.3 * np.sin(angle), 0 * angle], 1).astype(np.float32)
    for eye, corners, x in ((LEFT_EYE, EYE_CORNERS[0], 0.38), (RIGHT_EYE, EYE_CORNERS[1], 0.62)):
        mesh[list(eye), :2] = x, 0.47
        mesh[list(corners), :2] = (x - 0.05, 0.47), (x + 0.05, 0.47)
    for brow, x in ((LEFT_BROW, 0.38), (RIGHT_BROW, 0.62)):
        mesh[list(brow), :2] = x, 0.40
    crop = AlignedCrop(np.full((512, 512, 3), 0.5, np.float32), SQUARE.astype(np.float32), mesh, None, None)
    drawn = Face(np.zeros(4, np.float32), 1.0, np.zeros((5, 2), np.float32), mesh_xyz=mesh * 1024)
    plain = np.full((1024, 1024, 3), 0.5, np.float32)
    near = FaceWork(face(), SQUARE, crop=crop, swap=Swap(plain, None, SQUARE, 0), drawn=drawn)
    rows, columns = np.mgrid[0:900, 0:900]
    lashes = np.full((900, 900, 3), 0.5, np.float32) + 0.1 * ((rows + columns) % 2 * 2 - 1)[..., None]
    config, _ = load_config(overrides=["composite.eye_depth=0"])
    lent = PasteFaces(config)._with_eyes(plain, near, lashes.astype(np.float32), 0)
    lids = np.s_[470:490, 380:400]
    assert lent[lids].std() > 0.02
    assert PasteFaces(config)._with_eyes(plain, near, crop.image, 0)[lids].std() < 1e-3

"""Drawn hair on a bare forehead leaves the mask, and nothing else does."""

from __future__ import annotations

import numpy as np

from vidswap.compositing import bare_forehead, face_mask, forehead_mask, own_fringe
from vidswap.compositing.arrays import resize_map
from vidswap.landmarks import LEFT_BROW, LEFT_EYE, MOUTH, RIGHT_BROW, RIGHT_EYE


def test_only_hair_over_bare_skin_is_left_out(skin, mesh) -> None:
    mask = face_mask(mesh, 128)
    top = int(np.flatnonzero((mask > 0.5).any(1))[0]) * 2
    fringed = skin.copy()
    fringed[: top + 14] = (0.12, 0.09, 0.08)
    keep = bare_forehead(fringed, skin, mask, mesh)
    assert keep.shape == mask.shape and keep.min() >= 0 and keep.max() <= 1
    strip = np.zeros_like(mask, bool)
    strip[: top // 2 + 4] = True
    assert keep[strip & (mask > 0.5)].mean() < 0.3
    assert keep[70:].min() > 0.95  # eyes, mouth and chin are not touched
    assert bare_forehead(skin, skin, mask, mesh).min() > 0.95
    assert bare_forehead(fringed, fringed, mask, mesh).min() > 0.95  # both have a fringe
    assert bare_forehead(0.8 * skin, skin, mask, mesh).min() > 0.9  # only darker light


def test_the_targets_own_fringe_is_kept_and_other_patches_are_not(skin, mesh) -> None:
    mask = face_mask(mesh, 128)
    y, x = (np.mgrid[:256, :256] + 0.5) / 256
    strip = (y < 0.40) & (np.abs(x - 0.5) < 0.22)  # down to the brows
    fringed = skin.copy()
    fringed[strip] = (0.12, 0.09, 0.08)
    seen = resize_map(strip.astype(np.float32), 192)
    kept = own_fringe(seen, fringed, mask, mesh)
    assert kept.shape == seen.shape and (kept <= seen).all()
    forehead = (resize_map(mask, 192) > 0.9) & (seen > 0.9)
    assert kept[forehead].mean() > 0.9
    # What the network sees on bare skin, and what is dark elsewhere, is for others to judge.
    assert own_fringe(seen, skin, mask, mesh)[forehead].max() < 0.05
    cheek = np.hypot(x - 0.62, y - 0.62) < 0.05
    shaded = skin.copy()
    shaded[cheek] = (0.12, 0.09, 0.08)
    assert own_fringe(resize_map(cheek.astype(np.float32), 192), shaded, mask, mesh).max() < 0.05
    nothing = np.zeros((192, 192), np.float32)
    assert not own_fringe(nothing, fringed, mask, mesh).any()
    assert not own_fringe(seen, fringed, np.zeros_like(mask), mesh).any()


def test_a_lock_that_hangs_along_a_cheek_is_kept_and_a_shaded_cheek_is_not(skin, mesh) -> None:
    mask = face_mask(mesh, 128)
    y, x = (np.mgrid[:256, :256] + 0.5) / 256
    side = x > float(mesh[:, 0].max()) - 0.06  # from above the forehead down to the chin
    seen = resize_map(side.astype(np.float32), 192)
    cheek = (resize_map(mask, 192) > 0.9) & (seen > 0.9) & ((np.mgrid[:192, :192][0] + 0.5) / 192 > 0.52)
    assert cheek.any()
    for color in ((0.85, 0.70, 0.35), (0.10, 0.09, 0.09)):  # fair, dark
        haired = skin.copy()
        haired[side] = color
        assert own_fringe(seen, haired, mask, mesh)[cheek].mean() > 0.9
    shaded = skin.copy()
    shaded[side] *= 0.4
    assert own_fringe(seen, shaded, mask, mesh)[cheek].max() < 0.05


def test_the_forehead_reaches_down_between_the_brows_and_holds_neither_brows_nor_eyes(mesh) -> None:
    size = 256
    forehead = forehead_mask(mesh, size)
    assert forehead.shape == (size, size) and forehead.min() >= 0 and forehead.max() <= 1

    def at(x: float, y: float) -> float:
        return float(forehead[int(y * size), int(x * size)])

    brows = mesh[[*LEFT_BROW, *RIGHT_BROW], :2]
    middle = float(mesh[168, 0])
    assert at(middle, brows[:, 1].min() - 0.06) > 0.95
    assert at(middle, brows[:, 1].mean()) > 0.8
    for part in (LEFT_BROW, RIGHT_BROW, LEFT_EYE, RIGHT_EYE, MOUTH):
        assert at(*mesh[list(part), :2].mean(0)) < 0.05
    assert not forehead[int(float(mesh[4, 1]) * size) :].any()  # from the tip of the nose on

"""Background of the generator at a jaw that is drawn too narrow becomes skin; nothing else changes."""

from __future__ import annotations

import numpy as np

from vidswap.compositing import carry_skin_on, face_mask

GARDEN = (0.80, 0.85, 0.65)
HAIR = (0.15, 0.12, 0.10)


def _oval(size: int, grow: float) -> np.ndarray:
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    return np.hypot((x - 0.5) / (0.24 + grow), (y - 0.57) / (0.29 + grow)) < 1


def _drawn(skin: np.ndarray, grow: float, behind: tuple[float, float, float]) -> np.ndarray:
    return np.where(_oval(len(skin), grow)[..., None], skin, np.float32(behind)).astype(np.float32)


def _jaw(size: int) -> np.ndarray:
    """Between the narrow face and the outline, below the eyes."""
    y = (np.mgrid[:size, :size][0] + 0.5) / size
    return _oval(size, -0.004) & ~_oval(size, -0.04) & (y > 0.6)


def test_background_inside_the_outline_becomes_skin(skin, mesh) -> None:
    narrow, mask = _drawn(skin, -0.04, GARDEN), face_mask(mesh, 128)
    mended = carry_skin_on(narrow, mask, mesh)
    assert mended.shape == narrow.shape and mended.dtype == np.float32
    jaw = _jaw(len(skin))
    before, after = (np.abs(image - skin)[jaw].mean() for image in (narrow, mended))
    assert before > 0.1 and after < 0.25 * before
    deep = _oval(len(skin), -0.10)
    np.testing.assert_array_equal(mended[deep], narrow[deep])
    far = ~_oval(len(skin), 0.08)
    np.testing.assert_array_equal(mended[far], narrow[far])


def test_a_face_that_fills_its_mask_is_left_as_it_is(skin, mesh) -> None:
    wide = _drawn(skin, 0.04, GARDEN)
    np.testing.assert_array_equal(carry_skin_on(wide, face_mask(mesh, 128), mesh), wide)


def test_hair_and_colourless_pictures_are_no_background(skin, mesh) -> None:
    mask = face_mask(mesh, 128)
    dark = _drawn(skin, -0.04, HAIR)
    np.testing.assert_array_equal(carry_skin_on(dark, mask, mesh), dark)
    grey = _drawn(skin, -0.04, GARDEN).mean(2, keepdims=True).repeat(3, 2)
    np.testing.assert_array_equal(carry_skin_on(grey, mask, mesh), grey)


def test_skin_in_full_light_and_an_eye_at_the_edge_are_no_background(skin, mesh) -> None:
    mask = face_mask(mesh, 128)
    y, x = (np.mgrid[: len(skin), : len(skin)] + 0.5) / len(skin)
    lit = skin.copy()
    lit[x > 0.62] = 0.25 * skin[x > 0.62] + 0.75 * np.float32((0.97, 0.84, 0.68))
    lit[np.hypot((x - 0.70) / 0.02, (y - 0.5) / 0.012) < 1] = (0.75, 0.78, 0.80)
    # The whole cheek, up to where background may have mixed with it.
    within = _oval(len(skin), -0.02)
    wide = _drawn(lit, 0.0, GARDEN)
    assert np.abs(carry_skin_on(wide, mask, mesh) - wide)[within].max() < 0.02
    narrow = _drawn(lit, -0.04, GARDEN)
    mended = carry_skin_on(narrow, mask, mesh)
    jaw = _jaw(len(skin)) & (x > 0.64)
    assert np.abs(narrow - lit)[jaw].mean() > 0.06
    # It is mended with the skin beside it, which is in the same light.
    assert np.abs(mended - lit)[jaw].mean() < 0.35 * np.abs(narrow - lit)[jaw].mean()

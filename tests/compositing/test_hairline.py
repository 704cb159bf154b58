"""Drawn hair on a bare forehead leaves the mask, and nothing else does."""

from __future__ import annotations

import numpy as np

from vidswap.compositing import bare_forehead, face_mask


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

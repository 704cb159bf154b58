"""The shade under a drawn jaw is filled as far as the target's jaw reaches, and nothing else changes."""

from __future__ import annotations

import kornia
import numpy as np
import pytest
import torch

from vidswap.compositing import carry_jaw_on, face_mask


def lightness(picture: np.ndarray, where: np.ndarray) -> float:
    lab = kornia.color.rgb_to_lab(torch.from_numpy(picture).permute(2, 0, 1)[None])[0]
    return float(lab[0].numpy()[where].mean())


def oval(grow: float) -> np.ndarray:
    y, x = (np.mgrid[:256, :256] + 0.5) / 256
    return np.hypot((x - 0.5) / (0.24 + grow), (y - 0.57) / (0.29 + grow)) < 1


def shaded_from(picture: np.ndarray, grow: float) -> np.ndarray:
    """The picture with the shade of a neck beyond an outline, below the mouth."""
    y = (np.mgrid[:256, :256][0] + 0.5) / 256
    out = picture.copy()
    out[~oval(grow) & (y > 0.74)] *= 0.62
    return out


@pytest.fixture
def jaw() -> np.ndarray:
    """Between a jaw that ends early and the target's."""
    y = (np.mgrid[:256, :256][0] + 0.5) / 256
    return oval(-0.006) & ~oval(-0.026) & (y > 0.80)


def test_shade_inside_the_targets_jaw_becomes_skin(skin, mesh, jaw) -> None:
    target, drawn = shaded_from(skin, 0.0), shaded_from(skin, -0.03)
    mended = carry_jaw_on(drawn, target, face_mask(mesh, 128), mesh)
    wanted, before, after = (lightness(one, jaw) for one in (target, drawn, mended))
    assert wanted - before > 12 and abs(wanted - after) < 0.3 * (wanted - before)
    deep = oval(-0.09)
    np.testing.assert_array_equal(mended[deep], drawn[deep])
    far = ~oval(0.08)
    np.testing.assert_array_equal(mended[far], drawn[far])


def test_a_jaw_that_ends_with_the_targets_is_left_alone(skin, mesh) -> None:
    mask = face_mask(mesh, 128)
    target = shaded_from(skin, 0.0)
    assert carry_jaw_on(target, target, mask, mesh) is target
    longer = shaded_from(skin, 0.03)
    assert carry_jaw_on(longer, target, mask, mesh) is longer


def test_a_darker_face_as_a_whole_has_no_shade(skin, mesh) -> None:
    darker = (0.6 * skin).astype(np.float32)
    assert carry_jaw_on(darker, skin, face_mask(mesh, 128), mesh) is darker


def test_a_targets_beard_or_a_hand_before_the_jaw_is_none_of_it(skin, mesh) -> None:
    mask, drawn = face_mask(mesh, 128), shaded_from(skin, -0.03)
    y = (np.mgrid[:256, :256][0] + 0.5) / 256
    bearded = np.where((y > 0.70)[..., None], np.float32((0.20, 0.15, 0.12)), skin).astype(np.float32)
    assert carry_jaw_on(drawn, bearded, mask, mesh) is drawn
    hand = np.zeros((64, 64), np.float32)
    hand[44:] = 1.0
    assert carry_jaw_on(drawn, shaded_from(skin, 0.0), mask, mesh, occluded=hand) is drawn


def test_without_a_face_nothing_is_done(skin, mesh) -> None:
    drawn = shaded_from(skin, -0.03)
    assert carry_jaw_on(drawn, skin, np.zeros((128, 128), np.float32), mesh) is drawn

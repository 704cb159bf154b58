"""Lips get the target's colour; what of them became brighter than skin comes down to it; the rest stays."""

from __future__ import annotations

import numpy as np
import pytest

from vidswap.compositing import dim_lips, tint_lips

PINK, DARK = (0.98, 0.80, 0.80), (0.62, 0.25, 0.25)
RED, MAUVE = (0.70, 0.38, 0.36), (0.60, 0.36, 0.42)
LOWER_LIP = (slice(191, 193), slice(122, 134))


def with_lips(picture: np.ndarray, lips: tuple[float, float, float]) -> np.ndarray:
    out = picture.copy()
    y, x = (np.mgrid[0:256, 0:256] + 0.5) / 256
    out[np.hypot((x - 0.5) / 0.12, (y - 0.72) / 0.06) < 1] = lips
    return out


def light(rgb: np.ndarray) -> np.ndarray:
    return rgb @ np.array([0.299, 0.587, 0.114])


def test_pale_lips_come_down_to_the_skin_and_stay_pink(skin, cheeked) -> None:
    target, drawn = with_lips(skin, DARK), with_lips(skin, PINK)
    cheek = float(light(skin[140:156, 90:100].reshape(-1, 3)).mean())
    out = dim_lips(drawn, cheeked, target, cheeked)
    lower = out[LOWER_LIP].reshape(-1, 3)
    assert float(light(np.array(PINK))) > 1.05 * cheek  # what is to be mended
    assert float(light(lower).mean()) == pytest.approx(0.9 * cheek, rel=0.05)
    np.testing.assert_allclose(lower.mean(0) / lower.mean(), np.array(PINK) / np.mean(PINK), atol=0.01)
    half = dim_lips(drawn, cheeked, target, cheeked, share=0.5)
    assert float(light(lower).mean()) < float(light(half[LOWER_LIP]).mean()) < float(light(np.array(PINK)))
    away = np.ones(skin.shape[:2], bool)
    away[160:210, 80:180] = False
    np.testing.assert_array_equal(out[away], drawn[away])


def test_other_lips_stay_and_so_does_what_is_before_them(skin, cheeked) -> None:
    drawn, pale = with_lips(skin, DARK), with_lips(skin, PINK)
    assert dim_lips(drawn, cheeked, skin, cheeked) is drawn
    assert dim_lips(pale, None, skin, cheeked) is pale
    assert dim_lips(pale, cheeked, skin, cheeked, share=0) is pale
    hand = np.ones((64, 64), np.float32)
    assert dim_lips(pale, cheeked, skin, cheeked, occluded=hand) is pale


def test_a_glint_on_pale_lips_stays_a_glint(skin, cheeked) -> None:
    pale = with_lips(skin, (0.90, 0.74, 0.74))
    pale[191, 127] = 1.0
    out = dim_lips(pale, cheeked, skin, cheeked)
    assert float(light(out[191, 127]) - light(out[191, 122])) > 0.1


def test_lips_in_the_light_of_a_phone_may_be_as_bright_as_the_chin(skin, cheeked) -> None:
    """The cheeks are in the shade, the skin around the mouth is not: lips were painted dark grey."""
    lit = skin.copy()
    lit[: 256 * 62 // 100] *= 0.5
    drawn = with_lips(lit, (0.66, 0.50, 0.46))
    assert dim_lips(drawn, cheeked, lit, cheeked) is drawn
    hand = np.zeros((64, 64), np.float32)
    hand[39:] = 1.0  # what is lit is in front of the face
    hand[47:49, 30:34] = 0.0
    assert dim_lips(drawn, cheeked, lit, cheeked, occluded=hand) is not drawn


def test_mauve_lips_get_the_red_of_the_target(skin, cheeked) -> None:
    target, drawn = with_lips(skin, RED), with_lips(skin, MAUVE)
    drawn[191, 127] += 0.05
    out, state = tint_lips(drawn, cheeked, target, cheeked)
    lower = out[LOWER_LIP].reshape(-1, 3)
    np.testing.assert_allclose(np.median(lower, 0), RED, atol=0.01)
    assert out[191, 127, 1] - out[191, 122, 1] > 0.04  # a glint stays one
    half, _ = tint_lips(drawn, cheeked, target, cheeked, share=0.5)
    between = np.median(half[LOWER_LIP].reshape(-1, 3), 0)
    np.testing.assert_allclose(between, (np.array(RED) + MAUVE) / 2, atol=0.02)
    away = np.ones(skin.shape[:2], bool)
    away[160:210, 80:180] = False
    np.testing.assert_array_equal(out[away], drawn[away])
    # From frame to frame it follows slowly, and a cut begins anew.
    _, later = tint_lips(drawn, cheeked, with_lips(skin, MAUVE), cheeked, state)
    np.testing.assert_allclose(later, state * 5 / 6, atol=0.01)
    again, _ = tint_lips(drawn, cheeked, with_lips(skin, MAUVE), cheeked)
    np.testing.assert_allclose(again, drawn, atol=0.01)


def test_what_hides_the_target_lips_says_nothing_of_their_colour(skin, cheeked) -> None:
    drawn, red = with_lips(skin, MAUVE), with_lips(skin, RED)
    hair = with_lips(skin, (0.25, 0.22, 0.18))
    out, state = tint_lips(drawn, cheeked, hair, cheeked)
    assert out is drawn and state is None
    _, known = tint_lips(drawn, cheeked, red, cheeked)
    hand = np.ones((64, 64), np.float32)
    out, state = tint_lips(drawn, cheeked, hair, cheeked, known, occluded=hand)
    np.testing.assert_array_equal(out, drawn)
    np.testing.assert_array_equal(state, known)
    # What was seen before goes on where the target's lips are not seen, and the new ones are.
    out, state = tint_lips(drawn, cheeked, hair, cheeked, known)
    np.testing.assert_allclose(np.median(out[LOWER_LIP].reshape(-1, 3), 0), RED, atol=0.01)
    np.testing.assert_array_equal(state, known)


def test_lips_are_left_alone_without_a_share_or_a_mesh_and_change_by_a_bounded_part(skin, cheeked) -> None:
    drawn, glowing = with_lips(skin, MAUVE), with_lips(skin, (1.0, 0.1, 0.1))
    for mesh, share in ((cheeked, 0.0), (None, 1.0)):
        out, state = tint_lips(drawn, mesh, glowing, cheeked, share=share)
        assert out is drawn and state is None
    out, _ = tint_lips(drawn, cheeked, glowing, cheeked)
    ratio = np.median(out[LOWER_LIP].reshape(-1, 3), 0) / MAUVE
    assert ratio.max() < 1.31 and ratio.min() > 0.76

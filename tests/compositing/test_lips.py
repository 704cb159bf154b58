"""Lips that became brighter than skin are brought down to it; no others, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from vidswap.compositing import dim_lips

PINK, DARK = (0.98, 0.80, 0.80), (0.62, 0.25, 0.25)
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

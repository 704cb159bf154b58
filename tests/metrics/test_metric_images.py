"""PSNR, SSIM and sharpness, inside masks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vidswap.metrics import images


@pytest.fixture
def picture() -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.random((40, 50, 3), np.float32)


def _mask() -> np.ndarray:
    mask = np.zeros((40, 50), np.float32)
    mask[10:30, 10:40] = 1
    return mask


def test_psnr_of_a_known_offset() -> None:
    grey = np.full((8, 8, 3), 0.5, np.float32)
    assert images.psnr(grey, grey + 0.1) == pytest.approx(20.0, abs=1e-4)


def test_equal_pictures_have_infinite_psnr_and_ssim_one(picture: np.ndarray) -> None:
    assert images.psnr(picture, picture) == math.inf
    assert images.ssim(picture, picture, _mask()) == pytest.approx(1.0, abs=1e-5)


def test_bytes_and_floats_agree(picture: np.ndarray) -> None:
    as_bytes = np.round(picture * 255).astype(np.uint8)
    assert images.psnr(as_bytes, picture) > 50
    assert images.psnr(as_bytes, as_bytes.astype(np.float32) / 255) == math.inf


def test_only_the_mask_counts(picture: np.ndarray) -> None:
    changed = picture.copy()
    changed[:5] = 0
    assert images.psnr(changed, picture, _mask()) == math.inf
    assert images.psnr(changed, picture, 1 - _mask()) < 20


def test_ssim_falls_with_noise_and_not_with_noise_elsewhere(picture: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    noisy = picture.copy()
    noisy[:, 41:] += rng.normal(0, 0.3, noisy[:, 41:].shape).astype(np.float32)
    far = np.zeros((40, 50), np.float32)
    far[:, :30] = 1
    assert images.ssim(noisy, picture, far) == pytest.approx(1.0, abs=1e-5)
    assert images.ssim(noisy, picture) < 0.97


def test_sharpness_ratio_falls_with_blur_and_rises_with_noise(picture: np.ndarray) -> None:
    blurred = (picture + np.roll(picture, 1, 0) + np.roll(picture, 1, 1)) / 3
    assert images.sharpness_ratio(picture, picture, _mask()) == pytest.approx(1.0)
    assert images.sharpness_ratio(blurred, picture, _mask()) < 0.6
    assert images.sharpness_ratio(blurred, blurred * 0.5, _mask()) == pytest.approx(4.0, rel=1e-4)


def test_laplacian_of_a_parabola() -> None:
    row = np.arange(12, dtype=np.float32) ** 2 / 400
    parabola = np.repeat(np.repeat(row[None, :, None], 9, 0), 3, 2)
    assert images.laplacian_energy(parabola) == pytest.approx((2 / 400) ** 2, rel=1e-3)


def test_mean_color_is_that_of_the_mask() -> None:
    x = np.zeros((40, 50, 3), np.float32)
    x[10:30, 10:40] = (0.2, 0.4, 0.6)
    assert images.mean_color(x, _mask()) == pytest.approx([0.2, 0.4, 0.6])


def test_empty_masks_give_nan(picture: np.ndarray) -> None:
    nothing = np.zeros((40, 50))
    assert math.isnan(images.psnr(picture, picture, nothing))
    assert math.isnan(images.ssim(picture, picture, nothing))
    assert math.isnan(images.sharpness_ratio(picture, picture, nothing))
    assert np.isnan(images.mean_color(picture, nothing)).all()


def test_sizes_must_agree(picture: np.ndarray) -> None:
    with pytest.raises(ValueError, match="one size"):
        images.psnr(picture, picture[:-1])
    with pytest.raises(ValueError, match="mask"):
        images.psnr(picture, picture, np.ones((3, 3)))

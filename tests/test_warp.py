"""Crop and paste: one transform, its inverse, its borders, its filters."""

from __future__ import annotations

import numpy as np
import pytest

from vidswap.warp import crop, paste_sample


def square(center: tuple[float, float], side: float, degrees: float) -> np.ndarray:
    a = np.deg2rad(degrees)
    x = np.array([np.cos(a), np.sin(a)]) * side / 2
    y = np.array([-x[1], x[0]])
    c = np.array(center)
    return np.stack([c - x - y, c - x + y, c + x + y, c + x - y])


def texture(height: int, width: int) -> np.ndarray:
    """A picture whose amplitudes fall as 1/f, like those of photographs."""
    rng = np.random.default_rng(1)
    f = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    f[0, 0] = 1
    noise = np.fft.fft2(rng.standard_normal((3, height, width))) / f
    image = np.fft.ifft2(noise).real.transpose(1, 2, 0)
    return ((image - image.min()) / np.ptp(image)).astype(np.float32)


@pytest.mark.parametrize(("side", "degrees"), [(150, 0), (260, 17), (380, -31), (480, 90)])
def test_an_untouched_crop_pasted_back_is_the_frame(side: float, degrees: float) -> None:
    frame = texture(720, 800)
    quad = square((400.3, 359.6), side, degrees)
    image, inside = crop(frame, quad, 1024)
    assert inside is None
    low, high = np.floor(quad.min(0)).astype(int), np.ceil(quad.max(0)).astype(int)
    box = (*low, *high)
    pasted, coverage = paste_sample(image, quad, box)
    part = frame[box[1] : box[3], box[0] : box[2]]
    error = np.abs(pasted - part)[coverage == 1].mean() * 255
    assert error < 0.8  # the promise is 1; a shift by a tenth of a pixel gives 1.5 and more
    assert coverage.sum() == pytest.approx(side**2, rel=0.01)


def test_pixel_centres_are_at_one_half() -> None:
    frame = np.random.default_rng(0).random((40, 50, 3), dtype=np.float32)
    quad = np.array([[7, 5], [7, 25], [27, 25], [27, 5]])
    image, _ = crop(frame, quad, 20)
    np.testing.assert_allclose(image, frame[5:25, 7:27], atol=1e-5)
    pasted, coverage = paste_sample(image, quad, (3, 4, 30, 28))
    np.testing.assert_allclose(pasted[1:21, 4:24], image, atol=1e-5)
    assert coverage[1:21, 4:24].min() == 1
    assert coverage.sum() == pytest.approx(400, abs=0.1)


def test_a_box_of_the_frame_gives_the_same_crop_as_the_frame() -> None:
    frame = texture(300, 400)
    quad = square((200, 150), 120, 25)
    whole, _ = crop(frame, quad, 96)
    part, inside = crop(frame[40:260, 90:310], quad, 96, origin_xy=(90, 40))
    assert inside is None
    np.testing.assert_allclose(part, whole, atol=1e-5)


def test_uint8_and_float_pictures_agree() -> None:
    frame = (texture(200, 200) * 255).round().astype(np.uint8)
    frame.flags.writeable = False
    quad = square((100, 100), 90, 40)
    a, _ = crop(frame, quad, 64)
    b, _ = crop(frame.astype(np.float32) / 255, quad, 64)
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("reduction", [2.0, 3.3, 9.0])
def test_reducing_leaves_no_moire(reduction: float) -> None:
    size = 64
    y, x = np.mgrid[:700, :700]
    frame = np.repeat(((x + y) % 2).astype(np.float32)[..., None], 3, axis=2)  # finest pattern
    image, _ = crop(frame, square((350.3, 350.7), size * reduction, 10), size)
    assert np.abs(image - 0.5).max() < 0.02
    small = square((60, 60), 640 / reduction, 10)
    flat, _ = paste_sample(frame[:640, :640], small, (45, 45, 75, 75))
    assert np.abs(flat - 0.5).max() < 0.02


def test_outside_is_marked_and_goes_over_into_a_blur() -> None:
    frame = texture(200, 200)
    image, inside = crop(frame, square((30, 100), 160, 0), 128)
    assert inside is not None
    assert inside[:, :38].max() == 0 and inside[:, 42:].min() == 1
    assert np.isfinite(image).all()
    rough = np.abs(np.diff(image, axis=0)).mean(axis=(0, 2))
    assert rough[:10].mean() < 0.3 * rough[50:].mean()
    assert abs(image[:, 39] - image[:, 41]).mean() < 0.1  # no seam at the edge of the frame


def test_a_quad_far_outside_gives_numbers_and_an_empty_mask() -> None:
    image, inside = crop(texture(60, 60), square((500, 500), 40, 5), 32)
    assert inside is not None and inside.max() == 0 and np.isfinite(image).all()


def test_perspective_quads_round_trip() -> None:
    frame = texture(400, 400)
    quad = np.array([[100, 90], [80, 300], [310, 320], [280, 100.0]])
    image, _ = crop(frame, quad, 512)
    pasted, coverage = paste_sample(image, quad, (120, 120, 260, 280))
    assert coverage.min() == 1
    assert np.abs(pasted - frame[120:280, 120:260]).mean() * 255 < 1


def test_masks_paste_too() -> None:
    mask = np.zeros((64, 64), dtype=np.float32)
    mask[:, 32:] = 1
    pasted, _ = paste_sample(mask, square((50, 50), 64, 0), (18, 18, 82, 82))
    assert pasted.shape == (64, 64, 1)
    np.testing.assert_allclose(pasted[..., 0], mask, atol=1e-5)


def test_some_pixels_are_the_same_as_in_the_whole() -> None:
    image, quad, box = texture(64, 64), square((40, 36), 50, 12), (4, 2, 80, 70)
    where = np.random.default_rng(3).random((68, 76)) > 0.7
    whole, coverage = paste_sample(image, quad, box)
    some, cover = paste_sample(image, quad, box, where=where)
    assert np.array_equal(cover, coverage[where])
    assert np.abs(some - whole[where]).max() < 1e-6
    bare, none = paste_sample(image, quad, box, where=where, covered=False)
    assert none is None and np.array_equal(bare, some)


def test_wrong_shapes_are_refused() -> None:
    quad = square((5, 5), 4, 0)
    with pytest.raises(ValueError, match="image: expected"):
        crop(np.zeros((5, 5), np.float32), quad, 8)
    with pytest.raises(ValueError, match="size"):
        crop(np.zeros((5, 5, 3), np.float32), quad, 0)
    with pytest.raises(ValueError, match="box_xyxy"):
        paste_sample(np.zeros((8, 8, 3), np.float32), quad, (4, 4, 4, 9))
    with pytest.raises(ValueError, match="degenerate"):
        crop(np.zeros((5, 5, 3), np.float32), np.array([[0, 0], [1, 1], [2, 2], [3, 3]]), 8)

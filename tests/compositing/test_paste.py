"""Paste-back: lands where the crop came from, leaves the rest alone."""

from __future__ import annotations

import numpy as np
import pytest

from vidswap.compositing import BLENDS, composite, face_mask
from vidswap.compositing.paste import solve_laplace
from vidswap.errors import UsageError
from vidswap.geometry import quad_box
from vidswap.records import Swap
from vidswap.warp import crop

QUAD = np.array([[52.0, 30.0], [30.0, 190.0], [190.0, 212.0], [212.0, 52.0]])
SIZE_WH = (260, 230)


@pytest.fixture
def frame() -> np.ndarray:
    y, x = np.mgrid[0:230, 0:260]
    picture = np.stack([np.sin(x / 9) + np.cos(y / 13), np.sin((x + y) / 17), np.cos(x / 21)], -1)
    return (0.5 + 0.2 * picture).clip(0, 1).astype(np.float32)


def blended(box_rgb, rgb, alpha):
    return box_rgb + alpha[..., None] * (rgb - box_rgb)


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("size", [128, 512])
def test_untouched_crop_gives_the_frame_back(frame, mesh, blend, size):
    image, _ = crop(frame, QUAD, size)
    box = quad_box(QUAD, SIZE_WH)
    part = frame[box[1] : box[3], box[0] : box[2]]
    rgb, alpha = composite(part, box, Swap(image, face_mask(mesh, 128), QUAD), blend=blend)
    assert alpha.max() == pytest.approx(1.0, abs=1e-3)
    difference = np.abs(blended(part, rgb, alpha) - part)
    assert difference.mean() < 1 / 255 and difference.max() < 6 / 255


@pytest.mark.parametrize("blend", BLENDS)
def test_outside_of_the_mask_nothing_changes(frame, mesh, blend):
    box = quad_box(QUAD, SIZE_WH, margin=9)
    part = frame[box[1] : box[3], box[0] : box[2]]
    mask = face_mask(mesh, 256)
    rgb, alpha = composite(part, box, Swap(1 - crop(frame, QUAD, 256)[0], mask, QUAD), blend=blend)
    away = alpha == 0
    assert away.mean() > 0.4
    assert np.array_equal(rgb[away], part[away])
    assert rgb.shape == part.shape and rgb.dtype == alpha.dtype == np.float32
    assert 0 <= alpha.min() and alpha.max() <= 1 and rgb.min() >= 0 and rgb.max() <= 1
    middle = QUAD.mean(axis=0) - box[:2]
    assert alpha[int(middle[1]), int(middle[0])] == pytest.approx(1.0, abs=1e-3)


def test_part_of_a_box_equals_the_whole(frame, mesh):
    """A box that cuts the quad gives the same samples as one that holds it."""
    swap = Swap(crop(frame, QUAD, 256)[0] ** 2, face_mask(mesh, 256), QUAD)
    whole_rgb, whole_alpha = composite(frame, (0, 0, *SIZE_WH), swap)
    rgb, alpha = composite(frame[40:230, 0:130], (0, 40, 130, 230), swap)
    assert np.allclose(alpha, whole_alpha[40:230, 0:130], atol=1e-5)
    assert np.allclose(rgb, whole_rgb[40:230, 0:130], atol=1e-4)


def test_plain_blend_does_not_need_the_frame(frame, mesh):
    box = quad_box(QUAD, SIZE_WH)
    left, top, right, bottom = box
    swap = Swap(1 - crop(frame, QUAD, 256)[0], face_mask(mesh, 128), QUAD)
    rgb, alpha = composite(frame[top:bottom, left:right], box, swap)
    alone, opacity = composite(None, box, swap)
    assert np.array_equal(alpha, opacity) and (opacity > 0).any()
    assert np.array_equal(rgb[alpha > 0], alone[alpha > 0])
    with pytest.raises(ValueError, match="box_rgb"):
        composite(None, box, swap, blend="gradient")


def test_empty_mask_and_face_outside_of_the_box(frame, mesh):
    empty = Swap(np.ones((64, 64, 3), np.float32), np.zeros((64, 64), np.float32), QUAD)
    rgb, alpha = composite(frame, (0, 0, *SIZE_WH), empty)
    assert np.array_equal(rgb, frame) and alpha.max() == 0
    far = Swap(empty.image, face_mask(mesh, 64), QUAD + 1000)
    rgb, alpha = composite(frame, (0, 0, *SIZE_WH), far)
    assert np.array_equal(rgb, frame) and alpha.max() == 0


def test_gradient_blend_takes_the_colour_of_the_surroundings(mesh):
    frame = np.full((230, 260, 3), (0.6, 0.5, 0.4), np.float32)
    rng = np.random.default_rng(0)
    detail = rng.normal(0, 0.03, (256, 256, 1)).astype(np.float32)
    image = (np.array([0.3, 0.45, 0.6]) + detail).astype(np.float32)
    swap = Swap(image, face_mask(mesh, 256), QUAD)
    rgb, alpha = composite(frame, (0, 0, *SIZE_WH), swap, blend="gradient")
    inner = alpha > 0.99
    assert np.abs(rgb[inner].mean(axis=0) - frame[0, 0]).max() < 0.03
    assert rgb[inner].std(axis=0).min() > 0.005, "the swap's own detail is kept"


def test_multiband_keeps_detail_and_widens_light(mesh):
    frame = np.full((230, 260, 3), 0.6, np.float32)
    swap = Swap(np.full((256, 256, 3), 0.4, np.float32), face_mask(mesh, 256), QUAD)
    plain = blended(frame, *composite(frame, (0, 0, *SIZE_WH), swap))
    bands = blended(frame, *composite(frame, (0, 0, *SIZE_WH), swap, blend="multiband"))

    def steepest(image):
        return max(np.abs(np.diff(image[..., 0], axis=axis)).max() for axis in (0, 1))

    assert steepest(bands) < 1.3 * steepest(plain)
    assert bands[121, 121, 0] < 0.45


def test_laplace_fill_is_harmonic():
    import torch

    y, x = torch.meshgrid(torch.linspace(-1, 1, 65), torch.linspace(-1, 1, 65), indexing="ij")
    truth = (x * x - y * y + 0.3 * x)[None, None]
    fixed = (x.abs().maximum(y.abs()) > 0.9)[None, None]
    filled = solve_laplace(torch.where(fixed, truth, torch.zeros(())), fixed)
    assert float((filled - truth).abs().max()) < 0.03


def test_wrong_use(frame, mesh):
    swap = Swap(np.ones((64, 64, 3), np.float32), face_mask(mesh, 64), QUAD)
    with pytest.raises(UsageError, match="feathered"):
        composite(frame, (0, 0, *SIZE_WH), swap, blend="feathered")
    with pytest.raises(ValueError, match="box_rgb"):
        composite(frame, (0, 0, 10, 10), swap)


def test_a_mask_up_to_the_edge_of_its_crop_ends_there() -> None:
    """Edge values repeat beyond a crop; opacity must not."""
    swap = Swap(np.full((64, 64, 3), 0.5, np.float32), np.ones((64, 64), np.float32), QUAD)
    _, alpha = composite(None, (0, 0, 260, 230), swap)
    y, x = np.mgrid[0:230, 0:260] + 0.5
    inside = np.ones(alpha.shape)
    for start, end in zip(QUAD, np.roll(QUAD, -1, axis=0), strict=True):
        across = (end - start)[::-1] * (1, -1) / np.hypot(*(end - start))
        depth = (x - start[0]) * across[0] + (y - start[1]) * across[1]
        inside = np.minimum(inside, np.clip(depth + 0.5, 0, 1))
    assert alpha.max() == 1 and np.abs(alpha - inside).max() < 0.2

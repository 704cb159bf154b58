"""Optical flow on known motion, and the warping error that rests on it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from vidswap import flow as flow_module
from vidswap.flow import optical_flow, visible, warp
from vidswap.metrics.warping import pair_warping_error, warping_error


def texture(size: int = 128, seed: int = 0) -> Tensor:
    """Smooth noise with details of many sizes, ``[1, 1, size, size]`` in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(1, 1, size, size)
    for cells in (4, 8, 16, 32, 64):
        noise = torch.rand(1, 1, cells, cells, generator=generator)
        total += torch.nn.functional.interpolate(noise, (size, size), mode="bicubic") * 4 / cells
    return (total - total.min()) / (total.max() - total.min())


def bend(size: int, amplitude: float) -> Tensor:
    """A smooth flow field ``[1, 2, size, size]``."""
    step = torch.linspace(0, 1, size)
    y, x = torch.meshgrid(step, step, indexing="ij")
    return amplitude * torch.stack([torch.sin(3 * y + 1) + 0.3 * x, torch.cos(2 * x)])[None]


def inner(x: Tensor, margin: int = 16) -> Tensor:
    return x[..., margin:-margin, margin:-margin]


@pytest.mark.parametrize("amplitude", [0.3, 2.0, 5.0])
def test_flow_finds_a_known_motion(amplitude: float) -> None:
    second, true = texture(), bend(128, amplitude)
    first = warp(second, true)
    error = inner(optical_flow(first, second) - true).norm(dim=1)
    assert error.mean() < 0.05 + 0.02 * amplitude


def test_flow_of_equal_pictures_is_zero() -> None:
    assert optical_flow(texture(), texture()).abs().max() < 1e-6


def test_flow_in_a_picture_without_texture_stays_at_rest() -> None:
    flat = torch.full((1, 1, 64, 80), 0.5)
    noisy = flat + 0.001 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(1))
    assert optical_flow(flat, noisy).abs().max() < 0.2


@pytest.mark.parametrize("size_hw", [(40, 57), (150, 97)])
def test_both_ways_of_blurring_repeat_the_edges(
    size_hw: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = torch.rand(2, 3, *size_hw, generator=torch.Generator().manual_seed(2))
    x, y = torch.meshgrid(torch.arange(-5, 6.0), torch.arange(-5, 6.0), indexing="ij")
    kernel = torch.exp(-0.125 * (x * x + y * y))
    padded = torch.nn.functional.pad(picture, (5, 5, 5, 5), mode="replicate")
    wanted = torch.nn.functional.conv2d(
        padded, (kernel / kernel.sum()).expand(3, 1, 11, 11), groups=3
    )
    for most in (0, 1000):
        monkeypatch.setattr(flow_module, "_MATRIX_SIDE", most)
        assert torch.allclose(flow_module._blur(picture, 2.0), wanted, atol=1e-5)


def test_batches_are_independent_and_odd_sizes_work() -> None:
    a, b = texture(97), texture(97, seed=5)
    both = optical_flow(torch.cat([a, b]), torch.cat([b, a]))
    assert torch.allclose(both[:1], optical_flow(a, b), atol=1e-4)
    assert both.shape == (2, 2, 97, 97)


def test_flow_refuses_color() -> None:
    with pytest.raises(ValueError, match="1, H, W"):
        optical_flow(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64))


def test_what_is_covered_is_not_visible() -> None:
    first = texture()
    second = first.clone()
    second[..., 40:80, 40:80] = texture(40, seed=9)  # something came in front
    seen = visible(optical_flow(first, second), optical_flow(second, first))[0, 0]
    assert seen[45:75, 45:75].mean() < 0.75
    assert seen[:25].mean() > 0.97


def test_flow_out_of_the_picture_is_not_visible() -> None:
    flow = torch.zeros(1, 2, 32, 32)
    flow[:, 0] = 10.0
    assert visible(flow, -flow)[0, 0, :, -5:].sum() == 0


def clip(amplitude: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Two frames of a moving coloured surface."""
    color = torch.cat([texture(seed=k) for k in range(3)], 1)
    return tuple(
        image[0].permute(1, 2, 0).contiguous().numpy()
        for image in (warp(color, bend(128, amplitude)), color)
    )


def test_warping_error_of_a_known_difference() -> None:
    black, grey = np.zeros((20, 20, 3), np.float32), np.full((20, 20, 3), 0.1, np.float32)
    weight = np.ones((20, 20))
    assert warping_error(black, grey, torch.zeros(1, 2, 20, 20), weight) == pytest.approx(0.03)
    assert math.isnan(warping_error(black, grey, torch.zeros(1, 2, 20, 20), 0 * weight))


def test_the_original_against_itself_has_equal_errors() -> None:
    frames = clip()
    found = pair_warping_error(frames, frames, np.ones((128, 128)))
    assert found.output == found.original
    assert found.visible_share > 0.9
    unmoved = float(np.square(frames[0] - frames[1]).sum(2).mean())
    assert found.original < 0.15 * unmoved


def test_flicker_raises_the_warping_error_and_a_changed_look_does_not() -> None:
    first, second = clip()
    mask = np.zeros((128, 128))
    mask[20:-20, 20:-20] = 1
    original = pair_warping_error((first, second), (first, second), mask)
    brighter = pair_warping_error((first, second + 0.05), (first, second), mask)
    dyed = pair_warping_error((first * 0.8, second * 0.8), (first, second), mask)
    assert brighter.output > original.output + 0.005
    assert dyed.output <= original.output


def test_a_face_that_lags_behind_the_motion_is_noticed() -> None:
    first, second = clip()
    mask = np.ones((128, 128))
    frozen = pair_warping_error((first, first), (first, second), mask)
    assert frozen.output > 3 * frozen.original

"""The shortcuts of the small helpers give what the plain ways give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidswap.compositing import arrays
from vidswap.compositing.arrays import (
    enlarged_part,
    gaussian_blur,
    grown,
    resize,
    to_array,
    to_tensor,
    widest,
)


@pytest.mark.parametrize(("size_hw", "sigma"), [((64, 40), 2.0), ((192, 192), 12.0), ((180, 230), 9.0)])
def test_a_blur_by_matrices_is_the_blur_tap_by_tap(
    size_hw: tuple[int, int], sigma: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = torch.rand(1, 3, *size_hw, generator=torch.Generator().manual_seed(0))
    made = []
    for most in (0, 1000):
        monkeypatch.setattr(arrays, "_MATRIX_SIDE", most)
        monkeypatch.setattr(arrays, "_MATRIX_MOST", most)
        made.append(gaussian_blur(picture, sigma))
    assert torch.allclose(*made, atol=1e-5)
    assert made[0].std() < 0.5 * picture.std()


@pytest.mark.parametrize("reach", [0, 1, 2, 3, 7, 30])
def test_the_widest_is_that_of_a_square_window(reach: int) -> None:
    values = np.random.default_rng(reach).random((23, 9)).astype(np.float32)
    padded = np.pad(values, reach, constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1, 2 * reach + 1))
    assert np.array_equal(widest(values, reach), windows.max((2, 3)))


def test_what_has_grown_is_the_widest_under_its_limit_step_by_step() -> None:
    rng = np.random.default_rng(5)
    limit = rng.random((20, 31)).astype(np.float32)
    seeds = limit * (rng.random(limit.shape) > 0.97)
    kept, wanted = seeds.copy(), seeds
    for steps in range(6):
        assert np.array_equal(grown(seeds, limit, steps), wanted)
        wanted = np.minimum(widest(wanted, 1), limit)
    assert np.array_equal(seeds, kept)


def test_both_orders_of_memory_are_the_same_picture() -> None:
    picture = np.random.default_rng(1).random((12, 10, 3)).astype(np.float32)
    planar = np.ascontiguousarray(picture.transpose(2, 0, 1)).transpose(1, 2, 0)
    assert torch.equal(to_tensor(picture), to_tensor(planar))
    assert to_tensor(planar).data_ptr() == planar.ctypes.data
    assert np.array_equal(to_array(to_tensor(planar)), picture)


@pytest.mark.parametrize("size", [256, 200])
def test_a_part_is_enlarged_as_the_whole(size: int) -> None:
    field = torch.rand(1, 2, 32, 32, generator=torch.Generator().manual_seed(3))
    for inner in (np.s_[40:120, 8:200], np.s_[0:size, 17:33]):
        whole = resize(field, size)[(..., *inner)]
        assert torch.allclose(enlarged_part(field, size, inner), whole, atol=1e-6)


@pytest.mark.parametrize("size_hw", [(50, 40), (200, 170)])
@pytest.mark.parametrize("sigma", [0.0, 0.8, 2.4])
def test_some_rows_are_blurred_as_in_the_whole(size_hw: tuple[int, int], sigma: float) -> None:
    picture = torch.rand(1, 2, *size_hw, generator=torch.Generator().manual_seed(7))
    wanted = gaussian_blur(picture, sigma)[..., ::3, :]
    assert torch.allclose(gaussian_blur(picture, sigma, every=3), wanted, atol=1e-6)

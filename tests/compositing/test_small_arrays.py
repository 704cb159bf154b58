"""The shortcuts of the small helpers give what the plain ways give."""

from __future__ import annotations

import pytest
import torch

from vidswap.compositing import arrays
from vidswap.compositing.arrays import gaussian_blur


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

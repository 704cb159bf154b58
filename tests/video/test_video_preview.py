"""The fast 8-bit picture against the exact one."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from vidswap.video import display_rgb, open_frames, read_rgb8


@pytest.mark.parametrize(
    "name", ["yuv420p", "yuv444p", "nv12", "yuv420p10le", "rgb24", "bgra", "gray"]
)
@pytest.mark.parametrize("color_range", ["tv", "pc"])
def test_fast_picture_is_the_exact_one_rounded(make_frame, name, color_range):
    """The scaler's default flags are 1 to 2 codes too dark; its chroma placing may differ."""
    frame = make_frame(name, (64, 48), color_range=color_range)
    for plane in frame.planes[1:]:
        plane[...] = int(plane.mean())
    rgb, scale_xy = read_rgb8(frame)
    assert rgb.dtype == np.uint8 and scale_xy == (1.0, 1.0)
    difference = rgb.astype(float) - 255 * display_rgb(frame)
    assert abs(difference.mean()) < 0.35
    assert np.abs(difference).max() < 2.5


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_upright_square_and_scaled(make_frame, rotation):
    frame = make_frame("yuv420p", (60, 48), rotation=rotation, sar=Fraction(4, 3))
    halves = ((60, 180), (100, 120), (150, 130))
    for plane, (upper, lower) in zip(frame.planes, halves, strict=True):
        plane[: plane.shape[0] // 2] = upper
        plane[plane.shape[0] // 2 :] = lower
    wide = (80, 48) if rotation in (0, 180) else (48, 80)
    assert frame.display_size_wh == wide
    rgb, scale_xy = read_rgb8(frame, max_side=40)
    assert rgb.shape == ((24, 40, 3) if wide[0] == 80 else (40, 24, 3))
    assert scale_xy == (0.5, 0.5)
    exact = 255 * display_rgb(frame)
    assert exact.shape == (wide[1], wide[0], 3)
    small = exact.reshape(rgb.shape[0], 2, rgb.shape[1], 2, 3).mean(axis=(1, 3))
    assert np.abs(rgb - small).mean() < 1.5


def test_decoded_frames_take_the_same_way(make_clip):
    with open_frames(make_clip(frames=2, pix_fmt="yuv444p")) as frames:
        frame = next(frames)
    rgb, _ = read_rgb8(frame)
    assert np.abs(rgb - 255 * display_rgb(frame)).max() < 1.5


def test_never_scaled_up(make_frame):
    rgb, scale_xy = read_rgb8(make_frame("yuv420p", (40, 30)), max_side=400)
    assert rgb.shape == (30, 40, 3) and scale_xy == (1.0, 1.0)

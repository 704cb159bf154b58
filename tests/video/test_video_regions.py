"""Regions: exact conversion, exact return, and nothing touched that need not be."""

from __future__ import annotations

import numpy as np
import pytest

from vidswap.video import read_region, write_region
from vidswap.video.chroma import AxisGrid, downsample, upsample

FORMATS = [
    "yuv420p", "yuv422p", "yuv444p", "yuv440p", "yuv411p", "yuv410p", "yuva420p", "yuv420p10le",
    "yuv422p12le", "yuva444p16le", "nv12", "nv21", "p010le", "gbrp", "gbrap10le", "rgb24", "bgra",
    "0rgb", "rgba64le", "gray", "gray10le", "ya8",
]  # fmt: skip


def _codes(plane, name):
    return plane.astype(np.int64) >> (6 if name == "p010le" else 0)


@pytest.mark.parametrize("color_range", ["tv", "pc"])
@pytest.mark.parametrize("name", FORMATS)
def test_region_read_and_written_back_is_the_frame(make_frame, name, color_range):
    for size_wh, location in (((40, 30), "left"), ((37, 29), "center"), ((3, 1), "topleft")):
        frame = make_frame(name, size_wh, color_range=color_range, chroma_location=location)
        width, height = size_wh
        for box in (None, (width // 3, 0, width - width // 5, height)):
            rgb = read_region(frame, box, clip=False)
            back = write_region(frame, box, rgb, np.ones(rgb.shape[:2]))
            for before, after in zip(frame.planes, back.planes, strict=True):
                assert np.abs(_codes(before, name) - _codes(after, name)).max() <= 1


@pytest.mark.parametrize("name", FORMATS)
def test_only_samples_under_the_opacity_change(make_frame, name):
    frame = make_frame(name, (40, 30))
    alpha = np.zeros((20, 24), np.float32)
    alpha[5:14, 7:18] = np.random.default_rng(1).uniform(0, 1, (9, 11))
    alpha[6, 8] = 0
    box = (9, 5, 33, 25)
    rgb = np.random.default_rng(2).uniform(0, 1, (20, 24, 3)).astype(np.float32)
    changed = write_region(frame, box, rgb, alpha)
    full = np.zeros((30, 40))
    full[5:25, 9:33] = alpha
    for index, (before, after) in enumerate(zip(frame.planes, changed.planes, strict=True)):
        factor_y, factor_x = -(-30 // before.shape[0]), -(-40 // before.shape[1])
        padded = np.zeros((before.shape[0] * factor_y, before.shape[1] * factor_x))
        padded[:30, :40] = full
        blocks = padded.reshape(before.shape[0], factor_y, before.shape[1], factor_x)
        allowed = blocks.max(axis=(1, 3)) > 0
        differs = before != after
        differs = differs.any(axis=2) if differs.ndim == 3 else differs
        assert not differs[~allowed].any()
        is_alpha_plane = name.startswith(("yuva", "gbra")) and index == 3
        assert differs.any() != is_alpha_plane
    if name == "bgra":
        assert np.array_equal(frame.planes[0][..., 3], changed.planes[0][..., 3])
    if name == "0rgb":
        assert np.array_equal(frame.planes[0][..., 0], changed.planes[0][..., 0])
    if name == "ya8":
        assert np.array_equal(frame.planes[0][..., 1], changed.planes[0][..., 1])


def test_frame_itself_is_not_written_into(make_frame):
    frame = make_frame("yuv420p")
    before = [plane.copy() for plane in frame.planes]
    write_region(frame, None, np.zeros((30, 40, 3), np.float32), np.ones((30, 40)))
    assert all(np.array_equal(a, b) for a, b in zip(before, frame.planes, strict=True))


def test_no_opacity_gives_the_same_frame(make_frame):
    frame = make_frame("yuv420p")
    assert write_region(frame, None, np.zeros((30, 40, 3)), np.zeros((30, 40))) is frame


@pytest.mark.parametrize(
    ("rgb", "color_range", "matrix", "depth", "codes"),
    [
        # ITU-R BT.709-6 and BT.601-7, colour bars: codes as in their tables.
        ((1, 1, 1), "tv", "bt709", 8, (235, 128, 128)),
        ((0, 0, 0), "tv", "bt709", 8, (16, 128, 128)),
        ((1, 0, 0), "tv", "bt709", 8, (63, 102, 240)),
        ((0, 0, 1), "tv", "bt709", 8, (32, 240, 118)),
        ((1, 0, 0), "tv", "bt601", 8, (81, 90, 240)),
        ((0, 1, 0), "tv", "bt601", 8, (145, 54, 34)),
        ((1, 1, 1), "tv", "bt2020", 10, (940, 512, 512)),
        ((1, 1, 1), "pc", "bt601", 8, (255, 128, 128)),
    ],
)
def test_known_colors_get_their_codes(make_frame, rgb, color_range, matrix, depth, codes):
    name = {8: "yuv444p", 10: "yuv444p10le"}[depth]
    frame = make_frame(name, (8, 6), color_range=color_range, matrix=matrix)
    picture = np.broadcast_to(np.float32(rgb), (6, 8, 3))
    written = write_region(frame, None, picture, np.ones((6, 8)))
    assert tuple(int(plane[3, 4]) for plane in written.planes) == codes
    assert np.abs(read_region(written) - picture).max() < 0.012


@pytest.mark.parametrize("name", ["yuv420p", "nv12", "yuv422p10le"])
def test_new_picture_reads_back_as_written(make_frame, name):
    frame = make_frame(name, (64, 48))
    y, x = np.mgrid[0:48, 0:64]
    rgb = np.stack([x / 90 + 0.1, y / 90 + 0.2, 0.6 - x / 200], axis=2).astype(np.float32)
    written = write_region(frame, None, rgb, np.ones((48, 64)))
    assert np.abs(read_region(written) - rgb).max() < 3 / 255


def test_half_opacity_is_halfway(make_frame):
    frame = make_frame("yuv444p", values=(0.4, 0.6))
    rgb = np.full((30, 40, 3), 0.5, np.float32)
    whole = write_region(frame, None, rgb, np.ones((30, 40)))
    half = write_region(frame, None, rgb, np.full((30, 40), 0.5))
    for old, new, between in zip(frame.planes, whole.planes, half.planes, strict=True):
        middle = (old.astype(float) + new) / 2
        assert np.abs(middle - between).max() <= 1


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_boxes_are_upright(make_frame, rotation):
    stored = make_frame("yuv444p", (40, 30))
    frame = make_frame("yuv444p", (40, 30), rotation=rotation)
    upright = np.rot90(read_region(stored), -rotation // 90)
    width, height = frame.upright_size_wh
    assert upright.shape == (height, width, 3)
    assert np.array_equal(read_region(frame), upright)
    box = (3, 5, width - 6, height - 9)
    assert np.array_equal(read_region(frame, box), upright[5 : height - 9, 3 : width - 6])
    rgb = upright.copy()
    rgb[7, 11] = (1, 0, 0)
    alpha = np.zeros((height, width))
    alpha[7, 11] = 1
    after = read_region(write_region(frame, None, rgb, alpha))
    assert after[7, 11, 0] > 0.95
    after[7, 11] = upright[7, 11]
    assert np.array_equal(after, upright)


def test_turning_is_clockwise(make_frame):
    frame = make_frame("gray", (4, 3), rotation=90)
    frame.planes[0][:] = 16
    frame.planes[0][0, 0] = 235  # stored top left comes to the top right
    assert read_region(frame)[0, -1, 0] == 1


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("size", [1, 2, 7, 16, 17])
def test_chroma_resampling_equals_its_slow_twin(factor, centered, size):
    """The twin is the definition: a dense interpolation matrix and its least-squares inverse."""
    grid = AxisGrid.covering(0, size, factor=factor, centered=centered, luma_size=size)
    count = grid.count
    dense = np.zeros((grid.luma_count, count))
    for position in range(grid.luma_count):
        place = (position + 0.5) / factor - 0.5 if centered else position / factor
        lower = int(np.floor(place))
        for sample, weight in ((lower, 1 - (place - lower)), (lower + 1, place - lower)):
            dense[position, min(max(sample, 0), count - 1)] += weight
    samples = np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    up = upsample(samples[grid.neighbours()], grid, 0)
    np.testing.assert_allclose(up, dense @ samples, atol=1e-6)
    change = np.random.default_rng(1).normal(size=(grid.luma_count, 3)).astype(np.float32)
    change[size:] = 0
    wanted = np.linalg.lstsq(dense[:size], change[:size], rcond=None)[0]
    np.testing.assert_allclose(downsample(change.copy(), grid, 0), wanted, atol=1e-5)


def test_shrinking_keeps_the_mean(make_frame):
    frame = make_frame("rgb24", (50, 20))
    whole, small = read_region(frame), read_region(frame, max_side=25)
    assert small.shape == (10, 25, 3)
    np.testing.assert_allclose(small, whole.reshape(10, 2, 25, 2, 3).mean(axis=(1, 3)), atol=1e-6)


@pytest.mark.parametrize("box", [(0, 0, 41, 30), (-1, 0, 4, 4), (5, 5, 5, 9), (0, 9, 4, 3)])
def test_boxes_outside_are_refused(make_frame, box):
    frame = make_frame("yuv420p")
    with pytest.raises(ValueError, match="inside 40x30"):
        read_region(frame, box)


def test_wrong_sizes_are_refused(make_frame):
    frame = make_frame("yuv420p")
    with pytest.raises(ValueError, match="expected"):
        write_region(frame, (0, 0, 8, 6), np.zeros((8, 6, 3)), np.zeros((8, 6)))

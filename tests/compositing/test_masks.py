"""Masks: soft inside, nothing outside, simple when the mesh folds."""

from __future__ import annotations

import numpy as np
import pytest

from vidswap.compositing import face_mask, face_outline, parse_regions
from vidswap.compositing.masks import signed_distance
from vidswap.errors import UsageError


def turned(mesh: np.ndarray, degrees: float) -> np.ndarray:
    center = np.array([0.5, 0.57, 0.1])
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    rotation = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return ((mesh - center) @ rotation.T + center).astype(np.float32)


def patches(region: np.ndarray) -> int:
    """Number of 4-connected patches, by flood fill."""
    left, count = {tuple(p) for p in np.argwhere(region)}, 0
    while left:
        count += 1
        todo = [left.pop()]
        while todo:
            i, j = todo.pop()
            for step in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
                if step in left:
                    left.remove(step)
                    todo.append(step)
    return count


def test_one_in_the_middle_and_zero_outside_and_at_the_border(mesh):
    mask = face_mask(mesh, 256)
    assert mask.shape == (256, 256) and mask.dtype == np.float32
    assert mask[140, 128] == 1.0
    assert mask.min() == 0.0 and mask.max() == 1.0
    outline = face_outline(mesh)
    centers = (np.mgrid[0:256, 0:256][::-1].reshape(2, -1).T + 0.5) / 256
    outside = signed_distance(outline, centers).reshape(256, 256) < -0.012 - 1 / 256
    assert mask[outside].max() == 0.0
    big = face_mask((mesh - 0.5) * 4 + 0.5, 256)
    border = np.concatenate([big[0], big[-1], big[:, 0], big[:, -1]])
    assert border.max() == 0.0 and big[128, 128] == 1.0


def test_feather_is_the_width_of_the_soft_edge(mesh):
    row = int(0.57 * 512)
    for feather in (16.0, 40.0, 80.0):
        line = face_mask(mesh, 512, feather=feather)[row, :256]
        assert (np.diff(line) >= -1e-6).all()
        width = np.count_nonzero((line > 0) & (line < 1)) * 2
        assert width == pytest.approx(feather, abs=6)
    hard = face_mask(mesh, 512, feather=0.0)
    assert np.count_nonzero((hard > 0) & (hard < 1)) < 0.006 * hard.size


def test_sizes_agree(mesh):
    small, large = face_mask(mesh, 128), face_mask(mesh, 512)
    averaged = large.reshape(128, 4, 128, 4).mean(axis=(1, 3))
    assert np.abs(averaged - small).max() < 0.05


def test_erode_shrinks_and_negative_grows(mesh):
    areas = [face_mask(mesh, 256, erode=erode).sum() for erode in (-30.0, 0.0, 30.0)]
    assert areas[0] > 1.08 * areas[1] > 1.08 * 1.08 * areas[2]


def test_outline_reaches_above_the_mesh_but_not_below(mesh):
    outline = face_outline(mesh)
    assert outline[:, 1].min() < mesh[10, 1] - 0.04
    assert outline[:, 1].max() == pytest.approx(mesh[152, 1], abs=0.012)


@pytest.mark.parametrize("degrees", [-80, -60, -35, 0, 35, 60, 80])
def test_a_folded_mesh_gives_one_solid_patch(mesh, degrees):
    mask = face_mask(turned(mesh, degrees), 96, feather=0.0)
    face = mask > 0.5
    assert face.sum() > 0.02 * mask.size
    assert patches(face) == 1
    assert patches(~face) == 1, "a hole in the face"


@pytest.mark.parametrize(
    ("regions", "at", "away"),
    [
        ("eyes", (0.47, 0.385), (0.60, 0.5)),
        ("brows", (0.41, 0.615), (0.60, 0.5)),
        ("mouth", (0.72, 0.5), (0.47, 0.385)),
        ("inner-mouth", (0.72, 0.5), (0.685, 0.5)),
        ("skin", (0.60, 0.35), (0.72, 0.5)),
        ("face,-mouth", (0.47, 0.385), (0.72, 0.5)),
        ("-eyes", (0.72, 0.5), (0.47, 0.385)),
        ("skin,mouth", (0.72, 0.5), (0.47, 0.385)),
    ],
)
def test_regions(mesh, regions, at, away):
    mask = face_mask(mesh, 256, regions=regions)
    assert mask[int(at[0] * 256), int(at[1] * 256)] > 0.9
    assert mask[int(away[0] * 256), int(away[1] * 256)] < 0.05


def test_occlusion_and_inside_are_taken_out(mesh):
    occlusion = np.zeros((64, 64), np.float32)
    occlusion[:, :32] = 1
    inside = np.ones((1024, 1024), np.float32)
    inside[:512] = 0
    whole = face_mask(mesh, 256)
    hidden = face_mask(mesh, 256, occlusion=occlusion)
    assert hidden[:, :126].max() == 0.0
    assert np.array_equal(hidden[:, 130:], whole[:, 130:])
    cut = face_mask(mesh, 256, inside=inside)
    assert cut[:128].max() == 0.0
    assert cut[128:134].max() < 0.5, "the edge of the frame must be soft"
    assert np.array_equal(cut[160:], whole[160:])


def test_wrong_use(mesh):
    with pytest.raises(UsageError, match="nostril"):
        parse_regions("face,nostril")
    with pytest.raises(UsageError):
        face_mask(mesh, 64, regions="")
    with pytest.raises(UsageError, match="-3"):
        face_mask(mesh, 64, feather=-3)
    with pytest.raises(ValueError, match="468"):
        face_mask(mesh[:100], 64)
    broken = mesh.copy()
    broken[0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        face_mask(broken, 64)


def test_signed_distance_equals_the_slow_definition():
    """Twin: distance to densely sampled edges, inside by the sum of turning angles."""
    rng = np.random.default_rng(5)
    polygon = rng.random((7, 2))
    points = rng.random((200, 2))
    t = np.linspace(0, 1, 2000)[None, :, None]
    edges = polygon[:, None] * (1 - t) + np.roll(polygon, -1, axis=0)[:, None] * t
    slow = np.sqrt(((points[:, None] - edges.reshape(-1, 2)[None]) ** 2).sum(-1)).min(axis=1)
    rays = polygon[None] - points[:, None]
    angle = np.arctan2(rays[..., 1], rays[..., 0])
    turn = (np.roll(angle, -1, axis=1) - angle + np.pi) % (2 * np.pi) - np.pi
    inside = np.abs(turn.sum(axis=1)) > np.pi
    fast = signed_distance(polygon, points)
    assert np.abs(np.abs(fast) - slow).max() < 1e-3
    assert np.array_equal(fast > 0, inside)

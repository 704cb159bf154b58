"""A drawn face is moved as its target moves, on faces whose motion is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vidswap.compositing.motion import (
    MotionState,
    Placement,
    affine_between,
    correction,
    follow,
    steady_mask,
)
from vidswap.models.aligned_mesh import canonical_mesh

ALL_SEEN = np.ones((128, 128), np.float32)
MIDDLE = np.s_[130:380, 130:380]


def picture(seed: int, size: int = 512) -> np.ndarray:
    """A smooth texture ``[S, S, 3]``."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((1, 3, 24, 24), dtype=np.float32))
    return F.interpolate(coarse, size, mode="bicubic")[0].permute(1, 2, 0).clamp(0, 1).numpy()


@pytest.fixture(scope="module")
def mesh() -> np.ndarray:
    points = canonical_mesh().numpy()[:, :2]
    low, high = points.min(0), points.max(0)
    return (0.28 + 0.46 * (points - low) / (high - low)).astype(np.float64)


def run(steps: list[tuple[float, float]], mesh: np.ndarray, *, believed: bool) -> list[float]:
    """How far the placed face is from its first place on the target, a frame, in pixels of 512.

    :param steps: shift of the target and of the drawn face in every frame, pixels.
    """
    target, face = picture(1), picture(2)
    state, places = None, []
    for on_target, drawn in steps:
        shifts = [round(on_target), round(drawn)]
        images = [np.roll(image, shift, axis=1) for image, shift in zip((target, face), shifts, strict=True)]
        meshes = [mesh + [shift / 512, 0] for shift in shifts]
        placement, state = follow(
            images[1], meshes[1] if believed else None, images[0], meshes[0], ALL_SEEN, state,
            frames=50, shade=0,
        )  # fmt: skip
        moved = placement.moved(images[1], np.s_[0:512, 0:512])
        errors = [np.abs(np.roll(face, s, axis=1)[MIDDLE] - moved[MIDDLE]).mean() for s in range(-24, 25)]
        places.append(int(np.argmin(errors)) - 24 - shifts[0])
    return places


NOD = [(0, 0), (4, 0), (8, 2), (10, 3), (6, 5), (0, 4)]


@pytest.mark.parametrize("believed", [True, False])
def test_a_face_that_lags_is_brought_along(mesh: np.ndarray, believed: bool) -> None:
    """With its landmarks, and by the footage's motion alone."""
    lag = [drawn - target for target, drawn in NOD]
    assert max(map(abs, lag)) >= 6
    assert max(map(abs, run(NOD, mesh, believed=believed))) <= 1


def test_a_face_that_lies_elsewhere_for_good_may(mesh: np.ndarray) -> None:
    """Two people's faces differ: a lasting offset is kept."""
    assert run([(0, 6), (2, 8), (4, 10), (0, 6)], mesh, believed=True) == pytest.approx([6] * 4, abs=1)


def test_light_that_flickers_is_averaged_and_a_new_picture_is_not(mesh: np.ndarray) -> None:
    target, face = picture(1), 0.3 + 0.4 * picture(2)
    state, levels = None, []
    for frame in range(12):
        drawn = face + (0.03 if frame % 2 else -0.03)
        placement, state = follow(drawn, mesh, target, mesh, ALL_SEEN, state, frames=24, shade=2.0)
        levels.append(placement.moved(drawn, np.s_[0:512, 0:512])[200:240, 240:270].mean())
    assert np.ptp(levels[6:]) < 0.6 * 0.06
    other = picture(7)
    placement, _ = follow(other, mesh, picture(8), mesh, ALL_SEEN, state, frames=24, shade=2.0)
    still = replace(placement, shade=None).moved(other, np.s_[0:512, 0:512])
    kept = placement.moved(other, np.s_[0:512, 0:512])
    assert np.abs(kept - still).mean() < 0.02


def test_a_mask_moves_with_the_target_and_starts_afresh_after_a_cut(mesh: np.ndarray) -> None:
    target = picture(1)
    first = np.zeros((512, 512), np.float32)
    first[150:350, 150:350] = 1
    placement, state = follow(target, mesh, target, mesh, ALL_SEEN, None, frames=24, shade=0)
    kept, small = steady_mask(first, placement, None, frames=6)
    assert kept is first
    state = replace(state, mask=small)
    moved = np.roll(target, 6, axis=1)
    there = mesh + [6 / 512, 0]
    placement, _ = follow(moved, there, moved, there, ALL_SEEN, state, frames=24, shade=0)
    carried, _ = steady_mask(first, placement, state, frames=1e6)
    off = [np.abs(carried - where)[160:340].mean() for where in (np.roll(first, 6, axis=1), first)]
    assert off[0] < 0.5 * off[1]
    assert steady_mask(first, placement, None, frames=6)[0] is first
    assert steady_mask(first, placement, state, frames=0)[0] is first


def test_points_go_where_pixels_go(mesh: np.ndarray) -> None:
    back = np.array([[1.02, 0.01, -0.01], [-0.01, 0.98, 0.012]])
    flow = torch.full((1, 2, 192, 192), 0.01)
    placement = Placement(back, flow)
    points = placement.moved_points(mesh)
    again = np.stack([points[:, 0] + 0.01, points[:, 1] + 0.01, np.ones(len(points))], 1) @ back.T
    assert again == pytest.approx(mesh, abs=1e-5)


def test_a_mesh_that_is_wrong_moves_a_face_a_little_only(mesh: np.ndarray) -> None:
    far = affine_between(mesh, mesh + [0.3, 0.0])
    back = correction(np.eye(2, 3), far)
    assert 0.04 < np.abs(mesh @ back[:, :2].T + back[:, 2] - mesh).max() < 0.08
    assert correction(np.eye(2, 3), np.zeros((2, 3))) is not None


def test_lips_do_not_move_a_head(mesh: np.ndarray) -> None:
    from vidswap.landmarks import MOUTH

    speaking = mesh.copy()
    speaking[list(MOUTH), 1] += 0.05
    assert affine_between(mesh, speaking) == pytest.approx(np.eye(2, 3), abs=1e-9)


def test_the_state_survives_a_snapshot(mesh: np.ndarray) -> None:
    from vidswap.snapshots import pack, unpack

    _, state = follow(picture(2), mesh, picture(1), mesh, ALL_SEEN, None, frames=24, shade=2.0)
    again = unpack(pack({3: (0, replace(state, mask=np.ones((192, 192), np.float32)))}), torch.device("cpu"))
    assert isinstance(again[3][1], MotionState)
    assert np.array_equal(again[3][1].placed, state.placed) and again[3][1].frames == state.frames


def test_shade_is_added_where_the_picture_is_moved_to() -> None:
    generator = torch.Generator().manual_seed(6)
    smooth = F.interpolate(torch.rand(1, 5, 6, 6, generator=generator) - 0.5, 192, mode="bicubic")
    back = np.array([[1.01, 0.02, -0.01], [-0.02, 0.99, 0.015]])
    image, part = 0.3 + 0.4 * picture(3), np.s_[100:400, 37:301]
    kept = image.copy()
    placement = Placement(back, 0.02 * smooth[:, :2], None, None, 0.1 * smooth[:, 2:])
    plain = replace(placement, shade=None).moved(image, part)
    shaded = placement.moved(image, part)
    shade = F.interpolate(placement.shade, 512, mode="bilinear")[0].permute(1, 2, 0).numpy()
    assert np.abs(shaded - plain - shade)[part].max() < 1e-5
    assert np.array_equal(image, kept)
    outside = np.ones((512, 512), bool)
    outside[part] = False
    assert np.array_equal(shaded[outside], image[outside])
    # Where a pixel comes from: the flow is added first, then the map turns both.
    y, x = 250, 180
    at = (np.array([x, y]) + 0.5) / 512
    flow = F.interpolate(placement.flow, 512, mode="bilinear")[0, :, y, x].numpy()
    wanted = back[:, :2] @ (at + flow) + back[:, 2]
    found = placement.places(512, part)[0, y - 100, x - 37].numpy()
    assert (found + 1) / 2 == pytest.approx(wanted, abs=1e-5)

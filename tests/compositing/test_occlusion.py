"""Occluders from the residual: silent on faces, loud on what is none."""

from __future__ import annotations

import numpy as np
import pytest

from vidswap.compositing import combine, doubt, face_mask, residual_occlusion, without_islands
from vidswap.compositing.arrays import gaussian_blur, to_array, to_tensor
from vidswap.compositing.occlusion import hysteresis, label_patches


@pytest.fixture
def oval(mesh) -> np.ndarray:
    return face_mask(mesh, 128)


def hand(target: np.ndarray, *, color=(0.55, 0.38, 0.30)) -> tuple[np.ndarray, np.ndarray]:
    """Fingers, a little darker than the face, from below over mouth and cheek."""
    y, x = np.mgrid[0:256, 0:256] / 256
    fingers = (y > 0.58) & (x > 0.33) & (x < 0.62)
    ridges = 0.85 + 0.15 * np.abs(np.sin((x - 0.33) / 0.29 * 4 * np.pi))
    out = target.copy()
    out[fingers] = (np.array(color) * ridges[..., None])[fingers]
    return out, fingers


def test_an_ordinary_misfit_is_no_occluder(skin, painter, oval, mesh):
    """Other texture, other light, a softer picture, slightly other colours."""
    rng = np.random.default_rng(0)
    inversion = to_array(gaussian_blur(to_tensor(painter((0.78, 0.60, 0.52), light=0.4)), 1.5))
    noisy = (skin + rng.normal(0, 0.02, skin.shape)).clip(0, 1).astype(np.float32)
    assert residual_occlusion(noisy, inversion, oval).max() == 0.0
    assert residual_occlusion(noisy, inversion, oval, mesh_xyz=mesh).max() == 0.0
    assert residual_occlusion(skin, skin, oval).max() == 0.0


@pytest.mark.parametrize("color", [(0.55, 0.38, 0.30), (0.1, 0.1, 0.1), (0.9, 0.9, 0.95)])
@pytest.mark.parametrize("with_mesh", [False, True])
def test_fingers_and_things_in_front_are_found(skin, painter, oval, mesh, color, with_mesh):
    covered, fingers = hand(painter((0.80, 0.60, 0.50), seed=9), color=color)
    found = residual_occlusion(covered, skin, oval, mesh_xyz=mesh if with_mesh else None)
    inside = np.kron(oval, np.ones((2, 2))) > 0.9
    core = fingers & inside
    core[: int(0.60 * 256)] = False
    core[:, : int(0.35 * 256)] = core[:, int(0.60 * 256) :] = False
    assert found[core].mean() > 0.75
    y, x = np.mgrid[0:256, 0:256] / 256
    away = inside & ((y < 0.50) | (x > 0.70) | (x < 0.27))
    assert found[away].mean() < 0.02
    assert found.min() >= 0 and found.max() <= 1 and found.shape == (256, 256)


def test_a_smile_that_the_inversion_missed_is_no_occluder(skin, oval, mesh):
    y, x = np.mgrid[0:256, 0:256] / 256
    smiling = skin.copy()
    smiling[np.hypot((x - 0.5) / 0.09, (y - 0.72) / 0.035) < 1] = (0.95, 0.93, 0.90)
    assert residual_occlusion(smiling, skin, oval, mesh_xyz=mesh).max() == 0.0


def test_a_failed_inversion_hides_nothing(skin, oval):
    rng = np.random.default_rng(0)
    wild = to_array(gaussian_blur(to_tensor(rng.random((256, 256, 3)).astype(np.float32)), 6.0))
    wild = ((wild - wild.mean()) * 6 + 0.5).clip(0, 1)
    found = residual_occlusion(skin, wild, oval)
    assert found[np.kron(oval, np.ones((2, 2))) > 0.5].mean() < 0.4
    assert residual_occlusion(skin, wild, np.zeros_like(oval)).max() == 0.0


def test_what_the_inversion_explains_is_no_occluder_and_a_hand_stays_whole(skin, painter, oval):
    covered, fingers = hand(skin)
    said = fingers.astype(np.float32)
    kept = doubt(said, covered, skin, oval)[0]
    core = fingers & (np.kron(oval, np.ones((2, 2))) > 0.9)
    assert kept[core].mean() > 0.9 and kept.max() <= 1.0
    assert doubt(said, skin, skin, oval)[0][core].max() < 0.05  # the same claim over a bare face
    nothing = np.zeros((64, 64), np.float32)
    assert np.array_equal(doubt(nothing, skin, skin, oval)[0], nothing)
    specks = nothing.copy()
    specks[32:44:3, 24:42:3] = 0.6
    assert doubt(specks, skin, skin, oval)[0].max() < 0.05  # too small for anything in front of a face
    specks[:12] = 1.0
    assert doubt(specks, skin, skin, oval)[0][:12].min() > 0.9  # beyond the face nothing is judged


def test_a_hand_that_was_believed_is_believed_for_a_while_and_a_false_alarm_never(skin, oval):
    covered, fingers = hand(skin)
    said = fingers.astype(np.float32)
    core = fingers & (np.kron(oval, np.ones((2, 2))) > 0.9)
    _, before = doubt(said, covered, skin, oval)
    assert before.max() == pytest.approx(1.0)
    shares, alarm = [], None
    for _ in range(70):  # from now on the inversion draws the very same
        kept, before = doubt(said, skin, skin, oval, before)
        shares.append(float(kept[core].mean()))
        false, alarm = doubt(said, skin, skin, oval, alarm)
        assert false[core].max() < 0.05
    assert min(shares[:25]) > 0.9 and shares[-1] < 0.05


def test_what_does_not_come_from_beyond_the_face_is_no_occluder(oval):
    """The end of a raised brow, seen as an occluder, showed the old brow in the new face."""
    y, x = (np.mgrid[0:192, 0:192] + 0.5) / 192
    speck = (np.hypot(x - 0.55, y - 0.40) < 0.03).astype(np.float32)
    finger = ((np.abs(x - 0.40) < 0.03) & (y > 0.62)).astype(np.float32)
    fist = 0.9 * (np.hypot(x - 0.52, y - 0.66) < 0.1).astype(np.float32)
    wall = (x < 0.1).astype(np.float32)
    assert without_islands(speck, oval).max() < 0.05
    kept = without_islands(np.maximum(finger, speck), oval)
    assert kept[finger > 0].min() > 0.95 and kept[speck > 0].max() < 0.05
    for whole in (finger, fist, wall, np.zeros_like(speck)):
        assert without_islands(whole, oval) == pytest.approx(whole, abs=0.05)


def test_combine():
    residual = np.zeros((64, 64), np.float32)
    residual[:, :32] = 1.0
    network = np.zeros((32, 32), np.float32)
    network[:16] = 0.6
    joined = combine(residual, network)
    assert joined.shape == (32, 32)
    assert joined[4, 4] > 0.75, "both agree"
    assert joined[4, 28] == pytest.approx(0.6), "the network alone"
    assert joined[28, 4] == pytest.approx(0.5), "the residual alone"
    assert joined[28, 28] == 0.0
    assert combine(residual, None) is residual
    assert combine(None, network) is network
    assert combine(None, None) is None


def test_hysteresis_and_labels_equal_a_flood_fill():
    rng = np.random.default_rng(3)
    low = rng.random((40, 40)) < 0.42
    high = low & (rng.random((40, 40)) < 0.02)
    labels = label_patches(low)
    seen = np.zeros_like(low)
    reached = np.zeros_like(low)
    count = 0
    for start in map(tuple, np.argwhere(low)):
        if seen[start]:
            continue
        count += 1
        patch, todo = [], [start]
        seen[start] = True
        while todo:
            i, j = todo.pop()
            patch.append((i, j))
            for a in range(max(0, i - 1), min(40, i + 2)):
                for b in range(max(0, j - 1), min(40, j + 2)):
                    if low[a, b] and not seen[a, b]:
                        seen[a, b] = True
                        todo.append((a, b))
        rows, columns = zip(*patch, strict=True)
        assert len(np.unique(labels[rows, columns])) == 1
        reached[rows, columns] = high[rows, columns].any()
    assert len(np.unique(labels[low])) == count and (labels[~low] == 0).all()
    assert np.array_equal(hysteresis(low, high, steps=1600), reached)

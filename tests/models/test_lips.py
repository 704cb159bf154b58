"""Lips of the attention mesh: where its publisher's own pipeline finds them, closed ones closed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vidswap import weights
from vidswap.errors import WeightsError
from vidswap.landmarks import IRIS_NETWORK_FROWN
from vidswap.models.aligned_mesh import AlignedMesh, mouth_opening
from vidswap.models.lips import LIPS, LipNet, _window
from vidswap.models.mobile_stylegan import MobileStyleGAN
from vidswap.models.tflite_graph import TfliteGraph

GOLDEN = json.loads((Path(__file__).parent / "golden_lips.json").read_text(encoding="utf-8"))
"""Seed to the points of the lips ``[80, 2]`` that MediaPipe 0.10.14 (FaceMesh with refined landmarks, its own
detector and region) found in that face as drawn here, in [0, 1]. Seeds 0 and 3 smile, 4 and 5 do not."""


@pytest.fixture(scope="module")
def faces(weights_home: Path) -> dict[str, Tensor]:
    generator = MobileStyleGAN.load(weights.locate("mobilestylegan"))
    drawn = {}
    with torch.no_grad():
        for seed in GOLDEN:
            w = generator.sample(int(seed), psi=0.7).reshape(-1, 512)[:1, None]
            image = generator.synthesize(w.expand(1, generator.n_styles, 512))
            drawn[seed] = torch.nn.functional.avg_pool2d(image.clamp(-1, 1), 2)
    return drawn


@pytest.fixture(scope="module")
def meshes(weights_home: Path) -> Iterator[AlignedMesh]:
    with torch.no_grad():
        yield AlignedMesh.load(weights.locate)


@pytest.mark.parametrize("seed", sorted(GOLDEN))
def test_points_are_the_publishers(faces: dict[str, Tensor], meshes: AlignedMesh, seed: str) -> None:
    golden = torch.tensor(GOLDEN[seed])
    ours, plain = (meshes(faces[seed], lids_only=each)[0] for each in (False, True))
    away = [(mesh[0, list(LIPS), :2] - golden).norm(dim=1).mean() * 512 for mesh in (ours, plain)]
    assert away[0] < 3.0  # pixels: MediaPipe's region of interest lies a little differently
    assert away[0] < 0.6 * away[1]
    theirs = ours.clone()
    theirs[0, list(LIPS), :2] = golden
    assert abs(float(mouth_opening(ours)) - float(mouth_opening(theirs))) < 0.015


def test_closed_lips_have_no_gap(faces: dict[str, Tensor], meshes: AlignedMesh) -> None:
    gaps = {seed: float(mouth_opening(meshes(face)[0])) for seed, face in faces.items()}
    assert max(gaps["4"], gaps["5"]) < 0.02 < 0.1 < min(gaps["0"], gaps["3"])


def test_only_the_lips_are_others(faces: dict[str, Tensor], meshes: AlignedMesh) -> None:
    ours, plain = (meshes(faces["0"], lids_only=each)[0][0] for each in (False, True))
    rest = np.setdiff1d(np.arange(468), LIPS + sum(IRIS_NETWORK_FROWN, ()))
    torch.testing.assert_close(ours[rest], plain[rest])
    torch.testing.assert_close(ours[..., 2], plain[..., 2])
    assert float((ours - plain)[list(LIPS), :2].norm(dim=1).min()) > 0


def test_a_turned_face_has_turned_lips(faces: dict[str, Tensor], meshes: AlignedMesh) -> None:
    """A crop and a mesh that are turned: the window turns with them."""
    lips = meshes.lips
    assert lips is not None
    crop = torch.nn.functional.interpolate(faces["0"][..., 40:472, 40:472], 192, mode="area") * 0.5 + 0.5
    mesh = (meshes(faces["0"], lids_only=True)[0][..., :2] * 512 - 40) * 192 / 432
    upright = lips(crop, mesh)
    small = torch.deg2rad(torch.tensor(12.0))
    turn = torch.tensor([[small.cos(), -small.sin()], [small.sin(), small.cos()]])
    affine = torch.cat([turn.T, torch.zeros(2, 1)], 1)[None]
    grid = torch.nn.functional.affine_grid(affine, [1, 3, 192, 192], align_corners=False)
    turned = torch.nn.functional.grid_sample(crop, grid, padding_mode="border", align_corners=False)
    moved = lips(turned, (mesh - 96) @ turn.T + 96)
    wanted = (upright - 96) @ turn.T + 96
    assert float((moved - wanted).norm(dim=-1).mean()) < 1.0


def test_windows_hold_the_lips_with_room() -> None:
    points = torch.rand(3, len(LIPS), 2, dtype=torch.float64) * torch.tensor([40.0, 15.0]) + 70
    points[:, LIPS.index(61)] = torch.tensor([70.0, 77.0]).double()
    points[:, LIPS.index(291)] = torch.tensor([110.0, 80.0]).double()
    turn, middle = _window(points)
    cells = torch.linalg.solve(turn, (points - middle[:, None]).transpose(1, 2)).transpose(1, 2)
    low, high = cells.amin(1), cells.amax(1)
    torch.testing.assert_close(low, -high)  # in the middle
    torch.testing.assert_close(high - low, torch.full((3, 2), 16 / 1.5, dtype=torch.float64))


def test_gradients_reach_the_picture_and_not_the_mesh(faces: dict[str, Tensor], meshes: AlignedMesh) -> None:
    lips = meshes.lips
    assert lips is not None
    with torch.enable_grad():
        crop = torch.nn.functional.interpolate(faces["0"], 192, mode="area") * 0.5 + 0.5
        crop.requires_grad_(True)
        mesh = (meshes(faces["0"], lids_only=True)[0] * 192).detach().requires_grad_(True)
        lips(crop, mesh).sum().backward()
    assert float(crop.grad.abs().max()) > 0 and mesh.grad is None


def test_other_networks_are_refused(weights_home: Path) -> None:
    with pytest.raises(WeightsError, match="other networks"):
        LipNet.load(weights.locate("lips-points"), weights.locate("lips-features"))
    graph = TfliteGraph.load(weights.locate("iris-torch"))
    with pytest.raises(WeightsError, match="other networks"):
        LipNet(graph, graph)

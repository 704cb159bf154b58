"""Meshes of aligned images, and the differentiable twins of the expression measures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vidswap import landmarks
from vidswap.models import aligned_mesh as am
from vidswap.models.aligned_mesh import AlignedMesh


def _meshes(count: int = 4, spread: float = 0.02) -> Tensor:
    """Canonical faces at FFHQ scale, with every point moved a little."""
    mesh = am.canonical_mesh() * 0.3 + torch.tensor([0.5, 0.6, 0.0])
    return mesh + spread * 0.3 * torch.randn(count, 468, 3)


def _rotation(x: float, y: float, z: float) -> Tensor:
    """By degrees about the three axes."""
    skew = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]]) * math.pi / 180
    return torch.matrix_exp(skew)


def test_measures_equal_those_of_the_metrics() -> None:
    """Training pulls on the very numbers that evaluation reports."""
    meshes = _meshes()
    irises = 0.5 + 0.1 * torch.randn(4, 2, 5, 2)
    for i, mesh in enumerate(meshes.numpy()):
        iris = irises[i].numpy()
        one = meshes[i : i + 1]
        opening = landmarks.mouth_opening(mesh)
        assert float(am.mouth_opening(one)) == pytest.approx(opening, rel=1e-4)
        assert float(am.interocular_distance(one)) == pytest.approx(landmarks.interocular(mesh))
        np.testing.assert_allclose(am.eye_aspect(one)[0], landmarks.eye_aspect(mesh), rtol=1e-4)
        ours = am.gaze(one, irises[i : i + 1])[0]
        np.testing.assert_allclose(ours, landmarks.gaze(mesh, iris), rtol=1e-4, atol=1e-6)


def test_expression_ignores_similarity_and_nothing_else() -> None:
    meshes = _meshes()
    turned = 1.7 * (meshes @ _rotation(0, 0, 25).T) + torch.tensor([3.0, -2.0, 0.0])
    before = am.expression_vector(meshes)
    assert before.shape == (4, 936)
    torch.testing.assert_close(am.expression_vector(turned), before, atol=2e-5, rtol=0)
    moved = meshes.clone()
    moved[:, 13, 1] -= 0.03
    assert float((am.expression_vector(moved) - before).norm(dim=1).min()) > 0.05


@pytest.mark.parametrize("degrees", [(0.0, 0.0, 0.0), (0.05, 0, 0), (0, 30.0, 0), (-20, 35, 15)])
def test_head_rotation_is_recovered(degrees: tuple[float, float, float]) -> None:
    truth = _rotation(*degrees)
    meshes = 0.4 * (am.canonical_mesh() @ truth.T)[None] + 0.5
    found = am.head_rotation(meshes)
    torch.testing.assert_close(found[0], truth, atol=1e-5, rtol=0)
    between = am.rotation_angle_degrees(found, torch.eye(3)[None])
    assert float(between) == pytest.approx(math.hypot(*degrees), abs=2e-3)
    assert am.pose_features(meshes).shape == (1, 9)


def test_features_have_finite_gradients_even_on_closed_faces() -> None:
    mesh = _meshes(2, 0.0)
    mesh[:, 13], mesh[:, 159] = mesh[:, 14], mesh[:, 145]
    mesh.requires_grad_(True)
    iris = torch.full((2, 2, 5, 2), 0.5, requires_grad=True)
    total = (
        am.mouth_opening(mesh).sum() + am.eye_aspect(mesh).sum() + am.gaze(mesh, iris).sum()
        + am.expression_vector(mesh).square().sum() + am.pose_features(mesh)[:, 1].sum()
    )  # fmt: skip
    total.backward()
    for leaf in (mesh, iris):
        assert leaf.grad is not None and torch.isfinite(leaf.grad).all()
        assert float(leaf.grad.abs().max()) > 0


def test_pose_gradient_is_the_finite_difference() -> None:
    mesh = (am.canonical_mesh() @ _rotation(5, 20, -8).T)[None].double().requires_grad_(True)
    direction = torch.randn_like(mesh)
    weights = torch.randn(1, 9, dtype=torch.float64)

    def value(points: Tensor) -> Tensor:
        return (am.pose_features(points) * weights).sum()

    (gradient,) = torch.autograd.grad(value(mesh), mesh)
    with torch.no_grad():
        slope = (value(mesh + 1e-6 * direction) - value(mesh - 1e-6 * direction)) / 2e-6
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-5, atol=1e-8)


def test_the_canonical_face_is_symmetric_and_upright() -> None:
    mesh = am.canonical_mesh()
    assert mesh.shape == (468, 3)
    assert float(am.interocular_distance(mesh[None])) == pytest.approx(1.0, abs=1e-4)
    middle = mesh[[10, 168, 1, 13, 152]]
    assert float(middle[:, 0].abs().max()) < 1e-5  # on the plane of symmetry
    assert bool((middle[1:, 1] > middle[:-1, 1]).all())  # from the forehead to the chin
    left, right = mesh[33], mesh[263]
    torch.testing.assert_close(left * torch.tensor([-1.0, 1, 1]), right)


# --- with the real networks --------------------------------------------------------------------


@pytest.fixture(scope="module")
def networks(weights_home: Path) -> AlignedMesh:
    from vidswap.weights import locate

    return AlignedMesh.load(locate, refined=False)


@pytest.fixture(scope="module")
def face(weights_home: Path) -> Tensor:
    """A generated face, ``[1, 3, 1024, 1024]``."""
    from vidswap.models.mobile_stylegan import MobileStyleGAN
    from vidswap.weights import locate

    generator = MobileStyleGAN.load(locate("mobilestylegan"))
    with torch.no_grad():
        w = generator.sample(3)[:, None].expand(-1, generator.n_styles, -1)
        return generator.synthesize(w).clamp(-1, 1)


def _shrunk(images: Tensor, size: int) -> Tensor:
    return torch.nn.functional.avg_pool2d(images, images.shape[-1] // size)


@torch.no_grad()
def test_landmarks_sit_where_ffhq_alignment_puts_them(networks: AlignedMesh, face: Tensor) -> None:
    mesh, presence, iris = networks(face)
    assert mesh.shape == (1, 468, 3) and presence.shape == (1,) and iris.shape == (1, 2, 5, 2)
    assert float(presence) > 0.9
    eyes = mesh[0][torch.tensor(landmarks.EYE_CORNERS), :2].mean(1)
    expected = torch.tensor([[0.385, 0.47], [0.615, 0.47]])  # the alignment's own eye places
    torch.testing.assert_close(eyes, expected, atol=0.03, rtol=0)
    torch.testing.assert_close(iris[0, :, 0], eyes, atol=0.02, rtol=0)
    nose_side, temple_side = iris[0, :, 1, 0], iris[0, :, 3, 0]
    assert nose_side[0] > temple_side[0] and nose_side[1] < temple_side[1]
    assert bool((iris[0, :, 2, 1] < iris[0, :, 4, 1]).all())  # above, below


@torch.no_grad()
def test_small_images_give_nearly_the_same_mesh(networks: AlignedMesh, face: Tensor) -> None:
    """Measured over 40 faces: 1.5 px of 1024 from 128 px images, 0.7 from 256."""
    full, _, full_iris = networks(face)
    for size, limit in ((512, 0.01), (256, 1.5), (128, 3.0)):
        mesh, _, iris = networks(_shrunk(face, size))
        assert float((mesh - full)[..., :2].norm(dim=-1).mean()) * 1024 < limit
        assert float((iris - full_iris).norm(dim=-1).mean()) * 1024 < 1.5 * limit
    assert torch.equal(networks.mesh_only(face), full)


@torch.no_grad()
def test_mirrored_images_swap_the_eyes(networks: AlignedMesh, face: Tensor) -> None:
    _, _, iris = networks(face)
    _, _, mirrored = networks(face.flip(-1))
    expected = iris.flip(1) * torch.tensor([-1.0, 1.0]) + torch.tensor([1.0, 0.0])
    assert float((mirrored - expected).norm(dim=-1).max()) * 1024 < 6


@torch.no_grad()
def test_the_mesh_equals_the_network_on_the_crop(networks: AlignedMesh, face: Tensor) -> None:
    """Slow twin: the crop sampled pixel by pixel, the points mapped back by hand."""
    image = _shrunk(face, 256)[0].numpy() * 0.5 + 0.5
    (cx, cy), side = am.FACE_ROI_CENTRE_XY, am.FACE_ROI_SIDE
    steps = ((np.arange(192) + 0.5) / 192 - 0.5) * side
    at_x, at_y = ((c + steps) * 256 - 0.5 for c in (cx, cy))
    at_x, at_y = at_x.clip(0, 255), at_y.clip(0, 255)
    x0, y0 = at_x.astype(int).clip(0, 254), at_y.astype(int).clip(0, 254)
    fx, fy = at_x - x0, (at_y - y0)[:, None]
    rows = image[:, y0] * (1 - fy) + image[:, y0 + 1] * fy
    crop = rows[:, :, x0] * (1 - fx) + rows[:, :, x0 + 1] * fx
    points, _ = networks.mesh(torch.from_numpy(crop.astype(np.float32))[None])
    expected = points[0].numpy() / 192 * side
    expected[:, :2] += np.array([cx, cy]) - side / 2
    got, _, _ = networks(_shrunk(face, 256))
    np.testing.assert_allclose(got[0].numpy(), expected, atol=2e-5)


def test_gradients_reach_the_image(networks: AlignedMesh, face: Tensor) -> None:
    image = _shrunk(face, 128).clone().requires_grad_(True)
    mesh, _, iris = networks(image)
    (of_mesh,) = torch.autograd.grad(am.expression_vector(mesh).sum(), image, retain_graph=True)
    (of_iris,) = torch.autograd.grad(iris[0, 0].sum(), image)
    assert torch.isfinite(of_mesh).all() and float(of_mesh.abs().sum()) > 0
    strength = of_iris.abs().sum((0, 1))
    # Only the left eye's surroundings move the left iris: its box carries no gradient.
    assert float(strength[40:80, 30:66].sum()) > 0.99 * float(strength.sum()) > 0


@torch.no_grad()
def test_refined_eyes_change_eyelids_and_what_tells_a_frown_only(networks: AlignedMesh, face: Tensor) -> None:
    refined = AlignedMesh(networks.mesh, networks.iris, refine_eyes=True)
    before, _, iris = networks(face)
    after, _, same_iris = refined(face)
    assert torch.equal(iris, same_iris)
    moved = (before != after)[0]
    lids, frown = (
        {i for ring in rings for i in ring}
        for rings in (landmarks.IRIS_NETWORK_EYE, landmarks.IRIS_NETWORK_FROWN)
    )
    assert set(moved.any(1).nonzero().flatten().tolist()) == lids | frown
    assert not bool(moved[:, 2].any())
    of_lids, _, _ = refined(face, lids_only=True)
    assert set((of_lids != before)[0].any(1).nonzero().flatten().tolist()) == lids
    assert float((before - after).norm(dim=-1).max()) * 1024 < 25


@pytest.mark.parametrize(
    "shape", [(3, 128, 128), (1, 3, 128, 256), (1, 4, 128, 128), (1, 3, 200, 200)]
)
def test_wrong_shapes_are_refused(networks: AlignedMesh, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \[B, 3, S, S\]"):
        networks(torch.zeros(shape))

"""Makes vidswap/assets/canonical-mesh.safetensors: the generator's mean face, symmetric.

    python tools/make_canonical_mesh.py [--samples 96]

Needs the fetched weights. Meshes of generated faces (seeds 0, 1, ... at truncation 0.8) are
brought together by generalised Procrustes analysis with rotation in space, averaged, made
symmetric, centred, and scaled to an inter-ocular distance of 1. About one second a sample.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from vidswap.models.aligned_mesh import AlignedMesh, interocular_distance
from vidswap.models.mobile_stylegan import MobileStyleGAN
from vidswap.weights.assets import ASSETS_FOLDER, register_asset
from vidswap.weights.store import locate


@torch.no_grad()
def sample_meshes(count: int) -> Tensor:
    """Meshes ``[count, 468, 3]`` of generated faces."""
    generator = MobileStyleGAN.load(locate("mobilestylegan"))
    network = AlignedMesh.load(locate, refined=False)
    meshes = []
    for seed in range(count):
        w = generator.sample(seed, psi=0.8)
        images = generator.synthesize(w[:, None].expand(-1, generator.n_styles, -1))
        meshes.append(network.mesh_only(images.clamp(-1, 1))[0])
    return torch.stack(meshes)


def align(points: Tensor, reference: Tensor) -> Tensor:
    """Each of ``[N, P, 3]`` onto a centred reference ``[P, 3]`` by similarity in space."""
    points = points - points.mean(1, keepdim=True)
    u, s, vh = torch.linalg.svd(points.transpose(1, 2) @ reference)
    turned = points @ (u @ vh)
    return turned * (s.sum(1) / points.square().sum((1, 2)))[:, None, None]


def mirror_permutation(mesh: Tensor) -> Tensor:
    """For each point of a nearly symmetric mesh ``[P, 3]`` its mirror twin's index."""
    mirrored = mesh * torch.tensor([-1.0, 1.0, 1.0])
    twin = torch.cdist(mesh, mirrored).argmin(1)
    if not torch.equal(twin[twin], torch.arange(len(twin))):
        raise SystemExit("the mean mesh is too lopsided to pair its points; use more samples")
    return twin


def facing_forward(mesh: Tensor) -> Tensor:
    """Turned by the least rotation that lays the line of the eyes along x; the pitch stays."""
    eyes = mesh[[362, 263]].mean(0) - mesh[[33, 133]].mean(0)
    eyes = eyes / eyes.norm()
    axis_x = torch.tensor([1.0, 0.0, 0.0])
    x, y, z = torch.linalg.cross(eyes, axis_x).tolist()
    skew = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    rotation = torch.eye(3) + skew + skew @ skew / (1 + eyes @ axis_x)
    return mesh @ rotation.T


def canonical(meshes: Tensor) -> Tensor:
    """Mean shape ``[468, 3]``."""
    mean = meshes.mean(0) - meshes.mean((0, 1))
    for _ in range(10):
        mean = facing_forward(align(meshes, mean).mean(0))
        mean = mean / interocular_distance(mean[None])
    twin = mirror_permutation(mean)
    mean = 0.5 * (mean + mean[twin] * torch.tensor([-1.0, 1.0, 1.0]))
    return (mean - mean.mean(0)) / interocular_distance(mean[None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=96, help="generated faces to average")
    count = parser.parse_args().samples
    mesh = canonical(sample_meshes(count))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "canonical-mesh.safetensors"
        save_file({"mesh": mesh.contiguous()}, path, metadata={"samples": str(count)})
        register_asset(
            "canonical-mesh",
            path,
            licence="Apache-2.0",
            version="1",
            purpose="mean face for expression and pose features",
        )
    print(f"{ASSETS_FOLDER / path.name}: mean of {count} generated faces")


if __name__ == "__main__":
    main()

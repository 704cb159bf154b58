"""Encoder: an aligned face to a W+ latent, in one pass.

No convolution of its own: what dlib's identity network, the face mesh and the irises see is already
what a latent must say (who, where the head points, what the face does); a thumbnail adds colour and
light. A reduced-rank linear map from those features to W+, and a small network for what is not linear,
are trained on the generator's own samples. After pSp and e4e (2008.00951, 2102.02766) in its purpose: a
start for the fit in a region where the generator edits well.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from vidswap.errors import WeightsError
from vidswap.models.aligned_mesh import AlignedMesh
from vidswap.models.identity import DlibIdentity
from vidswap.models.rgb_head import area_downsample

INPUT_SIZE = 128
_TAPS = (6, 9, 12)
_THUMBNAIL = 20


class FaceFeatures(nn.Module):
    """What the encoder sees: ``[B, 3, 128, 128]`` in [-1, 1] to ``[B, D]``."""

    def __init__(self, identity: DlibIdentity, meshes: AlignedMesh) -> None:
        super().__init__()
        self.identity = identity
        self.meshes = meshes

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        x = (self.identity.chips(images) - self.identity.mean) / 256
        blocks = self.identity.tapped(x, _TAPS)
        embedding = self.identity.fc(self.identity.trunk_end(blocks[-1]).mean((2, 3)))
        pooled = [
            functional.adaptive_avg_pool2d(block, grid).flatten(1)
            for block, grid in zip(blocks, (5, 4, 3), strict=True)
        ]
        mesh, _, iris = self.meshes(images, lids_only=True)  # as the encoders were trained
        thumbnail = functional.adaptive_avg_pool2d(images, _THUMBNAIL).flatten(1)
        return torch.cat((*pooled, embedding, mesh.flatten(1), iris.flatten(1), thumbnail), 1)


class LatentMap(nn.Module):
    """Features ``[B, D]`` to W+ ``[B, n_styles, 512]``: linear of low rank plus a small network."""

    center: Tensor
    spread: Tensor

    def __init__(self, features: int, rank: int, hidden: int, n_styles: int, w_dim: int = 512) -> None:
        super().__init__()
        self.n_styles, self.w_dim = n_styles, w_dim
        self.register_buffer("center", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        self.squeeze = nn.Linear(features, rank)
        self.enter = nn.Linear(rank, hidden)
        self.middle = nn.Linear(hidden, hidden)
        self.leave = nn.Linear(hidden, rank)
        self.expand = nn.Linear(rank, n_styles * w_dim)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def coefficients(self, features: Tensor) -> Tensor:
        """Coefficients ``[B, rank]`` in the basis of ``expand``."""
        x = self.squeeze(((features - self.center) / self.spread).clamp(-6, 6))
        y = functional.silu(self.enter(x))
        return x + self.leave(y + functional.silu(self.middle(y)))

    def forward(self, features: Tensor) -> Tensor:
        return self.expand(self.coefficients(features)).view(-1, self.n_styles, self.w_dim)


class FaceEncoder(nn.Module):
    """Aligned faces ``[B, 3, S, S]`` in [-1, 1] to W+ ``[B, n_styles, 512]``."""

    def __init__(self, features: FaceFeatures, latents: LatentMap) -> None:
        super().__init__()
        self.features = features
        self.latents = latents

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return self.latents(self.features(area_downsample(images, INPUT_SIZE)))


def load_latent_map(path: Path) -> LatentMap:
    """Read the trained part. :raises WeightsError: when the file holds something else."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        tensors = {key: file.get_tensor(key).float() for key in file.keys()}
    if metadata.get("kind") != "encoder":
        raise WeightsError(f"{path.name}: not an encoder's weights; run 'vidswap weights list'")
    rank, features = tensors["squeeze.weight"].shape
    hidden = tensors["enter.weight"].shape[0]
    latents = LatentMap(features, rank, hidden, int(metadata["n_styles"]))
    latents.load_state_dict(tensors)
    return latents.eval().requires_grad_(False)


def load_encoder(
    path: Path,
    locate: Callable[[str], Path],
    identity: DlibIdentity | None = None,
    meshes: AlignedMesh | None = None,
) -> FaceEncoder:
    """The whole encoder: the trained part at ``path``, the frozen networks, where not given, through
    ``locate``."""
    identity = identity or DlibIdentity.load(locate("dlib-resnet"))
    meshes = meshes or AlignedMesh.load(locate)
    return FaceEncoder(FaceFeatures(identity, meshes), load_latent_map(path)).eval()

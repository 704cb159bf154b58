"""Sharp generated faces with their meshes, made once and kept on disk in small files.

The bank of the mixer holds what the cheap path draws; a network that looks for edges of fingers and hair
needs the full picture, reduced by areas.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidswap.models.aligned_mesh import AlignedMesh
from vidswap.models.mobile_stylegan import MobileStyleGAN
from vidswap.models.rgb_head import area_downsample
from vidswap.training.sampling import LatentSampler

PICTURE_SIZE = 256
_SHARD = 25
_SURE = 0.8
"""Presence of a face from which its mesh is believed."""
_POSES = {"yaw": (-3.0, 3.5), "pitch": (-1.0, 1.0), "mouth": (-0.5, 2.0), "smile": (-1.0, 1.5)}
"""Steps along latent directions between which heads are turned. Looked at: beyond 4 of yaw faces fall
apart."""

Pose = Callable[[Tensor, Mapping[str, float]], Tensor]
"""Moves codes ``[B, n_styles, 512]`` along latent directions, by steps each."""


@dataclass(frozen=True)
class Pictures:
    """Columns of equal length N."""

    images: np.ndarray
    """``[N, 256, 256, 3]`` uint8 RGB."""
    meshes: np.ndarray
    """``[N, 468, 2]`` float32, fractions of the picture."""

    def __len__(self) -> int:
        return len(self.images)

    def __add__(self, other: Pictures) -> Pictures:
        return Pictures(
            np.concatenate([self.images, other.images]), np.concatenate([self.meshes, other.meshes])
        )

    def that(self, suits: Callable[[np.ndarray, np.ndarray], bool]) -> Pictures:
        """Those whose picture ``[256, 256, 3]`` and mesh ``[468, 2]`` suit."""
        kept = np.array([suits(*one) for one in zip(self.images, self.meshes, strict=True)], bool)
        return Pictures(self.images[kept], self.meshes[kept])


def load_pictures(folder: Path, *, seed: int, count: int, turned: bool = False) -> Pictures:
    """The first ``count`` pictures of a seed that are on disk, fewer when they are not all there.

    :param turned: those whose heads were turned.
    """
    images, meshes, have = [], [], 0
    number = 0
    while have < count and (path := _shard_path(folder, seed, number, turned)).exists():
        with np.load(path) as columns:
            images.append(columns["images"])
            meshes.append(columns["meshes"])
        have += len(images[-1])
        number += 1
    if not images:
        size = PICTURE_SIZE
        return Pictures(np.zeros((0, size, size, 3), np.uint8), np.zeros((0, 468, 2), np.float32))
    return Pictures(np.concatenate(images)[:count], np.concatenate(meshes)[:count])


def build_pictures(
    folder: Path,
    *,
    generator: MobileStyleGAN,
    meshes: AlignedMesh,
    count: int,
    seed: int,
    log: Callable[[str], None],
    pose: Pose | None = None,
) -> Pictures:
    """The pictures of a seed; those that are not in ``folder`` are made, file by file.

    Every file has a seed of its own, so that an interrupted or a larger bank begins alike.

    :param pose: turns the heads, which the generator draws nearly frontal, and opens their mouths.
    """
    turned = pose is not None
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(-(-count // _SHARD)):
        path = _shard_path(folder, seed, number, turned)
        if path.exists():
            continue
        sampler = LatentSampler(generator, seed=seed * 1_000_003 + number)
        images, found = _shard(generator, meshes, sampler, pose)
        temporary = path.with_name(path.name + ".part")
        with temporary.open("wb") as file:
            np.savez(file, images=images, meshes=found)
        os.replace(temporary, path)
        log(f"{'turned ' * turned}faces: {(number + 1) * _SHARD}/{count}")
    return load_pictures(folder, seed=seed, count=count, turned=turned)


@torch.no_grad()
def _shard(
    generator: MobileStyleGAN, meshes: AlignedMesh, sampler: LatentSampler, pose: Pose | None
) -> tuple[np.ndarray, np.ndarray]:
    images: list[np.ndarray] = []
    found: list[np.ndarray] = []
    while len(images) < _SHARD:
        code = sampler.draw(1)
        if pose is not None:
            code = pose(code, {name: float(sampler.uniform(*span, 1)) for name, span in _POSES.items()})
        drawn = area_downsample(generator.synthesize(code), PICTURE_SIZE)
        mesh, presence, _ = meshes(drawn)
        if float(presence) < _SURE:  # a code that gives no face teaches nothing
            continue
        eight_bit = ((drawn[0].clamp(-1, 1) + 1) * 127.5).round().byte()
        images.append(eight_bit.permute(1, 2, 0).cpu().numpy())
        found.append(mesh[0, :, :2].float().cpu().numpy())
    return np.stack(images), np.stack(found)


def _shard_path(folder: Path, seed: int, number: int, turned: bool) -> Path:
    return folder / f"{'turned-' * turned}faces-{seed}-{number:04d}.npz"

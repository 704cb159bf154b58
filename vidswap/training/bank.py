"""A bank of generated faces with all that the losses need, computed once and kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vidswap.landmarks import FACE_OVAL
from vidswap.models.aligned_mesh import AlignedMesh
from vidswap.models.identity import DlibIdentity
from vidswap.models.mobile_stylegan import MobileStyleGAN
from vidswap.models.rgb_head import area_downsample
from vidswap.training.fitted import Fit, FittedCodes
from vidswap.training.sampling import LatentSampler

_KEEP_EVERY = 50
"""Fitted faces between saves: each takes about a second."""
_RESTART = 0.5
"""Two fits a chain on average: many people, some of them in the course of a track."""


@dataclass(frozen=True)
class Bank:
    """Columns of equal length N."""

    codes: Tensor
    """``[N, n_styles, 512]`` W+ codes."""
    images: Tensor
    """``[N, 3, 128, 128]`` uint8."""
    embeddings: Tensor
    """``[N, 128]``."""
    meshes: Tensor
    """``[N, 468, 3]`` in fractions of the crop."""
    irises: Tensor
    """``[N, 2, 5, 2]``."""
    faces: Tensor
    """``[N, 128, 128]`` uint8, 255 inside the oval of the face."""

    def __len__(self) -> int:
        return len(self.codes)

    def image(self, index: int) -> Tensor:
        """``[1, 3, 128, 128]`` in [-1, 1]."""
        return self.images[index : index + 1].float() / 127.5 - 1

    def rows(self, part: slice) -> Bank:
        """Some of the faces."""
        return Bank(**{name: getattr(self, name)[part] for name in Bank.__dataclass_fields__})

    def to(self, device: torch.device) -> Bank:
        """The same on a device."""
        return Bank(**{name: getattr(self, name).to(device) for name in Bank.__dataclass_fields__})

    def and_then(self, other: Bank) -> Bank:
        """These faces and those of another bank after them."""
        return Bank(
            **{
                name: torch.cat((getattr(self, name), getattr(other, name)))
                for name in Bank.__dataclass_fields__
            }
        )


def filled(mesh: Tensor, outline: Sequence[int], size: int = 128) -> Tensor:
    """What an outline of a mesh ``[468, 3]`` holds, ``[size, size]`` uint8, 255 inside."""
    picture = Image.new("L", (size, size))
    points = [tuple(point) for point in (mesh[list(outline), :2] * size).tolist()]
    ImageDraw.Draw(picture).polygon(points, fill=255)
    return torch.from_numpy(np.asarray(picture).copy())


@torch.no_grad()
def build_bank(
    path: Path,
    *,
    generator: MobileStyleGAN,
    identity: DlibIdentity,
    meshes: AlignedMesh,
    count: int,
    seed: int,
    log: Callable[[str], None],
) -> Bank:
    """The bank of a seed, from disk when it is there."""
    kept = _kept(path)
    if kept is not None and len(kept) >= count:
        return kept.rows(slice(count))
    sampler = LatentSampler(generator, seed=seed)
    rows = _Rows(identity, meshes)
    while len(rows) < count:
        code = sampler.draw(1)
        if rows.add(code, generator.synthesize(code, size=128)) and len(rows) % 200 == 0:
            log(f"bank: {len(rows)}/{count}")
    return _keep(path, rows.bank())


def build_fitted_bank(
    path: Path,
    *,
    generator: MobileStyleGAN,
    identity: DlibIdentity,
    meshes: AlignedMesh,
    fit: Fit,
    encoder: nn.Module | None,
    faces: Bank,
    count: int,
    seed: int,
    log: Callable[[str], None],
) -> Bank:
    """A bank of codes that were fitted to altered pictures of other faces, from disk when it is there.

    An unfinished one is gone on with. Its pictures are whole ones made smaller: what a fit finds where the
    head of the cheap path is wrong is not in them.

    :param fit: how faces are inverted, from what the encoder says. :param faces: whose pictures are altered.
    """
    kept = _kept(path)
    if kept is not None and len(kept) >= count:
        return kept.rows(slice(count))
    pictures = [faces.image(index) for index in range(len(faces))]
    rows = _Rows(identity, meshes)
    have = 0 if kept is None else len(kept)
    fitted = FittedCodes(generator, fit, encoder, seed=seed * 1_000_003 + have, restart=_RESTART)

    def whole() -> Bank:
        return rows.bank() if kept is None else kept.and_then(rows.bank())

    while have + len(rows) < count:
        code = fitted.draw(pictures)
        with torch.no_grad():
            picture = area_downsample(generator.synthesize(code, size=512), 128)
        if rows.add(code, picture) and len(rows) % _KEEP_EVERY == 0:
            log(f"fitted codes: {have + len(rows)}/{count}")
            _keep(path, whole())
    return _keep(path, whole())


class _Rows:
    """A bank in the making."""

    def __init__(self, identity: DlibIdentity, meshes: AlignedMesh) -> None:
        self._identity, self._meshes = identity, meshes
        self._columns: dict[str, list[Tensor]] = {name: [] for name in Bank.__dataclass_fields__}

    def __len__(self) -> int:
        return len(self._columns["codes"])

    @torch.no_grad()
    def add(self, code: Tensor, image: Tensor) -> bool:
        """One code ``[1, n_styles, 512]`` and its picture ``[1, 3, 128, 128]``; False where that shows no
        face: such a code teaches nothing."""
        mesh, presence, iris = self._meshes(image)
        if float(presence) < 0.5:
            return False
        row = {
            "codes": code, "images": ((image.clamp(-1, 1) + 1) * 127.5).round().byte(),
            "embeddings": self._identity.embed_aligned(image), "meshes": mesh, "irises": iris,
            "faces": filled(mesh[0].cpu(), FACE_OVAL)[None],
        }  # fmt: skip
        for name, value in row.items():
            self._columns[name].append(value[0].cpu())
        return True

    def bank(self) -> Bank:
        return Bank(**{name: torch.stack(values) for name, values in self._columns.items()})


def _kept(path: Path) -> Bank | None:
    return Bank(**load_file(path)) if path.exists() else None


def _keep(path: Path, bank: Bank) -> Bank:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    save_file({name: getattr(bank, name).contiguous() for name in Bank.__dataclass_fields__}, unfinished)
    unfinished.replace(path)
    return bank

"""A bank of generated faces with all that the losses need, computed once and kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from torch import Tensor

from vidswap.landmarks import FACE_OVAL
from vidswap.models.aligned_mesh import AlignedMesh
from vidswap.models.identity import DlibIdentity
from vidswap.models.mobile_stylegan import MobileStyleGAN
from vidswap.training.sampling import LatentSampler


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


def face_oval(mesh: Tensor, size: int = 128) -> Tensor:
    """Filled oval of a mesh ``[468, 3]``, ``[size, size]`` uint8."""
    picture = Image.new("L", (size, size))
    points = [tuple(point) for point in (mesh[FACE_OVAL, :2] * size).tolist()]
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
    if path.exists():
        columns = load_file(path)
        if len(columns["codes"]) >= count:
            return Bank(**{name: column[:count] for name, column in columns.items()})
    sampler = LatentSampler(generator, seed=seed)
    rows: dict[str, list[Tensor]] = {name: [] for name in Bank.__dataclass_fields__}
    while len(rows["codes"]) < count:
        code = sampler.draw(1)
        image = generator.synthesize(code, size=128)
        mesh, presence, iris = meshes(image)
        if float(presence) < 0.5:  # a code that gives no face teaches nothing
            continue
        rows["codes"].append(code[0].cpu())
        rows["images"].append(((image[0].clamp(-1, 1) + 1) * 127.5).round().byte().cpu())
        rows["embeddings"].append(identity.embed_aligned(image)[0].cpu())
        rows["meshes"].append(mesh[0].cpu())
        rows["irises"].append(iris[0].cpu())
        rows["faces"].append(face_oval(mesh[0].cpu()))
        if len(rows["codes"]) % 200 == 0:
            log(f"bank: {len(rows['codes'])}/{count}")
    columns = {name: torch.stack(values) for name, values in rows.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(columns, path)
    return Bank(**columns)

"""Identity networks that judge, and the people that a face is compared with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vidswap.errors import InputError, NoFaceError, UsageError
from vidswap.identities import source_crop, to_tensor
from vidswap.landmarks import keypoints_from_mesh
from vidswap.models.judge_arcface import CHIP_SIZE, ArcFaceJudge, chip_quad, find_default
from vidswap.records import AlignedCrop
from vidswap.session import Session
from vidswap.sources import SourceSpec, parse_source, parse_sources
from vidswap.warp import crop as cut

log = logging.getLogger(__name__)

Embedding = NDArray[np.float32]

_DISTRACTOR_SEED = 1_000_000
"""Seeds of the distractors start here, out of the way of ``synthetic:SEED`` sources."""
_PSI = 0.7
_PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


class Judges:
    """The networks that recognise people: dlib's, and ArcFace where the user has it.

    :param judge: file or folder of ArcFace; None takes the one that insightface keeps on this
        machine, if any.
    """

    def __init__(self, session: Session, judge: Path | None = None) -> None:
        self._session = session
        path = judge if judge is not None else find_default()
        self.second = ArcFaceJudge(path) if path is not None else None

    @property
    def names(self) -> dict[str, str]:
        """Purpose to network, for the report."""
        return {
            "identity": "dlib ResNet (known to the training)",
            "second network": self.second.name if self.second else "none",
        }

    @torch.no_grad()
    def first(self, image: NDArray[np.float32]) -> Embedding:
        """dlib embedding ``[128]`` of an aligned picture ``[S, S, 3]`` in [0, 1]."""
        tensor = to_tensor(image, self._session.device)
        return self._session.identity.embed_aligned(tensor)[0].cpu().numpy()

    def other(self, image: NDArray[np.float32], mesh: NDArray[Any] | None) -> Embedding | None:
        """ArcFace embedding ``[512]``; None without that network or a mesh.

        :param mesh: ``[468, 3]`` in [0, 1] of the picture.
        """
        if self.second is None or mesh is None:
            return None
        keypoints = keypoints_from_mesh(mesh) * image.shape[0]
        return self.second.embed(cut(image, chip_quad(keypoints), CHIP_SIZE)[0])


@dataclass(frozen=True)
class Person:
    """A source as the judges see it."""

    labels: tuple[str, ...]
    first: Embedding
    """``[K, 128]``, one a photo."""
    second: Embedding | None
    """``[K, 512]``; None without a second network."""


def embed_sources(session: Session, judges: Judges, specs: Sequence[str]) -> Person:
    """Embeddings of the source's photos, or of a ``synthetic:SEED`` person.

    :raises UsageError: no source, or one that is not understood.
    :raises InputError: a photo cannot be read. :raises NoFaceError: no face in it, or several.
    """
    parsed = parse_sources(specs)
    firsts, seconds = [], []
    for spec in parsed:
        image, mesh = _picture_of(session, spec)
        firsts.append(judges.first(image))
        second = judges.other(image, mesh)
        if second is not None:
            seconds.append(second)
    both = len(seconds) == len(firsts)
    return Person(
        # Names without folders: a report may be passed on.
        tuple(spec.path.name if spec.path else str(spec) for spec in parsed),
        np.stack(firsts),
        np.stack(seconds) if both else None,
    )


@torch.no_grad()
def _picture_of(session: Session, spec: SourceSpec) -> tuple[NDArray[np.float32], Any]:
    if spec.kind != "synthetic":
        aligned: AlignedCrop = source_crop(session, spec)
        return aligned.image, aligned.mesh_xyz
    image = _generated(session, spec.seed, session.generator.resolution)
    faces = session.new_finder().find(np.round(image * 255).astype(np.uint8), 0.0)
    mesh = faces[0].mesh_xyz if faces else None
    return image, None if mesh is None else mesh / image.shape[0]


def _generated(session: Session, seed: int, size: int) -> NDArray[np.float32]:
    generator = session.generator
    w_plus = generator.sample(seed, psi=_PSI)[:, None].repeat(1, generator.n_styles, 1)
    image = generator.synthesize(w_plus, size=size)[0]
    return ((image.clamp(-1, 1) + 1) / 2).permute(1, 2, 0).cpu().numpy()


@torch.no_grad()
def synthetic_distractors(
    session: Session,
    judges: Judges,
    count: int,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> Embedding:
    """dlib embeddings ``[count, 128]`` of people that do not exist, seeded, computed once.

    They are made by the generator at a quarter of its resolution where it has a head for that
    (the network looks at 150 px), in blocks of fifty that are kept in the cache folder.
    """
    if count < 1:
        raise UsageError(f"--distractors: expected at least 1, got {count}")
    generator = session.generator
    size = 256 if "256" in getattr(generator, "heads", {}) else generator.resolution
    block = 50
    found: list[Embedding] = []
    for start in range(0, count, block):
        key = {
            "version": 1, "generator": generator.identifier, "network": "dlib-resnet",
            "seed": _DISTRACTOR_SEED + start, "count": block, "psi": _PSI, "size": size,
        }  # fmt: skip
        entry = session.cache.get("distractors", key)
        if entry is None:
            rows = []
            for seed in range(_DISTRACTOR_SEED + start, _DISTRACTOR_SEED + start + block):
                rows.append(judges.first(_generated(session, seed, size)))
                if progress is not None:
                    progress("distractors", start + len(rows), -(-count // block) * block)
            entry = {"embedding": np.stack(rows)}
            session.cache.put("distractors", key, entry)
        found.append(entry["embedding"])
    return np.concatenate(found)[:count]


def folder_distractors(session: Session, judges: Judges, folder: Path) -> tuple[Embedding, list[str]]:
    """dlib embeddings of the people in a folder of photos, and notes on what was left out.

    :raises InputError: the folder cannot be read, or holds no photo of one face.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give --distractors a folder of photos")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _PICTURES)
    rows, skipped = [], []
    for file in files:
        try:
            aligned = source_crop(session, parse_source(str(file)))
        except (NoFaceError, InputError) as error:
            log.info("distractor left out: %s", error)
            skipped.append(file.name)
            continue
        rows.append(judges.first(aligned.image))
    if not rows:
        raise InputError(f"{folder}: none of {len(files)} pictures shows just one face")
    notes = [f"{len(skipped)} of {len(files)} distractors show no single face"] if skipped else []
    return np.stack(rows), notes

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

from vidswap import weights
from vidswap.cache import JSON
from vidswap.errors import InputError, NoFaceError, UsageError, did_you_mean
from vidswap.identities import source_crop, to_tensor
from vidswap.landmarks import keypoints_from_mesh
from vidswap.models.judge_arcface import CHIP_SIZE, ArcFaceJudge, chip_quad, find_default
from vidswap.models.judge_tfjs import RECIPES, TfjsIdentity
from vidswap.records import AlignedCrop
from vidswap.session import Session
from vidswap.sources import SourceSpec, parse_source, parse_sources
from vidswap.warp import crop as cut

log = logging.getLogger(__name__)

Embedding = NDArray[np.float32]

_DISTRACTOR_SEED = 1_000_000
"""Seeds of the distractors start here, out of the way of ``synthetic:SEED`` sources."""
_PSI = 0.7
_TEACHER = "mobileface"
_PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


def open_judge(judge: str | Path | None) -> ArcFaceJudge | TfjsIdentity | None:
    """The second network.

    :param judge: the name of an optional network (``faceres``), or file or folder of ArcFace; None takes
        what is on this machine already: ArcFace as insightface keeps it, else ``faceres``, else none.
    :raises WeightsError: it is not there, or damaged. :raises UsageError: neither a name nor a path.
    """
    if judge is None:
        found = find_default()
        if found is not None:
            return ArcFaceJudge(found)
        judge = "faceres" if weights.available("faceres") else None
    if judge is None:
        return None
    if str(judge) in RECIPES and not Path(judge).exists():
        return TfjsIdentity.load(str(judge), weights.locate(str(judge)))
    if not Path(judge).exists():
        hint = did_you_mean(str(judge), RECIPES, f"give {' or '.join(RECIPES)}, or an ArcFace .onnx file")
        raise UsageError(f"--judge {judge}: no such network, file or folder; {hint}")
    return ArcFaceJudge(Path(judge))


class Judges:
    """The networks that recognise people: dlib's, and a second one where there is one.

    :param judge: see :func:`open_judge`.
    """

    def __init__(self, session: Session, judge: str | Path | None = None) -> None:
        self._session = session
        self.second = open_judge(judge)
        if isinstance(self.second, TfjsIdentity):
            self.second.to(session.device)

    @property
    def flatter(self) -> bool:
        """Whether the second network taught the mixer, as the first did."""
        return isinstance(self.second, TfjsIdentity) and self.second.key == _TEACHER

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
        """Embedding ``[D]`` of the second network; None without it, or where ArcFace has no mesh.

        :param mesh: ``[468, 3]`` in [0, 1] of the picture.
        """
        if isinstance(self.second, TfjsIdentity):
            return self.second.embed_picture(image)
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
    """``[K, D]``; None without a second network."""


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
    if spec.seed is None:
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
    return _embed_synthetic(session, judges.first, "dlib-resnet", count, progress)


def _embed_synthetic(
    session: Session,
    embed: Callable[[NDArray[np.float32]], Embedding],
    network: str,
    count: int,
    progress: Callable[[str, int, int], None] | None,
) -> Embedding:
    if count < 1:
        raise UsageError(f"--distractors: expected at least 1, got {count}")
    generator = session.generator
    size = 256 if "256" in getattr(generator, "heads", {}) else generator.resolution
    block = 50
    found: list[Embedding] = []
    for start in range(0, count, block):
        key: dict[str, JSON] = {
            "version": 1, "generator": generator.identifier, "network": network,
            "seed": _DISTRACTOR_SEED + start, "count": block, "psi": _PSI, "size": size,
        }  # fmt: skip
        entry = session.cache.get("distractors", key)
        if entry is None:
            rows = []
            for seed in range(_DISTRACTOR_SEED + start, _DISTRACTOR_SEED + start + block):
                rows.append(embed(_generated(session, seed, size)))
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
    return _embed_folder(session, judges.first, folder)


def second_distractors(
    session: Session,
    judges: Judges,
    chosen: int | Path,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> Embedding | None:
    """The same people as the second network sees them, ``[count, D]``.

    None without a second network, and for ArcFace, whose crop needs landmarks of every picture.
    """
    second = judges.second
    if not isinstance(second, TfjsIdentity):
        return None
    if isinstance(chosen, Path):
        return _embed_folder(session, second.embed_picture, chosen)[0]
    network = f"{second.key}-{weights.status(second.key).sha256[:16]}"
    return _embed_synthetic(session, second.embed_picture, network, chosen, progress)


def _embed_folder(
    session: Session, embed: Callable[[NDArray[np.float32]], Embedding], folder: Path
) -> tuple[Embedding, list[str]]:
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
        rows.append(embed(aligned.image))
    if not rows:
        raise InputError(f"{folder}: none of {len(files)} pictures shows just one face")
    notes = [f"{len(skipped)} of {len(files)} distractors show no single face"] if skipped else []
    return np.stack(rows), notes

#!/usr/bin/env python3
"""How well mixers work on inverted real faces, beside no swap and the layer-wise mixer, in one run.

    python tools/measure_swaps.py FOLDER_OF_PHOTOS CLIP [CLIP ...] [--frames 2] [--pairs 24]

Sources are the photos; targets are the photos and frames of the clips; pairs are those whose identity
distance is at least 0.7. All figures are of the frame after paste-back: identity distance (dlib network,
which took part in the training) to the source's photo, retrieval of the source among synthetic people, and
what should stay the target's: pose, expression (mesh after Procrustes, in inter-ocular distances), opening of
the mouth and the eyes, gaze. With ``--judge faceres`` (``vidswap weights fetch judge``) also by a network
that took no part: cosine to the source's photo and to the target, retrieval, and how often the source is
nearer than the target. ``--strengths 0,0.5,1`` compares strengths of the default in place of the methods.
``--same`` takes pairs of one person instead, a face onto itself among them: it should stay that person.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vidswap import warp, weights
from vidswap.errors import NoFaceError
from vidswap.identities import SourceIdentity, prepare_source, source_crop, to_tensor
from vidswap.mixing import make_mixer
from vidswap.models import aligned_mesh as shape
from vidswap.models.aligned_mesh import AlignedMesh
from vidswap.models.judge_tfjs import RECIPES, TfjsIdentity
from vidswap.records import Frame
from vidswap.regenerate import Regenerate, SeatFaces
from vidswap.session import Session
from vidswap.settings import load_config
from vidswap.sources import parse_source
from vidswap.stages import CropFaces, FindFaces, InvertFaces, PasteFaces, Selection
from vidswap.video import grab_frame, open_frames, probe, read_region
from vidswap.witnesses import SeeOccluders
from vidswap.works import Work

_PHOTOS = (".jpg", ".jpeg", ".png", ".webp")
_APART, _SAME = 0.7, 0.5
"""Identity distance from which people are two, and up to which they are one: photos of one are 0.35 apart
on average."""
METHODS = {
    "no swap": ["mix.strength=0", "mix.refine_steps=0", "mix.mixer=layers"],
    "layers 5-13": ["mix.refine_steps=0", "mix.mixer=layers"],
    "gated": ["mix.refine_steps=0", "mix.mixer=gated"],
    "gated, refined (default)": ["mix.mixer=gated"],
}


def variant(session: Session, preset: str, overrides: list[str]) -> Session:
    """The same networks with other settings of mixing."""
    config, _ = load_config(preset=preset, overrides=overrides)
    other = Session(config)
    for name in ("device", "generator", "identity", "meshes", "encoder", "cache"):
        other.__dict__[name] = getattr(session, name)
    other.__dict__["mixer"] = make_mixer(
        config.mix, session.generator.n_styles,
        locate=weights.locate, available=weights.available, device=session.device,
    )  # fmt: skip
    return other


def target_frames(photos: list[Path], clips: list[Path], count: int) -> list[tuple[str, Frame]]:
    found = []
    for path in photos:
        with open_frames(path) as frames:
            found.append((path.stem, next(iter(frames))))
    for clip in clips:
        seconds = probe(clip).duration_seconds or 0.0
        for at in np.linspace(0, seconds, count + 2)[1:-1]:
            found.append((clip.stem, grab_frame(clip, float(at))))
    return found


def inverted(session: Session, frame: Frame) -> Work:
    nobody = SourceIdentity("nobody", torch.zeros(0), torch.zeros(0))
    find = FindFaces(session, session.new_finder(), Selection("largest", nobody))
    return InvertFaces(session)(CropFaces(session.config.composite)(find(frame)))


class Judge:
    """Measures of a pasted face beside its target."""

    def __init__(self, session: Session, distractors: int, second: str | None) -> None:
        self.session = session
        self.second = TfjsIdentity.load(second, weights.locate(second)) if second else None
        self.meshes = AlignedMesh.load(weights.locate)
        self._embed_people(distractors)

    @torch.no_grad()
    def _embed_people(self, count: int) -> None:
        """The gallery as each network sees it."""
        generator, identity = self.session.generator, self.session.identity
        first, second = [], []
        for seed in range(count):
            code = generator.sample(700_000 + seed, psi=0.8)[:, None].expand(1, generator.n_styles, -1)
            picture = generator.synthesize(code, size=128)
            first.append(identity.embed_aligned(picture))
            if self.second is not None:
                second.append(self.second.embed_aligned((picture.clamp(-1, 1) + 1) / 2))
        self.gallery = torch.cat(first)
        self.second_gallery = torch.cat(second) if second else None

    def look(self, photo: Path) -> torch.Tensor:
        """The second network's embedding of a source's photo; empty without that network."""
        if self.second is None:
            return torch.zeros(0)
        aligned = source_crop(self.session, parse_source(str(photo)))
        return torch.from_numpy(self.second.embed_picture(aligned.image))

    @torch.no_grad()
    def _second_opinion(self, source: torch.Tensor, target: np.ndarray, made: np.ndarray) -> dict[str, float]:
        if self.second is None:
            return {}
        new, old = (torch.from_numpy(self.second.embed_picture(image)) for image in (made, target))
        to_source = float(source @ new)
        return {
            "judge: source": to_source,
            "judge: target": float(old @ new),
            "judge: top-1": float(to_source > float((self.second_gallery @ new).max())),
            # Whether the swap is nearer to the source than to the person it replaced.
            "judge: won": float(to_source > float(old @ new)),
        }

    @torch.no_grad()
    def __call__(
        self, source: SourceIdentity, photo: torch.Tensor, target: np.ndarray, made: np.ndarray
    ) -> dict[str, float]:
        old, new = to_tensor(target, "cpu"), to_tensor(made, "cpu")
        embedding = self.session.identity.embed_aligned(new)
        away = float((embedding - source.embedding).norm())
        others = (self.gallery - embedding).norm(dim=1)
        (mesh, _, iris), (mesh2, _, iris2) = self.meshes(old), self.meshes(new)
        turn = shape.rotation_angle_degrees(shape.head_rotation(mesh), shape.head_rotation(mesh2))
        expression = shape.expression_vector(mesh) - shape.expression_vector(mesh2)
        return {
            "identity": away,
            "top-1": float(away < float(others.min())),
            **self._second_opinion(photo, target, made),
            "pose °": float(turn),
            "expression": float(expression.view(-1, 2).norm(dim=1).mean()),
            "mouth": float((shape.mouth_opening(mesh) - shape.mouth_opening(mesh2)).abs()),
            "eyes": float((shape.eye_aspect(mesh) - shape.eye_aspect(mesh2)).abs().mean()),
            "gaze": float((shape.gaze(mesh, iris) - shape.gaze(mesh2, iris2)).norm(dim=-1).mean()),
        }


def swapped(session: Session, work: Work, source: SourceIdentity) -> np.ndarray:
    """The target's crop after paste-back, ``[512, 512, 3]``."""
    face = replace(work.faces[0], source=source)
    drawn = Regenerate(session)(SeeOccluders(session)(work.with_faces([face])))
    frame, _ = PasteFaces(session.config)(SeatFaces(session.config)(drawn))
    box = (0, 0, *frame.upright_size_wh)
    image, _ = warp.crop(read_region(frame, box), face.quad / frame.display_scale_xy, face.crop.size)
    return image


def report(totals: dict[str, list[dict]], rows: list[np.ndarray], sheet: Path | None) -> None:
    """Print the means of each method's measures, in Markdown, and save rows of pictures ``[h, w, 3]`` in
    [0, 1], one under the other, where a sheet is asked for."""
    keys = list(next(iter(totals.values()))[0])
    print("| method | " + " | ".join(keys) + " |\n|---" + "|---" * len(keys) + "|")
    for name, found in totals.items():
        print(f"| {name} | " + " | ".join(f"{np.mean([r[k] for r in found]):.3f}" for k in keys) + " |")
    if sheet:
        pixels = (np.concatenate(rows, axis=0).clip(0, 1) * 255 + 0.5).astype(np.uint8)
        Image.fromarray(pixels).save(sheet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("clips", type=Path, nargs="*")
    parser.add_argument("--frames", type=int, default=2, help="frames of each clip")
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--distractors", type=int, default=200)
    parser.add_argument("--judge", choices=sorted(RECIPES), help="a second identity network")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--sheet", type=Path, help="target, then each method, a row a pair")
    parser.add_argument("--strengths", metavar="A,B,...", help="the default at these, not the methods")
    parser.add_argument("--same", action="store_true", help="pairs of one person, not of two")
    options = parser.parse_args()
    methods = METHODS
    if options.strengths:
        methods = {f"strength {text}": [f"mix.strength={text}"] for text in options.strengths.split(",")}
    config, _ = load_config(preset=options.preset, overrides=options.set)
    session = Session(config)
    photos = sorted(p for p in options.photos.iterdir() if p.suffix.lower() in _PHOTOS)
    sources = []
    for path in photos:
        try:
            sources.append((prepare_source(session, [str(path)]), path))
        except NoFaceError as error:
            print(f"left out: {error}")
    works = [
        (name, work)
        for name, frame in target_frames(photos, options.clips, options.frames)
        if (work := inverted(session, frame)).faces
    ]
    judge = Judge(session, options.distractors, options.judge)
    photos_seen = {path: judge.look(path) for _, path in sources}
    pairs = []
    for (name, work), (source, path) in product(works, sources):
        with torch.no_grad():
            own = session.identity.embed_aligned(to_tensor(work.faces[0].crop.image, "cpu"))
        away = float((own - source.embedding).norm())
        if away < _SAME if options.same else away >= _APART:
            pairs.append((name, work, source, photos_seen[path]))
    order = np.random.default_rng(5).permutation(len(pairs))[: options.pairs]
    pairs = [pairs[i] for i in sorted(order)]
    variants = {
        name: variant(session, options.preset, [*options.set, *changes]) for name, changes in methods.items()
    }
    totals: dict[str, list[dict]] = {name: [] for name in variants}
    rows = []
    for _name, work, source, photo in pairs:
        target = work.faces[0].crop.image
        pictures = [target]
        for name, other in variants.items():
            pictures.append(swapped(other, work, source))
            totals[name].append(judge(source, photo, target, pictures[-1]))
        rows.append(np.concatenate(pictures, axis=1))
    print(f"{len(pairs)} pairs, {options.distractors} distractors")
    report(totals, rows, options.sheet)


if __name__ == "__main__":
    main()

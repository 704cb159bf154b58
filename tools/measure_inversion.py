#!/usr/bin/env python3
"""How well inverted faces look like the person: photos, and frames spread over clips.

    python tools/measure_inversion.py FOLDER_OF_PHOTOS CLIP [CLIP ...] [--frames 20] [--sheet sheet.png]

Prints a table: identity distance (dlib network, L2) of the inversion to the picture it was made from, and
PSNR in the visible face (inside the mesh's outline, less what is in front of it) at 256 and 512 px, all
of the full-resolution picture. ``--tune`` adds pivotal tuning on each clip's keyframes and how far it
moves 16 random people. ``--sheet`` writes face and inversion side by side.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vidswap.compositing.arrays import resize_map
from vidswap.errors import NoFaceError
from vidswap.identities import SourceIdentity, source_crop, to_image, to_tensor, visible_face
from vidswap.inversion import tune_generator
from vidswap.inversion.losses import face_psnr, fit_target
from vidswap.models.rgb_head import area_downsample
from vidswap.records import AlignedCrop
from vidswap.session import Session
from vidswap.settings import load_config
from vidswap.sources import parse_source
from vidswap.stages import CropFaces, FindFaces, Selection
from vidswap.video import grab_frame, probe
from vidswap.witnesses import seen_maps, uncovered, with_occluders
from vidswap.works import SMALL_SIZE, FaceWork

_PHOTOS = (".jpg", ".jpeg", ".png", ".webp")


def photo_crops(session: Session, folder: Path) -> list[AlignedCrop]:
    crops = []
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in _PHOTOS):
        try:
            crops.append(source_crop(session, parse_source(path)))
        except NoFaceError as error:
            print(f"left out: {error}")
    return crops


def clip_crops(session: Session, clip: Path, count: int) -> list[AlignedCrop]:
    """The largest face of frames spread evenly over a clip."""
    seconds = probe(clip).duration_seconds or 0.0
    nobody = SourceIdentity("nobody", torch.zeros(0), torch.zeros(0))
    crops = []
    for at in np.linspace(0, seconds, count + 2)[1:-1]:
        find = FindFaces(session, session.new_finder(), Selection("largest", nobody))
        work = CropFaces(session.config.composite)(find(grab_frame(clip, float(at))))
        crops += [face.crop for face in work.faces]
    return crops


def measure(session: Session, crops: list[AlignedCrop], steps: int) -> tuple[np.ndarray, list, list]:
    """Rows ``[n, 3]`` of identity distance, PSNR at 256 and at 512 px; the codes; pairs of pictures."""
    rows, codes, pairs = [], [], []
    for crop in crops:
        image = to_tensor(crop.image, session.device)
        work = as_seen(session, crop)
        seen = seen_maps(work, session.device)
        pivot = session.inverter.first(image, **seen, steps=steps)
        code = torch.from_numpy(pivot.latent)[None].to(session.device)
        row, made = judge(session, session.generator, image, code, uncovered(work, session.device))
        rows.append(row)
        codes.append(code)
        pairs.append((crop.image, made))
    return np.array(rows), codes, pairs


def as_seen(session: Session, crop: AlignedCrop) -> FaceWork:
    """A crop as a run works on it, with what it finds in front of it."""
    small = resize_map(crop.image, SMALL_SIZE)
    face = FaceWork(None, crop.quad_xy, None, crop=crop, small=small, visible=visible_face(crop, 128))
    return with_occluders(face, session)


def bare_face(session: Session, crop: AlignedCrop) -> torch.Tensor:
    """Where a crop shows the face itself, ``[1, 1, 128, 128]``, as a run sees it."""
    return uncovered(as_seen(session, crop), session.device)


@torch.no_grad()
def judge(session: Session, generator, image: torch.Tensor, code: torch.Tensor, face: torch.Tensor):
    made = generator.synthesize(code)
    away = session.identity.embed_aligned(made) - session.identity.embed_aligned(image)
    psnr = []
    for size in (256, 512):
        target = fit_target(area_downsample(image, size), session.identity)
        here = torch.nn.functional.interpolate(face, (size, size), mode="bilinear").clamp(0, 1)
        psnr.append(face_psnr(area_downsample(made, size), target, here))
    return (float(away.norm()), *psnr), to_image(area_downsample(made, 512))


def tuned_row(session: Session, name: str, crops: list[AlignedCrop], codes: list, steps: int) -> str:
    """Tuning on six of the frames, judged on all of them."""
    config = replace(session.config.inversion, tune_steps=steps)
    images = [to_tensor(crop.image, session.device) for crop in crops]
    picks = range(0, len(images), max(1, len(images) // 6))
    tuned, report = tune_generator(
        session.full_generator, session.identity,
        [images[i] for i in picks], [codes[i] for i in picks], config=config,
    )  # fmt: skip
    bare = [bare_face(session, crop) for crop in crops]
    judged = [judge(session, tuned, *one)[0] for one in zip(images, codes, bare, strict=True)]
    rows = np.array(judged)
    return f"{row_start(name + ', tuned', rows)} {report.drift:.3f} |"


def row_start(name: str, rows: np.ndarray) -> str:
    away, small, large = rows.mean(0)
    return f"| {name} | {len(rows)} | {away:.3f} | {small:.1f} | {large:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("clips", type=Path, nargs="*")
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--tune", type=int, default=0, metavar="STEPS")
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    config, _ = load_config(preset=options.preset, overrides=options.set)
    session = Session(config)
    groups = {"photos": (photo_crops(session, options.photos), config.mix.source_steps)}
    for clip in options.clips:
        groups[clip.stem] = (clip_crops(session, clip, options.frames), config.inversion.first_steps)
    print("| faces | n | identity distance | PSNR dB, 256 px | PSNR dB, 512 px | moved by tuning |")
    print("|---|---|---|---|---|---|")
    pictures = []
    for name, (crops, steps) in groups.items():
        rows, codes, pairs = measure(session, crops, steps)
        print(row_start(name, rows) + " |", flush=True)
        if options.tune and name != "photos":
            print(tuned_row(session, name, crops, codes, options.tune), flush=True)
        pictures += pairs[:: max(1, len(pairs) // 7)]
    if options.sheet:
        rows = [np.concatenate(pair, axis=0) for pair in pictures]
        sheet = np.concatenate(rows, axis=1)
        Image.fromarray((sheet.clip(0, 1) * 255 + 0.5).astype(np.uint8)).save(options.sheet)


if __name__ == "__main__":
    main()

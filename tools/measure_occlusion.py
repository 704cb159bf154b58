#!/usr/bin/env python3
"""Whether what is in front of a face stays there, against outlines drawn by hand.

    python tools/measure_occlusion.py CLIP OUTPUT          # a swap of the clip: what became of the occluder
    python tools/measure_occlusion.py CLIP --source synthetic:7   # swaps the outlined frames alone
    python tools/measure_occlusion.py CLIP --mask-only     # the predicted masks, no source needed
    python tools/measure_occlusion.py CLIP --mask-only --quiet-on OTHER [OTHER ...]

The outlines (``tests/golden/occluders_woman_hand.json``) say which clip they belong to by its SHA-256. Of an
output: the mean absolute difference to the clip inside the outlines, 0 to 255, and the share of them that
changed by more than 8. Of masks: IoU, recall and precision inside the face, for the inversion's residual
alone, the network alone, and both together, each frame on its own (nothing smoothed over time).
``--quiet-on``: clips or photos with nothing in front of the face; the share of the face's mask that is taken
out, and the worst. Hair over the edge of the face is not outlined, and counts against precision.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from vidswap import warp
from vidswap.compositing import combine, residual_occlusion
from vidswap.identities import SourceIdentity, prepare_source, to_image
from vidswap.records import Frame
from vidswap.regenerate import Regenerate, SeatFaces
from vidswap.session import Session
from vidswap.settings import load_config
from vidswap.stages import CropFaces, FindFaces, InvertFaces, PasteFaces, Selection
from vidswap.video import open_frames, read_rgb8
from vidswap.witnesses import SeeOccluders, with_occluders
from vidswap.works import FaceWork

OUTLINES = Path(__file__).resolve().parent.parent / "tests" / "golden" / "occluders_woman_hand.json"
WITNESSES = ("residual", "network", "combined")
_FINE = 4
_COVERED = 0.5


def outline_mask(polygons: list, size_wh: tuple[int, int]) -> np.ndarray:
    """Cover ``[h, w]`` in [0, 1] of polygons in frame coordinates."""
    picture = Image.new("L", (size_wh[0] * _FINE, size_wh[1] * _FINE))
    for polygon in polygons:
        ImageDraw.Draw(picture).polygon([(x * _FINE, y * _FINE) for x, y in polygon], fill=255)
    return np.asarray(picture.reduce(_FINE), np.float32) / 255


def chosen_frames(clip: Path, indices: set[int]) -> dict[int, Frame]:
    """Frames by number from 0."""
    found: dict[int, Frame] = {}
    with open_frames(clip) as frames:
        for frame in frames:
            if frame.index in indices:
                found[frame.index] = frame
            if frame.index >= max(indices):
                break
    return found


class Witnesses:
    """What each of them sees in front of the largest face of a frame.

    :param steps: of the inversion behind the residual; 0 leaves the residual out, which is many times faster.
    """

    def __init__(self, steps: int) -> None:
        config, _ = load_config(overrides={"inversion.first_steps": max(steps, 1), "mix.refine_steps": 0})
        self.steps = steps
        self.session = Session(config)
        nobody = SourceIdentity("nobody", torch.zeros(0), torch.zeros(0))
        finder = self.session.new_finder()
        self.find = FindFaces(self.session, finder, Selection("largest", nobody))
        self.crop = CropFaces(replace(config.composite, occlusion=True))

    @torch.no_grad()
    def __call__(self, frame: Frame) -> tuple[FaceWork, dict[str, np.ndarray]] | None:
        work = self.crop(self.find(frame))
        if not work.faces:
            return None
        residual = None
        if self.steps:
            with torch.enable_grad():  # each frame as the first of its track
                work = InvertFaces(self.session)(work)
            code = torch.from_numpy(work.faces[0].pivot.latent)[None].to(self.session.device)
            drawn = to_image(self.session.generator.synthesize(code, size=128))
            crop = work.faces[0].crop
            residual = residual_occlusion(crop.image, drawn, work.faces[0].solid, mesh_xyz=crop.mesh_xyz)
        face = work.faces[0]
        network = with_occluders(face, self.session).occluded
        maps = {"residual": residual, "network": network, "combined": combine(residual, network)}
        size = face.solid.shape[0]
        return face, {
            name: np.asarray(Image.fromarray(one).resize((size, size), Image.Resampling.BILINEAR))
            for name, one in maps.items()
            if one is not None
        }


def measure_masks(clip: Path, outlines: dict, steps: int, sheet: Path | None) -> None:
    witnesses = Witnesses(steps)
    wanted = {entry["index"]: entry["polygons"] for entry in outlines["frames"]}
    counts = {name: np.zeros(3) for name in WITNESSES}
    rows = []
    for index, frame in sorted(chosen_frames(clip, set(wanted)).items()):
        seen = witnesses(frame)
        if seen is None:
            print(f"frame {index}: no face")
            continue
        face, maps = seen
        size = face.solid.shape[0]
        cover = outline_mask(wanted[index], frame.display_size_wh)
        truth, _ = warp.crop(np.repeat(cover[..., None], 3, 2), face.quad, size, mode="bilinear")
        truth = truth[..., 0] > 0.5
        inside = face.solid > 0.5
        figures = []
        for name, one in maps.items():
            said = one > _COVERED
            hit, wrong, missed = (
                float((part & inside).sum()) for part in (said & truth, said & ~truth, ~said & truth)
            )
            counts[name] += (hit, wrong, missed)
            figures.append(f"{name} {hit / max(hit + wrong + missed, 1):.2f}")
        print(f"frame {index}: IoU {', '.join(figures)}")
        rows.append(_row(face, [truth & inside, *(maps[n] * inside for n in WITNESSES if n in maps)]))
    print(f"{'':10s}    IoU  recall  precision")
    for name, (hit, wrong, missed) in counts.items():
        if hit + wrong + missed:
            iou, recall = hit / (hit + wrong + missed), hit / max(hit + missed, 1)
            print(f"{name:10s} {iou:6.3f} {recall:7.3f} {hit / max(hit + wrong, 1):10.3f}")
    if sheet is not None:
        Image.fromarray(np.concatenate(rows)).save(sheet)


def _row(face: FaceWork, maps: list[np.ndarray], side: int = 192) -> np.ndarray:
    """Crop, then each map in red over it."""
    cells = [face.crop.image]
    for one in maps:
        share = 0.6 * np.asarray(one, np.float32)[..., None]
        cells.append(face.crop.image * (1 - share) + share * np.array([1.0, 0.0, 0.0]))
    eight_bit = [Image.fromarray((cell.clip(0, 1) * 255).astype(np.uint8)) for cell in cells]
    return np.concatenate([np.asarray(one.resize((side, side))) for one in eight_bit], 1)


def measure_quiet(paths: list[Path], every: int, steps: int, sheet: Path | None) -> None:
    """False alarms, where nothing is in front of the face."""
    rows = []
    for path in paths:
        witnesses = Witnesses(steps)
        shares: dict[str, list[float]] = {name: [] for name in WITNESSES}
        with open_frames(path) as frames:
            for frame in frames:
                if frame.index % every:
                    continue
                seen = witnesses(frame)
                if seen is None:
                    continue
                face, maps = seen
                inside = face.solid > 0.5
                for name, one in maps.items():
                    shares[name].append(float((one * inside).sum() / inside.sum()))
                rows.append(_row(face, [maps[n] * inside for n in WITNESSES if n in maps]))
        told = [f"{n} {np.mean(s):.1%} (worst {np.max(s):.1%})" for n, s in shares.items() if s]
        count = max(len(s) for s in shares.values())
        print(f"{path.stem}: {count} frames; taken out of the face: {', '.join(told)}")
    if sheet is not None and rows:
        Image.fromarray(np.concatenate(rows)).save(sheet)


def measure_source(clip: Path, source: str, outlines: dict, steps: int, sheet: Path | None) -> None:
    """Swap each outlined frame on its own, with and without the network."""
    wanted = {entry["index"] for entry in outlines["frames"]}
    before = chosen_frames(clip, wanted)
    witnesses = Witnesses(max(steps, 1))
    session = witnesses.session
    person = prepare_source(session, [source])
    after: dict[str, dict[int, Frame]] = {"with the network": {}, "without": {}}
    for index, frame in sorted(before.items()):
        work = InvertFaces(session)(witnesses.crop(witnesses.find(frame)))
        work = work.with_faces(replace(face, source=person) for face in work.faces)
        work = SeatFaces(session.config)(Regenerate(session)(SeeOccluders(session)(work)))
        after["with the network"][index], _ = PasteFaces(session.config)(work)
        blind = work.with_faces(replace(face, occluded=None) for face in work.faces)
        after["without"][index], _ = PasteFaces(session.config)(blind)
    for name, frames in after.items():
        print(f"-- {name}")
        compare(before, frames, outlines)
    if sheet is not None:
        parts = [before, after["without"], after["with the network"]]
        rows = [np.concatenate([read_rgb8(part[i])[0] for part in parts], 1) for i in sorted(before)]
        Image.fromarray(np.concatenate(rows)).save(sheet)


def measure_output(clip: Path, output: Path, outlines: dict) -> None:
    wanted = {entry["index"] for entry in outlines["frames"]}
    compare(chosen_frames(clip, wanted), chosen_frames(output, wanted), outlines)


def compare(before: dict[int, Frame], after: dict[int, Frame], outlines: dict) -> None:
    """Differences inside the outlines and outside of them, of 255."""
    wanted = {entry["index"]: entry["polygons"] for entry in outlines["frames"]}
    totals = []
    for index, frame in sorted(before.items()):
        one, _ = read_rgb8(frame)
        two, _ = read_rgb8(after[index])
        cover = outline_mask(wanted[index], frame.display_size_wh)
        apart = np.abs(one.astype(np.float32) - two.astype(np.float32)).mean(2)
        bare = float((apart * (1 - cover)).sum() / (1 - cover).sum())
        inside = float((apart * cover).sum() / cover.sum())
        changed = cover * (apart > 8)
        share = float(changed.sum() / cover.sum())
        totals.append((inside, share))
        print(f"frame {index}: inside {inside:.2f}, outside {bare:.2f}, changed by more than 8: {share:.1%}")
    mean = np.mean(totals, axis=0)
    print(f"mean difference inside the occluder {mean[0]:.2f} of 255; changed by more than 8: {mean[1]:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("output", type=Path, nargs="?")
    parser.add_argument("--source", help="photo or synthetic:SEED to swap the outlined frames with")
    parser.add_argument("--mask-only", action="store_true")
    parser.add_argument("--quiet-on", type=Path, nargs="+", default=[], metavar="OTHER")
    parser.add_argument("--every", type=int, default=60, help="of the others, one frame in so many")
    parser.add_argument("--steps", type=int, default=20, help="of the inversion; 0: the network alone")
    parser.add_argument("--sheet", type=Path, help="draw crops and maps to this PNG")
    parser.add_argument("--outlines", type=Path, default=OUTLINES)
    options = parser.parse_args()
    if options.quiet_on:
        measure_quiet(options.quiet_on, options.every, options.steps, options.sheet)
        return
    outlines = json.loads(options.outlines.read_text(encoding="utf-8"))
    found = hashlib.sha256(options.clip.read_bytes()).hexdigest()
    if found != outlines["clip_sha256"]:
        parser.error(f"{options.clip.name} is not the outlined clip: its SHA-256 is {found}")
    if options.source:
        measure_source(options.clip, options.source, outlines, options.steps, options.sheet)
    elif options.mask_only:
        measure_masks(options.clip, outlines, options.steps, options.sheet)
    elif options.output is None:
        parser.error("give the OUTPUT of a swap, --source, or --mask-only")
    else:
        measure_output(options.clip, options.output, outlines)


if __name__ == "__main__":
    main()

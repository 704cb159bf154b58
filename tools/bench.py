#!/usr/bin/env python3
"""What a swap costs: seconds a frame by stage and peak memory, beside two baselines in the same run.

    python tools/bench.py CLIP SOURCE [--frames 50] [--preset default] [--cold-frames 2]

Baselines: decoding and encoding the same frames alone, and cold-start inversion: every frame fitted from
the mean latent at the generator's full resolution (as PTI does, Roich et al., 2106.05744) until its face
reaches the PSNR that the warm start gave it. Each part runs in a process of its own, so that peak memory is
its own. Machines are noisy: read the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from vidswap.identities import prepare_source, to_tensor
from vidswap.inversion.fit import fit_pivot
from vidswap.inversion.losses import face_psnr, fit_target
from vidswap.memory import peak_memory_mb
from vidswap.models.rgb_head import area_downsample
from vidswap.pipeline import Swapper
from vidswap.settings import load_config
from vidswap.stages import CropFaces, FindFaces, InvertFaces, Selection
from vidswap.video import open_frames, open_writer, probe


def part_codec(options: argparse.Namespace) -> dict:
    """Decode and encode, nothing else."""
    config, _ = load_config(preset=options.preset, overrides=options.set)
    info = probe(options.clip)
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with (
            open_frames(options.clip, info=info) as frames,
            open_writer(Path(folder) / "out.mp4", info, config.video) as writer,
        ):
            for frame in islice(frames, options.frames):
                writer.write(frame)
                count += 1
        seconds = time.perf_counter() - started
    return {"frames": count, "seconds_per_frame": seconds / count, "peak_memory_mb": peak_memory_mb()}


def part_swap(options: argparse.Namespace) -> dict:
    """The whole pipeline; networks are loaded and the source is inverted before the clock starts."""
    config, _ = load_config(preset=options.preset, overrides=options.set)
    swapper = Swapper(config)
    info = probe(options.clip)
    selection = Selection(config.faces.select, swapper.source(options.source))
    swapper.session.encoder, swapper.session.mixer  # noqa: B018 - loaded before the clock starts
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with (
            open_frames(options.clip, info=info) as frames,
            swapper.frames(islice(frames, options.frames), selection) as results,
            open_writer(Path(folder) / "out.mp4", info, config.video) as writer,
        ):
            for frame, _faces in results:
                writer.write(frame)
                count += 1
                if count == 1:
                    first = time.perf_counter()
            stages = {stat.name: stat.busy_seconds / count for stat in results.stats}
        ended = time.perf_counter()
    return {
        "frames": count,
        "seconds_per_frame": (ended - started) / count,
        "seconds_first_frame": first - started,
        "seconds_per_following_frame": (ended - first) / max(count - 1, 1),
        "stages": stages,
        "peak_memory_mb": peak_memory_mb(),
        "device": str(swapper.session.device),
    }


def part_inversion(options: argparse.Namespace) -> dict:
    """Warm start along the clip, and cold start to the same PSNR on frames spread over it."""
    config, _ = load_config(preset=options.preset, overrides=options.set)
    swapper = Swapper(config)
    session = swapper.session
    device = session.device
    source = prepare_source(session, [options.source])
    find = FindFaces(session, session.new_finder(), Selection("largest", source))
    crop, invert = CropFaces(config.composite), InvertFaces(session)
    rows, warm_seconds = [], []
    with open_frames(options.clip) as frames:
        for number, frame in enumerate(islice(frames, options.frames)):
            work = crop(find(frame))
            started = time.perf_counter()
            work = invert(work)
            warm_seconds.append(time.perf_counter() - started)
            if work.faces and number:
                rows.append(work.faces[0])
    picks = rows[:: max(1, len(rows) // max(options.cold_frames, 1))][: options.cold_frames]
    cold = [_cold(session, config, face, device, options.cold_steps) for face in picks]
    warm = float(np.median(warm_seconds[1:]))
    cold_seconds = float(np.mean([row["seconds"] for row in cold]))
    return {
        "warm_seconds_per_frame": warm,
        "cold_seconds_per_frame": cold_seconds,
        "cold_frames": cold,
        "ratio": cold_seconds / warm,
    }


def _cold(session, config, face, device, cap: int) -> dict:
    generator, identity = session.generator, session.identity
    image = to_tensor(face.crop.image, device)
    full = torch.nn.functional.interpolate(
        image, (generator.resolution,) * 2, mode="bicubic", align_corners=False
    ).clamp(-1, 1)
    target = fit_target(area_downsample(image, 512), identity)
    code = torch.from_numpy(face.pivot.latent)[None].to(device)
    with torch.no_grad():
        wanted = face_psnr(area_downsample(generator.synthesize(code), 512), target, target.weight)
    start = generator.w_avg.expand(1, generator.n_styles, -1)
    settings = replace(config.inversion, fast_size=generator.resolution)
    began = time.perf_counter()
    result = fit_pivot(
        generator, identity, full, start, config=settings, steps=0, full_steps=cap, target_psnr=wanted
    )
    return {
        "seconds": time.perf_counter() - began,
        "steps": result.steps,
        "psnr_wanted": wanted,
        "psnr_reached": result.psnr,
    }


PARTS: dict[str, Callable[[argparse.Namespace], dict]] = {
    "codec": part_codec,
    "swap": part_swap,
    "inversion": part_inversion,
}


def run_part(name: str, arguments: list[str]) -> dict:
    """A part in a process of its own."""
    with tempfile.NamedTemporaryFile("r", suffix=".json", delete=False) as file:
        path = file.name
    try:
        command = [sys.executable, __file__, *arguments, "--part", name, "--json", path]
        subprocess.run(command, check=True)
        return json.loads(Path(path).read_text())
    finally:
        with suppress(OSError):
            os.unlink(path)


def report(results: dict[str, dict]) -> str:
    codec, swap, inversion = results["codec"], results["swap"], results["inversion"]
    lines = [
        f"| part | seconds a frame | against decode + encode | peak MB |\n|---|---|---|---|\n"
        f"| decode + encode alone | {codec['seconds_per_frame']:.3f} | 1.0 | "
        f"{codec['peak_memory_mb']:.0f} |\n"
        f"| swap, all {swap['frames']} frames | {swap['seconds_per_frame']:.3f} | "
        f"{swap['seconds_per_frame'] / codec['seconds_per_frame']:.1f} | {swap['peak_memory_mb']:.0f} |\n"
        f"| swap, after the first frame | {swap['seconds_per_following_frame']:.3f} | "
        f"{swap['seconds_per_following_frame'] / codec['seconds_per_frame']:.1f} | |"
    ]
    lines.append("\nbusy seconds a frame by stage (stages overlap):")
    lines += [f"  {name:<16} {seconds:.3f}" for name, seconds in swap["stages"].items()]
    lines.append(
        f"\ninversion: warm {inversion['warm_seconds_per_frame']:.2f} s a frame, cold start to the same "
        f"PSNR {inversion['cold_seconds_per_frame']:.1f} s: {inversion['ratio']:.0f} times"
    )
    for row in inversion["cold_frames"]:
        lines.append(
            f"  cold: {row['steps']} steps, {row['seconds']:.1f} s, wanted {row['psnr_wanted']:.2f} dB, "
            f"reached {row['psnr_reached']:.2f} dB"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip")
    parser.add_argument("source")
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--cold-frames", type=int, default=2)
    parser.add_argument("--cold-steps", type=int, default=150, help="most steps of a cold start")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args()
    if options.part:
        results = PARTS[options.part](options)
        options.json.write_text(json.dumps(results))
        return
    arguments = [options.clip, options.source]
    for name in ("frames", "preset", "cold_frames", "cold_steps"):
        arguments += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    arguments += [part for text in options.set for part in ("--set", text)]
    results = {name: run_part(name, arguments) for name in PARTS}
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))
    print(report(results))


if __name__ == "__main__":
    main()

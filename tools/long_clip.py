#!/usr/bin/env python3
"""Shows what a long clip costs beside time: memory, open files and disk over the whole run.

    python tools/long_clip.py CLIP SOURCE [--minutes 10] [--limit MINUTES] [--set KEY=VALUE] [--csv FILE]

CLIP is inverted once, then repeated by stream copy until it is as long as asked for. Every face of the long
clip gets the latents of its frame in CLIP (``--latents``), so that the stage that costs most is a read from
disk; all others run as in any swap. A process of its own swaps the long clip, and once a second this one
looks at its memory (all of it, and without what only mirrors files), its open files, and its work folder:
finished chunks, and the rest (journal and states).

Prints the slopes, in MB per 1,000 frames by a linear fit after a warm-up of a tenth of the frames; exit code
1 when the swap failed. With --limit the run is stopped after that time and the figures are those of the
part. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from safetensors import safe_open

from vidswap.config import RunConfig
from vidswap.export_files import Column, TensorTable
from vidswap.exporting import export
from vidswap.identities import SourceIdentity
from vidswap.latent_files import read_latents
from vidswap.runs import input_key, work_folder
from vidswap.session import Session
from vidswap.settings import load_config
from vidswap.stages import FindFaces, Selection
from vidswap.video import open_frames, probe

WARM_UP = 0.1


@dataclass
class Sample:
    """What was seen at one moment."""

    seconds: float
    frames: int
    """In finished chunks."""
    resident_mb: float
    own_mb: float
    """Resident memory that mirrors no file."""
    open_files: int
    threads: int
    chunks_mb: float
    rest_mb: float
    """Of the work folder, beside the chunks: journal and states."""


def repeat(clip: Path, path: Path, seconds: float) -> int:
    """Write ``clip`` again and again, by stream copy, until it is ``seconds`` long; the number of times."""
    with av.open(str(clip)) as container:
        video = container.streams.video[0]
        ends = [p.pts + (p.duration or 0) for p in container.demux(video) if p.pts is not None]
        period = max(ends) * video.time_base
    times = max(1, round(seconds / period))
    with av.open(str(path), "w") as out:
        tracks: dict[int, av.stream.Stream] = {}
        last: dict[int, int] = {}
        for turn in range(times):
            with av.open(str(clip)) as container:
                streams = [s for s in container.streams if s.type in ("video", "audio")]
                for stream in streams:
                    if turn == 0:
                        tracks[stream.index] = out.add_stream_from_template(stream)
                for packet in container.demux(streams):
                    if packet.dts is None:
                        continue
                    offset = round(Fraction(turn) * period / packet.stream.time_base)
                    packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                    index = packet.stream.index
                    if packet.dts <= last.get(index, packet.dts - 1):
                        continue  # sound that runs on past the pictures
                    last[index] = packet.dts
                    packet.stream = tracks[index]
                    out.mux(packet)
    return times


def spread_latents(short: Path, long: Path, path: Path, config: RunConfig, folder: Path) -> int:
    """Latents of the short clip for every face of the long one; the number of its frames."""
    export(short, folder, what=("latents",), config=config, face="largest")
    made = folder / "latents.safetensors"
    latents = read_latents(made)
    with safe_open(made, "np") as file:
        metadata = dict(file.metadata())
    with open_frames(short) as frames:
        period = sum(1 for _ in frames)
    nearest = [int(np.abs(latents.frame - number).argmin()) for number in range(period)]
    info = probe(long)
    metadata["target"], metadata["time_base"] = input_key(info), str(info.time_base)
    index = [Column(name, "int64") for name in ("pts", "frame", "track")]
    rest = [Column("error", "float32"), Column("codes", "float32", latents.codes.shape[1:])]
    table = TensorTable(path, [*index, *rest])
    session = Session(config)
    anyone = SourceIdentity("anyone", torch.zeros(1, 0, 512), torch.zeros(1, 128))
    find = FindFaces(session, session.new_finder(), Selection("largest", anyone))
    with open_frames(long, info=info) as frames:
        for frame in frames:
            row = nearest[frame.index % period]
            for face in find(frame).faces:
                table.append(
                    pts=frame.pts, frame=frame.index, track=face.face.track_id, error=latents.error[row],
                    codes=latents.codes[row],
                )  # fmt: skip
            count = frame.index + 1
    table.finish(metadata)
    return count


def look(process: int, folder: Path, began: float) -> Sample | None:
    """One sample; None when the process or its folder is not there."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
        values = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        resident, mapped, shared = (
            int(values[name].split()[0]) / 1024 for name in ("VmRSS", "RssFile", "RssShmem")
        )
        files = len(os.listdir(f"/proc/{process}/fd"))
        sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
        lines = (folder / "journal.jsonl").read_bytes().split(b"\n")[:-1]
    except (OSError, KeyError):
        return None
    entries = [json.loads(line) for line in lines]
    frames = sum(entry["frames"] for entry in entries if entry["type"] == "chunk")
    chunks = sum(size for path, size in sizes.items() if path.name.startswith("chunk-"))
    return Sample(
        round(time.monotonic() - began, 1), frames, round(resident, 2), round(resident - mapped - shared, 2),
        files, int(values["Threads"]), round(chunks / 1e6, 3), round((sum(sizes.values()) - chunks) / 1e6, 3),
    )  # fmt: skip


def watched(command: list[str], output: Path, limit_seconds: float) -> tuple[list[Sample], int]:
    """Run the swap and look at it once a second; the samples and its exit code."""
    began = time.monotonic()
    samples: list[Sample] = []
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            time.sleep(1)
            sample = look(process.pid, work_folder(output), began)
            if sample is not None:
                samples.append(sample)
            if time.monotonic() - began > limit_seconds:
                process.send_signal(signal.SIGINT)
                process.wait(120)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return samples, process.returncode


def slope(samples: list[Sample], name: str) -> float:
    """Growth per 1,000 frames."""
    frames = np.array([sample.frames for sample in samples], float)
    values = np.array([getattr(sample, name) for sample in samples], float)
    return float(np.polyfit(frames, values, 1)[0] * 1000)


def table(samples: list[Sample], total: int) -> list[str]:
    """The figures in lines."""
    done = samples[-1].frames if samples else 0
    warm = [sample for sample in samples if sample.frames >= max(WARM_UP * done, 1)]
    if len({sample.frames for sample in warm}) < 3:
        return [f"{done} of {total} frames: too few for a slope"]
    lines = [f"{done} of {total} frames in {samples[-1].seconds:.0f} s; fits from frame {warm[0].frames} on"]
    units = {"open_files": "", "threads": ""}
    for field in fields(Sample)[2:]:
        values = [getattr(sample, field.name) for sample in warm]
        unit = units.get(field.name, " MB")
        lines.append(
            f"{field.name:<12} {slope(warm, field.name):+9.3f}{unit} per 1,000 frames; from {values[0]:g} to "
            f"{values[-1]:g}{unit}, least {min(values):g}, most {max(values):g}"
        )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("source")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the long clip")
    parser.add_argument("--limit", type=float, default=float("inf"), help="most minutes for the swap")
    parser.add_argument("--preset", default=None)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--csv", type=Path, help="all samples")
    options = parser.parse_args()
    config, _ = load_config(preset=options.preset, overrides=options.settings)
    with tempfile.TemporaryDirectory(prefix="long-clip-") as name:
        folder = Path(name)
        long, output = folder / f"long{options.clip.suffix}", folder / "out.mp4"
        times = repeat(options.clip, long, 60 * options.minutes)
        latents = folder / "latents.safetensors"
        total = spread_latents(options.clip, long, latents, config, folder / "export")
        size = long.stat().st_size / 1e6
        print(f"{times} times {options.clip.name}: {total} frames, {size:.1f} MB", flush=True)
        words = [part for text in options.settings for part in ("--set", text)]
        words += ["--preset", options.preset] if options.preset else []
        command = [
            sys.executable, "-m", "vidswap", "swap", str(long), "-s", options.source, "-o", str(output),
            "--latents", str(latents), "--no-progress", *words,
        ]  # fmt: skip
        samples, code = watched(command, output, 60 * options.limit)
        if options.csv and samples:
            with open(options.csv, "w", newline="") as file:
                writer = csv.DictWriter(file, list(asdict(samples[0])))
                writer.writeheader()
                writer.writerows(asdict(sample) for sample in samples)
        print("\n".join(table(samples, total)))
        print(f"exit code {code}; output {'there' if output.exists() else 'not there'}")
    return 0 if code in (0, 130) else 1


if __name__ == "__main__":
    sys.exit(main())

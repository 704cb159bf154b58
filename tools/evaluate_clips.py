#!/usr/bin/env python3
"""Swap several clips with several sources, evaluate each, and print one table.

    python tools/evaluate_clips.py CLIPS SOURCES -o WORK [--end 4] [--preset default]
        [--variant "steady=" --variant "unsteady=smooth.quad=0,smooth.latent=0"]

CLIPS and SOURCES are folders, or files separated by commas. For every clip the table begins with
the baseline of the same run: the target decoded and encoded again without any swap, judged like
the rest. Outputs, reports and the table (``table.md``, ``table.json``) stay in WORK; outputs and
reports that are there already are used again, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vidswap.errors import VidswapError
from vidswap.evaluation import EvaluationOptions, evaluate, write_report
from vidswap.pipeline import Swapper
from vidswap.session import Session
from vidswap.settings import load_config
from vidswap.video import open_frames, open_writer, probe

CLIP_SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".gif", ".avi"}
PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
COLUMNS = (
    ("identity mean", "identity_source", "mean"),
    ("identity p95", "identity_source", "p95"),
    ("top-1", "retrieval_top1", None),
    ("judge", "judge_source", "mean"),
    ("judge's top-1", "judge_top1", None),
    ("pose °", "pose_degrees", "mean"),
    ("expression", "expression", "mean"),
    ("mouth", "mouth_opening", "mean"),
    ("eyes", "eye_aspect", "mean"),
    ("gaze", "gaze", "mean"),
    ("TL-ID", "tl_id", None),
    ("TG-ID", "tg_id", None),
    ("warping", "warping_ratio", None),
    ("jitter", "jitter_ratio", None),
    ("flicker", "flicker_ratio", None),
    ("sharpness", "sharpness_ratio", "mean"),
    ("outside dB", "psnr_outside_db", "mean"),
    ("s/frame", "seconds_a_frame", None),
)
BASELINE = "no swap"


@dataclass(frozen=True)
class Job:
    """One output to make and to judge."""

    variant: str
    clip: Path
    source: Path
    settings: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        name = "baseline" if self.variant == BASELINE else self.variant
        return f"{self.clip.stem}--{self.source.stem}--{name}".replace(" ", "_")


def files_of(text: str, suffixes: set[str]) -> list[Path]:
    """Files of a folder by suffix, or the files named, separated by commas."""
    path = Path(text)
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes)
    files = [Path(part) for part in text.split(",")]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise SystemExit(f"no such file or folder: {', '.join(missing)}")
    return files


def variants_of(texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """``NAME=key=value,key=value`` to the settings of each variant."""
    found = {}
    for text in texts:
        name, _, rest = text.partition("=")
        found[name.strip()] = tuple(part for part in rest.split(",") if part)
    return found or {"default": ()}


def reencode(clip: Path, output: Path, end: float | None, config) -> float:
    """The plain re-encode: decoded frames straight to the encoder. Gives the seconds it took."""
    began = time.perf_counter()
    info = probe(clip)
    with (
        open_frames(clip, info=info, end_seconds=end) as frames,
        open_writer(output, info, config.video) as writer,
    ):
        for frame in frames:
            writer.write(frame)
    return time.perf_counter() - began


def make(job: Job, output: Path, arguments: argparse.Namespace) -> float:
    """Make one output; the seconds spent are kept beside it."""
    note = output.with_suffix(".seconds")
    if output.exists() and note.exists():
        return float(note.read_text())
    config, _ = load_config(preset=arguments.preset, overrides=job.settings)
    output.unlink(missing_ok=True)
    if job.variant == BASELINE:
        seconds = reencode(job.clip, output, arguments.end, config)
    else:
        made = Swapper(config, log=print).swap_video(
            job.clip, str(job.source), output, end_seconds=arguments.end
        )
        seconds = made.seconds_per_frame * made.frames
    note.write_text(f"{seconds}\n")
    return seconds


def run(job: Job, session: Session, arguments: argparse.Namespace) -> dict:
    """The JSON report of one job, from its folder when it is there."""
    folder = arguments.work / job.stem
    done = folder / "report.json"
    if not done.exists():
        output = arguments.work / f"{job.stem}.mp4"
        seconds = make(job, output, arguments)
        options = EvaluationOptions(
            end_seconds=arguments.end,
            judge=arguments.judge,
            distractors=arguments.distractors,
            seconds_spent=seconds,
        )
        report = evaluate(job.clip, output, [str(job.source)], options=options, session=session)
        write_report(report, folder)
    return json.loads(done.read_text(encoding="utf-8"))


def figure(report: dict, name: str, kind: str | None) -> float | None:
    if kind is None:
        return report["clip"].get(name)
    return report["per_frame"].get(name, {}).get(kind)


def table(results: list[tuple[Job, dict]]) -> str:
    """Markdown: a row an output, then the means of each variant."""
    head = ["clip", "source", "variant", *(title for title, _, _ in COLUMNS)]
    lines = ["| " + " | ".join(head) + " |", "|---" * 3 + "|---:" * len(COLUMNS) + "|"]

    def add(names: tuple[str, str, str], values: list[float | None]) -> None:
        cells = ["–" if value is None else f"{value:.3g}" for value in values]
        lines.append("| " + " | ".join([*names, *cells]) + " |")

    groups: dict[str, list[list[float | None]]] = {}
    for job, report in results:
        values = [figure(report, name, kind) for _, name, kind in COLUMNS]
        add((job.clip.stem, job.source.stem, job.variant), values)
        groups.setdefault(job.variant, []).append(values)
    for variant, rows in groups.items():
        columns = [[v for v in column if v is not None] for column in zip(*rows, strict=True)]
        means = [statistics.fmean(column) if column else None for column in columns]
        add(("**mean**", "", variant), means)
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("clips", help="folder of clips, or files separated by commas")
    parser.add_argument("sources", help="folder of photos, or files separated by commas")
    parser.add_argument("-o", "--work", type=Path, required=True, help="folder for all results")
    parser.add_argument("--end", type=float, help="only the first so many seconds of each clip")
    parser.add_argument("--preset", default="default", help="preset of the swaps")
    parser.add_argument("--variant", action="append", default=[], help="NAME=key=value,key=value")
    parser.add_argument("--distractors", type=int, default=200)
    parser.add_argument("--judge", help="second judge: faceres, or an ArcFace file")
    arguments = parser.parse_args()
    clips = files_of(arguments.clips, CLIP_SUFFIXES)
    sources = files_of(arguments.sources, PHOTO_SUFFIXES)
    variants = {BASELINE: (), **variants_of(arguments.variant)}
    arguments.work.mkdir(parents=True, exist_ok=True)
    config, _ = load_config(preset=arguments.preset)
    session = Session(config)
    results, failed = [], 0
    jobs = [
        Job(variant, clip, source, settings)
        for clip in clips
        for source in sources
        for variant, settings in variants.items()
    ]
    for number, job in enumerate(jobs, 1):
        print(f"[{number}/{len(jobs)}] {job.stem}", file=sys.stderr, flush=True)
        try:
            results.append((job, run(job, session, arguments)))
        except VidswapError as error:
            failed += 1
            print(f"  failed: {error}", file=sys.stderr)
    text = table(results)
    (arguments.work / "table.md").write_text(text, encoding="utf-8")
    rows = [
        {"clip": job.clip.name, "source": job.source.name, "variant": job.variant,
         **{title: figure(report, name, kind) for title, name, kind in COLUMNS}}
        for job, report in results
    ]  # fmt: skip
    (arguments.work / "table.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(text)
    return 6 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

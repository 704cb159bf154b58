"""``vidswap evaluate``: how good is an output, by figures and by its worst frames."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vidswap.cli.options import check_range, range_options

_SHOWN = (
    ("identity_source", "identity distance to the source"),
    ("judge_source", "second network: cosine to the source"),
    ("judge_original", "second network: to the original"),
    ("pose_degrees", "head pose, degrees"),
    ("expression", "expression"),
    ("psnr_outside_db", "PSNR outside the face, dB"),
)
_SHOWN_CLIP = (
    ("retrieval_top1", "retrieval top-1"),
    ("judge_top1", "retrieval top-1, second network"),
    ("tl_id", "TL-ID"),
    ("tg_id", "TG-ID"),
    ("warping_ratio", "warping error / original's"),
    ("jitter_ratio", "landmark jitter / original's"),
    ("flicker_ratio", "flicker / original's"),
)


@click.command("evaluate")
@click.argument("target", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "-s",
    "--source",
    "sources",
    multiple=True,
    required=True,
    help="Photo of the person swapped in, or synthetic:SEED; several photos of one person.",
)
@click.option(
    "-o",
    "--report",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for report.html, report.json and frames.csv.",
)
@range_options
@click.option("--face", "track", type=int, help="Number of the face (see 'vidswap faces').")
@click.option(
    "--distractors",
    default="100",
    show_default=True,
    help="How many people that do not exist join the gallery, or a folder of photos.",
)
@click.option(
    "--judge",
    metavar="NAME|FILE",
    help="Second judge of identity: faceres (see 'vidswap weights fetch judge') or an ArcFace .onnx file.",
)
@click.option("--offset", type=float, help="Seconds to add to the output's times.")
@click.option("--seconds", "seconds_spent", type=float, help="Time that the swap took, in seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON report too.")
@click.option("--quiet", is_flag=True, help="No progress bar, no table.")
def evaluate_command(
    target: Path,
    output: Path,
    sources: tuple[str, ...],
    folder: Path,
    start: float | None,
    end: float | None,
    track: int | None,
    distractors: str,
    judge: str | None,
    offset: float | None,
    seconds_spent: float | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure OUTPUT beside TARGET, the clip it was made from.

    Identity, pose, expression, gaze, steadiness in time and what changed outside the face;
    OUTPUT may come from any tool.
    """
    check_range(start, end)
    from tqdm import tqdm

    from vidswap.evaluation import EvaluationOptions, evaluate, write_report
    from vidswap.metrics.report import to_json

    options = EvaluationOptions(
        start_seconds=start, end_seconds=end, track=track, judge=judge, offset_seconds=offset,
        distractors=int(distractors) if distractors.isdecimal() else Path(distractors),
        seconds_spent=seconds_spent,
    )  # fmt: skip
    bars: dict[str, tqdm] = {}

    def progress(stage: str, done: int, total: int) -> None:
        if stage not in bars:
            bars[stage] = tqdm(total=total or None, desc=stage, disable=quiet or None)
            if bars[stage].disable and not quiet:  # no terminal, so a line each
                click.echo(f"vidswap: {stage}" + (f", {total} in all" if total else ""), err=True)
        bars[stage].update(done - bars[stage].n)

    try:
        report = evaluate(target, output, sources, options=options, progress=progress)
    finally:
        for bar in bars.values():
            bar.close()
    written = write_report(report, folder)
    if as_json:
        click.echo(json.dumps(json.loads(to_json(report))))
    if quiet or as_json:
        return
    for note in report.notes:
        click.echo(f"note: {note}")
    for name, title in _SHOWN:
        if name in report.frame_summary:
            found = report.frame_summary[name]
            click.echo(f"{title:<38}{found.mean:8.3f}   95 %: {found.p95:.3f}")
    for name, title in _SHOWN_CLIP:
        if name in report.clip_summary:
            click.echo(f"{title:<38}{report.clip_summary[name]:8.3f}")
    click.echo(f"report: {written['html']}")

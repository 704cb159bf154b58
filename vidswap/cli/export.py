"""``vidswap export``: what the stages know of a clip, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vidswap.cli.logs import State, one_line
from vidswap.cli.options import (
    PATH,
    check_range,
    config_options,
    force_option,
    log_options,
    make_config,
    range_options,
    reference_option,
)
from vidswap.cli.progress import ProgressView, clock
from vidswap.sources import check_reference


@click.command("export", short_help="Write masks, latents, crops, landmarks of a clip.")
@click.argument("target", type=PATH)
@click.option(
    "-o", "--output", required=True, type=PATH, metavar="FOLDER",
    help="Where the files go; it appears when all of them are whole.",
)  # fmt: skip
@click.option(
    "--what", metavar="LIST", default="masks,latents,landmarks,quads", show_default=True,
    help="Some of masks,latents,crops,landmarks,quads,embeddings.",
)  # fmt: skip
@range_options
@click.option(
    "--face", metavar="WHICH",
    help="all (the default), largest, or numbers that `vidswap faces` shows: 0,2.",
)  # fmt: skip
@reference_option
@click.option(
    "--masks", "mask_format", default="png", show_default=True, metavar="png|ffv1",
    help="Masks as a picture a face, or as one lossless video.",
)  # fmt: skip
@click.option(
    "--format", "landmark_format", default="jsonl", show_default=True, metavar="jsonl|parquet",
    help="Landmarks as JSON lines, or as Parquet (needs pyarrow).",
)  # fmt: skip
@click.option("--npz", is_flag=True, help="Latents as .npz as well.")
@config_options
@force_option
@click.option("--no-progress", is_flag=True, help="Show no progress.")
@log_options
@click.pass_context
def export_command(
    ctx: click.Context,
    target: Path,
    output: Path,
    what: str,
    start: float | None,
    end: float | None,
    face: str | None,
    reference: str | None,
    mask_format: str,
    npz: bool,
    landmark_format: str,
    preset: tuple[str, ...],
    config_file: Path | None,
    settings: tuple[str, ...],
    force: bool,
    no_progress: bool,
    **named: Any,
) -> None:
    """Write masks, latents, crops, landmarks, quads and identity embeddings of TARGET's faces.

    \b
    vidswap export clip.mp4 -o clip-export/
    vidswap export clip.mp4 -o masks/ --what masks --masks ffv1 --set composite.occlusion=false
    vidswap export clip.mp4 -o faces/ --what crops,landmarks --face largest
    vidswap export clip.mp4 -o hers/ --reference her.png

    Latents need inversion, about as long as a swap; so do masks, unless composite.occlusion is
    off. manifest.json in FOLDER says what is there and with which settings and weights it was made.
    """
    state = ctx.ensure_object(State)
    check_range(start, end)
    config, _ = make_config(preset, config_file, settings, named)

    check_reference(reference, () if face is None else (face,))

    from vidswap.exporting import export  # after the checks, which cost nothing

    with ProgressView() as view:
        report = export(
            target,
            output,
            what=[name.strip() for name in what.split(",") if name.strip()],
            config=config,
            face=face,
            reference=reference,
            start_seconds=start,
            end_seconds=end,
            mask_format=mask_format,
            npz=npz,
            landmark_format=landmark_format,
            force=force,
            progress=None if no_progress else view,
            log=state.log,
        )
    for warning in report.warnings:
        state.warn(warning)
    click.echo(
        f"{one_line(str(report.output))}: {report.frames} frames, {report.faces} faces of "
        f"{report.tracks} people, in {clock(report.seconds_total)}"
    )

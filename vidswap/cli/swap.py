"""``vidswap swap``: the whole clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vidswap.cli.logs import State, one_line
from vidswap.cli.options import (
    ENCODER_SETTINGS,
    MARK_SETTINGS,
    MIX_SETTINGS,
    PATH,
    check_range,
    config_options,
    encoder_options,
    force_option,
    log_options,
    make_config,
    mark_options,
    mix_options,
    range_options,
    reference_option,
    source_option,
)
from vidswap.cli.progress import ProgressView, clock, counted
from vidswap.errors import UsageError
from vidswap.reports import SwapReport
from vidswap.sources import check_reference, parse_sources

_SETTINGS = {**MIX_SETTINGS, **ENCODER_SETTINGS, **MARK_SETTINGS}


@click.command("swap", short_help="Swap a face through a whole clip.")
@click.argument("target", type=PATH)
@source_option
@click.option(
    "-o", "--output", required=True, type=PATH, metavar="OUT",
    help="Where the result goes; its ending chooses the container.",
)  # fmt: skip
@range_options
@click.option(
    "--face", "faces", multiple=True, metavar="WHICH",
    help="largest, all, or a number that `vidswap faces` shows; NUMBER=SOURCE gives each "
    "person a source of their own.",
)  # fmt: skip
@reference_option
@mix_options
@config_options
@encoder_options
@mark_options
@force_option
@click.option("--restart", is_flag=True, help="Begin again instead of going on with a stopped run.")
@click.option(
    "--latents", type=PATH, metavar="FILE",
    help="latents.safetensors of an export of TARGET, used in place of inversion.",
)  # fmt: skip
@click.option("--no-progress", is_flag=True, help="Show no progress.")
@log_options
@click.pass_context
def swap_command(
    ctx: click.Context,
    target: Path,
    sources: tuple[str, ...],
    output: Path,
    start: float | None,
    end: float | None,
    faces: tuple[str, ...],
    reference: str | None,
    preset: tuple[str, ...],
    config_file: Path | None,
    settings: tuple[str, ...],
    force: bool,
    restart: bool,
    latents: Path | None,
    no_progress: bool,
    **named: Any,
) -> None:
    """Put SOURCE's identity on a face of TARGET (video, GIF, image or folder of images).

    \b
    vidswap swap clip.mp4 -s person.jpg -o out.mp4
    vidswap swap clip.mp4 -s front.jpg -s side.jpg -o out.mp4 --preset quality
    vidswap swap clip.mp4 -s synthetic:7 -o out.mp4 --start 0:10 --end 0:25.5
    vidswap swap clip.mp4 -o out.mp4 --face 0=a.jpg --face 1=synthetic:3
    vidswap swap clip.mp4 -s person.jpg -o out.mp4 --reference her.png
    vidswap swap clip.mp4 -s a.jpg@0.6 -s b.jpg@0.4 -o mixed.mp4 --edit smile=1
    vidswap swap clip.mp4 -o older.mp4 --strength 0 --edit age=1

    Sound, subtitles, chapters, timestamps and frames without a face stay as they are. Times are
    seconds (12.5) or HH:MM:SS.mmm. Every output is marked as synthetic. A run that was stopped or
    killed goes on where it was when the same command is given again.
    """
    state = ctx.ensure_object(State)
    check_range(start, end)
    config, _ = make_config(preset, config_file, settings, named, _SETTINGS)
    sources = checked_sources(sources, faces, strength=config.mix.strength)
    check_reference(reference, faces)

    from vidswap.pipeline import swap_video  # after the checks, which cost nothing

    with ProgressView() as view:
        report = swap_video(
            target,
            sources,
            output,
            config=config,
            start_seconds=start,
            end_seconds=end,
            face=faces,
            reference=reference,
            force=force,
            restart=restart,
            latents=latents,
            progress=None if no_progress else view,
            log=state.log,
        )
    for warning in report.warnings:
        state.warn(warning)
    for name, seconds in report.stage_seconds.items():
        state.log(f"{name}: {seconds:.1f} s busy, {seconds / max(report.frames, 1):.3f} s a frame")
    click.echo(summary(report))


def checked_sources(
    sources: tuple[str, ...], faces: tuple[str, ...], *, strength: float
) -> tuple[str, ...]:
    """The sources, once it is known before networks are loaded that they are there and make sense.

    At strength 0 nobody is put in, and nobody needs to be named: the target's own face is drawn again, edited
    if the settings say so.

    :raises UsageError: no source at all. :raises InputError: a file is missing.
    """
    pairs = [face.partition("=")[2] for face in faces if "=" in face]
    for source in pairs:
        parse_sources(source)
    if sources:
        parse_sources(sources)
    elif strength == 0 and not pairs:
        return ("synthetic:0",)
    elif not pairs or len(pairs) < len(faces):
        raise UsageError("no source given: name a photo with -s, or -s synthetic:SEED")
    return sources


def summary(report: SwapReport) -> str:
    """The run in one line."""
    seconds = report.seconds_per_frame
    pace = f"{seconds:.2f} s a frame" if seconds >= 0.1 else f"{seconds * 1000:.0f} ms a frame"
    return (
        f"{one_line(str(report.output))}: {counted(report.frames, 'frame')}, "
        f"{report.frames_swapped} with a swapped face, in {clock(report.seconds_total)} "
        f"({pace} with what is done once) on {report.device}, peak memory {report.peak_memory_mb:.0f} MB"
    )

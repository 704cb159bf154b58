"""``vidswap faces``: who is in a clip."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from vidswap.cli.logs import State
from vidswap.cli.options import PATH, config_options, force_option, log_options, make_config
from vidswap.errors import UsageError
from vidswap.reports import TrackSummary


@click.command("faces", short_help="List who is in a clip, and when.")
@click.argument("target", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option(
    "-o", "--thumbnails", type=PATH, metavar="SHEET",
    help="PNG with a picture of each person, in the order of the table.",
)  # fmt: skip
@click.option(
    "--every", "every_seconds", type=click.FloatRange(min=0), default=0.2, show_default=True,
    metavar="SECONDS", help="Count a person at most once in this time.",
)  # fmt: skip
@config_options
@force_option
@log_options
@click.pass_context
def faces_command(
    ctx: click.Context,
    target: Path,
    as_json: bool,
    thumbnails: Path | None,
    every_seconds: float,
    preset: tuple[str, ...],
    config_file: Path | None,
    settings: tuple[str, ...],
    force: bool,
    **named: Any,
) -> None:
    """List the people of TARGET with the numbers that `vidswap swap --face` takes.

    \b
    vidswap faces clip.mp4 -o people.png
    vidswap faces clip.mp4 --json
    """
    state = ctx.ensure_object(State)
    config, _ = make_config(preset, config_file, settings, named)

    from vidswap.pipeline import list_faces

    if thumbnails is not None:
        from vidswap.video import check_output, output_kind

        check_output(thumbnails, target, force=force)
        if output_kind(thumbnails) != "image":
            raise UsageError(f"the pictures of the people are one image: name {thumbnails} .png or .jpg")
    tracks = list_faces(
        target,
        config=config,
        every_seconds=every_seconds,
        thumbnails=thumbnails,
        log=state.log,
    )
    if as_json:
        found = [dataclasses.asdict(track) for track in tracks]
        click.echo(json.dumps(found, indent=2, default=str))
        return
    click.echo(table(tracks))
    if thumbnails is not None:
        state.log(f"pictures: {thumbnails}")


def table(tracks: list[TrackSummary]) -> str:
    """One line a person."""
    rows = [("FACE", "FROM", "TO", "SEEN", "SIZE", "BEST AT", "SCORE")]
    for track in tracks:
        rows.append(
            (
                str(track.track_id),
                f"{track.first_seconds:.2f} s",
                f"{track.last_seconds:.2f} s",
                f"{track.frames} x",
                f"{track.size_px:.0f} px",
                f"{track.best_seconds:.2f} s",
                f"{track.score:.2f}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )

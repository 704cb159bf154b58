"""``vidswap preview``: single frames as a contact sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vidswap.cli.logs import State, one_line
from vidswap.cli.options import (
    MIX_SETTINGS,
    PATH,
    TIME,
    config_options,
    force_option,
    log_options,
    make_config,
    mix_options,
    reference_option,
    source_option,
)
from vidswap.cli.progress import ProgressView
from vidswap.cli.swap import checked_sources
from vidswap.sources import check_reference

_SETTINGS = {**MIX_SETTINGS, "face": ("faces.select", "--face")}


@click.command("preview", short_help="Show single frames before the long run.")
@click.argument("target", type=PATH)
@source_option
@click.option(
    "--at", "at_seconds", multiple=True, type=TIME, metavar="TIME", default=(0.0,),
    help="Moment to show; may be given several times. The first frame if not given.",
)  # fmt: skip
@click.option("-o", "--output", required=True, type=PATH, metavar="SHEET", help="PNG or JPEG to write.")
@click.option("--face", metavar="WHICH", help="largest, all, or a number.")
@reference_option
@mix_options
@config_options
@force_option
@log_options
@click.pass_context
def preview_command(
    ctx: click.Context,
    target: Path,
    sources: tuple[str, ...],
    at_seconds: tuple[float, ...],
    output: Path,
    reference: str | None,
    preset: tuple[str, ...],
    config_file: Path | None,
    settings: tuple[str, ...],
    force: bool,
    **named: Any,
) -> None:
    """Show target, inversion, mask, swap and result of some frames of TARGET side by side.

    \b
    vidswap preview clip.mp4 -s person.jpg --at 1.5 --at 0:12 -o sheet.png
    """
    state = ctx.ensure_object(State)
    config, _ = make_config(preset, config_file, settings, named, _SETTINGS)
    sources = checked_sources(sources, (), strength=config.mix.strength)
    check_reference(reference, () if named["face"] is None else (named["face"],))

    from vidswap.pipeline import preview

    with ProgressView() as view:
        report = preview(
            target,
            sources,
            config=config,
            at_seconds=at_seconds,
            reference=reference,
            output=output,
            force=force,
            progress=view,
            log=state.log,
        )
    for warning in report.warnings:
        state.warn(warning)
    shown = ", ".join(f"{seconds:.2f} s" for seconds in report.at_seconds)
    click.echo(
        f"{one_line(str(report.output))}: {sum(report.faces)} faces at {shown}, "
        f"{report.seconds_total:.0f} s on {report.device}"
    )

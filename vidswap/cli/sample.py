"""``vidswap sample``: a clip to try things on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vidswap.cli.logs import one_line
from vidswap.cli.options import PATH, SIZE, config_options, force_option, log_options, make_config


@click.command("sample", short_help="Make a clip of a person who does not exist.")
@click.option("-o", "--output", required=True, type=PATH, metavar="OUT.mp4", help="Clip to write.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=1, show_default=True,
    help="Which person.",
)  # fmt: skip
@click.option(
    "--seconds", type=click.FloatRange(min=0, max=600, min_open=True), default=3.0,
    show_default=True, help="Length of the clip.",
)  # fmt: skip
@click.option("--size", type=SIZE, default="640x480", show_default=True, help="Picture size.")
@config_options
@force_option
@log_options
def sample_command(
    output: Path,
    seed: int,
    seconds: float,
    size: tuple[int, int],
    preset: tuple[str, ...],
    config_file: Path | None,
    settings: tuple[str, ...],
    force: bool,
    **named: Any,
) -> None:
    """Make a clip with sound of a generated person who talks and turns.

    \b
    vidswap sample -o sample.mp4
    vidswap swap sample.mp4 -s synthetic:7 -o swapped.mp4
    """
    config, _ = make_config(preset, config_file, settings, named)

    from vidswap.pipeline import make_sample

    make_sample(output, seed=seed, seconds=seconds, size_wh=size, config=config, force=force)
    click.echo(f"{one_line(str(output))}: {seconds:g} s of person {seed}, {size[0]}x{size[1]}")

"""``vidswap doctor``: is everything there, and what would be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from vidswap.cli.options import config_options, log_options, make_config
from vidswap.errors import VidswapError


@click.command("doctor", short_help="Say what is installed and would be used.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@config_options
@log_options
def doctor_command(
    preset: tuple[str, ...],
    config_file: Path | None,
    settings: tuple[str, ...],
    as_json: bool,
    **named: Any,
) -> None:
    """Show versions, device, weights with their licences, and what a swap would use.

    Exit code: 0 when a swap can run, that of the first problem (5 for weights) otherwise.
    """
    config, _ = make_config(preset, config_file, settings, named)

    from vidswap import doctor

    found = doctor.collect(config)
    click.echo(json.dumps(found, indent=2) if as_json else doctor.describe(found))
    problems = found["problems"]
    if problems:
        error = VidswapError("; ".join(problem["message"] for problem in problems))
        error.exit_code = problems[0]["exit_code"]
        raise error

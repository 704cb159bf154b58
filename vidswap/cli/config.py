"""``vidswap config``: which settings hold, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from vidswap.cli.options import config_options, make_config
from vidswap.settings import as_dict, describe


@click.group("config", short_help="Show the settings and where they come from.")
def config_group() -> None:
    """Show the settings and where they come from.

    Later places win: defaults, --preset, --config FILE, environment (VIDSWAP_SET_MIX__STRENGTH
    for mix.strength), --set and options of their own.
    """


@config_group.command("show", short_help="Print the merged settings.")
@config_options
@click.option("--changed", is_flag=True, help="Only settings that are not at their default.")
@click.option("--no-docs", is_flag=True, help="Leave out what each setting means.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the settings and their origins.")
def show_command(
    preset: tuple[str, ...],
    config_file: Path | None,
    settings: tuple[str, ...],
    changed: bool,
    no_docs: bool,
    as_json: bool,
    **named: Any,
) -> None:
    """Print the merged settings as YAML: what each means and where its value came from.

    \b
    vidswap config show --preset fast --set mix.strength=0.8
    vidswap config show --preset quality > mine.yaml

    What it prints is a file for --config.
    """
    config, origins = make_config(preset, config_file, settings, named)
    if as_json:
        click.echo(json.dumps({"settings": as_dict(config), "origins": origins}, indent=2))
        return
    click.echo(describe(config, origins, docs=not no_docs, changed_only=changed), nl=False)

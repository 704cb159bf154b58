"""Options that several commands share, and their types."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from vidswap.cli.logs import State
from vidswap.config import RunConfig
from vidswap.errors import UsageError
from vidswap.settings import PRESETS, Override, load_config
from vidswap.times import parse_time

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)


class TimeType(click.ParamType):
    """Seconds, or ``[HH:]MM:SS[.mmm]``; a float of seconds."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        try:
            return parse_time(str(value))
        except ValueError as error:
            self.fail(f"{value!r} is not a time: {error}", param, ctx)


class SizeType(click.ParamType):
    """``640x360``; a pair width, height."""

    name = "WxH"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([1-9]\d{0,4})[xX]([1-9]\d{0,4})", str(value), re.ASCII)
        if match is None:
            self.fail(f"{value!r} is not a size: give width x height, for example 640x360")
        return int(match[1]), int(match[2])


_DEVICE = {"device": ("device", "--device")}

TIME = TimeType()
SIZE = SizeType()


def config_options(command: F) -> F:
    """``--preset --config --set --device``, as ``preset, config_file, settings, device``."""
    for option in reversed(
        [
            click.option(
                "--preset",
                multiple=True,
                metavar="NAME",
                help=f"Named settings: {', '.join(PRESETS)}. Several join with commas: fast,cpu.",
            ),
            click.option(
                "--config", "config_file", type=PATH, metavar="FILE", help="YAML file of settings."
            ),
            click.option(
                "--set",
                "settings",
                multiple=True,
                metavar="KEY=VALUE",
                help="One setting, for example smooth.lag=4; `vidswap config show` lists all.",
            ),
            click.option("--device", metavar="auto|cpu|cuda", help="Where the networks run."),
        ]
    ):
        command = option(command)
    return command


def log_options(command: F) -> F:
    """``-v`` and ``--log-file``; they act by themselves and give the command no argument."""

    def on_verbose(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        if value:
            ctx.ensure_object(State).start_log(verbose=True)

    def on_file(ctx: click.Context, _param: click.Parameter, value: Path | None) -> None:
        if value is not None and not ctx.resilient_parsing:
            ctx.ensure_object(State).start_log(file=value)

    command = click.option(
        "--log-file", type=PATH, metavar="FILE", expose_value=False, callback=on_file,
        help="Write the full log there as well.",
    )(command)  # fmt: skip
    return click.option(
        "-v", "--verbose", is_flag=True, expose_value=False, callback=on_verbose,
        help="Show the log, and tracebacks of faults.",
    )(command)  # fmt: skip


def source_option(command: F) -> F:
    """``-s``, as ``sources``."""
    return click.option(
        "-s", "--source", "sources", multiple=True, metavar="SOURCE",
        help="Who to put in: a photo, photo.jpg#1 for its second face from the left, several -s "
        "with photos of one person, or synthetic:SEED for a person who does not exist. "
        "-s a.jpg@0.6 -s b.jpg@0.4 mixes people.",
    )(command)  # fmt: skip


def reference_option(command: F) -> F:
    """``--reference``."""
    return click.option(
        "--reference", metavar="PICTURE",
        help="Only the person of the clip who looks like this picture; people.png#1 takes the second "
        "face from the left.",
    )(command)  # fmt: skip


def edit_option(command: F) -> F:
    """``--edit``, as ``edit``: the text of ``mix.edit``, None when it was not given."""
    return click.option(
        "--edit", multiple=True, metavar="NAME=STEPS",
        callback=lambda _ctx, _param, values: ",".join(values) or None,
        help="Change the new face: smile, mouth, eyes, brow, gaze_x or age by some steps, "
        "as in --edit smile=1 --edit age=-0.5.",
    )(command)  # fmt: skip


MIX_SETTINGS = {
    "strength": ("mix.strength", "--strength"),
    "mixer": ("mix.mixer", "--mixer"),
    "edit": ("mix.edit", "--edit"),
    "regions": ("composite.regions", "--regions"),
}
"""Of :func:`mix_options`: argument -> (setting, option)."""


def mix_options(command: F) -> F:
    """``--strength --mixer --edit --regions``."""
    for option in reversed(
        [
            click.option("--strength", metavar="0..1", help="0 keeps the target, 1 swaps fully."),
            click.option("--mixer", metavar="NAME", help="auto, gated (trained) or layers."),
            edit_option,
            click.option(
                "--regions", metavar="LIST", help="face, or some of skin,eyes,brows,nose,mouth."
            ),
        ]
    ):
        command = option(command)
    return command


ENCODER_SETTINGS = {
    "codec": ("video.codec", "--codec"),
    "crf": ("video.crf", "--crf"),
    "encoder_preset": ("video.encoder_preset", "--encoder-preset"),
    "pix_fmt": ("video.pix_fmt", "--pix-fmt"),
}
"""Of :func:`encoder_options`: argument -> (setting, option)."""


def encoder_options(command: F) -> F:
    """``--codec --crf --encoder-preset --pix-fmt``."""
    for option in reversed(
        [
            click.option(
                "--codec", metavar="NAME", help="Video encoder, for example libx264 or libx265."
            ),
            click.option("--crf", metavar="N", help="Quality of the encoder; lower is better and larger."),
            click.option("--encoder-preset", metavar="NAME", help="Speed of the encoder: veryfast to slow."),
            click.option(
                "--pix-fmt", metavar="NAME", help="Pixel format of the output; target's if not set."
            ),
        ]
    ):
        command = option(command)
    return command


def range_options(command: F) -> F:
    """``--start --end``, in seconds; see :func:`check_range`."""
    command = click.option("--end", type=TIME, metavar="TIME", help="Moment to stop at.")(command)
    return click.option("--start", type=TIME, metavar="TIME", help="Moment to begin at.")(command)


def check_range(start: float | None, end: float | None) -> None:
    """:raises UsageError: there is nothing between them."""
    if start is not None and end is not None and end <= start:
        raise UsageError(f"--end {end:g} is not after --start {start:g}: give a later end")


MARK_SETTINGS = {
    "visible_label": ("mark.visible_label", "--visible-label"),
    "sign_cert": ("mark.sign_cert", "--sign-cert"),
    "sign_key": ("mark.sign_key", "--sign-key"),
}
"""Of :func:`mark_options`: argument -> (setting, option)."""


def mark_options(command: F) -> F:
    """``--visible-label --sign-cert --sign-key``."""
    for option in reversed(
        [
            click.option(
                "--visible-label", metavar="TEXT",
                help="Badge in a corner of every frame, for example 'AI-generated'.",
            ),
            click.option(
                "--sign-cert", metavar="FILE",
                help="PEM certificate of your own, with its authorities, that signs the mark.",
            ),
            click.option("--sign-key", metavar="FILE", help="PEM key of that certificate."),
        ]
    ):  # fmt: skip
        command = option(command)
    return command


def force_option(command: F) -> F:
    """``--force``."""
    return click.option("--force", is_flag=True, help="Replace an output that exists.")(command)


def make_config(
    preset: tuple[str, ...] = (),
    config_file: Path | None = None,
    settings: tuple[str, ...] = (),
    named: Mapping[str, Any] | None = None,
    options: Mapping[str, tuple[str, str]] | None = None,
) -> tuple[RunConfig, dict[str, str]]:
    """Settings of a command line.

    :param named: values of the options by argument; None was not given.
    :param options: those that are settings by another name, ``{"strength": ("mix.strength", "--strength")}``;
        ``--device`` always is one.
    :raises UsageError: as :func:`vidswap.settings.load_config`.
    """
    given = [
        Override(key, value, option)
        for name, (key, option) in {**(options or {}), **_DEVICE}.items()
        if (value := (named or {}).get(name)) is not None
    ]
    return load_config(preset=preset or None, file=config_file, overrides=[*given, *settings])

"""``vidswap train``: make the package's own weights again, or better ones."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click

_RUNS = {
    "mixer": ("vidswap.training.mixer", "MixerOptions"),
    "encoder": ("vidswap.training.encoder", "EncoderOptions"),
    "heads": ("vidswap.training.heads", "HeadsOptions"),
    "curvature": ("vidswap.training.curvature", "CurvatureOptions"),
    "directions": ("vidswap.training.directions", "DirectionsOptions"),
    "occlusion": ("vidswap.training.occlusion", "OcclusionOptions"),
    "glasses": ("vidswap.training.occlusion", "GlassesOptions"),
    "identity": ("vidswap.training.identity", "IdentityOptions"),
    "analyse": ("vidswap.training.analysis", "AnalysisOptions"),
}


@click.group("train")
def train_group() -> None:
    """Train the package's own networks and directions on the generator's own samples.

    No data set is needed. A run that was interrupted goes on when the same command is given again.
    """


def _field_docs(options: type) -> dict[str, str]:
    """Docstrings under the fields of an options class, from its source and those of what it extends."""
    docs: dict[str, str] = {}
    for base in reversed(options.__mro__):
        if dataclasses.is_dataclass(base):
            docs |= _own_field_docs(base)
    return docs


def _own_field_docs(options: type) -> dict[str, str]:
    try:
        node = ast.parse(inspect.getsource(options)).body[0]
    except (OSError, TypeError, SyntaxError):  # installed without sources
        return {}
    body = getattr(node, "body", [])
    return {
        field.target.id: " ".join(str(text.value.value).split())
        for field, text in zip(body, body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def _options_class(name: str) -> type:
    module, attribute = _RUNS[name]
    return getattr(importlib.import_module(module), attribute)


def _with_options(options: type) -> Callable[[Callable], Callable]:
    """One command-line option a field of an options class."""
    docs = _field_docs(options)

    def add(command: Callable) -> Callable:
        for field in reversed(dataclasses.fields(options)):
            default = field.default
            text = docs.get(field.name, "")
            kind: Any = type(default)
            if isinstance(default, tuple):
                kind, default = str, ",".join(str(value) for value in default)
            command = click.option(
                "--" + field.name.replace("_", "-"), field.name, type=kind, default=default,
                show_default=True, help=text or f"{field.name.replace('_', ' ').capitalize()}.",
            )(command)  # fmt: skip
        return command

    return add


def _common(command: Callable) -> Callable:
    command = click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="auto|cpu|cuda",
        help="Where to train.",
    )(command)
    return click.option(
        "-o", "--output", "folder", default="runs", show_default=True, metavar="FOLDER",
        type=click.Path(path_type=Path, file_okay=False),
        help="Weights, checkpoint, curves and samples go there; the same folder resumes.",
    )(command)  # fmt: skip


def _built(options: type, named: dict[str, Any]) -> Any:
    """The options object of what click gave; takes its fields out of ``named``."""
    values = {field.name: named.pop(field.name) for field in dataclasses.fields(options)}
    for field in dataclasses.fields(options):
        if isinstance(field.default, tuple):
            kind = type(field.default[0])
            try:
                values[field.name] = tuple(kind(part) for part in values[field.name].split(","))
            except ValueError as error:
                numbers = "whole numbers" if kind is int else "numbers"
                example = ",".join(str(value) for value in field.default[:2])
                raise click.UsageError(
                    f"--{field.name.replace('_', '-')}: expected {numbers} such as {example}, "
                    f"got {values[field.name]!r}"
                ) from error
    return options(**values)


def _device(name: str) -> Any:
    from vidswap.session import choose_device

    return choose_device(name)


def _log(line: str) -> None:
    click.echo(line, err=True)


class _LazyCommand(click.Command):
    """Its options come from a class that needs torch; they are read when the command is used."""

    def __init__(self, name: str, help: str, run: Callable, extra: Callable = lambda c: c) -> None:
        super().__init__(name, help=help, short_help=help.split("\n")[0].rstrip("."))
        self._run, self._extra, self._ready = run, extra, False

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        if not self._ready:
            self._ready = True
            wrapped = _common(_with_options(_options_class(str(self.name)))(self._extra(self._run)))
            self.params = list(reversed(getattr(wrapped, "__click_params__", [])))
            self.callback = self._run
        return super().get_params(ctx)


def _fit(
    generator: Any,
    identity: Any,
    picture: Any,
    start: Any,
    steps: int,
    scale: float,
    *,
    curvature: Any = None,
) -> Any:
    """See :data:`vidswap.training.runs.FitWith`."""
    from vidswap.config import InversionConfig
    from vidswap.inversion import fit_pivot

    result = fit_pivot(
        generator, identity, picture, start, config=InversionConfig(fast_size=picture.shape[-1]),
        steps=steps, rate_scale=scale, curvature=curvature,
    )  # fmt: skip
    return result.w_plus


def _mixer(
    folder: Path,
    device: str,
    form: str,
    faces: int,
    bank_seed: int,
    fitted: int,
    sheet_every: int,
    **named: Any,
) -> None:
    from vidswap import weights
    from vidswap.inversion import Curvature
    from vidswap.training.runs import BankOptions, run_mixer

    options, where = _built(_options_class("mixer"), named), _device(device)
    known = weights.available("fit-curvature")
    curvature = Curvature.load(weights.locate("fit-curvature"), where) if known else None
    made = run_mixer(
        folder, options, BankOptions(faces, bank_seed, fitted), device=where, log=_log,
        form=form, sheet_every=sheet_every, fit=partial(_fit, curvature=curvature),
    )  # fmt: skip
    click.echo(made)


def _mixer_options(command: Callable) -> Callable:
    for option in (
        click.option(
            "--sheet-every", type=int, default=250, show_default=True,
            help="Steps between sample sheets.",
        ),
        click.option(
            "--bank-seed", type=int, default=11, show_default=True, help="Seed of the bank.",
        ),
        click.option(
            "--fitted", type=int, default=1400, show_default=True,
            help="Further faces, whose codes were fitted to pictures, as inversions are.",
        ),
        click.option(
            "--faces", type=int, default=4200, show_default=True, help="Faces of the bank.",
        ),
        click.option(
            "--form", type=click.Choice(("gated", "residual")), default="gated", show_default=True,
            help="Form of the network.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def _sight(name: Literal["occlusion", "glasses"]) -> Callable:
    def call(
        folder: Path,
        device: str,
        faces: int,
        faces_seed: int,
        turned: int,
        workers: int,
        begin: Path | None,
        **named: Any,
    ) -> None:
        from vidswap import weights
        from vidswap.mixing.directions import edit, load_directions
        from vidswap.training.runs import run_occlusion

        options, where = _built(_options_class(name), named), _device(device)
        pose = None
        if turned:
            pose = partial(edit, directions=load_directions(weights.locate("directions"), where))
        made = run_occlusion(
            folder, options, device=where, log=_log, faces=faces, faces_seed=faces_seed, workers=workers,
            begin=begin, name=name, turned=turned, pose=pose,
        )  # fmt: skip
        click.echo(made)

    return call


def _sight_options(command: Callable) -> Callable:
    for option in (
        click.option(
            "--workers", type=click.IntRange(0), default=1, show_default=True,
            help="Processes that draw scenes.",
        ),
        click.option(
            "--faces-seed", type=int, default=31, show_default=True, help="Seed of the faces.",
        ),
        click.option(
            "--turned", type=click.IntRange(0), default=0, show_default=True,
            help="Further faces, with turned heads and open mouths.",
        ),
        click.option(
            "--faces", type=click.IntRange(2), default=800, show_default=True,
            help="Generated faces that the scenes are made of.",
        ),
        click.option(
            "--begin", type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="Published weights to go on from where the folder has no checkpoint.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def _heads(folder: Path, device: str, **named: Any) -> None:
    from vidswap.training.runs import run_heads

    options = _built(_options_class("heads"), named)
    click.echo(run_heads(folder, options, device=_device(device), log=_log, fit=_fit))


def _curvature(folder: Path, device: str, **named: Any) -> None:
    from vidswap.inversion import measure_curvature
    from vidswap.training.runs import run_curvature

    options = _built(_options_class("curvature"), named)
    click.echo(
        run_curvature(folder, options, device=_device(device), log=_log, measure=measure_curvature)
    )


def _plain(name: str, run: str) -> Callable:
    def call(folder: Path, device: str, **named: Any) -> None:
        runs = importlib.import_module("vidswap.training.runs")
        options = _built(_options_class(name), named)
        click.echo(getattr(runs, run)(folder, options, device=_device(device), log=_log))

    return call


for _command in (
    _LazyCommand("mixer", "Train the latent mixer.", _mixer, _mixer_options),
    _LazyCommand(
        "encoder", "Train the encoder that starts inversions.", _plain("encoder", "run_encoder")
    ),
    _LazyCommand("heads", "Distil the heads of the 128 and 256 px paths.", _heads),
    _LazyCommand(
        "curvature", "Measure the curvature that scales the steps of inversions.", _curvature
    ),
    _LazyCommand(
        "occlusion",
        "Train the network that sees hands, hair and objects in front of the face.",
        _sight("occlusion"),
        _sight_options,
    ),
    _LazyCommand(
        "glasses", "Train the network that sees the frames of glasses.", _sight("glasses"), _sight_options
    ),
    _LazyCommand(
        "identity",
        "Distil the second identity network that sources are refined by.",
        _plain("identity", "run_identity"),
    ),
    _LazyCommand(
        "directions",
        "Fit latent directions of pose, expression and age.",
        _plain("directions", "run_directions"),
    ),
    _LazyCommand(
        "analyse",
        "Measure which styles carry identity, pose and colour.",
        _plain("analyse", "run_analysis"),
    ),
):
    train_group.add_command(_command)

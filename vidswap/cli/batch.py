"""``vidswap batch``: many clips."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

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
from vidswap.cli.progress import clock, rate
from vidswap.cli.swap import checked_sources
from vidswap.errors import BatchError, Interrupted

_SETTINGS = {**MIX_SETTINGS, **ENCODER_SETTINGS, **MARK_SETTINGS}
_NAME_WIDTH = 36
_ERROR_WIDTH = 76
_MOST_BARS = 16


@click.command("batch", short_help="Swap a folder, glob or list of clips.")
@click.argument("targets", nargs=-1, required=True, metavar="FOLDER|GLOB|LIST...")
@source_option
@click.option(
    "-o", "--output", required=True, type=PATH, metavar="FOLDER",
    help="Where the results go; sub-folders are kept.",
)  # fmt: skip
@click.option(
    "--pattern", metavar="TEXT", default="{stem}.{ext}", show_default=True,
    help="Name of a result, of {stem}, {ext}, {name}, {source} and {number}.",
)  # fmt: skip
@click.option(
    "--jobs", type=click.IntRange(1, 256), metavar="N",
    help="Clips at the same time, each in a process with its share of the cores.  [default: 1; with ray as "
    "many as the nodes have places for]",
)  # fmt: skip
@click.option(
    "--engine", default="local", show_default=True, metavar="local|ray",
    help="Where clips run: on this machine, or on the nodes of a Ray cluster.",
)  # fmt: skip
@click.option(
    "--address", metavar="HOST:PORT|auto",
    help="Ray cluster.  [default: RAY_ADDRESS, else one of this machine alone]",
)  # fmt: skip
@click.option(
    "--cpus", type=int, metavar="N", help="Cores of a Ray node for each clip.  [default: all of the smallest]"
)
@click.option("--gpus", type=float, metavar="N", help="GPUs for each clip on a Ray node.  [default: 1]")
@range_options
@click.option(
    "--face", "faces", multiple=True, metavar="WHICH",
    help="largest, all, a number, or NUMBER=SOURCE; for every clip.",
)  # fmt: skip
@reference_option
@mix_options
@config_options
@encoder_options
@mark_options
@force_option
@click.option("--restart", is_flag=True, help="Begin clips again that were stopped half-way.")
@click.option("--no-progress", is_flag=True, help="Show no progress.")
@log_options
@click.pass_context
def batch_command(
    ctx: click.Context,
    targets: tuple[str, ...],
    sources: tuple[str, ...],
    output: Path,
    pattern: str,
    jobs: int | None,
    engine: str,
    address: str | None,
    cpus: int | None,
    gpus: float | None,
    start: float | None,
    end: float | None,
    faces: tuple[str, ...],
    reference: str | None,
    preset: tuple[str, ...],
    config_file: Path | None,
    settings: tuple[str, ...],
    force: bool,
    restart: bool,
    no_progress: bool,
    **named: Any,
) -> None:
    """Swap many clips; the same command goes on where it stopped.

    \b
    vidswap batch clips/ -s person.jpg -o swapped/
    vidswap batch 'clips/**/*.mp4' -s synthetic:7 -o swapped/ --pattern '{stem}-anonymous.{ext}'
    vidswap batch jobs.yaml -o swapped/ --jobs 2
    vidswap batch clips/ -s person.jpg -o swapped/ --engine ray --address head:6379

    A list is a .txt with a clip a line, or a .csv or .yaml with words for each clip: target,
    source, output, start, end, face, reference, preset, settings; what it says wins. Results that
    are up to date are skipped; those made from something else are left alone unless --force. A clip
    that fails does not stop the others, report.json in FOLDER tells how each one ended. Exits 6 when
    some failed.
    """
    state = ctx.ensure_object(State)
    check_range(start, end)
    config, _ = make_config(preset, config_file, settings, named, _SETTINGS)
    if config.mix.strength == 0:
        sources = checked_sources(sources, faces, strength=0)

    from vidswap.batch import REPORT_NAME, plan_batch, run_batch
    from vidswap.engines import make_engine
    from vidswap.marks import check_mark

    runner = make_engine(engine, jobs=jobs, log=state.log, address=address, cpus=cpus, gpus=gpus)
    planned = plan_batch(
        targets, output, source=sources, config=config, pattern=pattern, face=faces,
        reference=reference, start_seconds=start, end_seconds=end, force=force, restart=restart,
    )  # fmt: skip
    for mark in {job.config.mark for job in planned}:
        check_mark(mark)  # once for all, not a failure a clip
    slots = jobs or (_MOST_BARS if engine == "ray" else 1)
    view = BatchView([job.name for job in planned], slots, quiet=no_progress)
    try:
        with view:
            report = run_batch(planned, runner.run, output, on_event=view, on_skipped=view.skipped)
    except (KeyboardInterrupt, Interrupted) as error:
        raise Interrupted(
            f"interrupted after {view.ended} of {len(planned)} clips; the same command goes on"
        ) from error
    for line in table(report):
        click.echo(line)
    if report.failed:
        raise BatchError(
            f"{len(report.failed)} of {len(report.clips)} clips failed: see {output / REPORT_NAME}, "
            "mend them and give the same command again"
        )


def table(report: Any) -> list[str]:
    """The batch in a table, a clip a line, and the sum of it."""
    rows = [("clip", "state", "frames", "swapped", "seconds", "")]
    for clip in report.clips:
        rest = one_line(clip.error or clip.remark or "; ".join(clip.warnings))
        rows.append(
            (
                _cut(one_line(clip.name), _NAME_WIDTH), clip.state, str(clip.frames),
                str(clip.frames_swapped), f"{clip.seconds:.1f}", _cut(rest, _ERROR_WIDTH, end=True),
            )
        )  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = []
    for row in rows:
        left = [row[0].ljust(widths[0]), row[1].ljust(widths[1])]
        right = [row[column].rjust(widths[column]) for column in (2, 3, 4)]
        lines.append("  ".join([*left, *right, row[5]]).rstrip())
    counts = ", ".join(f"{count} {name}" for name, count in sorted(report.counts.items()))
    lines.append(f"{len(report.clips)} clips: {counts}, in {clock(report.seconds)}")
    return lines


def _cut(text: str, width: int, *, end: bool = False) -> str:
    """Names lose their beginning, sentences their end."""
    if len(text) <= width:
        return text
    return f"{text[: width - 1]}…" if end else f"…{text[1 - width :]}"


class BatchView:
    """A bar a clip that is being worked on, and one for all; lines where there is no terminal."""

    def __init__(
        self,
        names: Sequence[str],
        slots: int,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
        is_terminal: bool | None = None,
    ) -> None:
        self._names = [one_line(name) for name in names]
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty() if is_terminal is None else is_terminal
        self._quiet = quiet
        self._free = list(range(1, min(slots, len(names)) + 1))
        self._places: dict[int, int] = {}
        self._bars: dict[int, Any] = {}
        self._all: Any = None
        self.ended = 0
        """Clips that are done, failed or were done before."""

    def __enter__(self) -> BatchView:
        if self._is_terminal and not self._quiet:
            self._all = self._bar(0, len(self._names), "all clips", "{n_fmt}/{total_fmt} clips")
        return self

    def __exit__(self, *_exc: object) -> None:
        for bar in [*self._bars.values(), *([self._all] if self._all is not None else [])]:
            bar.close()

    def __call__(self, event: Any) -> None:
        """The ``on_event`` callback."""
        if event.kind == "ended":
            self._ended(event.index, event.result)
        elif self._all is not None and event.kind == "started" and self._free:
            self._places[event.index] = place = self._free.pop(0)
            name = _cut(self._names[event.index], _NAME_WIDTH)
            self._bars[event.index] = self._bar(place, None, name, "{n_fmt} frames")
        elif event.kind == "progress" and event.index in self._bars:
            self._moved(self._bars[event.index], event.progress)

    def skipped(self, index: int) -> None:
        """A clip that is done already."""
        self._count(f"{self._names[index]}: done already")

    def _ended(self, index: int, result: Any) -> None:
        bar = self._bars.pop(index, None)
        if bar is not None:
            bar.close()
            self._free.append(self._places.pop(index))
            self._free.sort()
        text = f"failed: {result.error}"
        if result.state == "done":
            text = f"done, {result.frames} frames in {clock(result.seconds)}"
        self._count(one_line(f"{self._names[index]}: {text}"))

    def _count(self, line: str) -> None:
        self.ended += 1
        if self._quiet:
            return
        if self._all is not None:
            self._all.write(line, file=self._stream)
            self._all.update(1)
        else:
            print(f"[{self.ended}/{len(self._names)}] {line}", file=self._stream, flush=True)

    def _bar(self, place: int, total: int | None, name: str, counted: str) -> Any:
        from tqdm import tqdm

        share = "{percentage:3.0f}%|{bar}| " if total else ""
        return tqdm(
            total=total, desc=name, position=place, leave=place == 0, file=self._stream,
            dynamic_ncols=True, bar_format=f"{{desc}}: {share}{counted}{{postfix}}",
        )  # fmt: skip

    def _moved(self, bar: Any, progress: Any) -> None:
        total = progress.frames_total
        if total and not bar.total:
            bar.bar_format = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} frames{postfix}"
        bar.total = max(total, progress.frames_done) if total else None
        bar.set_postfix_str(rate(progress), refresh=False)
        bar.n = progress.frames_done
        bar.refresh()  # frames are slow: each is worth showing

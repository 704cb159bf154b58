"""The group of all commands, and how errors become one line and an exit code.

Commands are imported when they are called, so that ``vidswap --help`` stays quick. To add one,
write its file and add its line to :data:`COMMANDS`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

import click

from vidswap import __version__
from vidswap.cli.logs import LOG, State, one_line
from vidswap.errors import DISK_ERRORS, Interrupted, VidswapError, did_you_mean
from vidswap.memory import keep_large_blocks, share_heaps

COMMANDS = {
    "swap": ("vidswap.cli.swap:swap_command", "Swap a face through a whole clip."),
    "batch": ("vidswap.cli.batch:batch_command", "Swap a folder, glob or list of clips."),
    "preview": ("vidswap.cli.preview:preview_command", "Show single frames before the long run."),
    "faces": ("vidswap.cli.faces:faces_command", "List who is in a clip, and when."),
    "export": ("vidswap.cli.export:export_command", "Write masks, latents, crops, landmarks."),
    "evaluate": ("vidswap.cli.evaluate:evaluate_command", "Measure an output beside its target."),
    "verify": ("vidswap.cli.verify:verify_command", "Say how a file is marked as synthetic."),
    "sample": ("vidswap.cli.sample:sample_command", "Make a clip of a person who does not exist."),
    "train": ("vidswap.cli.train:train_group", "Make the package's own weights again."),
    "weights": (
        "vidswap.cli.weights:weights_group",
        "Show, fetch and check the networks' weights.",
    ),
    "config": ("vidswap.cli.config:config_group", "Show the settings and where they come from."),
    "doctor": ("vidswap.cli.doctor:doctor_command", "Say what is installed and would be used."),
}
"""Command -> (module:attribute, line in ``vidswap --help``), in the order of the help."""

EXIT_FAULT = 1
EXIT_USAGE = 2
EXIT_OUTPUT = 4
EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141  # what a shell shows for a program that SIGPIPE ended


class _PipeClosed(Exception):
    """Whoever read our output has gone; click would turn it into exit code 1."""


class LazyGroup(click.Group):
    """Knows its commands by name; imports one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = did_you_mean(args[0], COMMANDS, "")
            ctx.fail(f"no such command {args[0]!r}" + (f": {hint}" if hint else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _PipeClosed from error
        except KeyboardInterrupt as error:  # click would put an empty line before ours
            raise Interrupted("interrupted") from error


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 2 wrong use, 3 unreadable input or no face, 4 output or disk, "
    "5 weights, 6 part of a batch failed, 130 interrupted; 1 is a fault of vidswap itself "
    "(verify: no valid mark).",
)
@click.version_option(__version__, prog_name="vidswap")
@click.option("-v", "--verbose", is_flag=True, help="Show the log, and tracebacks of faults.")
@click.pass_context
def cli(ctx: click.Context, verbose: bool) -> None:
    """Put one person's face onto another through a whole video.

    \b
    vidswap swap clip.mp4 -s person.jpg -o out.mp4
    vidswap swap clip.mp4 -s synthetic:7 -o anonymous.mp4
    vidswap preview clip.mp4 -s person.jpg --at 1.5 -o sheet.png

    The source (-s) gives the identity; the target clip keeps its pose, expression, light,
    background and sound. Every output is marked as synthetic.
    """
    state = ctx.ensure_object(State)
    state.start_log(verbose=verbose)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the ``vidswap`` script: runs a command line and leaves the process."""
    share_heaps()
    keep_large_blocks()
    sys.exit(run(args))


def run(args: Sequence[str] | None = None) -> int:
    """Run a command line; everything that can go wrong becomes a line and an exit code."""
    state = State()
    try:
        with _interruptible(), warnings.catch_warnings():
            if not {"-v", "--verbose"} & set(sys.argv if args is None else args):
                warnings.simplefilter("ignore")  # remarks of packages to their developers
            result = cli.main(
                args=None if args is None else list(args),
                prog_name="vidswap",
                standalone_mode=False,
                obj=state,
            )
            sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except BaseException as error:
        return _report(error, state)
    finally:
        state.close()


def _report(error: BaseException, state: State) -> int:
    """Say what happened in one line on standard error; the exit code."""
    if isinstance(error, (_PipeClosed, BrokenPipeError)):
        _mute_stdout()
        return EXIT_PIPE_CLOSED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else (0 if error.code is None else 1)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return EXIT_USAGE
    code, message = _explain(error)
    if code == EXIT_FAULT and not isinstance(error, (MemoryError, click.ClickException)):
        if state.verbose:
            traceback.print_exception(error)
        else:
            message += "; run `vidswap -v ...` for the details"
    LOG.debug("the run ended with %s", type(error).__name__, exc_info=error)
    word = "" if code == EXIT_INTERRUPTED else "error: "
    with contextlib.suppress(OSError):
        click.echo(f"vidswap: {word}{one_line(message)}", err=True)
    if isinstance(error, OSError):
        _mute_stdout()
    return code


def _explain(error: BaseException) -> tuple[int, str]:
    """Exit code and message of anything that a command may raise."""
    if isinstance(error, VidswapError):
        return error.exit_code, str(error)
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "vidswap"
        return EXIT_USAGE, f"{error.format_message().rstrip('.')} (see `{path} --help`)"
    if isinstance(error, click.ClickException):
        return error.exit_code, error.format_message()
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return EXIT_INTERRUPTED, "interrupted"
    if isinstance(error, ImportError) and "failed to map segment" in str(error):
        error = MemoryError()  # a library that found no room for itself
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        where = "GPU memory" if not isinstance(error, MemoryError) else "memory"
        return EXIT_FAULT, (
            f"out of {where}: close other programs, or use less with --preset fast"
            + (" or --device cpu" if where == "GPU memory" else "")
        )
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        name = f" {error.filename}" if error.filename else ""
        return EXIT_OUTPUT, f"cannot write{name} ({error.strerror}): free some space on that disk"
    notes = "; ".join(getattr(error, "__notes__", ()))
    text = f"unexpected {type(error).__name__}: {error}" if str(error) else type(error).__name__
    return EXIT_FAULT, text + (f" ({notes})" if notes else "")


def _mute_stdout() -> None:
    """Nobody can take what is still buffered; Python would complain about it at exit."""
    with contextlib.suppress(OSError, ValueError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """The first Ctrl-C ends the run in good order, the second one at once."""
    pressed = False

    def on_interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            os._exit(EXIT_INTERRUPTED)
        pressed = True
        with contextlib.suppress(OSError):
            os.write(2, b"\nvidswap: stopping; Ctrl-C again stops at once\n")
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGINT, on_interrupt)
    except ValueError:  # not the main thread: whoever runs us takes care of signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

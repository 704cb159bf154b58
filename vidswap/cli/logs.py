"""State of one command line: how talkative it is, and where its log goes."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path

import click

from vidswap.errors import OutputError

LOG = logging.getLogger("vidswap")


def one_line(text: str) -> str:
    """Text that cannot break out of its line, whatever file names it holds."""
    joined = " ".join(str(text).split("\n")).strip()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in joined)


class _StderrHandler(logging.Handler):
    """Lines on standard error that do not tear a progress bar apart."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self._state = state

    def emit(self, record: logging.LogRecord) -> None:
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        line = f"vidswap: {level}{one_line(record.getMessage())}"
        self._state.shown.add(record.getMessage())
        if "tqdm" in sys.modules:
            sys.modules["tqdm"].tqdm.write(line, file=sys.stderr)
        else:
            click.echo(line, err=True)


@dataclass
class State:
    """What the commands of one command line share; ``ctx.obj``."""

    verbose: bool = False
    shown: set[str] = field(default_factory=set)
    """Messages that standard error has seen already."""
    _handlers: list[logging.Handler] = field(default_factory=list)

    def start_log(self, *, verbose: bool = False, file: Path | None = None) -> None:
        """May be called again, by the group and then by the command: it only adds.

        :raises OutputError: the log file cannot be written.
        """
        self.verbose = self.verbose or verbose
        LOG.setLevel(logging.DEBUG)
        LOG.propagate = False
        if not self._handlers:
            self._add(_StderrHandler(self))
        self._handlers[0].setLevel(logging.INFO if self.verbose else logging.WARNING)
        if file is not None:
            try:
                handler = logging.FileHandler(file, encoding="utf-8", errors="backslashreplace")
            except OSError as error:
                raise OutputError(
                    f"cannot write the log file {file} ({error.strerror or error}): "
                    "give --log-file another place"
                ) from error
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            self._add(handler)

    def log(self, line: str) -> None:
        """The ``log`` callback of the pipeline."""
        LOG.info("%s", line)

    def warn(self, line: str) -> None:
        """A warning, unless it was shown before."""
        if line not in self.shown:
            LOG.warning("%s", line)

    def close(self) -> None:
        """Take the handlers off again: one process may run several command lines."""
        for handler in self._handlers:
            LOG.removeHandler(handler)
            handler.close()
        self._handlers.clear()

    def _add(self, handler: logging.Handler) -> None:
        LOG.addHandler(handler)
        self._handlers.append(handler)

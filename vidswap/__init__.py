"""vidswap: swap a face through a whole video.

>>> import vidswap
>>> report = vidswap.swap_video("clip.mp4", "alice.jpg", "out.mp4")  # doctest: +SKIP

The words are those of the command line. Names are imported when they are first used, so that
``import vidswap`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "RunConfig": "vidswap.config",
    "Swapper": "vidswap.pipeline",
    "VidswapError": "vidswap.errors",
    "list_faces": "vidswap.pipeline",
    "load_config": "vidswap.settings",
    "make_sample": "vidswap.pipeline",
    "preview": "vidswap.pipeline",
    "swap_video": "vidswap.pipeline",
}

__all__ = ["__version__", *_PUBLIC]

def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'vidswap' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

"""Which media libraries are at work, for reports of problems."""

from __future__ import annotations

from collections.abc import Iterable

import av
import av.codec


def library_versions() -> dict[str, str]:
    """FFmpeg's libraries as PyAV was built with: ``{"libavcodec": "61.3.100"}``."""
    return {
        name: ".".join(str(part) for part in version)
        for name, version in sorted(av.library_versions.items())
    }


def encoders_here(names: Iterable[str]) -> dict[str, bool]:
    """Which of these encoders the library has (a GPU encoder may still lack its GPU)."""
    found = {}
    for name in names:
        try:
            av.codec.Codec(name, "w")
        except ValueError:  # PyAV's UnknownCodecError is one
            found[name] = False
        else:
            found[name] = True
    return found

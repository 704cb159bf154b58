"""Memory of this process: how much, and giving back what is free."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from functools import cache


def peak_memory_mb() -> float:
    """Most memory that this process has used so far, MB; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def give_back_free_memory() -> None:
    """Return to the system what the allocator holds free; nothing where it cannot be asked (glibc only).

    The stages allocate large pictures on threads of their own, whose heaps glibc lets grow apart: without
    this a long clip takes hundreds of megabytes more than a short one.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> ctypes._NamedFuncPointer | None:
    if sys.platform != "linux":
        return None
    with suppress(OSError, AttributeError):
        return ctypes.CDLL("libc.so.6").malloc_trim
    return None

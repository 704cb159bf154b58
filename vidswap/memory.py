"""Memory of this process: how much, and giving back what is free."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""``M_TRIM_THRESHOLD``, ``M_MMAP_THRESHOLD`` and ``M_ARENA_MAX`` of glibc's malloc.h."""
_MOST_OF_HEAP = 32 << 20
"""Largest block that glibc lets a heap hold."""
_KEPT_FREE = 512 << 20
"""Bytes at the end of a heap that may be free before it is made smaller."""


def peak_memory_mb() -> float:
    """Most memory that this process has used so far, MB; 0 where the system does not say."""
    # On Linux the figure further down may be that of the process that began this one.
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10
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
    library = _libc()
    if library is not None:
        library.malloc_trim(0)


def share_heaps() -> None:
    """Let the threads of this process share one heap, where glibc would give each its own.

    The heaps of threads are made of pieces of 64 MB, into which pictures of 20 to 30 MB fit badly. 20 s of
    1080x1920 took 2,035 MB with a heap a stage; with inversions from the cache 1,814 MB with two and
    1,513 with one, in the same time. To be called before threads begin.
    """
    library = _libc()
    if library is not None:
        library.mallopt(_ARENA_MAX, 1)


def keep_large_blocks() -> None:
    """Let the allocator keep freed pictures for the next ones, where glibc would give most of them back.

    Each page that comes back is cleared by the system at its first touch: that was a seventh of the time of
    drawing a face. :func:`give_back_free_memory` still returns what is not in use.
    """
    library = _libc()
    if library is not None:
        library.mallopt(_MMAP_THRESHOLD, _MOST_OF_HEAP)
        library.mallopt(_TRIM_THRESHOLD, _KEPT_FREE)


@cache
def _libc() -> ctypes.CDLL | None:
    """The C library of GNU; None elsewhere."""
    if sys.platform != "linux":
        return None
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        return library if library.malloc_trim and library.mallopt else None
    return None

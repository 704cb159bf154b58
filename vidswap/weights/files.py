"""Small file operations of the weights cache: hashing, and one fetching run at a time."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from vidswap.errors import WeightsError
from vidswap.locking import FileLock, LockTaken

_CHUNK_BYTES = 1 << 20


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as 64 hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def exclusive(
    path: Path,
    *,
    timeout_seconds: float = 1800.0,
    on_wait: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Holds a lock file so that two processes fetch one after the other, not both.

    On file systems without locks both go on: every file is still written atomically, so the
    worst is a second download.

    Args:
        on_wait: called once, with who holds the lock, when there is something to wait for.

    Raises:
        WeightsError: another process held the lock for ``timeout_seconds``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire()
    except LockTaken as taken:
        if on_wait is not None:
            on_wait(taken.holder or "another run")
        lock = FileLock(path, timeout_seconds=timeout_seconds)
        try:
            lock.acquire()
        except LockTaken as still:
            raise WeightsError(
                f"{still.holder or 'another run'} has held {path} too long: "
                "end it, then run `vidswap weights fetch` again"
            ) from still
    try:
        yield
    finally:
        lock.release()

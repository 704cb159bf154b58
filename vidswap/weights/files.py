"""Small file operations that must not go half-way: hashing, atomic writing, locking."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from vidswap.errors import WeightsError

_CHUNK_BYTES = 1 << 20


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as 64 hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Writes ``data`` under a temporary name, flushes it to disk, then renames it to ``path``.

    Raises:
        OSError: the folder cannot be written or the disk is full; ``path`` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp gives 0600; a shared cache should be as readable as its folder allows.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable; platforms without folder handles (Windows) have no need."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def exclusive(
    path: Path,
    *,
    timeout_seconds: float = 1800.0,
    on_wait: Callable[[], None] | None = None,
) -> Iterator[None]:
    """Holds a lock file so that two processes fetch one after the other, not both.

    The lock is the operating system's and ends with the process, so a killed run leaves
    nothing behind. On file systems without locks both go on: every file is still written
    atomically, so the worst is a second download.

    Raises:
        WeightsError: another process held the lock for ``timeout_seconds``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _wait_for(handle, path, time.monotonic() + timeout_seconds, on_wait)
        yield
    finally:
        os.close(handle)


def _wait_for(handle: int, path: Path, deadline: float, on_wait: Callable[[], None] | None) -> None:
    told = False
    while not _try_lock(handle):
        if time.monotonic() > deadline:
            raise WeightsError(
                f"another run has held {path} too long: "
                "end it, then run `vidswap weights fetch` again"
            )
        if not told and on_wait is not None:
            on_wait()
        told = True
        time.sleep(0.2)


def _try_lock(handle: int) -> bool:
    """True when the lock is held now, or when this file system cannot lock at all."""
    try:
        try:
            import fcntl
        except ImportError:
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        busy = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)
        return error.errno not in busy
    return True

"""One holder at a time for a file on disk, across processes; the lock ends with its process."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import socket
import time
import weakref
from collections.abc import Collection
from pathlib import Path

_LOG = logging.getLogger(__name__)
_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
_POLL_SECONDS = 0.05
_LOADED = secrets.token_hex(3)
"""Tells processes apart whose number and machine have one name, as in containers."""

_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


class LockTaken(Exception):
    """Another process (or another lock object in this one) holds the lock.

    ``holder`` is what it wrote about itself, ``process 123 on desk (5f0c1a)`` for example; may be empty.
    """

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is held by {holder or 'another run'}")
        self.path = path
        self.holder = holder


class FileLock:
    """Holds ``path`` exclusively from :meth:`acquire` (or ``with``) to :meth:`release`.

    The operating system owns the lock, so a killed run leaves none behind and no age has to be
    guessed; the file itself stays. Forked children give their copy back at once: a worker that
    outlives a killed parent must not keep the next run out. On file systems without locks it
    warns and goes on.

    Args:
        path: the lock file; made when absent, in a folder that exists.
        timeout_seconds: how long entering ``with`` waits; 0 tries once.
    """

    def __init__(self, path: Path, *, timeout_seconds: float = 0.0) -> None:
        self.path = Path(path)
        self.timeout_seconds = timeout_seconds
        self._handle: int | None = None

    @property
    def is_held(self) -> bool:
        return self._handle is not None

    def acquire(self) -> None:
        """Takes the lock.

        Raises:
            LockTaken: someone else held it for ``timeout_seconds``.
            OSError: the lock file cannot be made.
        """
        if self._handle is not None:
            raise RuntimeError(f"{self.path} is already held by this object")
        deadline = time.monotonic() + self.timeout_seconds
        handle = self._open_locked(deadline)
        while not _is_still_at(handle, self.path):  # the holder before us removed the file
            os.close(handle)
            handle = self._open_locked(deadline)
        self._handle = handle
        _held.add(self)
        _write_holder(handle)

    def _open_locked(self, deadline: float) -> int:
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while not _try_lock(handle, self.path):
                if time.monotonic() >= deadline:
                    raise LockTaken(self.path, _read_holder(handle))
                time.sleep(_POLL_SECONDS)
        except BaseException:
            os.close(handle)
            raise
        return handle

    def release(self) -> None:
        """Gives the lock back; harmless when it is not held."""
        handle, self._handle = self._handle, None
        if handle is not None:
            _held.discard(self)
            try:
                os.ftruncate(handle, 0)
            except OSError:
                pass
            os.close(handle)

    def _forget_in_child(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)  # the parent's lock stays: only its last copy frees it

    def __enter__(self) -> FileLock:
        self.acquire()
        return self

    def __exit__(self, *_error: object) -> None:
        self.release()


def this_holder() -> str:
    """What this process writes into the locks that it holds."""
    return f"process {os.getpid()} on {socket.gethostname()[:100]} ({_LOADED})"


def take_over(path: Path, dead: Collection[str], *, after_seconds: float) -> None:
    """Frees a lock that outlived its holder, as shared storage may keep those of dead machines.

    Waits for whoever has the lock. After ``after_seconds`` a lock of one of the ``dead`` is broken, by
    removing its file; a lock of anybody else is left alone.

    Args:
        path: the lock file; need not be there.
        dead: :func:`this_holder` of processes that are dead for certain.
    """
    if not path.exists():
        return
    lock = FileLock(path, timeout_seconds=after_seconds)
    try:
        lock.acquire()
    except LockTaken as error:
        if error.holder not in dead:
            return
        _LOG.warning("%s is still held by %s, which is dead; taking it over", path, error.holder)
        path.unlink(missing_ok=True)
    else:
        lock.release()


def _try_lock(handle: int, path: Path) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            os.lseek(handle, 1 << 30, os.SEEK_SET)  # past the note, which others may read
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            _LOG.warning("%s: this file system has no locks; make sure only one run is on", path)
            return True
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
            return False
        raise
    return True


def _is_still_at(handle: int, path: Path) -> bool:
    """Whether the open file is the one that others will find: a removed lock locks nothing."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _read_holder(handle: int) -> str:
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        return os.read(handle, 200).decode("ascii", "replace").strip()
    except OSError:
        return ""


def _write_holder(handle: int) -> None:
    try:  # only a courtesy for the other run's message: a full disk does not matter here
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, f"{this_holder()}\n".encode("ascii", "replace"))
    except OSError:
        pass


def _forget_all_in_child() -> None:
    for lock in list(_held):
        lock._forget_in_child()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all_in_child)

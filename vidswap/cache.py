"""Arrays kept on disk by content: what was computed once is found again by what made it.

An entry is one safetensors file, addressed by the SHA-256 of its kind and key (a JSON object
that names everything the arrays depend on: content of the input, weights, settings, version).
Entries are written whole or not at all, checked against a stored SHA-256 whenever they are
read (a damaged one counts as absent and is thrown away), and safe to share between runs.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from vidswap.errors import InputError

JSON = None | bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"]
Array = NDArray[Any]

FORMAT_VERSION = 1
"""Layout of an entry; entries of another version are absent to this one."""

_LOG = logging.getLogger(__name__)
_KIND = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SUFFIX = ".safetensors"
_BLOCK_BYTES = 1 << 20
_ABANDONED_SECONDS = 24 * 3600.0


def canonical_json(value: Any) -> str:
    """One spelling for a JSON value: sorted keys, no spaces, ASCII.

    Raises:
        TypeError: something in it is not JSON (a numpy number, for example).
        ValueError: NaN or infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(value: Any) -> str:
    """SHA-256 (hex) of :func:`canonical_json` of a value."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()


_known_files: dict[tuple[int, int, int, int, int], str] = {}
_known_files_lock = threading.Lock()


def content_key(path: Path) -> str:
    """What a file holds, as ``"<size in bytes>-<SHA-256 in hex>"``, whatever its name and times.

    The file is read in blocks. Within one process an unchanged file (device, inode, size and
    both change times the same) is read once.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            before = os.fstat(stream.fileno())
            identity = _file_identity(before)
            with _known_files_lock:
                known = _known_files.get(identity)
            if known is not None:
                return known
            digest, size = hashlib.sha256(), 0
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
            unchanged = _file_identity(os.fstat(stream.fileno())) == identity
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cannot read {path}: {reason}; check the path") from error
    key = f"{size}-{digest.hexdigest()}"
    # A file written to within the resolution of the clock could change again unseen.
    settled = abs(time.time_ns() - before.st_mtime_ns) > 2_000_000_000
    if unchanged and settled:
        with _known_files_lock:
            _known_files[identity] = key
    return key


def _file_identity(stat: os.stat_result) -> tuple[int, int, int, int, int]:
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def fsync_folder(folder: Path) -> None:
    """Makes renames in a folder last through a power cut (where the system can do that)."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open folders
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def temporary_beside(path: Path) -> Path:
    """An unused name in the folder of ``path``, short enough beside the longest of names."""
    return path.with_name(f".vidswap-{os.getpid()}-{secrets.token_hex(6)}.tmp")


def write_atomically(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Writes a file that has either its old or its new content, whatever happens.

    The temporary beside it bears a name of its own, so that two runs never share one.

    Args:
        mode: permissions of the file, less the umask.
    """
    temporary = temporary_beside(path)
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


@dataclass(frozen=True)
class PruneReport:
    """What :meth:`ContentCache.prune` did."""

    removed: int
    """Entries removed."""
    removed_bytes: int
    kept_bytes: int


class ContentCache:
    """Named arrays by kind and key, in a folder.

    Args:
        root: folder of the cache; made when the first entry is put.
        max_bytes: bound on the size of all entries; the ones used longest ago go first.
            None: no bound.
    """

    def __init__(self, root: Path, *, max_bytes: int | None = None) -> None:
        if max_bytes is not None and max_bytes < 0:
            raise ValueError(f"max_bytes: expected 0 or more, got {max_bytes}")
        self.root = Path(root)
        self.max_bytes = max_bytes
        self._put_since_prune: int | None = None
        self._lock = threading.Lock()

    def path_of(self, kind: str, key: Mapping[str, JSON]) -> Path:
        """Where the entry lies, present or not."""
        if not _KIND.fullmatch(kind):
            raise ValueError(f"kind: expected letters a-z, digits, - and _, got {kind!r}")
        address = digest_of({"version": FORMAT_VERSION, "kind": kind, "key": dict(key)})
        return self.root / kind / address[:2] / f"{address}{_SUFFIX}"

    def get(self, kind: str, key: Mapping[str, JSON]) -> dict[str, Array] | None:
        """The arrays of an entry, fresh and writable, or None when it is absent or damaged.

        A damaged entry is removed with a warning, so that the caller's next :meth:`put`
        makes it again.
        """
        path = self.path_of(kind, key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _LOG.warning("cache entry %s cannot be read (%s); computing it again", path, error)
            return None
        tensors = _decode(data, kind, canonical_json(dict(key)))
        if tensors is None:
            _LOG.warning("cache entry %s is damaged; computing it again", path)
            _unlink_quietly(path)
            return None
        try:
            os.utime(path)  # marks it as used, for prune()
        except OSError:
            pass
        return tensors

    def put(self, kind: str, key: Mapping[str, JSON], tensors: Mapping[str, Array]) -> bool:
        """Keeps arrays (numbers or booleans) under a kind and key, replacing an older entry.

        Returns:
            Whether they were kept. A full or read-only disk is a warning and no error: the
            caller has the arrays, and an entry is only ever a saving.

        Raises:
            TypeError, ValueError: the key is not JSON, or an array has a dtype without a
                safetensors form.
        """
        path = self.path_of(kind, key)
        data = _encode(tensors, kind, canonical_json(dict(key)))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, data)
        except OSError as error:
            _LOG.warning("cache entry %s not kept: %s", path, error.strerror or error)
            return False
        self._bound(len(data))
        return True

    def _bound(self, put_bytes: int) -> None:
        """Prunes now and then: looking at every entry after every put would cost too much."""
        if self.max_bytes is None:
            return
        with self._lock:
            pending = self._put_since_prune
            due = pending is None or pending + put_bytes > self.max_bytes // 16
            self._put_since_prune = 0 if due else (pending or 0) + put_bytes
        if due:
            self.prune(self.max_bytes)

    def prune(self, max_bytes: int) -> PruneReport:
        """Removes the entries used longest ago until at most ``max_bytes`` are left.

        Temporaries that a killed run left behind go too, once they are a day old.
        """
        now = time.time()
        entries: list[tuple[float, int, Path]] = []
        for path in self._files():
            try:
                stat = path.stat()
            except OSError:  # another run removed it
                continue
            if path.suffix == ".tmp":
                if abs(now - stat.st_mtime) > _ABANDONED_SECONDS:
                    _unlink_quietly(path)
                continue
            # A time in the future (the clock was set back) must not keep an entry for ever.
            used = stat.st_mtime if stat.st_mtime <= now + 60 else 0.0
            entries.append((used, stat.st_size, path))
        total = sum(size for _, size, _ in entries)
        removed = removed_bytes = 0
        for _, size, path in sorted(entries):
            if total - removed_bytes <= max_bytes:
                break
            _unlink_quietly(path)
            removed += 1
            removed_bytes += size
        return PruneReport(removed, removed_bytes, total - removed_bytes)

    def _files(self) -> Iterator[Path]:
        for folder, _, names in os.walk(self.root):
            for name in names:
                if name.endswith(_SUFFIX) or (name.startswith(".") and name.endswith(".tmp")):
                    yield Path(folder, name)


def _encode(tensors: Mapping[str, Array], kind: str, key: str) -> bytes:
    arrays: dict[str, Array] = {}
    for name, value in tensors.items():
        array = np.asarray(value, order="C")
        if array.dtype.kind not in "biuf":
            raise TypeError(f"tensors[{name!r}]: expected numbers or booleans, got {array.dtype}")
        arrays[name] = array.astype(array.dtype.newbyteorder("<"), copy=False)
    metadata = {
        "vidswap_cache": str(FORMAT_VERSION),
        "kind": kind,
        "key": key,
        "sha256": _digest(arrays),
    }
    return save(arrays, metadata=metadata)


def _decode(data: bytes, kind: str, key: str) -> dict[str, Array] | None:
    """The arrays when everything agrees with what was put, else None."""
    try:
        header_bytes = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + header_bytes])
        metadata = header["__metadata__"]
        arrays = {name: np.array(value) for name, value in load(data).items()}
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    if not isinstance(metadata, dict):
        return None
    expected = {"vidswap_cache": str(FORMAT_VERSION), "kind": kind, "key": key}
    if any(metadata.get(name) != value for name, value in expected.items()):
        return None
    return arrays if metadata.get("sha256") == _digest(arrays) else None


def _digest(arrays: Mapping[str, Array]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes: all that a caller gets to see."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        head = canonical_json([name, array.dtype.newbyteorder("=").str[1:], list(array.shape)])
        digest.update(f"{len(head)}:{head}".encode("ascii"))
        digest.update(array.tobytes())
    return digest.hexdigest()


def _unlink_quietly(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _LOG.debug("cannot remove %s: %s", path, error)

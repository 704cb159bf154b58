"""What of a run is done, with which settings: so that a killed run goes on where it stopped.

A run writes its video in chunks. Each chunk becomes final in one order: written under a
temporary name, closed, synced, checked by decoding, renamed, the folder synced, and only then
entered in an append-only journal of JSON lines, itself synced. Whatever moment a run dies at,
every chunk in the journal is whole, and at most the one being made is lost. Times and clocks
play no part.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidswap.cache import JSON, canonical_json, content_key, digest_of, fsync_folder
from vidswap.errors import OutputError, UsageError
from vidswap.locking import FileLock, LockTaken

__all__ = ["Chunk", "ChunkRecord", "Journal", "RunKey", "content_key"]

JOURNAL_FORMAT = 1
JOURNAL_NAME = "journal.jsonl"
LOCK_NAME = "journal.lock"

_LOG = logging.getLogger(__name__)
_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")
_OWN_FILE = re.compile(r"chunk-\d{6,}(\.part)?\.[a-z0-9]{1,8}")
_PART_FILE = re.compile(r"chunk-\d{6,}\.part\.[a-z0-9]{1,8}")
_BLOCK_BYTES = 1 << 20
_SHOWN_DIFFERENCES = 4
_ABSENT = "(none)"


@dataclass(frozen=True)
class RunKey:
    """Everything that decides what a run writes. Two equal keys give equal chunks."""

    input: str
    """:func:`content_key` of the target."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each weights file, by name."""
    options: Mapping[str, JSON] = field(default_factory=dict)
    """Settings, nested as in the configuration; the source and the chunk length among them."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of the tool and of what encodes."""

    def to_dict(self) -> dict[str, JSON]:
        return {
            "input": self.input,
            "weights": dict(self.weights),
            "options": dict(self.options),
            "versions": dict(self.versions),
        }

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the whole key; an empty group of options is as good as none."""
        return digest_of(dict(_flat(self.to_dict())))

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """Where this key and an older one (as a dict) differ: ``name: old, now new``."""
        old, new = dict(_flat(other)), dict(_flat(self.to_dict()))
        return [
            f"{name.removeprefix('options.')}: {_shown(old, name)}, now {_shown(new, name)}"
            for name in sorted(old.keys() | new.keys())
            if old.get(name, _ABSENT) != new.get(name, _ABSENT)
        ]


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", canonical_json(item)


def _shown(flat: Mapping[str, str], name: str) -> str:
    text = flat.get(name, _ABSENT)
    return text if len(text) <= 40 else f"{text[:20]}…{text[-8:]}"


@dataclass(frozen=True)
class Chunk:
    """A range of frames that is encoded as one piece."""

    index: int
    first_frame: int
    frames: int
    first_pts: int | None = None
    """pts of the first frame, where it is known."""

    @property
    def end_frame(self) -> int:
        return self.first_frame + self.frames


@dataclass(frozen=True)
class ChunkRecord:
    """A finished chunk, as the journal has it."""

    chunk: Chunk
    path: Path
    bytes: int
    sha256: str
    data: Mapping[str, Any] = field(default_factory=dict)
    """What the caller wants back on resume: counts of faces, seconds spent …"""


class Journal:
    """The journal of one run in its work folder. Use as a context manager, or close it.

    Made by :meth:`open`; holds the folder's lock until it is closed. Not for use by several
    threads at once.
    """

    def __init__(self, folder: Path, key: RunKey, lock: FileLock) -> None:
        self.folder = folder
        self.key = key
        self._lock = lock
        self._handle: int | None = None
        self._records: dict[int, dict[str, Any]] = {}
        self._published: dict[str, Any] | None = None

    @classmethod
    def open(cls, folder: Path, key: RunKey, *, restart: bool = False) -> Journal:
        """Opens the journal of a work folder, which is made when absent, to begin or to go on.

        Args:
            folder: the run's own work folder.
            key: what decides the run's output.
            restart: begin again, whatever is there.

        Raises:
            UsageError: the folder holds a run with another key (the differences are named), or
                another run is at work in it.
            OutputError: the folder cannot be written.
        """
        folder = Path(folder)
        lock = FileLock(folder / LOCK_NAME)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except LockTaken as error:
            raise UsageError(
                f"another run ({error.holder or 'unknown process'}) is at work in {folder}; wait "
                "for it, end it, or choose another output"
            ) from error
        except OSError as error:
            raise _failure(folder, error) from error
        journal = cls(folder, key, lock)
        try:
            journal._load(restart)
        except OSError as error:
            journal.close()
            raise _failure(folder, error) from error
        except BaseException:
            journal.close()
            raise
        return journal

    # --- what is done ---------------------------------------------------------------------------

    def finished(self, chunk: Chunk) -> ChunkRecord | None:
        """The chunk's record when it is done and its file still has the recorded content.

        The file is hashed anew at each call. A chunk that was changed, cut or removed counts
        as not done, with a warning.
        """
        entry = self._records.get(chunk.index)
        if entry is None or _range_of(entry) != _range_of(_chunk_fields(chunk)):
            return None
        path = self.path_of(chunk, entry["suffix"])
        try:
            size, digest = _hash_file(path)
        except OSError:
            size, digest = -1, ""
        if (size, digest) != (entry["bytes"], entry["sha256"]):
            _LOG.warning("chunk %s is missing or was changed; making it again", path)
            return None
        return ChunkRecord(chunk, path, size, digest, entry["data"])

    def chunk_at(self, index: int) -> Chunk | None:
        """The chunk that was entered under a number; :meth:`finished` tells whether it is whole."""
        entry = self._records.get(index)
        return None if entry is None else Chunk(*_range_of(entry))

    @property
    def published(self) -> Mapping[str, Any] | None:
        """What :meth:`note_published` was given, once the run is complete."""
        return self._published

    def path_of(self, chunk: Chunk, suffix: str = ".mp4") -> Path:
        """Where the finished chunk lies."""
        return self.folder / f"chunk-{chunk.index:06d}{_checked(suffix)}"

    def temporary_of(self, chunk: Chunk, suffix: str = ".mp4") -> Path:
        """Where the chunk is written until :meth:`record` publishes it."""
        return self.folder / f"chunk-{chunk.index:06d}.part{_checked(suffix)}"

    # --- doing ----------------------------------------------------------------------------------

    def record(
        self,
        chunk: Chunk,
        *,
        verify: Callable[[Path], int],
        suffix: str = ".mp4",
        data: Mapping[str, JSON] | None = None,
    ) -> ChunkRecord:
        """Publishes the chunk that lies closed at :meth:`temporary_of`, and enters it.

        Args:
            verify: decodes the file and returns its number of frames.
            suffix: of the chunk's file.
            data: kept with the record.

        Raises:
            OutputError: the file has another number of frames, or the disk fails; the chunk is
                then not in the journal.
        """
        temporary, path = self.temporary_of(chunk, suffix), self.path_of(chunk, suffix)
        try:
            _fsync_file(temporary)
            frames = verify(temporary)
            if frames != chunk.frames:
                temporary.unlink(missing_ok=True)
                raise OutputError(
                    f"chunk {chunk.index} of {self.folder} holds {frames} frames where "
                    f"{chunk.frames} were encoded; check the disk and run the command again"
                )
            size, digest = _hash_file(temporary)
            os.replace(temporary, path)
            fsync_folder(self.folder)
            entry: dict[str, Any] = {
                "type": "chunk",
                **_chunk_fields(chunk),
                "suffix": suffix,
                "bytes": size,
                "sha256": digest,
                "data": dict(data or {}),
            }
            self._append(entry)
        except OSError as error:
            raise _failure(self.folder, error) from error
        self._records[chunk.index] = entry
        return ChunkRecord(chunk, path, size, digest, entry["data"])

    def note_publishing(self, output: Path) -> None:
        """Enters that the output is about to get its final name; see :func:`was_published`."""
        try:
            self._append({"type": "publishing", "before": _inode(output)})
        except OSError as error:
            raise _failure(self.folder, error) from error

    def note_published(self, **facts: JSON) -> None:
        """Enters that the output has its final name, with facts such as its content key."""
        try:
            self._append({"type": "published", "facts": facts})
        except OSError as error:
            raise _failure(self.folder, error) from error
        self._published = dict(facts)

    def restart(self) -> None:
        """Forgets and removes all chunks and begins again under the journal's key."""
        try:
            self._begin()
        except OSError as error:
            raise _failure(self.folder, error) from error

    def discard(self) -> None:
        """Removes everything of this run; the folder too unless others put files there."""
        try:
            self._remove(_OWN_FILE)
            self._close_file()
            (self.folder / JOURNAL_NAME).unlink(missing_ok=True)
            (self.folder / LOCK_NAME).unlink(missing_ok=True)
        except OSError as error:
            raise _failure(self.folder, error) from error
        finally:
            self.close()
        try:
            self.folder.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                _LOG.warning("cannot remove %s: %s", self.folder, error.strerror)

    def close(self) -> None:
        """Gives the folder back; what is recorded stays."""
        self._close_file()
        self._lock.release()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    # --- the file -------------------------------------------------------------------------------

    def _load(self, restart: bool) -> None:
        path = self.folder / JOURNAL_NAME
        try:
            data = b"" if restart else path.read_bytes()
        except FileNotFoundError:
            data = b""
        entries = list(_entries(data))
        head = entries[0] if entries and entries[0].get("type") == "run" else None
        if head is None:
            if data:
                _LOG.warning("%s has no readable beginning; starting again", path)
            self._begin()
            return
        self._require_same(head)
        for entry in entries[1:]:
            if entry.get("type") == "chunk" and _is_chunk_entry(entry):
                self._records[entry["index"]] = entry
            elif entry.get("type") == "published":
                self._published = dict(entry.get("facts", {}))
        self._handle = os.open(path, os.O_RDWR | os.O_APPEND)
        # A line torn by the end of the last run must not swallow the next one.
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.ftruncate(self._handle, whole)
        self._remove(_PART_FILE)

    def _require_same(self, head: Mapping[str, Any]) -> None:
        if head.get("format") != JOURNAL_FORMAT:
            raise UsageError(
                f"the unfinished run in {self.folder} was made by another version of vidswap "
                f"(journal format {head.get('format')!r}); finish it there or use --restart"
            )
        if head.get("digest") == self.key.digest:
            return
        differences = self.key.differences(head.get("key", {}))
        shown = "; ".join(differences[:_SHOWN_DIFFERENCES])
        if len(differences) > _SHOWN_DIFFERENCES:
            shown += f"; and {len(differences) - _SHOWN_DIFFERENCES} more"
        raise UsageError(
            f"the unfinished run in {self.folder} has other settings ({shown}); repeat its "
            "command to go on, or use --restart to begin again"
        )

    def _begin(self) -> None:
        """An empty journal. The old one goes first: chunks without a journal are no chunks."""
        self._close_file()
        path = self.folder / JOURNAL_NAME
        path.unlink(missing_ok=True)
        fsync_folder(self.folder)
        self._remove(_OWN_FILE)
        self._records.clear()
        self._published = None
        self._handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o666)
        self._append(
            {
                "type": "run",
                "format": JOURNAL_FORMAT,
                "digest": self.key.digest,
                "key": self.key.to_dict(),
            }
        )
        fsync_folder(self.folder)

    def _append(self, entry: Mapping[str, Any]) -> None:
        if self._handle is None:
            raise RuntimeError("the journal is closed")
        text = canonical_json({**entry, "check": _check(entry)})
        line = text.encode("ascii") + b"\n"
        start = os.lseek(self._handle, 0, os.SEEK_END)
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._handle, rest) :]
            os.fsync(self._handle)
        except BaseException:
            try:  # half a line is harmless to a reader, but let the next entry start clean
                os.ftruncate(self._handle, start)
            except OSError:
                pass
            raise

    def _remove(self, names: re.Pattern[str]) -> None:
        for path in self.folder.iterdir():
            if names.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def _close_file(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)


def _checked(suffix: str) -> str:
    if not _SUFFIX.fullmatch(suffix):
        raise ValueError(f"suffix: expected a dot and up to 8 of a-z, 0-9, got {suffix!r}")
    return suffix


def _check(entry: Mapping[str, Any]) -> str:
    return digest_of({name: value for name, value in entry.items() if name != "check"})[:16]


def _entries(data: bytes) -> Iterator[dict[str, Any]]:
    """The whole and unaltered lines; others are passed over, so their chunks are made again."""
    for line in data.split(b"\n")[:-1]:  # what follows the last line end is torn
        try:
            entry = json.loads(line)
            if isinstance(entry, dict) and entry.get("check") == _check(entry):
                yield entry
                continue
        except (ValueError, RecursionError):
            pass
        _LOG.warning("a line of the journal is damaged and passed over")


def was_published(folder: Path, output: Path) -> bool:
    """Whether the run in a work folder has given its output the final name.

    Told by the journal; or, for a run that died between the name and the entry, by another file
    being there than when it was about to.

    Raises:
        OSError: there is no journal, or it cannot be read.
    """
    before: Any = _ABSENT
    for entry in _entries((Path(folder) / JOURNAL_NAME).read_bytes()):
        if entry.get("type") == "published":
            return True
        if entry.get("type") == "publishing":
            before = entry.get("before")
    return before != _ABSENT and _inode(output) not in (None, before)


def _inode(path: Path) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def _chunk_fields(chunk: Chunk) -> dict[str, Any]:
    return {
        "index": chunk.index,
        "first_frame": chunk.first_frame,
        "frames": chunk.frames,
        "first_pts": chunk.first_pts,
    }


def _range_of(fields: Mapping[str, Any]) -> tuple[Any, ...]:
    names = ("index", "first_frame", "frames", "first_pts")
    return tuple(fields.get(name) for name in names)


def _is_chunk_entry(entry: Mapping[str, Any]) -> bool:
    return (
        isinstance(entry.get("index"), int)
        and isinstance(entry.get("bytes"), int)
        and isinstance(entry.get("sha256"), str)
        and isinstance(entry.get("data"), dict)
        and _SUFFIX.fullmatch(str(entry.get("suffix"))) is not None
    )


def _fsync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _hash_file(path: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def _failure(folder: Path, error: OSError) -> OutputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutputError(
            f"no room left in {folder}; free some space and run the same command again, finished "
            "work is kept"
        )
    return OutputError(
        f"cannot write in the work folder {folder}: {error.strerror or error}; make it writable "
        "and run the same command again, finished work is kept"
    )

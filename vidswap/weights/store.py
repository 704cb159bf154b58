"""The cache of finished weights: what is there, is it right, and making it so."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vidswap.cache import write_atomically
from vidswap.errors import WeightsError, did_you_mean
from vidswap.weights.assets import ASSETS_FOLDER, read_assets
from vidswap.weights.catalogue import CATALOGUE, GROUPS, OPTIONAL, Distribution, Entry
from vidswap.weights.fetch import MEND, obtain, read_members
from vidswap.weights.files import exclusive, sha256_of
from vidswap.weights.paths import weights_folder

_STALE_SECONDS = 3600.0
_WORK_PREFIX = ".fetch-"

# Files whose content this process has hashed already: path and what changes with the file ->
# SHA-256. Every stage that asks for the same file would otherwise hash it again.
_hashed: dict[tuple[str, int, int, int, int], str] = {}


@dataclass(frozen=True)
class Status:
    """What is known of one set of weights."""

    name: str
    state: Literal["ready", "missing", "altered"]
    path: Path
    size_bytes: int
    """Size on disk; the expected size where the file is missing."""
    licence: str
    purpose: str
    origin: str
    """``package version`` for fetched weights, ``vidswap version`` for those in the package."""
    sha256: str
    """The expected hash of the file."""


def _entry(name: str) -> Entry | None:
    return CATALOGUE.get(name) or OPTIONAL.get(name)


def _mend(name: str) -> str:
    """The command that makes these weights ready."""
    if name not in OPTIONAL:
        return MEND
    group = next((group for group, members in GROUPS.items() if name in members), name)
    return f"`vidswap weights fetch {group}`"


def expand(wanted: Iterable[str]) -> tuple[str, ...]:
    """Names of weights, with the names of groups (``judge``, ``teacher``) replaced by their members."""
    return tuple(dict.fromkeys(name for one in wanted for name in GROUPS.get(one, (one,))))


def names(*, optional: bool = False) -> tuple[str, ...]:
    """All names that a run may need: fetched ones first, then those in the package.

    :param optional: also what is fetched only when asked for, last.
    """
    needed = (*CATALOGUE, *(name for name in read_assets() if name not in CATALOGUE))
    return (*needed, *OPTIONAL) if optional else needed


def status(name: str) -> Status:
    """Looks at the file, and hashes it once a process.

    Raises:
        WeightsError: no weights have this name.
    """
    entry = _entry(name)
    if entry is not None:
        path = weights_folder() / entry.file
        origin = f"{entry.distribution.package} {entry.distribution.version}"
        expected, size = entry.sha256, entry.size_bytes
        licence, purpose = entry.licence, entry.purpose
    else:
        asset = read_assets().get(name)
        if asset is None:
            raise _unknown(name)
        path, origin = ASSETS_FOLDER / asset.file, f"vidswap {asset.version}"
        expected, size = asset.sha256, 0
        licence, purpose = asset.licence, asset.purpose
    state: Literal["ready", "missing", "altered"]
    try:
        found = _sha256_once(path)
        size = path.stat().st_size
        state = "ready" if found == expected else "altered"
    except FileNotFoundError:
        state = "missing"
    except OSError:  # a folder in its place, no permission, a failing disk
        state = "altered"
    return Status(name, state, path, size, licence, purpose, origin, expected)


def available(name: str) -> bool:
    """True when :func:`locate` would return a path; unknown names are simply not available."""
    try:
        return status(name).state == "ready"
    except WeightsError:
        return False


def locate(name: str) -> Path:
    """The verified file of these weights. Never downloads.

    Raises:
        WeightsError: missing, altered or unknown; the message names the command that mends it.
    """
    found = status(name)
    if found.state == "ready":
        return found.path
    if _entry(name) is None:
        raise WeightsError(
            f"weights {name!r} at {found.path} are {found.state}: install vidswap again"
        )
    if found.state == "missing":
        raise WeightsError(f"weights {name!r} are missing at {found.path}: run {_mend(name)}")
    raise WeightsError(
        f"weights {name!r} at {found.path} are truncated or altered "
        f"(SHA-256 is not the catalogue's): run {_mend(name)}"
    )


def verify(name: str) -> Status:
    """Hashes the file afresh.

    Raises:
        WeightsError: as :func:`locate`.
    """
    path = str(status(name).path)
    for key in [key for key in _hashed if key[0] == path]:
        del _hashed[key]
    locate(name)
    return status(name)


def ensure(
    wanted: Iterable[str] | None = None,
    *,
    progress: bool = True,
    offline: bool = False,
    force: bool = False,
    source: Path | None = None,
) -> Mapping[str, Path]:
    """Makes these weights (by default all that are not optional) ready, fetching what is not.

    Safe when several processes call it at once: one fetches, the others wait and find it done.

    Args:
        progress: show a bar a download on standard error.
        offline: never start a download (also ``VIDSWAP_OFFLINE=1``).
        force: fetch and convert again what is ready.
        source: a folder with the registry's files, for machines without a network.

    Raises:
        WeightsError: an unknown name, no network, another hash, no space, or an unwritable
            cache folder; what was there before is untouched.
    """
    chosen = tuple(names() if wanted is None else dict.fromkeys(wanted))
    before = {name: status(name) for name in chosen}
    needed = [name for name in chosen if _entry(name) is not None]
    if not force:
        needed = [name for name in needed if before[name].state != "ready"]
    if needed:
        offline = offline or os.environ.get("VIDSWAP_OFFLINE", "") not in ("", "0")
        if offline and source is None:
            raise WeightsError(
                f"weights {', '.join(needed)} are missing and downloads are switched off: "
                f"run {_mend(needed[0])} with a network, or with --from FOLDER"
            )
        _make_ready(needed, progress=progress, force=force, source=source)
    return {name: locate(name) for name in chosen}


def _make_ready(needed: list[str], *, progress: bool, force: bool, source: Path | None) -> None:
    folder = weights_folder()

    def tell(holder: str) -> None:
        if progress:
            print(f"{holder} is fetching weights: waiting for it", file=sys.stderr)

    try:
        with exclusive(folder / ".lock", on_wait=tell):
            _remove_stale(folder)
            if not force:  # another run may have finished while this one waited
                needed = [name for name in needed if status(name).state != "ready"]
            groups: dict[Distribution, list[Entry]] = {}
            for name in needed:
                entry = _entry(name)
                assert entry is not None
                groups.setdefault(entry.distribution, []).append(entry)
            for distribution, entries in groups.items():
                _make_group(distribution, entries, folder, progress=progress, source=source)
    except OSError as error:
        raise WeightsError(
            f"cannot write weights to {folder} ({error.strerror or error}): free some space or "
            f"set VIDSWAP_HOME to a writable folder, then run {MEND}"
        ) from error


def _make_group(
    distribution: Distribution,
    entries: list[Entry],
    folder: Path,
    *,
    progress: bool,
    source: Path | None,
) -> None:
    work = Path(tempfile.mkdtemp(prefix=_WORK_PREFIX, dir=folder))
    try:
        archive = obtain(distribution, work, source=source, progress=progress)
        for entry in entries:
            data = entry.convert(read_members(archive, entry.members))
            write_checked(entry, data, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_checked(entry: Entry, data: bytes, folder: Path) -> Path:
    """Publishes a finished file, unless it is not the one that the catalogue pins."""
    found = hashlib.sha256(data).hexdigest()
    if found != entry.sha256:
        raise WeightsError(
            f"weights {entry.name!r}: conversion gave SHA-256 {found[:16]}..., expected "
            f"{entry.sha256[:16]}...: nothing was written; install this version of vidswap "
            f"again, then run {MEND}"
        )
    path = folder / entry.file
    write_atomically(path, data)
    return path


def _remove_stale(folder: Path) -> None:
    """Clears what killed runs left; young folders may be in use where locks do not work."""
    for left in (*folder.glob(_WORK_PREFIX + "*"), *folder.glob(".vidswap-*.tmp")):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime <= _STALE_SECONDS:
                continue
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()


def _sha256_once(path: Path) -> str:
    info = path.stat()
    key = (str(path), info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
    if key not in _hashed:
        _hashed[key] = sha256_of(path)
    return _hashed[key]


def _unknown(name: str) -> WeightsError:
    hint = did_you_mean(name, names(optional=True), "`vidswap weights list` shows all names")
    return WeightsError(f"no weights are named {name!r}: {hint}")

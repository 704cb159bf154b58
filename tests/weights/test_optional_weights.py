"""What is fetched only on request: never by default, through npm, with one line where npm is not."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from vidswap import weights
from vidswap.errors import WeightsError
from vidswap.weights import fetch_npm

ENTRIES = list(weights.OPTIONAL.values())


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_entry_is_pinned_and_apart(entry: weights.Entry) -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
    assert re.fullmatch(r"[0-9a-f]{64}", entry.distribution.sha256)
    assert entry.name not in weights.CATALOGUE and entry.name not in weights.names()
    assert entry.name in weights.names(optional=True)


def test_groups_name_what_there_is() -> None:
    assert weights.expand(["judge", "dlib-resnet", "faceres"]) == ("faceres", "dlib-resnet")
    assert all(name in weights.OPTIONAL for group in weights.GROUPS.values() for name in group)


def test_missing_names_its_own_command(empty_home: Path) -> None:
    with pytest.raises(WeightsError, match="run `vidswap weights fetch teacher`"):
        weights.locate("mobileface")


def test_without_npm_one_line_says_what_to_do(
    empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VIDSWAP_OFFLINE", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WeightsError, match="npm is not on the PATH.*--from") as caught:
        weights.ensure(["faceres"], progress=False)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 5
    assert [path.name for path in (empty_home / "weights").iterdir() if path.name != ".lock"] == []


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not here")
def test_a_registry_out_of_reach_is_one_line(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VIDSWAP_OFFLINE", raising=False)
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    with pytest.raises(WeightsError, match="cannot fetch @vladmandic/human.*ECONNREFUSED") as caught:
        weights.ensure(["faceres"], progress=False)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (empty_home / "weights").iterdir() if path.name != ".lock"] == []


def test_npm_is_told_to_run_nothing(tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not here")
    command = fetch_npm.command(ENTRIES[0].distribution, tmp_path)
    assert "--ignore-scripts" in command and "@vladmandic/human@3.3.6" in command

from __future__ import annotations

import json
import pickletools
import subprocess
import sys
import zipfile
from pathlib import Path

import av

TOOLS = Path(__file__).resolve().parents[2] / "tools"
# Quick to make; the large ones are for the fault suite itself.
NUMBERS = ["1", "12", "13", "15", "19", "23", "30", "31", "34", "36", "40", "57", "59", "61"]


def run(folder: Path, numbers: list[str]) -> list[dict]:
    command = [sys.executable, str(TOOLS / "make_fault_files.py"), str(folder), "--only", *numbers]
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def pts_of(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [frame.pts for frame in container.decode(video=0)]


def test_the_files_are_what_they_claim_and_the_same_each_time(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
    manifest = run(first, NUMBERS)
    again = run(second, ["1", "15", "59"])  # the formats that would take random numbers
    assert again == [entry for entry in manifest if entry["number"] in (1, 15, 59)]
    assert {str(entry["number"]) for entry in manifest} == set(NUMBERS)
    for entry in manifest:
        assert entry["must"] and entry["exits"] and (first / entry["file"]).exists()

    uneven = pts_of(first / "01_variable_rate.mkv")
    assert uneven == [n * 40 for n in range(75) if n % 3]
    assert pts_of(first / "12_late_start.ts")[0] == 1000 * 90_000
    with av.open(str(first / "13_edit_list.mp4")) as container:
        assert container.streams.video[0].frames == 50
    assert len(pts_of(first / "13_edit_list.mp4")) == 32
    with av.open(str(first / "15_many_streams.mkv")) as container:
        kinds = [stream.type for stream in container.streams]
        assert kinds == ["video", "audio", "audio", "subtitle", "attachment"]
        assert len(container.chapters()) == 2
    with av.open(str(first / "23_size_change.ts")) as container:
        assert {frame.width for frame in container.decode(video=0)} == {320, 160}
    with av.open(str(first / "30_huge_count.avi")) as container:
        assert container.streams.video[0].frames == 2147483647
    assert len(pts_of(first / "30_huge_count.avi")) == 50
    gaps = pts_of(first / "31_gap.mkv")
    assert max(b - a for a, b in zip(gaps, gaps[1:], strict=False)) > 86_000_000
    assert (first / "40_symlink.mp4").samefile(first / "40_hardlink.mp4")
    assert not (first / "19_folder" / "0004.png").exists()
    pickled = zipfile.ZipFile(first / "59_runs_code.pt").read("archive/data.pkl")
    assert any(opcode.name == "REDUCE" for opcode, _, _ in pickletools.genops(pickled))
    assert not (first / "EXECUTED").exists()

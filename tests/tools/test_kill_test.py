"""The kill test: a short run of it, and that it sees what it looks for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vidswap.journal import Chunk, Journal, RunKey
from vidswap.runs import work_folder

TOOLS = Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))
try:
    from kill_test import CHEAP, KillTest, State, frames_digest, state_of
finally:
    sys.path.remove(str(TOOLS))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(os.name == "nt", reason="kills as POSIX does")
@pytest.mark.parametrize("suffix", [".mp4", ""], ids=["mp4", "folder"])
def test_a_few_kills_lose_nothing(weights_home: Path, tmp_path: Path, suffix: str) -> None:
    command = [sys.executable, str(TOOLS / "kill_test.py"), "--kills", "3", "--seed", "4"]
    environment = {**os.environ, "PYTHONPATH": str(TOOLS.parent), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*command, "--seconds", "0.32", f"--suffix={suffix}"],
        capture_output=True, text=True, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"^kills +3 \(", result.stdout, re.MULTILINE), result.stdout
    assert re.search(r"^failures +0$", result.stdout, re.MULTILINE), result.stdout


def _work(output: Path, chunks: int) -> Path:
    folder = work_folder(output)
    with Journal.open(folder, RunKey("1-a")) as journal:
        for index in range(chunks):
            chunk = Chunk(index, 2 * index, 2)
            journal.temporary_of(chunk).write_bytes(bytes([index]) * 64)
            journal.record(chunk, verify=lambda _path: 2)
    return folder


def test_lost_changed_and_redone_chunks_are_seen(tmp_path: Path) -> None:
    test = KillTest(tmp_path, tmp_path / "clip.mp4", ".mp4", list(CHEAP), 1)
    test.errors = tmp_path / "errors.txt"
    folder = _work(test.output, 3)
    (folder / ".chunk-000003.part.part.mp4").touch()
    before = state_of(folder)
    assert len(before.chunks) == 3 and before.begun == 4

    def judged(said: str, now: State) -> tuple[list[str], tuple[int, int]]:
        test.errors.write_text(said)
        return test._check_resumed(before, now), test.redone_lost

    assert judged("vidswap: resuming: 6 of 16 frames are done", before) == ([], (1, 0))
    failures, counts = judged("vidswap: resuming: 2 of 16 frames are done", before)
    assert counts == (3, 2) and failures == ["3 chunks made again", "2 finished chunks lost"]
    (folder / "chunk-000001.mp4").write_bytes(b"other")
    failures, _ = judged("vidswap: resuming: 6 of 16 frames are done", state_of(folder))
    assert failures == ["finished chunks changed: ['chunk-000001.mp4']"]


def test_chunks_that_a_published_run_removes_are_not_lost(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    folder = _work(output, 3)
    (folder / "chunk-000000.mp4").unlink()
    assert state_of(folder).chunks["chunk-000000.mp4"] == "gone (not as the journal has it)"
    with Journal.open(folder, RunKey("1-a")) as journal:
        journal.note_published()
    assert state_of(folder) == State({}, 0)


def test_an_output_with_other_frames_is_seen(tmp_path: Path) -> None:
    from PIL import Image

    for name, level in (("a", 10), ("b", 10), ("c", 11)):
        (tmp_path / name).mkdir()
        Image.new("RGB", (16, 16), (level, 20, 30)).save(tmp_path / name / "0.png")
    digests = [frames_digest(tmp_path / name) for name in "abc"]
    assert digests[0] == digests[1] != digests[2]
    test = KillTest(tmp_path, tmp_path / "clip.mp4", "", list(CHEAP), 1)
    test.wanted = digests[0]
    failures: list[str] = []
    os.replace(tmp_path / "c", test.output)
    test._check_output(failures)
    assert failures == ["the output is not that of the run without a disturbance"]

"""The fuzzer: a short run of it, and that it sees what it looks for."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))
try:
    from fuzzing.mutate import mutate
    from fuzzing.pool import Worker
finally:
    sys.path.remove(str(TOOLS))


@pytest.mark.timeout(600)
def test_mutated_files_end_in_a_result_or_one_line(weights_home: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(TOOLS / "fuzz.py"), "--files", "60", "--commands", "0.1", "--seed", "2"]
    environment = {**os.environ, "PYTHONPATH": str(TOOLS.parent), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    row = re.search(r"^all +(\d+) +(\d+) +0 +0 +0$", result.stdout, re.MULTILINE)
    assert row is not None and int(row[1]) > 5 and int(row[2]) > 5, result.stdout


def test_the_same_seed_gives_the_same_bytes_and_others_do_not() -> None:
    data, other = bytes(range(256)) * 20, b"mix:\n  strength: 1\n" * 30
    made = [mutate(data, other, ".mp4", seed) for seed in range(50)]
    assert made == [mutate(data, other, ".mp4", seed) for seed in range(50)]
    assert len(set(made)) > 40 and sum(item == data for item in made) < 5
    texts = b"".join(mutate(other, data, ".yaml", seed) for seed in range(300))
    assert all(word in texts for word in (b"python/object", b"1e999", b"[[["))


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_process_that_hangs_or_dies_is_noticed_and_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("mix:\n  strength: 0.5\n")
    (tmp_path / "b.yaml").write_text("mix:\n  strenth: 0.5\n")
    (tmp_path / "c.onnx").write_bytes(b"")
    worker = Worker(tmp_path)

    def ask(name: str, reader: str = "config", limit: float = 60.0) -> str:
        task = {"reader": reader, "path": str(tmp_path / name), "good": ""}
        return worker.ask(task, limit)["verdict"]

    try:
        assert (ask("a.yaml"), ask("b.yaml")) == ("ok", "refused")
        assert ask("a.yaml", reader="onnx") in ("ok", "refused")
        assert ask("none.yaml", reader="journal") == "crash"  # an exception that is no VidswapError
        assert worker._process is not None
        worker._process.send_signal(signal.SIGSTOP)
        assert ask("a.yaml", limit=0.3) == "hang"
        assert ask("a.yaml") == "ok"
        worker._process.send_signal(signal.SIGSTOP)
        timer = threading.Timer(0.3, worker._process.kill)
        timer.start()
        assert ask("a.yaml") == "crash"
        timer.join()
        assert ask("a.yaml") == "ok"
    finally:
        worker.stop()

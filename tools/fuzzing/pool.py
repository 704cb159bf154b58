"""Processes that read files and may die of it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RESTART_AFTER = 300
"""Files that one process reads at most: what leaks does not pile up."""
MAX_MEMORY_MB = 4000


class Worker:
    """One process that is started again when it died, hung or took too much memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._done = 0

    def ask(self, task: dict[str, Any], limit_seconds: float) -> dict[str, Any]:
        """Verdict on a task; ``crash`` or ``hang`` when the process gave none."""
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        began = time.monotonic()
        process.stdin.write(json.dumps(task).encode() + b"\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], limit_seconds)
        if not ready:
            self.stop()
            return {"verdict": "hang", "said": f"no answer in {limit_seconds:g} s"}
        line = process.stdout.readline()
        self._done += 1
        if not line:
            code = process.wait()
            self.stop()
            return {"verdict": "crash", "said": f"the process ended with {code}"}
        answer = json.loads(line)
        answer["seconds"] = time.monotonic() - began
        if answer["memory_mb"] > MAX_MEMORY_MB:
            self.stop()
            return {**answer, "verdict": "crash", "said": f"took {answer['memory_mb']:.0f} MB of memory"}
        if self._done >= RESTART_AFTER:
            self.stop()
        return answer

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            tools = Path(__file__).resolve().parents[1]
            path = os.pathsep.join(filter(None, (str(tools.parent), os.environ.get("PYTHONPATH"))))
            environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "VIDSWAP_OFFLINE": "1"}
            with open(self.folder / "worker.txt", "ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, str(tools / "fuzz.py"), "--worker", str(self.folder)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment,
                    cwd=self.folder,
                )  # fmt: skip
            self._done = 0
            # The first answer says that it is ready: the time to import does not count.
            assert self._process.stdout is not None
            self._process.stdout.readline()
        return self._process


def serve(folder: Path) -> None:
    """The process's side: tasks come a line each on standard input, verdicts go to standard output."""
    import shutil

    from fuzzing.readers import READERS, read_with, run_command
    from vidswap.memory import peak_memory_mb

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    answers.write("ready\n")
    for line in sys.stdin:
        task = json.loads(line)
        work = folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        path = Path(task["path"])
        if task["reader"] in READERS:
            verdict = read_with(task["reader"], path, work)
        else:
            verdict = run_command(task["reader"], path, work, Path(task["good"]))
        verdict["memory_mb"] = peak_memory_mb()
        answers.write(json.dumps(verdict) + "\n")

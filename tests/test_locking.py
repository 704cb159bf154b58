from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from vidswap.locking import FileLock, LockTaken

_HOLD = """
import sys, time
from pathlib import Path
from vidswap.locking import FileLock
with FileLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_holder_at_a_time_even_in_one_process(tmp_path):
    path = tmp_path / "lock"
    with FileLock(path) as first:
        assert first.is_held
        with pytest.raises(LockTaken, match=f"process {os.getpid()}"):
            FileLock(path).acquire()
        with pytest.raises(RuntimeError):
            first.acquire()
    assert not first.is_held
    with FileLock(path):
        pass


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path):
    path = tmp_path / "lock"
    run = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert run.stdout.readline() == "held\n"
    with pytest.raises(LockTaken) as caught:
        FileLock(path).acquire()
    assert caught.value.holder.startswith(f"process {run.pid} on ")
    run.send_signal(signal.SIGKILL)
    run.wait()
    with FileLock(path):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_that_lives_on_does_not_hold_the_lock(tmp_path):
    path = tmp_path / "lock"
    go_read, go_write = os.pipe()
    lock = FileLock(path)
    lock.acquire()
    child = os.fork()
    if child == 0:
        os.close(go_write)
        os.read(go_read, 1)
        os._exit(0)
    try:
        with pytest.raises(LockTaken):  # the child's closing must not free the parent's
            FileLock(path, timeout_seconds=0.2).acquire()
        lock.release()
        FileLock(path, timeout_seconds=2).acquire()
    finally:
        os.close(go_write)
        os.waitpid(child, 0)


def test_waiting_ends_when_the_holder_lets_go(tmp_path):
    path = tmp_path / "lock"
    first = FileLock(path)
    first.acquire()
    threading.Timer(0.15, first.release).start()
    begin = time.monotonic()
    with FileLock(path, timeout_seconds=10):
        assert 0.05 < time.monotonic() - begin < 5


def test_a_lock_file_removed_while_waiting_is_not_taken_for_the_lock(tmp_path):
    path = tmp_path / "lock"
    first = FileLock(path)
    first.acquire()

    def remove_and_release() -> None:
        path.unlink()
        first.release()

    threading.Timer(0.15, remove_and_release).start()
    with FileLock(path, timeout_seconds=10), pytest.raises(LockTaken):
        FileLock(path).acquire()

"""Ctrl-C while a mark is read ends in KeyboardInterrupt, not in a mark that is said to be damaged."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from vidswap.provenance import MarkInfo, mark_output, read_mark
from vidswap.provenance.formats import PNG
from vidswap.provenance.interrupts import interrupts_wait
from vidswap.provenance.reading import manifest_fields

CTRL_C = signal.SIGINT


@pytest.fixture(autouse=True)
def _usual() -> Iterator[None]:
    """Python's own handler, which a process in the background does not have."""
    before = signal.signal(CTRL_C, signal.default_int_handler)
    yield
    signal.signal(CTRL_C, before)


@pytest.fixture
def marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDSWAP_HOME", str(tmp_path / "home"))
    path = tmp_path / "still.png"
    Image.effect_noise((64, 48), 60).convert("RGB").save(path)
    mark_output(path, path, claim=MarkInfo("0", "none"))
    return path


class _Pressed:
    """A file during whose reading somebody presses Ctrl-C."""

    def __init__(self, path: Path, at_read: int) -> None:
        self._file, self._left = open(path, "rb"), at_read
        self.seek, self.tell = self._file.seek, self._file.tell
        self.write, self.flush = self._file.write, self._file.flush  # asked for, never called
        self.reads = 0

    def readinto(self, buffer: memoryview) -> int:
        self.reads += 1
        if self.reads == self._left:
            os.kill(os.getpid(), CTRL_C)
        return self._file.readinto(buffer)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)


@pytest.mark.parametrize("at_read", [1, 3, 10])
def test_ctrl_c_while_a_mark_is_read_back_is_ctrl_c(marked: Path, at_read: int) -> None:
    stream = _Pressed(marked, at_read)
    with pytest.raises(KeyboardInterrupt):
        manifest_fields(stream, PNG, None)  # type: ignore[arg-type]
    assert stream.reads >= at_read
    assert read_mark(marked).state == "valid"


def test_it_is_handled_when_the_block_is_left_and_only_there() -> None:
    inside = []
    with pytest.raises(KeyboardInterrupt), interrupts_wait():
        os.kill(os.getpid(), CTRL_C)
        inside.append("went on")
    assert inside == ["went on"]
    assert signal.getsignal(CTRL_C) is signal.default_int_handler
    with interrupts_wait():
        pass


def test_a_second_one_is_not_kept_waiting() -> None:
    with pytest.raises(KeyboardInterrupt), interrupts_wait():
        os.kill(os.getpid(), CTRL_C)
        os.kill(os.getpid(), CTRL_C)
        pytest.fail("the second one was swallowed")


def test_other_threads_and_an_ignored_ctrl_c_change_nothing() -> None:
    seen = []

    def elsewhere() -> None:
        with interrupts_wait():
            seen.append(signal.getsignal(CTRL_C))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    usual = signal.signal(CTRL_C, signal.SIG_IGN)
    try:
        with interrupts_wait():
            seen.append(signal.getsignal(CTRL_C))
    finally:
        signal.signal(CTRL_C, usual)
    assert seen == [usual, signal.SIG_IGN]

"""Memory figures, and giving free memory back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vidswap.memory import give_back_free_memory


def told(code: str) -> str:
    """What some code prints in a process of its own."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout


def test_the_peak_holds_what_was_used() -> None:
    # In a process of its own: this one may have used any amount before.
    code = (
        "from vidswap.memory import peak_memory_mb; before = peak_memory_mb(); block = bytearray(200 << 20);"
        "print(before, peak_memory_mb())"
    )
    before, after = map(float, told(code).split())
    assert 5 < before < 150
    assert 190 < after - before < 215


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux alone can be asked")
def test_what_is_free_goes_back() -> None:
    # Below the size that gets pages of its own; every second piece is kept, so the heap cannot shrink.
    pieces = [bytearray(60_000) for _ in range(2000)]
    pieces = pieces[::2]
    before = _resident_mb()
    give_back_free_memory()
    assert before - _resident_mb() > 30
    assert len(pieces) == 1000


def _resident_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 2**10


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone has several heaps")
def test_threads_share_one_heap() -> None:
    """As many threads that allocate at once as would have a heap each."""
    code = (
        "import threading; from vidswap.memory import share_heaps\n"
        "if {share}: share_heaps()\n"
        "gate = threading.Barrier(9)\n"
        "def work():\n"
        "    kept = [bytearray(50_000) for _ in range(20)]; gate.wait(); gate.wait()\n"
        "threads = [threading.Thread(target=work) for _ in range(8)]\n"
        "for thread in threads: thread.start()\n"
        "gate.wait()\n"
        "print(sum('00000 ---p' in line for line in open('/proc/self/maps')))\n"
        "gate.wait()\n"
    )

    def heaps(share: bool) -> int:
        """A heap of a thread shows as a mapping whose rest is reserved."""
        return int(told(code.format(share=share)))

    assert heaps(True) < heaps(False)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone gives pages back at once")
def test_pictures_find_the_pages_of_those_before_them() -> None:
    """Faults of pages while pictures of 20 MB come and go, and that they go when that is asked."""
    code = (
        "import resource, numpy as np; from vidswap.memory import give_back_free_memory, keep_large_blocks\n"
        "if {keep}: keep_large_blocks()\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "def draw():\n"
        "    held = [np.full(20 << 20, 1, np.uint8) for _ in range(4)]\n"
        "draw(); before = faults()\n"
        "for _ in range(10): draw()\n"
        "again = faults() - before; give_back_free_memory(); before = faults(); draw()\n"
        "print(again, faults() - before)\n"
    )
    faults = {keep: [int(n) for n in told(code.format(keep=keep)).split()] for keep in (False, True)}
    assert faults[True][0] < 0.1 * faults[False][0]
    assert faults[True][1] > 3 * faults[True][0] / 10

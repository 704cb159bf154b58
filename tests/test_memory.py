"""Memory figures, and giving free memory back."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from vidswap.memory import give_back_free_memory, peak_memory_mb


def test_the_peak_holds_what_was_used() -> None:
    before = peak_memory_mb()
    block = np.ones(round(before + 64) << 17)  # float64: one MB each
    assert peak_memory_mb() > block.nbytes / 2**20


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

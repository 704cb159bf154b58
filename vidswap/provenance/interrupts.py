"""Ctrl-C while a foreign library calls back.

An exception cannot pass through a callback from foreign code: Python prints it and goes on, the library takes
what it was given for the end of the file, and a stopped run is said to have a damaged mark. So Ctrl-C waits.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """The first Ctrl-C inside is handled when the block is left, further ones at once.

    Only in the main thread, and where Ctrl-C is not ignored: elsewhere nothing is changed.
    """
    pressed = False
    usual = signal.getsignal(signal.SIGINT)

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed and callable(usual):
            usual(number, frame)
        pressed = True

    if not callable(usual):
        yield
        return
    try:
        signal.signal(signal.SIGINT, remember)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if pressed:
            usual(signal.SIGINT, None)

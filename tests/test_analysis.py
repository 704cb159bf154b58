"""The stages of a swap of frames that are not gone on with."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from vidswap.analysis import Analysis
from vidswap.config import InversionConfig, RunConfig
from vidswap.records import Frame, PixelLayout
from vidswap.session import Session
from vidswap.stages import Selection
from vidswap.streaming import run_stages

LAYOUT = PixelLayout("gray", 8, (0, 0), False, False, "tv", "bt709")


def frame(index: int) -> Frame:
    return Frame(index, 10 * index, Fraction(1, 250), LAYOUT, (np.full((64, 64), 90, np.uint8),), (64, 64))


def test_frames_at_once_may_begin_anywhere_and_leave_nothing_behind(weights_home: Path) -> None:
    config = RunConfig(device="cpu", threads=1, inversion=InversionConfig(encoder=False))
    run = Analysis.at_once(Session(config), Selection("largest", None))
    with run_stages(map(frame, range(7, 12)), run.stages_of_target()) as works:
        assert [work.frame.index for work in works] == list(range(7, 12))
    assert run.live_from == 7 and run.borders == {} and run.replayed_frames == 0

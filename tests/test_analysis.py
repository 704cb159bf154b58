"""The stages of a swap of frames that are not gone on with."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from vidswap.analysis import Analysis, _Stated
from vidswap.config import InversionConfig, RunConfig
from vidswap.kept_faces import KeptChunks
from vidswap.records import Face, Frame, PixelLayout
from vidswap.session import Session
from vidswap.stages import Selection
from vidswap.streaming import run_stages
from vidswap.works import FaceWork, Work

LAYOUT = PixelLayout("gray", 8, (0, 0), False, False, "tv", "bt709")


def frame(index: int) -> Frame:
    return Frame(index, 10 * index, Fraction(1, 250), LAYOUT, (np.full((64, 64), 90, np.uint8),), (64, 64))


def test_frames_at_once_may_begin_anywhere_and_leave_nothing_behind(weights_home: Path) -> None:
    config = RunConfig(device="cpu", threads=1, inversion=InversionConfig(encoder=False))
    run = Analysis.at_once(Session(config), Selection("largest", None))
    with run_stages(map(frame, range(7, 12)), run.stages_of_target()) as works:
        assert [work.frame.index for work in works] == list(range(7, 12))
    assert run.live_from == 7 and run.borders == {} and run.replayed_frames == 0


@dataclass
class _Remembers:
    """A stage that keeps something of each track."""

    shots: dict[int, tuple[int, np.ndarray]] = field(default_factory=dict)
    tracks: dict[int, np.ndarray] = field(default_factory=dict)
    sources: dict[tuple[int, str], int] = field(default_factory=dict)

    def __call__(self, work: Work) -> Work:
        for face in work.faces:
            track = face.face.track_id
            self.shots[track] = work.shot, np.ones(4, np.float32)
            self.tracks[track] = np.ones(4, np.float32)
            self.sources[track, "alice"] = 1
        return work


def test_what_is_remembered_does_not_grow_with_the_people_of_a_clip(weights_home: Path) -> None:
    """Stages held 3 MB of every track that there ever was; a resumed run must forget the same."""
    session = Session(RunConfig(device="cpu", threads=1))
    stage = _Remembers()
    run = Analysis(session, Selection("all", None), KeptChunks(None, {}, session.device), chunk_frames=4)
    stated = _Stated(run, "test", stage)
    square = np.zeros((4, 2))

    def shown(index: int, *tracks: int, shot: int = 0) -> Work:
        faces = [Face(np.zeros(4, np.float32), 1.0, np.zeros((5, 2), np.float32), track_id=t) for t in tracks]
        return Work(frame(index), shot, tuple(FaceWork(face, square) for face in faces))

    for index in range(40):
        stated(shown(index, 0, 1 + index))  # one who stays, and passers-by
        assert len(stage.tracks) <= 1 + 2 * 4 and len(stage.shots) <= 1 + 2 * 4
    assert set(stage.tracks) == {0, 37, 38, 39, 40} and len(stage.sources) == 41
    for index in range(40, 44):
        stated(shown(index, 0, shot=index // 42))
    assert set(stage.shots) == {0} and set(stage.tracks) == {0}
    resumed = Analysis(session, run.selection, run.kept, chunk_frames=4, state=run.borders[40])
    again = _Stated(resumed, "test", _Remembers())
    assert set(again.stage.tracks) == {0, 37, 38, 39, 40}

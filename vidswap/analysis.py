"""The stages of a swap, made so that a run can be cut at borders and gone on with (composer level).

Between two chunks of frames every stage leaves its state behind. With the states of all stages at a
border, the frames after it come out bit for bit as in a run that was never stopped.

What does not depend on the source is also kept by content, a chunk at a time (:mod:`vidswap.kept_faces`).
Another source, strength or mask then starts from there: invert once, swap many.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from sys import maxsize
from typing import Any

import numpy as np

from vidswap.errors import InputError
from vidswap.kept_faces import KeptChunks, State, entry_of, kept_half, kept_work
from vidswap.records import Frame
from vidswap.regenerate import Regenerate, SeatFaces
from vidswap.reports import Log, quiet
from vidswap.session import Session
from vidswap.snapshots import pack, unpack
from vidswap.stages import (
    CropFaces,
    FindFaces,
    FixedLagStage,
    InvertFaces,
    PasteFaces,
    Selection,
    smooth_latents,
    smooth_quads,
)
from vidswap.streaming import Stage
from vidswap.witnesses import SeeOccluders, WatchOccluders
from vidswap.works import FaceWork, Work

_PARTS = frozenset({"session", "config", "options", "finder", "selection", "doing"})
"""Fields of stages that are no state."""


@dataclass
class Analysis:
    """The stages of one run of a clip, from a border on, and their states at the borders after it."""

    session: Session
    selection: Selection
    kept: KeptChunks
    chunk_frames: int
    state: State | None = None
    """All states at the border to begin at; None: the clip begins there."""
    given: Callable[[Work], Work] | None = None
    """Gives the faces their pivots in place of inversion and smoothing."""
    doing: Log = quiet
    """Told what takes longer than a frame, from any thread."""
    borders: dict[int, State] = field(default_factory=dict)
    """State by number of the first frame after the border; complete when the frame before it is out."""
    replayed_frames: int = 0
    live_from: int | None = None
    """First frame whose faces are searched and inverted; None while all came from the disk."""

    @classmethod
    def at_once(
        cls,
        session: Session,
        selection: Selection,
        given: Callable[[Work], Work] | None = None,
        doing: Log = quiet,
    ) -> Analysis:
        """Of frames that are not gone on with: nothing is kept of them, and no state at borders."""
        kept = KeptChunks(None, {}, session.device)
        return cls(session, selection, kept, maxsize, given=given, doing=doing)

    def stages(self) -> list[Stage]:
        """All stages between decoder and encoder."""
        session = self.session
        return [
            *self.stages_of_target(),
            Stage("generate", _Stated(self, "generate", Regenerate(session, self.doing))),
            Stage("seat", _Stated(self, "seat", SeatFaces(session.config))),
            Stage("paste", _Stated(self, "paste", PasteFaces(session.config))),
        ]

    def stages_of_target(self) -> list[Stage]:
        """The stages that do not depend on the source."""
        session, smooth = self.session, self.session.config.smooth
        made = [Stage("find faces", _Find(self))]
        if smooth.quad > 0 and smooth.lag > 0:
            lagged = FixedLagStage(smooth.lag, smooth_quads(smooth.quad))
            made.append(Stage("steady quads", _Lagged(self, "quads", lagged, smooth.lag, live_only=True)))
        made.append(Stage("crop", CropFaces(session.config.composite)))
        made.append(Stage("watch", _Live(self, "watch", WatchOccluders(session))))
        if self.given is not None:
            made.append(Stage("read latents", self.given))
        else:
            made.append(Stage("invert", _Live(self, "invert", InvertFaces(session))))
        made.append(Stage("see occluders", _See(self, SeeOccluders(session))))
        if self.given is None and smooth.latent > 0 and smooth.lag > 0:
            lagged = FixedLagStage(smooth.lag, smooth_latents(smooth.latent))
            made.append(Stage("steady latents", _Lagged(self, "latents", lagged, smooth.lag)))
        return made

    def is_border(self, index: int) -> bool:
        """Whether a chunk ends behind this frame."""
        return (index + 1) % self.chunk_frames == 0

    def leave(self, name: str, after: int, state: Any) -> None:
        """A stage's state behind a frame."""
        self.borders.setdefault(after + 1, {})[name] = state

    def is_live(self, index: int) -> bool:
        return self.live_from is not None and index >= self.live_from

    def restored(self, name: str, default: Any = None) -> Any:
        return default if self.state is None else self.state.get(name, default)


class _Find:
    """Stage: faces from the disk as long as they are there, found from then on."""

    def __init__(self, run: Analysis) -> None:
        self.run = run
        self.find = FindFaces(run.session, run.session.new_finder(), run.selection)
        self._frames: dict[int, Any] = {}
        self._end: State | None = None

    def __call__(self, frame: Frame) -> Work:
        run, index = self.run, frame.index
        if run.live_from is None and (index % run.chunk_frames == 0 or not self._frames):
            self._turn_page(index)
        if run.live_from is None:
            return self._replayed(frame)
        work = self.find(frame)
        if run.is_border(index):
            run.leave("find", index, self._state())
        return work

    def _turn_page(self, index: int) -> None:
        run = self.run
        chunk = run.kept.get(index // run.chunk_frames)
        if chunk is not None:
            self._frames = {entry["index"]: entry for entry in chunk["frames"]}
            self._end = chunk["state"]
            return
        if self._end is not None:  # the others of its states were left on the way
            run.state = {**(run.state or {}), **self._end}
        self._restore(run.restored("find"))
        self._frames = {}
        run.live_from = index

    def _replayed(self, frame: Frame) -> Work:
        run, entry = self.run, self._frames.get(frame.index)
        if entry is None:
            run.kept.forget(frame.index // run.chunk_frames)
            raise InputError(
                "the clip gave more frames than when it was last read, so it is damaged or its disk is: "
                "run the same command again, finished work is kept"
            )
        run.replayed_frames += 1
        if run.is_border(frame.index) and self._end is not None:
            for name, state in self._end.items():
                run.leave(name, frame.index, state)
        work = kept_work(entry, frame, run.selection)
        run.selection.heard(work.sought)
        return work

    def _state(self) -> State:
        finder, tracker = self.find.finder.state, self.find.finder.tracker
        people = [tracker.open, tracker.closed, tracker.next_id]
        return _frozen({"finder": finder, "people": people, "selection": self.run.selection.state()})

    def _restore(self, state: State | None) -> None:
        if state is None:
            return
        state = unpack(state["packed"], self.run.session.device)
        finder = self.find.finder
        finder.state = state["finder"]
        finder.tracker.open, finder.tracker.closed, finder.tracker.next_id = state["people"]
        self.run.selection.restore(state["selection"])


class _Lagged:
    """Processor: look-ahead that remembers the frames before a border.

    :param live_only: hand on what came from the disk as it is.
    """

    def __init__(
        self, run: Analysis, name: str, stage: FixedLagStage, lag: int, *, live_only: bool = False
    ) -> None:
        self.run, self.name, self.stage, self.live_only = run, name, stage, live_only
        self.recent: deque[Any] = deque(maxlen=lag)
        self._begun = False

    def process(self, work: Work) -> Iterator[Work]:
        run, index = self.run, work.frame.index
        if self.live_only and not run.is_live(index):
            yield work
            return
        if not self._begun:
            self._begun = True
            self.recent.extend(run.restored(self.name, []))
            self.stage.remember([_ghost(entry) for entry in self.recent])
        self.recent.append(_outline(work))
        ready = list(self.stage.process(work))
        if run.is_border(index):
            run.leave(self.name, index, list(self.recent))
        yield from ready

    def flush(self) -> Iterable[Work]:
        return self.stage.flush()


class _Memory:
    """What a stage remembers of tracks, left at borders. Of those that are not seen for a whole chunk, and of
    shots that are over, nothing is kept: a long clip has many."""

    def __init__(self, run: Analysis, name: str, stage: Any) -> None:
        self.run, self.name, self.stage = run, name, stage
        self._seen: set[int] = set()

    def restore(self) -> None:
        """As it was at the border that the run begins at."""
        state = self.run.restored(self.name)
        if state is not None:
            for name, value in unpack(state["packed"], self.run.session.device).items():
                setattr(self.stage, name, value)

    def heard(self, work: Work) -> None:
        """To be told of each frame that the stage is done with."""
        self._seen |= {face.face.track_id for face in work.faces}
        index = work.frame.index
        if self.run.is_border(index):
            names = [field.name for field in fields(self.stage) if field.name not in _PARTS]
            members = {name: getattr(self.stage, name) for name in names}
            for memory in members.values():
                if isinstance(memory, dict):
                    self._forget(memory, work.shot)
            self._seen = set()
            self.run.leave(self.name, index, _frozen(members))

    def _forget(self, memory: dict[Any, Any], shot: int) -> None:
        for key, item in list(memory.items()):
            over = isinstance(item, tuple) and type(item[0]) is int and item[0] < shot
            if over or (type(key) is int and key not in self._seen):
                del memory[key]


class _Live:
    """Stage: another one that only live frames need, whose state is left at borders."""

    def __init__(self, run: Analysis, name: str, stage: WatchOccluders | InvertFaces) -> None:
        self.run, self.stage = run, stage
        self._memory = _Memory(run, name, stage)
        self._begun = False

    def __call__(self, work: Work) -> Work:
        run, index = self.run, work.frame.index
        if not run.is_live(index):
            return work
        if not self._begun:
            self._begun = True
            self._memory.restore()
        work = _rounded(self.stage(work))
        self._memory.heard(work)
        return work


class _See:
    """Processor: what is in front of the faces. All that is known of live frames by then is kept for other
    runs."""

    def __init__(self, run: Analysis, stage: SeeOccluders) -> None:
        self.run, self.stage = run, stage
        self._memory = _Memory(run, "doubt", stage)
        self._memory.restore()
        self._page: list[Any] = []
        self._index = -1

    def process(self, work: Work) -> Iterator[Work]:
        run, index = self.run, work.frame.index
        work = self.stage.witnessed(work)
        if run.is_live(index) and run.kept.cache is not None:
            self._index = index
            self._page.append(entry_of(work))
            if run.is_border(index):
                self._keep(run.borders[index + 1])
        work = self.stage.doubted(work)
        self._memory.heard(work)
        yield work

    def flush(self) -> Iterator[Work]:
        if self._page:
            self._keep(None)
        return iter(())

    def _keep(self, border: State | None) -> None:
        names = ("find", "quads", "watch", "invert")
        state = None if border is None else {n: border[n] for n in names if n in border}
        self.run.kept.put(self._index // self.run.chunk_frames, self._page, state)
        self._page = []


class _Stated:
    """Stage: another one, whose state is left at borders."""

    def __init__(self, run: Analysis, name: str, stage: Callable[[Work], Any]) -> None:
        self.stage = stage
        self._memory = _Memory(run, name, stage)
        self._memory.restore()

    def __call__(self, work: Work) -> Any:
        made = self.stage(work)
        self._memory.heard(work)
        return made


def _frozen(state: State) -> State:
    """A state as arrays at once: the stage goes on and changes its own."""
    return {"packed": pack(state)}


def _rounded(work: Work) -> Work:
    """Pivots in the precision that they are kept in, so that kept and fresh ones are the same."""
    return work.with_faces(
        replace(face, pivot=replace(face.pivot, latent=kept_half(face.pivot).astype(np.float32)))
        if face.pivot is not None
        else face
        for face in work.faces
    )


def _outline(work: Work) -> State:
    """What neighbours in time are asked for."""
    faces = [{"face": f.face, "quad": f.quad, "pivot": f.pivot} for f in work.faces]
    return {"shot": work.shot, "faces": faces}


def _ghost(outline: State) -> Work:
    faces = (FaceWork(f["face"], f["quad"], pivot=f["pivot"]) for f in outline["faces"])
    return Work(None, outline["shot"], tuple(faces))  # type: ignore[arg-type]

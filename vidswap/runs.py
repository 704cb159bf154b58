"""A swap in chunks, each finished for good: a killed run goes on where it stopped (composer level).

The work folder ``.NAME.vidswap`` lies beside the output: it is on the same disk, so publishing is a
rename and what fits there fits under the final name; it is found again by the output's name alone, from
any machine that sees the folder; and nobody has to look elsewhere for what fills the disk. It holds the
finished chunks, the journal of :mod:`vidswap.journal`, and the states of all stages at the last two
borders between chunks; it is removed once the output has its name.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from vidswap import __version__, weights
from vidswap.analysis import Analysis
from vidswap.cache import JSON, ContentCache, content_key, digest_of
from vidswap.errors import OutputError
from vidswap.identities import SourceIdentity, network_keys
from vidswap.journal import LOCK_NAME, Chunk, ChunkRecord, Journal, RunKey, was_published
from vidswap.kept_faces import KeptChunks, State, analysis_key
from vidswap.likeness import Sought
from vidswap.locking import FileLock, LockTaken
from vidswap.machine import usable_cores
from vidswap.memory import give_back_free_memory
from vidswap.reports import Log, quiet
from vidswap.session import Session
from vidswap.settings import as_dict
from vidswap.snapshots import pack, unpack
from vidswap.stages import Selection
from vidswap.streaming import run_stages
from vidswap.video import (
    PackedWriter,
    VideoInfo,
    count_packed,
    open_frames,
    open_writer,
    output_kind,
    try_streams,
)
from vidswap.video.versions import library_versions
from vidswap.works import Work

Tell = Callable[[int], None]

_LOG = logging.getLogger(__name__)
_TRIM_EVERY = 4
"""Frames after which what the allocator holds free is given back. Every 16, the peak of 20 s of a clip was
10 % above that of 5 s; every 4, 2 %."""
_STATE = "state"
_OWN = ("state", "joined", "marked", ".chunk-", ".joined", ".marked", ".vidswap-")
"""How the names of the run's files begin, beside those of the journal."""
_NETWORKS = (
    "mobilestylegan", "rgb-heads", "encoder", "fit-curvature", "dlib-resnet", "canonical-mesh", "facemesh",
    "facemesh-torch", "iris", "iris-torch", "lips-features", "lips-points",
    "blazeface-full", "blazeface-short",
)  # fmt: skip
_IN_MP4 = frozenset(
    {"libx264", "libx265", "libsvtav1", "libaom-av1", "h264_nvenc", "hevc_nvenc", "av1_nvenc"}
)
"""Encoders whose pieces are MP4 whatever the output: it keeps every time exactly."""


@dataclass
class ChunkFigures:
    """What :meth:`ChunkedRun.encode` did."""

    frames: int = 0
    """Frames of the output."""
    made: int = 0
    """Those of them that were made this time, not found finished."""
    swapped: int = 0
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


class ChunkedRun:
    """One clip on its way, chunk by chunk. Use as a context manager; it holds the work folder.

    Leaving the block by an error keeps what is finished; a folder without one finished chunk is removed.

    :param start_seconds: range of the target, as for ``open_frames``.
    :param restart: begin again, whatever is there.
    :param given: stage that gives the faces their pivots in place of inversion.
    :param given_key: what it gives; part of what decides the output.
    :raises UsageError: the folder holds a run with other settings (named), or a run is at work in it.
    :raises OutputError: the folder cannot be written.
    """

    def __init__(
        self,
        session: Session,
        info: VideoInfo,
        target: Path,
        output: Path,
        selection: Selection,
        *,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        restart: bool = False,
        given: Callable[[Work], Work] | None = None,
        given_key: str | None = None,
        log: Log = quiet,
        doing: Log = quiet,
    ) -> None:
        self.session, self.info, self.target = session, info, target
        self.selection, self.log, self.doing = selection, log, doing
        self.range = (start_seconds, end_seconds)
        self.given, self.given_key = given, given_key
        self.output, self.folder = output, work_folder(output)
        self.suffix = piece_suffix(session.config.video.codec, output)
        self.records: list[ChunkRecord] = []
        key = self._key()
        self.journal = Journal.open(self.folder, key, restart=restart)
        self._states = ContentCache(self.folder / _STATE)
        self._digest = key.digest
        self._done = False

    # --- the frames -----------------------------------------------------------------------------

    def encode(self, tell: Tell, *, total: int | None = None) -> ChunkFigures:
        """Finish all chunks; those that are finished already are left as they are.

        :param tell: called with the number of frames done so far after each frame.
        :param total: how many frames there will be, for the log.
        """
        state, complete = self._resume()
        figures = ChunkFigures(frames=self.frames_done)
        figures.swapped = sum(int(record.data.get("swapped", 0)) for record in self.records)
        if self.records:
            sought = self.records[-1].data.get("sought")
            self.selection.heard(None if sought is None else Sought(*sought))
            self.log(f"resuming: {self.frames_done} of {total or '?'} frames are done")
        began = time.perf_counter()
        if not complete:
            self._make(state, figures, tell)
        figures.seconds = time.perf_counter() - began
        return figures

    def _make(self, state: State | None, figures: ChunkFigures, tell: Tell) -> None:
        kept = kept_chunks(self.session, self.info, self.selection, self.range, keep=self.given is None)
        run = Analysis(self.session, self.selection, kept, self._length, state, self.given, self.doing)
        start, end = self.range
        with (
            open_frames(self.target, start_seconds=start, end_seconds=end, info=self.info) as frames,
            # Finished frames are decoded and dropped: seeking would be quicker, but not exact.
            run_stages(
                islice(frames, self.frames_done, None), run.stages(),
                queue_size=2, source_name="decode", at_once=usable_cores(),
            ) as results,
        ):
            with _Piece(self, run, figures) as piece:
                for frame, faces in results:
                    piece.write(frame, faces > 0)
                    figures.frames, figures.made = figures.frames + 1, figures.made + 1
                    figures.swapped += faces > 0
                    tell(figures.frames)
                    if run.is_border(frame.index):
                        piece.finish(last=False)
                piece.finish(last=True)
            figures.stages = {stat.name: stat.busy_seconds for stat in results.stats}
            if frames.damage is not None:
                figures.warnings.append(frames.damage)
        if run.replayed_frames:
            self.log(f"faces and inversions of {run.replayed_frames} frames were taken from the cache")

    @property
    def frames_done(self) -> int:
        """Frames in finished chunks."""
        return self.records[-1].chunk.end_frame if self.records else 0

    @property
    def pieces(self) -> list[Path]:
        """The finished chunks' files, in order."""
        return [record.path for record in self.records]

    def stopped(self, total: int | None) -> str:
        """For the user who interrupted: what is kept, and how to go on."""
        if not self.records:
            return f"stopped before the first {self._length} frames were done; nothing is kept"
        return (
            f"stopped with {self.frames_done} of {total or '?'} frames done; "
            "run the same command again to go on"
        )

    # --- going on -------------------------------------------------------------------------------

    def _resume(self) -> tuple[State | None, bool]:
        """State at the first border that is not done, and whether there is nothing left to do."""
        records: list[ChunkRecord] = []
        while (chunk := self.journal.chunk_at(len(records))) is not None:
            expected = records[-1].chunk.end_frame if records else 0
            record = self.journal.finished(chunk) if chunk.first_frame == expected else None
            if record is None:
                break
            records.append(record)
        self.records = records
        if records and records[-1].data.get("last"):
            return None, True
        while records:
            found = self._states.get(_STATE, self._state_key(self.frames_done))
            if found is not None:
                return unpack(found, self.session.device), False
            _LOG.warning("the state after frame %d is lost; going back a chunk", self.frames_done)
            records.pop()
        return None, False

    def finish_chunk(self, chunk: Chunk, state: State | None, data: dict[str, JSON]) -> None:
        """Enter a chunk that lies closed at its temporary name."""
        if state is not None:
            key = self._state_key(chunk.end_frame)
            if not self._states.put(_STATE, key, pack(state)):
                raise OutputError(
                    f"no room left in {self.folder}; free some space and run the same command "
                    "again, finished work is kept"
                )
        record = self.journal.record(chunk, verify=_count_pictures, suffix=self.suffix, data=data)
        self.records.append(record)
        if chunk.index == 0 and self.suffix != ".zip":
            trial = self.temporary("joined" + self.output.suffix)
            for warning in try_streams(record.path, trial, self.info):
                self.log(warning)
        old = chunk.first_frame - self._length
        if old > 0:
            with suppress(OSError):
                self._states.path_of(_STATE, self._state_key(old)).unlink(missing_ok=True)

    def _state_key(self, border: int) -> dict[str, JSON]:
        return {"run": self._digest, "border": border}

    @property
    def _length(self) -> int:
        return self.session.config.runs.chunk_frames

    # --- the end --------------------------------------------------------------------------------

    def temporary(self, name: str) -> Path:
        """A file of the run's own in the work folder: ``joined`` or ``marked`` with a suffix."""
        return self.folder / name

    def publishing(self, output: Path) -> None:
        """To be said right before the output gets its name: a kill may come between."""
        self.journal.note_publishing(output)

    def finish(self) -> None:
        """The output has its name: the work folder goes when the block is left."""
        self.journal.note_published()
        self._done = True

    def __enter__(self) -> ChunkedRun:
        return self

    def __exit__(self, *_error: object) -> None:
        if not self._done and self.journal.chunk_at(0) is not None:
            self.journal.close()
            return
        with suppress(OSError):  # what cannot be removed is no reason to hide an error
            for path in list(self.folder.iterdir()):
                if not path.name.startswith(_OWN):
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
        self.journal.discard()

    # --- keys -----------------------------------------------------------------------------------

    def _key(self) -> RunKey:
        session, selection = self.session, self.selection
        options: dict[str, Any] = as_dict(session.config)
        for name in ("threads", "device", "runs"):
            del options[name]
        options["device"], options["precision"] = session.device.type, session.precision
        mark = options.pop("mark")
        if mark["visible_label"] is not None:  # who signs is decided at the end, and changes no frame
            options["mark"] = {name: mark[name] for name in mark if not name.startswith("sign_")}
        options["runs"] = {"chunk_frames": self._length}
        options["start"], options["end"] = self.range
        options["face"] = selection.wanted
        if selection.reference is not None:
            reference = selection.reference
            options["reference"] = f"{os.path.basename(reference.label)} ({digest_of(reference.key)[:8]})"
        if self.given_key is not None:
            options["latents"] = self.given_key
        if selection.source is not None:
            options["source"] = _named(selection.source)
        for number, source in selection.per_track.items():
            options[f"face {number}"] = _named(source)
        return RunKey(
            input=input_key(self.info),
            weights={**_networks(session), "generator": session.generator.identifier, **self._mixer()},
            options=options,
            versions=_versions(),
        )

    def _mixer(self) -> dict[str, str]:
        name = f"mixer-{self.session.mixer.name}"
        found = _hashes([name]) or {"mixer": name}
        if self.session.steering is not None or self.session.edits:
            found |= _hashes(["directions"])
        if self.session.second_identity is not None:
            found |= _hashes(["second-identity"])
        return found


def kept_chunks(
    session: Session,
    info: VideoInfo,
    selection: Selection,
    range_seconds: tuple[float | None, float | None] = (None, None),
    *,
    keep: bool = True,
) -> KeptChunks:
    """Faces and pivots of a clip that some run with these settings has found, and place for new ones.

    :param range_seconds: start and end of the run. :param keep: False, or ``runs.keep_latents`` off:
        nothing is found or kept.
    """
    runs = session.config.runs
    start, end = range_seconds
    key = analysis_key(
        session, selection,
        input=input_key(info), start=start, end=end, chunk_frames=runs.chunk_frames,
        networks=_networks(session), versions=_versions(),
    )  # fmt: skip
    cache = None
    if runs.keep_latents and keep:
        cache = ContentCache(weights.home() / "cache", max_bytes=round(runs.cache_gb * 2**30))
    return KeptChunks(cache, key, session.device)


class _Piece:
    """The chunk that is being written."""

    def __init__(self, run: ChunkedRun, analysis: Analysis, figures: ChunkFigures) -> None:
        self.run, self.analysis, self.figures = run, analysis, figures
        self._writer: Any = None
        self._first = (0, 0)
        self._frames = self._swapped = 0

    def write(self, frame: Any, swapped: bool) -> None:
        if self._writer is None:
            index = len(self.run.records)
            path = self.run.journal.temporary_of(Chunk(index, frame.index, 1), self.run.suffix)
            path.unlink(missing_ok=True)
            info = self.run.info
            packed = self.run.suffix == ".zip"
            self._writer = (
                PackedWriter(path, info) if packed else open_writer(path, info, self.run.session.config.video)
            )
            self._first, self._frames, self._swapped = (frame.index, frame.pts), 0, 0
        self._writer.write(frame)
        self._frames += 1
        self._swapped += swapped
        if self._frames % _TRIM_EVERY == 0:
            give_back_free_memory()

    def finish(self, *, last: bool) -> None:
        """Close and enter the chunk, if there is one."""
        writer = self._writer
        if writer is None:
            return
        writer.close()
        self._writer = None
        self.figures.warnings += [w for w in writer.warnings if w not in self.figures.warnings]
        chunk = Chunk(len(self.run.records), self._first[0], self._frames, self._first[1])
        state = None if last else self.analysis.borders.pop(chunk.end_frame)
        data: dict[str, JSON] = {"swapped": self._swapped, "last": last}
        sought = self.run.selection.sought
        if sought is not None:
            data["sought"] = [sought.people, sought.nearest]
        self.run.finish_chunk(chunk, state, data)

    def __enter__(self) -> _Piece:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._writer is not None:
            self._writer.discard()


def work_folder(output: Path) -> Path:
    """Where an output's unfinished run lies."""
    output = Path(output).absolute()
    name = output.name
    if len(name.encode()) > 200:  # with what is added it must stay a name that disks take
        name = hashlib.sha256(name.encode()).hexdigest()[:32] + output.suffix
    return output.with_name(f".{name}.vidswap")


def clear_published(output: Path) -> None:
    """Remove the work folder of a run whose output has its name already.

    Only a kill between the last two steps of a run leaves one.
    """
    folder = work_folder(output)
    try:
        if not was_published(folder, output):
            return
        with FileLock(folder / LOCK_NAME):
            shutil.rmtree(folder, ignore_errors=True)
    except (OSError, LockTaken):
        return


def piece_suffix(codec: str, output: Path) -> str:
    """Container of the chunks: MP4 where it holds the codec, else that of the output.

    A folder of images is packed, so that a chunk is one file.
    """
    if output_kind(output) == "folder":
        return ".zip"
    suffix = output.suffix.lower()
    return ".mp4" if codec in _IN_MP4 and suffix != ".webm" else suffix


def _count_pictures(path: Path) -> int:
    """Pictures in a chunk, every one decoded."""
    if path.suffix == ".zip":
        return count_packed(path)
    with open_frames(path, deinterlace=False) as frames:
        count = sum(1 for _ in frames)
        return count if frames.damage is None else -1


def input_key(info: VideoInfo) -> str:
    """Content key of a target; of a folder of images that of all of them with their names."""
    if info.files:
        return digest_of([[path.name, content_key(path)] for path in info.files])
    return content_key(info.path)


def _named(source: SourceIdentity) -> str:
    digest = hashlib.sha256()
    for tensor in (source.code, source.embedding):
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return f"{source.name} ({digest.hexdigest()[:8]})"


def _networks(session: Session) -> dict[str, str]:
    # Masks follow what is in front of a face, and pivots leave it out.
    seen = {"occlusion": session.occlusion_net, "glasses": session.glasses_net}
    names = [*_NETWORKS, *(name for name, network in seen.items() if network is not None)]
    return _hashes(names)


def _hashes(names: Iterable[str]) -> dict[str, str]:
    return {name: key.partition("-")[2] for name, key in network_keys(names).items()}


def _versions() -> dict[str, str]:
    return {"vidswap": __version__, "torch": torch.__version__, **library_versions()}

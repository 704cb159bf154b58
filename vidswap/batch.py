"""A batch: many clips, gone on with where it stopped (composer level).

What is done stands in ``.vidswap-batch.json`` in the output folder, by result: the key of what
made it (the clip by content, the source by content, settings, range, faces, weights) and the size of the
result. A clip is skipped when its key is the same and its result is there. A result that is there
but was made by something else is a failed clip, unless ``force`` lets it be replaced. An entry is
written before a clip starts as well: should the batch be killed between the moment that a result
gets its name and the moment that the journal hears of it, the next call sees that the result
appeared since, and takes it as done (results get their names only when they are whole).

``report.json`` beside it tells of the last call, after every clip: :data:`REPORT_FORMAT`.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from vidswap import __version__, weights
from vidswap.batch_plan import plan_batch
from vidswap.cache import content_key, digest_of, write_atomically
from vidswap.errors import OutputError, UsageError, VidswapError
from vidswap.jobs import Job, JobEvent, JobResult, OnEvent, RunJobs, failure
from vidswap.locking import FileLock, LockTaken
from vidswap.settings import as_dict
from vidswap.sources import face_key, parse_source

__all__ = ["BatchReport", "ClipReport", "plan_batch", "run_batch"]

JOURNAL_NAME = ".vidswap-batch.json"
LOCK_NAME = ".vidswap-batch.lock"
REPORT_NAME = "report.json"
JOURNAL_FORMAT = 1
REPORT_FORMAT = 1
"""Version of ``report.json``: ``counts`` by state, and ``clips`` with the fields of
:class:`ClipReport`."""
NO_FACE = "no face"

_LOG = logging.getLogger(__name__)
# Settings that change how fast a result comes, not what it shows.
_NOT_IN_KEY = ("threads", "device", "runs")


@dataclass
class ClipReport:
    """One clip in ``report.json`` and in the table."""

    name: str
    target: str
    output: str
    state: Literal["pending", "running", "done", "skipped", "failed"] = "pending"
    remark: str = ""
    """``no face``: nothing was swapped, the frames passed unchanged."""
    seconds: float = 0.0
    frames: int = 0
    frames_swapped: int = 0
    error: str = ""
    exit_code: int = 0
    warnings: tuple[str, ...] = ()
    device: str = ""

    def ended(self, result: JobResult) -> None:
        """Take over what an engine says."""
        self.state, self.error, self.exit_code = result.state, result.error, result.exit_code
        self.seconds, self.device = round(result.seconds, 3), result.device
        self.frames, self.frames_swapped = result.frames, result.frames_swapped
        self.warnings = result.warnings
        self.remark = NO_FACE if result.state == "done" and not result.frames_swapped else ""


@dataclass
class BatchReport:
    """What a batch did, so far or in the end."""

    folder: Path
    clips: list[ClipReport]
    seconds: float = 0.0

    @property
    def counts(self) -> dict[str, int]:
        """Clips by state."""
        return dict(Counter(clip.state for clip in self.clips))

    @property
    def failed(self) -> list[ClipReport]:
        return [clip for clip in self.clips if clip.state == "failed"]

    def to_dict(self) -> dict[str, Any]:
        """What ``report.json`` holds."""
        return {
            "format": REPORT_FORMAT,
            "vidswap": __version__,
            "seconds": round(self.seconds, 3),
            "counts": self.counts,
            "clips": [asdict(clip) for clip in self.clips],
        }


def run_batch(
    jobs: Sequence[Job],
    run: RunJobs,
    folder: str | Path,
    *,
    on_event: OnEvent | None = None,
    on_skipped: Callable[[int], None] | None = None,
) -> BatchReport:
    """Swap what is not done yet.

    :param jobs: as :func:`vidswap.batch_plan.plan_batch` gives them.
    :param run: of an engine, ``make_engine("local").run``.
    :param folder: the output folder, with journal and report.
    :param on_event: told what the engine tells. :param on_skipped: index of a clip that is done.
    :return: the report, as it stands in ``report.json``; failed clips are in it, not raised.
    :raises UsageError: another batch is at work in the folder.
    :raises OutputError: folder, journal or report cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_NAME)
        lock.acquire()
    except LockTaken as error:
        raise UsageError(
            f"another batch ({error.holder or 'unknown'}) is at work in {folder}: wait for it, or "
            "choose another -o"
        ) from error
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot write into {folder} ({reason}): choose another -o") from error
    try:
        return _Batch(jobs, folder, on_event, on_skipped)(run)
    finally:
        lock.release()


@dataclass
class _Batch:
    """One call of a batch."""

    jobs: Sequence[Job]
    folder: Path
    on_event: OnEvent | None
    on_skipped: Callable[[int], None] | None
    report: BatchReport = field(init=False)
    journal: _Journal = field(init=False)
    keys: dict[int, str] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        clips = [ClipReport(job.name, str(job.target), str(job.output)) for job in self.jobs]
        self.report = BatchReport(self.folder, clips)
        self.journal = _Journal(self.folder)
        self.by_index = {job.index: at for at, job in enumerate(self.jobs)}

    def __call__(self, run: RunJobs) -> BatchReport:
        waiting = [job for job in self.jobs if self._is_waiting(job)]
        self._write_report()
        if waiting:
            try:
                run(waiting, self._heard)
            finally:
                for clip in self.report.clips:
                    if clip.state == "running":  # stopped: the next call goes on with it
                        clip.state = "pending"
                self._write_report()
        return self.report

    def _clip(self, index: int) -> ClipReport:
        return self.report.clips[self.by_index[index]]

    def _is_waiting(self, job: Job) -> bool:
        """Whether a clip has to be swapped; settles those that are done or cannot be."""
        clip = self._clip(job.index)
        try:
            self.keys[job.index] = key = self._key(job)
            entry = self.journal.entry(job)
            if entry.get("key") == key and self._is_whole(job, entry):
                clip.state, clip.remark = "skipped", str(entry.get("remark", ""))
                clip.frames = int(entry.get("frames", 0))
                clip.frames_swapped = int(entry.get("frames_swapped", 0))
                if self.on_skipped is not None:
                    self.on_skipped(job.index)
                return False
            if not job.force and job.output.exists():
                made = "made from another clip, source or settings" if entry else "not made by this batch"
                raise UsageError(
                    f"the output {job.output} exists, {made}: use --force to replace it"
                )
        except (VidswapError, OSError) as error:
            result = failure(job.index, error)
            clip.ended(result)
            if self.on_event is not None:
                self.on_event(JobEvent(job.index, "ended", result=result))
            return False
        return True

    def _is_whole(self, job: Job, entry: Mapping[str, Any]) -> bool:
        """Whether the result is there, as the journal knows it or as a killed run left it."""
        there = _shape_of(job.output)
        if there is None:
            return False
        if entry.get("state") == "done":
            return there[0] == entry.get("bytes")
        return there != entry.get("before", there)

    def _key(self, job: Job) -> str:
        """What decides the result of a job, in one SHA-256."""
        settings = {k: v for k, v in as_dict(job.config).items() if k not in _NOT_IN_KEY}
        sources = [*job.source, *(text.partition("=")[2] for text in job.face if "=" in text)]
        chosen = {} if job.reference is None else {"reference": _source_key(job.reference)}
        return digest_of(
            {
                "clip": self.journal.content(job.target),
                "source": [_source_key(text) for text in sources],
                "face": [text.partition("=")[0] for text in job.face],
                "range": [job.start_seconds, job.end_seconds],
                "settings": settings,
                "weights": _weights_key(),
                **chosen,
            }
        )

    def _heard(self, event: JobEvent) -> None:
        """Keep journal and report up with the engine."""
        clip = self._clip(event.index)
        job = self.jobs[self.by_index[event.index]]
        if event.kind == "started":
            clip.state = "running"
            self.journal.started(job, self.keys[event.index])
        elif event.kind == "ended" and event.result is not None:
            clip.ended(event.result)
            if clip.state == "done":
                self.journal.done(job, self.keys[event.index], clip)
            self._write_report()
        if self.on_event is not None:
            self.on_event(event)

    def _write_report(self) -> None:
        self.report.seconds = time.perf_counter() - self.began
        _write_json(self.folder / REPORT_NAME, self.report.to_dict())


class _Journal:
    """``.vidswap-batch.json``: results and the keys that made them, contents of the clips."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / JOURNAL_NAME
        data = self._read()
        self._results: dict[str, Any] = data.get("results", {})
        self._contents: dict[str, Any] = data.get("contents", {})

    def _read(self) -> dict[str, Any]:
        try:
            data = json.loads(self.path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            _LOG.warning("%s cannot be read (%s): nothing counts as done", self.path, error)
            return {}
        version = data.get("format") if isinstance(data, dict) else None
        if isinstance(version, int) and version > JOURNAL_FORMAT:
            raise UsageError(
                f"{self.path} was written by a newer vidswap (format {version}): update this one, "
                "or choose another -o"
            )
        parts = [data.get(name) for name in ("results", "contents")] if version else [None]
        if not all(isinstance(part, dict) for part in parts):
            _LOG.warning("%s is damaged: nothing counts as done", self.path)
            return {}
        return data

    def entry(self, job: Job) -> Mapping[str, Any]:
        """What is known of a job's result; empty when nothing is."""
        found = self._results.get(self._name(job))
        return found if isinstance(found, dict) else {}

    def content(self, target: Path) -> str:
        """The key of a clip's content; files unchanged since they were read are not read again.

        :raises InputError: it cannot be read.
        """
        if target.is_dir():
            files = sorted(path for path in target.iterdir() if not path.name.startswith("."))
            return digest_of([[path.name, content_key(path)] for path in files if path.is_file()])
        name = str(target.absolute())
        key = None
        try:
            stat = target.stat()
            seen = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
            known = self._contents.get(name)
            if isinstance(known, dict) and known.get("stat") == seen:
                key = known.get("key")
        except OSError:
            return content_key(target)  # which says what is wrong
        if not isinstance(key, str):
            key = content_key(target)
            # A file written to a moment ago could change again within the resolution of its clock.
            if abs(time.time_ns() - stat.st_mtime_ns) > 2_000_000_000:
                self._contents[name] = {"stat": seen, "key": key}
        return key

    def started(self, job: Job, key: str) -> None:
        self._put(job, {"state": "started", "key": key, "before": _shape_of(job.output)})

    def done(self, job: Job, key: str, clip: ClipReport) -> None:
        there = _shape_of(job.output)
        entry = {
            "state": "done", "key": key, "bytes": there[0] if there else None, "frames": clip.frames,
            "frames_swapped": clip.frames_swapped, "remark": clip.remark,
        }  # fmt: skip
        self._put(job, entry)

    def _put(self, job: Job, entry: Mapping[str, Any]) -> None:
        self._results[self._name(job)] = entry
        data = {"format": JOURNAL_FORMAT, "results": self._results, "contents": self._contents}
        _write_json(self.path, data)

    def _name(self, job: Job) -> str:
        return Path(os.path.relpath(job.output, self.folder)).as_posix()


def _weights_key() -> dict[str, str]:
    """SHA-256 of all weights that a swap may use, whether they are fetched yet or not."""
    fetched = {name: entry.sha256 for name, entry in weights.CATALOGUE.items()}
    return fetched | {name: asset.sha256 for name, asset in weights.read_assets().items()}


def _source_key(text: str) -> str:
    spec = parse_source(text)
    if spec.path is None:
        return str(spec)
    share = "" if spec.share is None else f"@{spec.share:g}"
    return face_key(spec) + share


def _shape_of(path: Path) -> list[int] | None:
    """Bytes, time of change and inode of a result; of a folder the sum and the newest."""
    try:
        if not path.is_dir():
            stat = path.stat()
            return [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        stats = [item.stat() for item in path.iterdir() if item.is_file()]
        if not stats:
            return None
        return [sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats), path.stat().st_ino]
    except OSError:
        return None


def _write_json(path: Path, data: Any) -> None:
    try:
        # Escapes keep names that are not UTF-8 as well.
        write_atomically(path, (json.dumps(data, indent=1) + "\n").encode())
    except OSError as error:
        raise OutputError(
            f"cannot write {path} ({error.strerror or error}): free some space or check its rights"
        ) from error

"""Clips on many machines, by Ray: ``vidswap batch … --engine ray``.

**What is shared out.** A clip's frames hang on one another: a fit starts from the frame before it, and
smoothing looks both ways. Frames equal to those of the local engine, bit for bit, come only when the
chunks of a clip are made in order. So clips are shared out, and the chunk is what is finished for good:
each is entered by its key in the clip's journal beside the output (:mod:`vidswap.journal`) and never made
twice. When a worker, its node or its network is gone, another node goes on with the clip after its last
finished chunk, from the state kept there. At most the chunk that was being made is lost. (One moment is
dearer: a worker that dies after its output has its name, and before it could say so, has its clip made
again. The frames are the same.) A single clip is therefore no quicker on many machines than on one.

**What the nodes need.** The same version of vidswap (refused otherwise) and of PyTorch (the journal refuses
to go on with another), the weights, and clips, sources and output folder under the same paths: storage that
all of them see, for example NFS. Relative paths are made absolute first. ``VIDSWAP_HOME`` is handed on when
it is set. Equal frames need nodes of one kind: other processors and GPUs round differently.

**Places.** A clip asks its node for ``cpus`` cores and, when its device is ``cuda``, for ``gpus`` GPUs;
Ray finds the node. With the device ``auto``, clips go to GPU nodes if the cluster has any, else to CPU
nodes: a clip that was begun on one kind is not gone on with on the other. Give clips of a list
``device: cpu`` to use both kinds of nodes in one batch.

**Locks of dead nodes.** A journal is locked by its run. The kernel, or the server of the shared storage,
frees a dead node's lock, but the server may take minutes and some never do. A clip's next worker waits for
the lock, and takes it over only when it is held by a worker that this batch had and that Ray says is dead.

**Security.** Who can reach a Ray cluster can run anything on it. Token authentication
(``RAY_AUTH_MODE=token``, Ray 2.52 or later) is switched on here unless the environment says otherwise; nodes
must be started with it too, and share one token. It does not encrypt: keep clusters in a private network.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vidswap import __version__
from vidswap.engines.local import Workbench
from vidswap.errors import OutputError, UsageError, WeightsError
from vidswap.jobs import Job, JobEvent, JobResult, OnEvent, failure, with_threads
from vidswap.journal import LOCK_NAME
from vidswap.locking import take_over, this_holder
from vidswap.reports import Log, Progress, quiet
from vidswap.runs import work_folder

_POLL_SECONDS = 0.5
_LOSSES = 3
"""Workers that a clip may lose in a row without a step forward before it counts as failed."""
_STARTS = 30
"""Workers in a row that may die before they can work, once others could."""
_NO_PLACE_SECONDS = 60.0
"""How long an empty cluster may stay without a node that takes a clip."""
_LOCK_SECONDS = 150.0
"""How long a dead worker's lock may stay before it is taken over; NFS servers free theirs after 90."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_RAISED = re.compile(r"\w+(Error|Exception)\b")


@dataclass(frozen=True)
class RayEngine:
    """Runs clips on the nodes of a Ray cluster.

    :param jobs: most clips at the same time; None: as many as the nodes have places for.
    :param address: of the cluster (``HOST:PORT``, ``auto``); None: that of ``RAY_ADDRESS``, or a
        cluster of this machine alone that ends with the batch.
    :param cpus: cores for each clip; None: those of the smallest node.
    :param gpus: GPUs for each clip whose device is one; 0.5 lets two clips share a GPU.
    :param log: called with lines for the log, those of the workers too.
    """

    jobs: int | None = None
    address: str | None = None
    cpus: int | None = None
    gpus: float = 1.0
    log: Log = quiet

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise UsageError(f"--jobs: expected 1 or more, got {self.jobs}")
        if self.cpus is not None and self.cpus < 1:
            raise UsageError(f"--cpus: expected 1 or more, got {self.cpus}")
        if not 0 < self.gpus <= 64 or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise UsageError(f"--gpus: expected a share of a GPU (0.5) or a whole number, got {self.gpus:g}")

    def run(self, jobs: Sequence[Job], on_event: OnEvent) -> list[JobResult]:
        """See :class:`vidswap.engines.Engine`.

        :raises UsageError: Ray is missing, the cluster cannot be reached or has no place for a clip, or
            a node has another version or does not see the output folder.
        """
        if not jobs:
            return []
        with _connected(self.address, self.log) as ray, _sign_of_life(jobs[0].output.parent) as sign:
            return _Fleet(self, ray, on_event, sign).run(jobs)


# ------------------------------------------------------------------ the cluster


@contextmanager
def _connected(address: str | None, log: Callable[[str], None]) -> Iterator[Any]:
    """The ``ray`` module, connected; what is begun here is ended."""
    mode = os.environ.setdefault("RAY_AUTH_MODE", "token")
    if mode != "token":
        log(f"RAY_AUTH_MODE={mode}: anyone who can reach this cluster can run programs on it")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere unasked
    try:
        import ray
    except ImportError as error:
        raise UsageError("--engine ray needs Ray: pip install 'vidswap[ray]'") from error
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        with _errors_silenced():
            ray.init(
                address=address, include_dashboard=False if address == "local" else None,
                logging_level=logging.ERROR, log_to_driver=False,
            )  # fmt: skip
    except Exception as error:  # each of its layers has errors of its own
        raise UsageError(
            f"cannot join the Ray cluster {address} ({_line(error)}): check that `ray start` runs there with "
            "this version of Ray and RAY_AUTH_MODE=token, and that all share one token (`ray get-auth-token`)"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _errors_silenced() -> Iterator[None]:
    """Ray's native part writes a line a second to the error stream while it cannot join a cluster."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _line(error: BaseException) -> str:
    """What an error of Ray says, without colours, traceback and excerpts of logs."""
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines() if line.strip()]
    text = _cut(lines[0]) if lines else type(error).__name__
    if len(lines) > 1 and _RAISED.match(lines[-1]):
        text = f"{text} … {_cut(lines[-1])}"
    return text


def _cut(text: str, length: int = 120) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


@contextmanager
def _sign_of_life(folder: Path) -> Iterator[Path]:
    """A file in the output folder: a node that does not find it does not share the storage."""
    sign = folder.absolute() / f".vidswap-ray-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sign.touch()
    except OSError as error:
        raise OutputError(f"cannot write into {folder} ({error.strerror}): choose another -o") from error
    try:
        yield sign
    finally:
        with suppress(OSError):
            sign.unlink()


# ------------------------------------------------------------------ on the nodes


class Bench:
    """What runs on a node: one clip at a time, with the networks kept between clips (a Ray actor)."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=1000)
        self._progress: tuple[int, Progress] | None = None
        self._bench = Workbench(self._lines.append)

    def hello(self, sign: Path) -> dict[str, Any]:
        """Who this is, and whether it fits."""
        return {
            "holder": this_holder(), "host": socket.gethostname(), "version": __version__,
            "sees": sign.exists(),
        }  # fmt: skip

    def work(self, job: Job, dead: Sequence[str], wait_seconds: float) -> JobResult | WeightsError:
        """Swap one clip.

        :param dead: holders of locks that are dead for certain; empty at the first try.
        """
        index = job.index
        try:
            if dead:
                take_over(work_folder(job.output) / LOCK_NAME, dead, after_seconds=wait_seconds)
                # Nothing was there at the first try: what is there now is the dead worker's.
                job = replace(job, restart=False, force=job.force or job.output.exists())
            return self._bench(job, lambda progress: self._moved(index, progress))
        except WeightsError as error:
            return WeightsError(f"{error} (on {socket.gethostname()})")
        except Exception as error:
            return failure(index, error)

    def _moved(self, index: int, progress: Progress) -> None:
        self._progress = (index, progress)

    def news(self) -> tuple[tuple[int, Progress] | None, list[str]]:
        """How far which clip is, and new lines of the log; answered while :meth:`work` runs."""
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        return self._progress, lines


# ------------------------------------------------------------------ here


@dataclass(eq=False)
class _Worker:
    """An actor, what it was asked last, and the job it has."""

    actor: Any
    gpu: bool
    answer: Any
    """Reference to what ``hello`` or ``work`` gives."""
    holder: str = ""
    host: str = ""
    """Empty until it has said hello."""
    job: Job | None = None
    began: float = 0.0
    frames_done: int = 0
    news: Any = None


@dataclass
class _Fleet:
    """Workers on the nodes, and the queue of jobs."""

    engine: RayEngine
    ray: Any
    on_event: OnEvent
    sign: Path
    workers: list[_Worker] = field(default_factory=list)
    results: dict[int, JobResult] = field(default_factory=dict)
    dead: list[str] = field(default_factory=list)
    losses: dict[int, int] = field(default_factory=dict)
    furthest: dict[int, int] = field(default_factory=dict)
    failed_starts: int = 0
    ever_started: bool = False
    idle_since: float | None = None

    def run(self, jobs: Sequence[Job]) -> list[JobResult]:
        has_gpu = any(node["Resources"].get("GPU") for node in self._nodes())
        prepared = [_for_nodes(job, has_gpu) for job in jobs]
        self.queues = {
            gpu: deque(job for job in prepared if (job.config.device == "cuda") == gpu)
            for gpu in (True, False)
        }
        try:
            while any(self.queues.values()) or any(worker.job for worker in self.workers):
                self._hire()
                self._hand_out()
                self._listen()
        finally:
            for worker in list(self.workers):
                self._dismiss(worker)
        return [self.results[job.index] for job in jobs]

    # --- nodes and workers

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def _needs(self, gpu: bool) -> dict[str, float]:
        """Resources of a clip."""
        fitting = [n["Resources"] for n in self._nodes() if _fits(n["Resources"], 1, gpu * self.engine.gpus)]
        cpus = self.engine.cpus or min((_share(node, gpu, self.engine.gpus) for node in fitting), default=1)
        return {"num_cpus": cpus, "num_gpus": gpu * self.engine.gpus}

    def _places(self, needs: dict[str, float]) -> int:
        cpus, gpus = needs["num_cpus"], needs["num_gpus"]
        total = 0
        for node in self._nodes():
            has = node["Resources"]
            if _fits(has, cpus, gpus):
                by_gpu = has.get("GPU", 0) / gpus if gpus else float("inf")
                total += int(min(has["CPU"] / cpus, by_gpu) + 1e-6)
        return total

    def _hire(self) -> None:
        """Start workers while jobs wait and nodes have places; let those go that are not needed."""
        for gpu, queue in self.queues.items():
            mine = [worker for worker in self.workers if worker.gpu == gpu]
            if not queue:
                for worker in mine:
                    if worker.job is None:
                        self._dismiss(worker)
                continue
            busy = sum(worker.job is not None for worker in mine)
            needs = self._needs(gpu)
            room = self._places(needs)
            if self.engine.jobs is not None:
                room = min(room, self.engine.jobs - len(self.workers) + len(mine))
            for _ in range(min(room, busy + len(queue)) - len(mine)):
                self._start(gpu, needs)
            self._require_place(gpu, needs, room)

    def _require_place(self, gpu: bool, needs: dict[str, float], room: int) -> None:
        if room > 0 or self.workers:
            self.idle_since = None
            return
        self.idle_since = self.idle_since or time.monotonic()
        if time.monotonic() - self.idle_since > _NO_PLACE_SECONDS:
            wanted = f"{needs['num_cpus']:g} CPUs" + (f" and {needs['num_gpus']:g} GPUs" if gpu else "")
            raise UsageError(
                f"no node of the cluster has {wanted} for a clip: start one, ask for less (--cpus, --gpus, "
                "--device cpu), and give the same command again"
            )

    def _start(self, gpu: bool, needs: dict[str, float]) -> None:
        variables = {"OMP_NUM_THREADS": str(int(needs["num_cpus"]))}
        if "VIDSWAP_HOME" in os.environ:
            variables["VIDSWAP_HOME"] = str(Path(os.environ["VIDSWAP_HOME"]).absolute())
        actor = (
            self.ray.remote(Bench)
            .options(
                **needs, scheduling_strategy="SPREAD", max_restarts=0, runtime_env={"env_vars": variables},
                max_concurrency=2,  # so that `news` is answered while `work` runs
            )
            .remote()
        )
        self.workers.append(_Worker(actor, gpu, actor.hello.remote(self.sign)))
        self.threads = int(needs["num_cpus"])

    def _dismiss(self, worker: _Worker) -> None:
        self.workers.remove(worker)
        with suppress(Exception):  # it may be gone already
            self.ray.kill(worker.actor)

    def _hand_out(self) -> None:
        for worker in self.workers:
            queue = self.queues[worker.gpu]
            if not worker.host or worker.job is not None or not queue:
                continue
            job = queue.popleft()
            worker.job, worker.began, worker.frames_done = job, time.perf_counter(), 0
            dead = tuple(self.dead) if self.losses.get(job.index) else ()
            self.engine.log(f"{job.name}: to {worker.host}")
            worker.answer = worker.actor.work.remote(with_threads(job, self.threads), dead, _LOCK_SECONDS)
            if not dead:
                self.on_event(JobEvent(job.index, "started"))

    # --- what they say

    def _listen(self) -> None:
        waiting = {worker.answer: worker for worker in self.workers if worker.answer is not None}
        if not waiting:
            time.sleep(_POLL_SECONDS)
            return
        ready, _ = self.ray.wait(list(waiting), num_returns=1, timeout=_POLL_SECONDS)
        for worker in list(self.workers):
            self._ask(worker)
        for reference in ready:
            worker = waiting[reference]
            worker.answer = None
            try:
                message = self.ray.get(reference)
            except self.ray.exceptions.RayError as error:
                self._lost(worker, error)
                continue
            if isinstance(message, WeightsError):
                raise message
            if isinstance(message, JobResult):
                self._ended(worker, message)
            else:
                self._greeted(worker, message)

    def _ask(self, worker: _Worker) -> None:
        """Take the news that has come and ask for more; a dead worker is noticed by its answer."""
        if worker.news is not None:
            if not self.ray.wait([worker.news], timeout=0)[0]:
                return
            with suppress(self.ray.exceptions.RayError):
                self._told(worker, *self.ray.get(worker.news))
            worker.news = None
        if worker.job is not None:
            worker.news = worker.actor.news.remote()

    def _told(self, worker: _Worker, moved: tuple[int, Progress] | None, lines: Sequence[str]) -> None:
        for line in lines:
            self.engine.log(f"{worker.host}: {line}")
        if worker.job is None or moved is None:
            return
        index, progress = moved
        if index == worker.job.index and progress.frames_done > worker.frames_done:
            worker.frames_done = progress.frames_done
            self.on_event(JobEvent(index, "progress", progress=progress))

    def _greeted(self, worker: _Worker, who: dict[str, Any]) -> None:
        self.failed_starts, self.ever_started = 0, True
        if who["version"] != __version__:
            raise UsageError(
                f"the node {who['host']} has vidswap {who['version']}, this machine {__version__}: install "
                "one version on all nodes"
            )
        if not who["sees"]:
            raise UsageError(
                f"the node {who['host']} does not see {self.sign.parent}: clips and output must lie on "
                "storage that all nodes see under one path"
            )
        worker.holder, worker.host = who["holder"], who["host"]

    def _ended(self, worker: _Worker, result: JobResult) -> None:
        with suppress(self.ray.exceptions.RayError):  # the last lines of its log
            self._told(worker, *self.ray.get(worker.actor.news.remote(), timeout=10))
        worker.job = worker.news = None
        self._settled(result)

    def _settled(self, result: JobResult) -> None:
        self.results[result.index] = result
        self.on_event(JobEvent(result.index, "ended", result=result))

    def _lost(self, worker: _Worker, error: Exception) -> None:
        """A worker is gone: its clip goes to another one, unless it lost too many."""
        self._dismiss(worker)
        job = worker.job
        self.engine.log(f"the worker on {worker.host or 'a node'} is gone: {_line(error)}")
        if job is None:
            if worker.host:
                return
            self.failed_starts += 1
            # Until Ray notices that a node is dead, it sends new workers there.
            if self.failed_starts >= (_STARTS if self.ever_started else _LOSSES):
                raise UsageError(
                    f"workers do not start on the cluster ({_line(error)}): install vidswap {__version__} "
                    "on its nodes, and see Ray's logs there"
                )
            return
        self.dead.append(worker.holder)
        forward = worker.frames_done > self.furthest.get(job.index, 0)
        self.furthest[job.index] = max(worker.frames_done, self.furthest.get(job.index, 0))
        self.losses[job.index] = 1 if forward else self.losses.get(job.index, 0) + 1
        if self.losses[job.index] < _LOSSES:
            self.queues[worker.gpu].appendleft(job)
            return
        message = (
            f"{_LOSSES} workers ended at frame {self.furthest[job.index]} of it ({_line(error)}): perhaps "
            "for want of memory; ask for more --cpus a clip, so that a node holds fewer"
        )
        seconds = time.perf_counter() - worker.began
        self._settled(JobResult(job.index, "failed", seconds, error=message, exit_code=1))


def _fits(resources: dict[str, float], cpus: float, gpus: float) -> bool:
    return resources.get("CPU", 0) >= cpus and resources.get("GPU", 0) >= gpus


def _share(resources: dict[str, float], gpu: bool, gpus: float) -> int:
    """Cores of a node for each of its clips: all of them, or those beside each GPU."""
    clips = max(1, int(resources.get("GPU", 0) / gpus)) if gpu else 1
    return max(1, int(resources["CPU"] / clips))


def _for_nodes(job: Job, has_gpu: bool) -> Job:
    """The job with its device named and its paths absolute."""
    device = job.config.device
    if device == "auto":
        device = "cuda" if has_gpu else "cpu"
    mark = job.config.mark
    mark = replace(
        mark,
        label_font=_absolute_file(mark.label_font),
        sign_cert=_absolute_file(mark.sign_cert),
        sign_key=_absolute_file(mark.sign_key),
    )
    return replace(
        job,
        config=replace(job.config, device=device, mark=mark),
        target=job.target.absolute(),
        output=job.output.absolute(),
        source=tuple(_absolute(text) for text in job.source),
        face=tuple(_absolute_face(text) for text in job.face),
        reference=None if job.reference is None else _absolute(job.reference),
    )


def _absolute(source: str) -> str:
    return source if source.startswith("synthetic:") else str(Path(source).absolute())


def _absolute_file(path: str | None) -> str | None:
    return None if path is None else str(Path(path).expanduser().absolute())


def _absolute_face(text: str) -> str:
    number, equals, source = text.partition("=")
    return f"{number}={_absolute(source)}" if equals else text

"""Clips one after the other in this process, or side by side in several.

One process loads the networks once. Several processes are started afresh (``spawn``: a forked
copy of a process with threads and a GPU is not safe), share out the cores, and each works on one
clip at a time. A process that dies takes its clip with it and no more: the clip is a failed
result, and a new process takes its place.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from vidswap.config import RunConfig
from vidswap.errors import Interrupted, UsageError, WeightsError
from vidswap.jobs import Job, JobEvent, JobResult, OnEvent, failure, perform, with_threads
from vidswap.machine import usable_cores
from vidswap.pipeline import Swapper
from vidswap.reports import Log, Progress, quiet

_END_SECONDS = 10.0
"""Time that processes get to leave tidily before they are killed."""
_TELL_SECONDS = 0.2
"""Time between two progress messages of a process."""


class Workbench:
    """Holds the networks of the settings used last, which nearly all clips share."""

    def __init__(self, log: Log = quiet) -> None:
        self._log = log
        self._swapper: Swapper | None = None
        self._config: RunConfig | None = None

    def __call__(
        self, job: Job, progress: Callable[[Progress], None] | None = None
    ) -> JobResult:
        """Do one job; a clip that fails is a result.

        :raises WeightsError: it would be the same with every clip.
        :raises Interrupted: the user stopped it.
        """
        began = time.perf_counter()
        try:
            if self._swapper is None or self._config != job.config:
                self._swapper = None  # never two sets of networks in memory
                self._swapper, self._config = Swapper(job.config, self._log), job.config
            return perform(job, self._swapper, progress)
        except (WeightsError, Interrupted):
            raise
        except Exception as error:
            self._log(f"{job.name} failed: {type(error).__name__}: {error}")
            return failure(job.index, error, time.perf_counter() - began)


@dataclass(frozen=True)
class LocalEngine:
    """Runs clips on this machine.

    :param jobs: clips at the same time, each in a process of its own; 1 uses this process.
    :param log: called with lines for the log (of this process; workers keep theirs to themselves).
    """

    jobs: int = 1
    log: Log = quiet

    def __post_init__(self) -> None:
        if not 1 <= self.jobs <= 256:
            raise UsageError(f"--jobs: expected 1 to 256, got {self.jobs}")

    def run(self, jobs: Sequence[Job], on_event: OnEvent) -> list[JobResult]:
        """See :class:`vidswap.engines.Engine`."""
        if min(self.jobs, len(jobs)) > 1:
            return _Crew(min(self.jobs, len(jobs)), on_event, self.log).run(jobs)
        bench = Workbench(self.log)
        results = []
        for job in jobs:
            on_event(JobEvent(job.index, "started"))

            def tell(progress: Progress, index: int = job.index) -> None:
                on_event(JobEvent(index, "progress", progress=progress))

            result = bench(job, tell)
            on_event(JobEvent(job.index, "ended", result=result))
            results.append(result)
        return results


@dataclass
class _Worker:
    """One process and the job it has."""

    process: Any
    pipe: Connection
    job: Job | None = None
    began: float = 0.0


@dataclass
class _Crew:
    """Several processes at work on a queue of jobs."""

    size: int
    on_event: OnEvent
    log: Callable[[str], None]
    workers: list[_Worker] = field(default_factory=list)
    results: dict[int, JobResult] = field(default_factory=dict)

    def run(self, jobs: Sequence[Job]) -> list[JobResult]:
        threads = max(1, usable_cores() // self.size)
        queue = deque(with_threads(job, threads) for job in jobs)
        try:
            while queue or any(worker.job for worker in self.workers):
                self._hand_out(queue)
                self._listen()
        finally:
            self._dismiss()
        return [self.results[job.index] for job in jobs]

    def _hand_out(self, queue: deque[Job]) -> None:
        """Give every idle process a job; start processes while jobs are waiting."""
        busy = sum(worker.job is not None for worker in self.workers)
        while len(self.workers) < min(self.size, busy + len(queue)):
            self.workers.append(_start())
        for worker in self.workers:
            if worker.job is None and queue:
                worker.job, worker.began = queue.popleft(), time.perf_counter()
                with suppress(OSError):  # it died just now; its end is noticed while listening
                    worker.pipe.send(worker.job)
                self.on_event(JobEvent(worker.job.index, "started"))

    def _listen(self) -> None:
        """Wait until any process says something or ends."""
        by_handle = {worker.pipe: worker for worker in self.workers}
        for handle in wait(list(by_handle)):
            worker = by_handle[handle]  # type: ignore[index]
            try:
                message = worker.pipe.recv()
            except (EOFError, OSError):
                self._bury(worker)
                continue
            if isinstance(message, WeightsError):
                raise message
            if isinstance(message, JobResult):
                self._ended(worker, message)
            elif worker.job is not None:
                self.on_event(JobEvent(worker.job.index, "progress", progress=message))

    def _ended(self, worker: _Worker, result: JobResult) -> None:
        worker.job = None
        self.results[result.index] = result
        self.on_event(JobEvent(result.index, "ended", result=result))

    def _bury(self, worker: _Worker) -> None:
        """A process is gone: its clip has failed, the next round starts another one."""
        self.workers.remove(worker)
        worker.pipe.close()
        worker.process.join(_END_SECONDS)
        code = worker.process.exitcode
        job = worker.job
        self.log(f"a worker process ended with {code}")
        if job is None:
            return
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        hint = ", perhaps for want of memory: use fewer --jobs" if code == -9 else ""
        error = f"the process that worked on it ended ({how}){hint}"
        seconds = time.perf_counter() - worker.began
        self._ended(worker, JobResult(job.index, "failed", seconds, error=error, exit_code=1))

    def _dismiss(self) -> None:
        """End all processes: idle ones by closing their pipe, others by a request to stop."""
        for worker in self.workers:
            if worker.job is not None:
                worker.process.terminate()
            worker.pipe.close()
        deadline = time.monotonic() + _END_SECONDS
        for worker in self.workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self.workers.clear()


def _start() -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), name="vidswap-worker", daemon=True)
    with _interrupt_ignored():
        process.start()
    theirs.close()  # so that the end of the process is the end of the pipe
    return _Worker(process, ours)


@contextmanager
def _interrupt_ignored() -> Iterator[None]:
    """What is started within never sees Ctrl-C, from its first moment on: the parent decides."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(pipe: Connection) -> None:
    """Main function of a worker process: jobs in, progress and results out, until the pipe ends."""

    def stop(_number: int, _frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: cleaning up takes a moment
        raise KeyboardInterrupt

    # Ctrl-C reaches the whole group; the parent decides, and asks by SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)
    bench = Workbench()
    with suppress(KeyboardInterrupt, Interrupted, EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job = pipe.recv()
            try:
                result: Any = bench(job, _Teller(pipe))
            except WeightsError as error:
                result = error
            pipe.send(result)


@dataclass
class _Teller:
    """Progress callback that writes to the pipe, now and then."""

    pipe: Connection
    last: float = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self.last >= _TELL_SECONDS or progress.frames_done == progress.frames_total:
            self.last = now
            try:
                self.pipe.send(progress)
            except OSError as error:  # the parent is gone: nobody wants the rest
                raise KeyboardInterrupt from error

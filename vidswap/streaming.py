"""Bounded stage runner: every stage on its own thread, order kept, memory bounded.

It knows nothing of faces or video. :func:`run_stages` puts the source and every stage on a
thread of its own, joined by short bounded queues, so decoding, networks and encoding overlap
while at most ``(queue_size + 1) * (len(stages) + 1)`` items are alive. The caller iterates the
results in its own thread. When more stages could work than there are cores, the last ones go first:
that ends items that are alive before it begins new ones, and few stages hold pictures of their own at
the same moment.

Whatever ends a run early (an error in the source or in a stage, the caller leaving its loop,
Ctrl-C) wakes every thread at once, waits for the items that are being worked on, closes the
source and joins all threads. The first error reaches the caller as the very object that was
raised, its traceback and cause intact, with a note that names the stage.

Thread-local settings do not cross into stages: ``torch.no_grad`` must be entered inside one.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

T = TypeVar("T")


@runtime_checkable
class Processor(Protocol):
    """A stage with a memory: any number of results an item, and what is left at the end.

    Both methods run on the stage's one thread, so the state needs no lock.
    """

    def process(self, item: Any) -> Iterable[Any]:
        """Results that this item completes, in order; may be empty while looking ahead."""
        ...

    def flush(self) -> Iterable[Any]:
        """Results still held back, after the last item."""
        ...


@dataclass(frozen=True)
class Stage:
    """One step of a run: a name for messages and figures, and the work."""

    name: str
    work: Callable[[Any], Any] | Processor
    """A function from one item to one result, or a :class:`Processor`."""

    def __post_init__(self) -> None:
        if not isinstance(self.work, Processor) and not callable(self.work):
            raise TypeError(
                f"stage {self.name!r}: expected a function or an object with process and flush, "
                f"got {type(self.work).__name__}"
            )


@dataclass(frozen=True)
class StageStats:
    """What one stage did, so far or in the end; seconds are of wall time."""

    name: str
    items_in: int
    items_out: int
    busy_seconds: float
    """Inside the work itself."""
    starved_seconds: float
    """Waiting for something to do: the stages before are slower."""
    blocked_seconds: float
    """Waiting for room in the next queue: the stages after are slower."""
    queued_seconds: float
    """Waiting for its turn: as many stages as may were working."""


class _Stopped(Exception):
    """Internal: the run is being taken down; threads unwind quietly."""


class _Ended(Exception):
    """Internal: no more items will come."""


class _Channel:
    """Bounded first-in first-out queue that can be ended (in order) or stopped (at once)."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[Any] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._stopped = False

    def put(self, item: Any) -> None:
        with self._changed:
            while len(self._items) >= self._size and not self._stopped:
                self._changed.wait()
            if self._stopped:
                raise _Stopped
            self._items.append(item)
            self._changed.notify_all()

    def get(self, poll_seconds: float | None = None) -> Any:
        """Next item. ``poll_seconds`` lets Ctrl-C through where waits cannot be interrupted."""
        with self._changed:
            while not self._items and not self._ended and not self._stopped:
                self._changed.wait(poll_seconds)
            if self._stopped:
                raise _Stopped
            if not self._items:
                raise _Ended
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()


class _Turns:
    """Lets so many stages work at once, of those that could the last ones."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._waiting: list[int] = []
        self._changed = threading.Condition()
        self._stopped = False

    @contextmanager
    def turn(self, rank: int) -> Iterator[None]:
        """:param rank: the stage's place in the run."""
        with self._changed:
            self._waiting.append(rank)
            while not self._stopped and (self._free < 1 or rank < max(self._waiting)):
                self._changed.wait()
            self._waiting.remove(rank)
            if self._stopped:
                raise _Stopped
            self._free -= 1
            self._changed.notify_all()  # there may be room for the next rank as well
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


class _Meter:
    """Counters of one stage; written by its thread alone, read by any."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.items_in = 0
        self.items_out = 0
        self.busy_seconds = 0.0
        self.starved_seconds = 0.0
        self.blocked_seconds = 0.0
        self.queued_seconds = 0.0

    def snapshot(self) -> StageStats:
        return StageStats(
            self.name,
            self.items_in,
            self.items_out,
            self.busy_seconds,
            self.starved_seconds,
            self.blocked_seconds,
            self.queued_seconds,
        )


class _Core:
    """What the threads share. They never see the run object, so it can be collected."""

    def __init__(self, channel_count: int, queue_size: int, at_once: int) -> None:
        self.channels = [_Channel(queue_size) for _ in range(channel_count)]
        self.turns = _Turns(at_once)
        self.threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._stopping = False

    def fail(self, error: BaseException, where: str) -> None:
        """Keep the first error and stop everything; later ones follow from it."""
        with self._lock:
            first = not self._stopping
            if first:
                self._stopping = True
                _add_note(error, where)
                self._error = error
        self.stop()

    def stop(self) -> None:
        with self._lock:
            self._stopping = True
        self.turns.stop()
        for channel in self.channels:
            channel.stop()

    def take_error(self) -> BaseException | None:
        with self._lock:
            error, self._error = self._error, None
            return error

    def stop_and_join(self) -> None:
        self.stop()
        self.join()

    def join(self) -> None:
        for thread in self.threads:
            if thread is not threading.current_thread():
                thread.join()


class StageRun(Iterator[T]):
    """Results of a run, in order: an iterator, and a context manager that ends the run.

    Dropping it (leaving a ``for`` loop) ends the run as well; ``with`` does it in a place that
    can be seen.
    """

    def __init__(
        self,
        source: Iterable[Any],
        stages: Sequence[Stage],
        queue_size: int,
        source_name: str,
        at_once: int | None = None,
    ) -> None:
        core = _Core(len(stages) + 1, queue_size, len(stages) if at_once is None else at_once)
        self._meters = [_Meter(source_name), *(_Meter(stage.name) for stage in stages)]
        core.threads.append(_thread(_run_source, core, source, core.channels[0], self._meters[0]))
        for number, stage in enumerate(stages):
            inbox, outbox = core.channels[number], core.channels[number + 1]
            meter = self._meters[number + 1]
            core.threads.append(_thread(_run_stage, core, stage.work, inbox, outbox, meter, number))
        self._core = core
        self._done = False
        self._closer = weakref.finalize(self, core.stop_and_join)
        for thread in core.threads:
            thread.start()

    def __iter__(self) -> StageRun[T]:
        return self

    def __next__(self) -> T:
        if self._done:
            raise StopIteration
        try:
            return self._core.channels[-1].get(poll_seconds=0.5)
        except (_Ended, _Stopped):
            pass
        except BaseException:  # Ctrl-C while waiting
            self.close()
            raise
        self.close()
        error = self._core.take_error()
        if error is None:
            raise StopIteration
        if isinstance(error, StopIteration):  # raised here it would pass for a good end
            raise RuntimeError("a stage raised StopIteration") from error
        try:
            raise error
        finally:
            del error  # no cycle of error, traceback and this frame

    def __enter__(self) -> StageRun[T]:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the run: stop and join all threads, close the source. Safe to call again.

        It raises nothing: errors of stages whose results nobody asks for any more are dropped.
        A second Ctrl-C breaks the wait for the threads.
        """
        self._done = True
        self._closer()

    @property
    def stats(self) -> tuple[StageStats, ...]:
        """Figures of the source and of every stage, in order; may be read at any time."""
        return tuple(meter.snapshot() for meter in self._meters)


def run_stages(
    source: Iterable[Any],
    stages: Sequence[Stage],
    *,
    queue_size: int = 4,
    source_name: str = "source",
    at_once: int | None = None,
) -> StageRun[Any]:
    """Run items of ``source`` through ``stages``, each on its own thread; iterate the results.

    :param source: iterated on its own thread. A context manager is entered and left there; a
        ``close`` method of its iterator (generators have one), or else of itself, is called.
    :param stages: in order; names must differ (they are the keys of figures and messages).
    :param queue_size: most items waiting between two stages.
    :param source_name: name of the source in :attr:`StageRun.stats` and in notes on errors.
    :param at_once: most stages that work at the same moment (the source is not counted); None: all.
    :return: iterator over the results in order, with ``stats``, ``close()`` and ``with``. The
        work starts at once.
    :raises ValueError: when ``queue_size`` or ``at_once`` is below 1 or two stages share a name.
    """
    if queue_size < 1:
        raise ValueError(f"queue_size: expected at least 1, got {queue_size}")
    if at_once is not None and at_once < 1:
        raise ValueError(f"at_once: expected at least 1, got {at_once}")
    names = [source_name, *(stage.name for stage in stages)]
    if len(set(names)) != len(names):
        raise ValueError(f"stages: expected different names, got {names}")
    return StageRun(source, stages, queue_size, source_name, at_once)


def _thread(target: Callable[..., None], core: _Core, *args: Any) -> threading.Thread:
    name = next(arg.name for arg in args if isinstance(arg, _Meter))
    # Daemons, so that a second Ctrl-C is not held up by a long call in a stage.
    return threading.Thread(target=target, args=(core, *args), name=f"vidswap-{name}", daemon=True)


def _put_all(
    results: Iterable[Any],
    outbox: _Channel,
    meter: _Meter,
    turn: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Hand results on; time spent making them is busy, time spent waiting for room is not.

    :param turn: entered while a result is made.
    """
    iterator = iter(results)
    while True:
        with turn():
            began = time.perf_counter()
            try:
                result = next(iterator)
            except StopIteration:
                return
            finally:
                made = time.perf_counter()
                meter.busy_seconds += made - began
        outbox.put(result)
        del result  # hold no item while waiting for the next
        meter.blocked_seconds += time.perf_counter() - made
        meter.items_out += 1


def _run_source(core: _Core, source: Iterable[Any], outbox: _Channel, meter: _Meter) -> None:
    try:
        with ExitStack() as stack:
            started = time.perf_counter()
            items: Any = source
            if hasattr(source, "__enter__") and hasattr(source, "__exit__"):
                items = stack.enter_context(source)  # type: ignore[arg-type]
            iterator = iter(items)
            if hasattr(iterator, "close"):
                stack.callback(iterator.close)
            elif items is source and hasattr(source, "close"):
                stack.callback(source.close)
            meter.busy_seconds += time.perf_counter() - started
            _put_all(iterator, outbox, meter)
        meter.items_in = meter.items_out
        outbox.end()
    except _Stopped:
        core.stop()
    except BaseException as error:
        core.fail(error, f"in {meter.name!r}, after {meter.items_out} items")


def _run_stage(
    core: _Core,
    work: Callable[[Any], Any] | Processor,
    inbox: _Channel,
    outbox: _Channel,
    meter: _Meter,
    place: int,
) -> None:
    @contextmanager
    def turn() -> Iterator[None]:
        asked = time.perf_counter()
        with core.turns.turn(place):
            meter.queued_seconds += time.perf_counter() - asked
            yield

    process = work.process if isinstance(work, Processor) else None
    try:
        while True:
            started = time.perf_counter()
            try:
                item = inbox.get()
            except _Ended:
                break
            meter.starved_seconds += time.perf_counter() - started
            meter.items_in += 1
            with turn():
                began = time.perf_counter()
                try:
                    results = process(item) if process else (work(item),)  # type: ignore[operator]
                finally:
                    meter.busy_seconds += time.perf_counter() - began
            del item
            # What a processor gives may be made only when it is asked for.
            _put_all(results, outbox, meter, turn if process else nullcontext)
            del results
        if isinstance(work, Processor):
            _put_all(work.flush(), outbox, meter, turn)
        outbox.end()
    except _Stopped:
        core.stop()
    except BaseException as error:
        core.fail(error, f"in stage {meter.name!r}, item {meter.items_in}")


def _add_note(error: BaseException, note: str) -> None:
    """``add_note`` of Python 3.11, with the same attribute filled in on 3.10."""
    if hasattr(error, "add_note"):
        error.add_note(note)
    else:
        error.__notes__ = [*getattr(error, "__notes__", []), note]  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Window(Generic[T]):
    """An item with its neighbours in time."""

    items: tuple[T, ...]
    """The neighbours that share the item's key and the item itself, in order."""
    centre: int
    """Index of the item in ``items``."""

    @property
    def item(self) -> T:
        return self.items[self.centre]

    @property
    def offsets(self) -> tuple[int, ...]:
        """Places of ``items`` relative to the item: negative before it, 0 for itself."""
        return tuple(index - self.centre for index in range(len(self.items)))


class FixedLag(Generic[T]):
    """Look-ahead of fixed length as a stage: items in, a :class:`Window` for each out, in order.

    A window spans at most ``lag`` items on either side. It ends where ``key`` changes its
    value, so that a smoothing never reaches over a cut or into another track.

    :param lag: items of look-ahead and of memory, at least 0.
    :param key: what neighbours must share with the item (shot or track number); by default
        everything belongs together.
    """

    def __init__(self, lag: int, *, key: Callable[[T], Hashable] | None = None) -> None:
        if lag < 0:
            raise ValueError(f"lag: expected at least 0, got {lag}")
        self.lag = lag
        self._key = key or (lambda item: None)
        self._held: deque[tuple[Hashable, T]] = deque()
        self._before = 0  # items of _held that were given out already

    def remember(self, items: Iterable[T]) -> None:
        """Take the items before the first one as its neighbours; no windows come of them."""
        before = list(items)[-self.lag :] if self.lag else []
        self._held.extend((self._key(item), item) for item in before)
        self._before = len(self._held)

    def process(self, item: T) -> Iterator[Window[T]]:
        self._held.append((self._key(item), item))
        if len(self._held) - self._before > self.lag:
            yield self._next_window()

    def flush(self) -> Iterator[Window[T]]:
        while self._before < len(self._held):
            yield self._next_window()
        self._held.clear()
        self._before = 0

    def _next_window(self) -> Window[T]:
        held, here = list(self._held), self._before
        key = held[here][0]
        first = here
        while first > 0 and held[first - 1][0] == key:
            first -= 1
        last = here
        while last < min(len(held) - 1, here + self.lag) and held[last + 1][0] == key:
            last += 1
        if self._before < self.lag:
            self._before += 1
        else:
            self._held.popleft()
        items = tuple(item for _, item in held[first : last + 1])
        return Window(items, here - first)

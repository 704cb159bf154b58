"""The stage runner: order, bounds, figures, and an end without hangs however a run fails."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidswap.streaming import FixedLag, Stage, run_stages

HANG_SECONDS = 10.0


class Boom(Exception):
    pass


class ClosingSource:
    """Counts what was taken, and records that it was closed, and on which thread."""

    def __init__(self, count: int | None, fail_at: int | None = None) -> None:
        self.count = count
        self.fail_at = fail_at
        self.taken = 0
        self.closed_on: list[str] = []

    def __iter__(self):
        try:
            for index in itertools.count() if self.count is None else range(self.count):
                if index == self.fail_at:
                    raise Boom("source")
                self.taken += 1
                yield index
            if self.fail_at is not None and self.fail_at >= (self.count or 0):
                raise Boom("source")
        finally:
            self.closed_on.append(threading.current_thread().name)


class Repeat:
    """Holds one item back and gives every item out twice; may fail in process or flush."""

    def __init__(self, fail_at: int | None = None, fail_flush: bool = False) -> None:
        self.held: list[int] = []
        self.fail_at = fail_at
        self.fail_flush = fail_flush

    def process(self, item):
        if item == self.fail_at:
            raise Boom("process")
        self.held.append(item)
        if len(self.held) > 1:
            ready = self.held.pop(0)
            yield ready
            yield ready

    def flush(self):
        if self.fail_flush:
            raise Boom("flush")
        for item in self.held:
            yield item
            yield item


def in_time(work):
    """Run ``work`` on a thread and fail instead of hanging; return (result, error)."""
    outcome: list = [None, None]

    def target() -> None:
        try:
            outcome[0] = work()
        except BaseException as error:
            outcome[1] = error

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join(HANG_SECONDS)
    if thread.is_alive():
        frames = sys._current_frames()
        stacks = "\n".join("".join(traceback.format_stack(frame)) for frame in frames.values())
        pytest.fail(f"hangs after {HANG_SECONDS} s\n{stacks}")
    return outcome


def our_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("vidswap-")]


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", []))


# ------------------------------------------------------------------ what a good run does


def test_order_results_and_flush():
    stages = [Stage("double", lambda x: 2 * x), Stage("repeat", Repeat()), Stage("str", str)]
    assert list(run_stages(range(5), stages)) == [str(2 * i) for i in range(5) for _ in "ab"]
    assert not our_threads()


def test_no_stages_and_empty_source():
    assert list(run_stages(range(3), [])) == [0, 1, 2]
    assert list(run_stages([], [Stage("repeat", Repeat())])) == []


def test_none_is_an_item_like_any_other():
    assert list(run_stages([1, None, 2], [Stage("same", lambda x: x)])) == [1, None, 2]


def test_every_stage_has_one_thread_of_its_own():
    seen: dict[str, set[str]] = {"a": set(), "b": set()}

    def note(name):
        def work(item):
            seen[name].add(threading.current_thread().name)
            return item

        return work

    list(run_stages(range(20), [Stage(name, note(name)) for name in seen]))
    assert seen == {"a": {"vidswap-a"}, "b": {"vidswap-b"}}


def test_stages_overlap_and_figures_say_who_is_slow():
    def slow(item):
        time.sleep(0.02)
        return item

    started = time.perf_counter()
    run = run_stages(range(10), [Stage("one", slow), Stage("two", slow), Stage("fast", str)])
    assert len(list(run)) == 10
    seconds = time.perf_counter() - started
    stats = {stage.name: stage for stage in run.stats}
    assert list(stats) == ["source", "one", "two", "fast"]
    assert all(stage.items_in == stage.items_out == 10 for stage in stats.values())
    assert stats["one"].busy_seconds >= 0.2 and stats["two"].busy_seconds >= 0.2
    assert seconds < stats["one"].busy_seconds + stats["two"].busy_seconds
    assert stats["fast"].starved_seconds > 0.1
    assert stats["source"].blocked_seconds > 0.02
    assert stats["fast"].busy_seconds < 0.1


@pytest.mark.parametrize("at_once", [1, 2])
def test_so_many_stages_work_at_once_and_the_last_ones_go_first(at_once):
    lock, working, most, begun = threading.Lock(), set(), [], []

    def work(name):
        def call(item):
            with lock:
                working.add(name)
                most.append(len(working))
                begun.append((name, item))
            time.sleep(0.003)
            with lock:
                working.discard(name)
            return item

        return call

    class Held:
        """Makes its results only when they are asked for."""

        def process(self, item):
            return map(work("c"), [item])

        def flush(self):
            return map(work("c"), ["end"])

    stages = [Stage("a", work("a")), Stage("b", work("b")), Stage("c", Held()), Stage("d", work("d"))]
    run = run_stages(range(12), stages, at_once=at_once)
    assert list(run) == [*range(12), "end"]
    assert max(most) == at_once
    if at_once == 1:  # an item that could be ended is not kept waiting for a new one
        order = {event: place for place, event in enumerate(begun)}
        assert all(order["d", item] < order["a", item + 3] for item in range(9))
        assert sum(stage.queued_seconds for stage in run.stats) > 0.01
    assert not our_threads()


def test_a_run_whose_stages_wait_for_their_turn_can_be_left():
    stages = [Stage(str(n), lambda x: time.sleep(0.01) or x) for n in range(4)]
    with run_stages(iter(int, 1), stages, at_once=1) as run:
        next(run)
    assert not our_threads()


@pytest.mark.parametrize("queue_size", [1, 2, 4])
def test_items_in_flight_are_bounded(queue_size):
    source = ClosingSource(None)
    stages = [Stage("a", lambda x: x), Stage("b", lambda x: x)]
    with run_stages(source, stages, queue_size=queue_size) as run:
        assert next(run) == 0
        time.sleep(0.1)
        assert 1 < source.taken <= 1 + (queue_size + 1) * (len(stages) + 1)
        taken = source.taken
        time.sleep(0.05)
        assert source.taken == taken  # nobody asks, so nothing moves


def test_finished_items_are_not_kept_alive():
    class Item:
        alive = 0

        def __init__(self) -> None:
            Item.alive += 1

        def __del__(self) -> None:
            Item.alive -= 1

    most = 0
    for _ in run_stages((Item() for _ in range(200)), [Stage("same", lambda x: x)], queue_size=2):
        most = max(most, Item.alive)
    del _
    assert most <= 10
    gc.collect()
    assert Item.alive == 0


def test_context_manager_source_is_entered_and_left_on_its_thread():
    calls = []

    class Container:
        def __enter__(self):
            calls.append(("enter", threading.current_thread().name))
            return iter([1, 2])

        def __exit__(self, *exc_info):
            calls.append(("exit", threading.current_thread().name))

    assert list(run_stages(Container(), [], source_name="decode")) == [1, 2]  # type: ignore
    assert calls == [("enter", "vidswap-decode"), ("exit", "vidswap-decode")]


def test_wrong_arguments():
    with pytest.raises(ValueError, match="queue_size: expected at least 1, got 0"):
        run_stages([], [], queue_size=0)
    with pytest.raises(ValueError, match="at_once: expected at least 1, got 0"):
        run_stages([], [], at_once=0)
    with pytest.raises(ValueError, match="different names"):
        run_stages([], [Stage("a", str), Stage("a", str)])
    with pytest.raises(TypeError, match="stage 'a': expected a function"):
        Stage("a", 3)  # type: ignore[arg-type]


# ------------------------------------------------------------------ errors


def test_the_same_error_arrives_with_cause_traceback_and_stage():
    raised = []

    def work(item):
        if item == 3:
            try:
                {}["missing"]
            except KeyError as cause:
                error = Boom("three")
                raised.append(error)
                raise error from cause
        return item

    source = ClosingSource(None)
    with pytest.raises(Boom, match="three") as caught:
        list(run_stages(source, [Stage("first", lambda x: x), Stage("mix", work)]))
    assert caught.value is raised[0]
    assert isinstance(caught.value.__cause__, KeyError)
    assert "in stage 'mix', item 4" in notes(caught.value)
    assert "work" in [entry.name for entry in traceback.extract_tb(caught.value.__traceback__)]
    assert source.closed_on == ["vidswap-source"]
    assert not our_threads()


def test_error_of_the_source_and_nothing_after_it():
    run = run_stages(ClosingSource(9, fail_at=2), [Stage("a", str)], source_name="decode")
    with pytest.raises(Boom) as caught:
        list(run)
    assert "in 'decode', after 2 items" in notes(caught.value)
    assert list(run) == []


def test_error_while_closing_the_source_is_not_lost():
    def source():
        yield 1
        raise OSError("close")

    with pytest.raises(OSError, match="close"):
        list(run_stages(source(), [Stage("a", str)]))


@pytest.mark.parametrize("error", [StopIteration, GeneratorExit, KeyboardInterrupt, SystemExit])
def test_errors_that_python_treats_specially_do_not_pass_for_an_end(error):
    def work(item):
        raise error

    expected = RuntimeError if error is StopIteration else error
    with pytest.raises(expected):
        list(run_stages(range(3), [Stage("odd", work)]))
    assert not our_threads()


def test_the_first_of_several_errors_wins():
    barrier = threading.Barrier(2, timeout=5)

    def first(item):
        if item == 1:
            barrier.wait()
            time.sleep(0.05)
            raise Boom("second")
        return item

    def second(item):
        barrier.wait()
        raise Boom("first")

    with pytest.raises(Boom, match="first"):
        list(run_stages(range(5), [Stage("a", first), Stage("b", second)]))
    assert not our_threads()


# ------------------------------------------------------------------ the caller goes away


@pytest.mark.parametrize("way", ["break", "close", "with", "raise"])
def test_leaving_early_stops_everything(way):
    source = ClosingSource(None)
    run = run_stages(source, [Stage("a", lambda x: x), Stage("b", Repeat())], queue_size=1)

    def leave():
        nonlocal run
        if way == "close":
            next(run)
            run.close()
            run.close()
            assert list(run) == []
        elif way == "with":
            with run:
                next(run)
        elif way == "break":
            for _ in run:
                break
            del run
        else:
            with run:
                raise Boom("caller")

    _, error = in_time(leave)
    assert isinstance(error, Boom) if way == "raise" else error is None
    assert source.closed_on == ["vidswap-source"]
    assert not our_threads()


def test_close_from_a_stage_of_the_same_run_does_not_wait_for_itself():
    box: list = []

    def work(item):
        if item == 2:
            box[0].close()
        return item

    def use():
        box.append(run_stages(ClosingSource(None), [Stage("a", work)], queue_size=1))
        return list(box[0])

    result, error = in_time(use)
    assert error is None
    assert set(result) <= {0, 1}


def run_script(body: str, *, interrupt_after: str | None = None) -> subprocess.CompletedProcess:
    """Run a script in its own process; send it Ctrl-C once it has printed a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        if interrupt_after is not None:
            assert process.stdout is not None
            while interrupt_after not in process.stdout.readline():
                pass
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=HANG_SECONDS)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
@pytest.mark.parametrize("place", ["waiting", "working"])
def test_ctrl_c_in_the_caller(place):
    seconds = 0.3 if place == "waiting" else 0.0
    done = run_script(
        f"""
        import signal, threading, time
        # Shells start background jobs with the signal ignored, and children inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from vidswap.streaming import Stage, run_stages
        def source():
            try:
                while True:
                    yield 1
            finally:
                print("source closed", flush=True)
        def slow(item):
            time.sleep({seconds})
            return item
        try:
            for item in run_stages(source(), [Stage("slow", slow)]):
                print("ready", flush=True)
                if {place == "working"}:
                    time.sleep(60)
        except KeyboardInterrupt:
            print("interrupted", threading.active_count(), flush=True)
        """,
        interrupt_after="ready",
    )
    assert done.returncode == 0, done.stderr
    assert "source closed" in done.stdout
    assert "interrupted 1" in done.stdout
    assert not done.stderr


def test_a_run_that_is_never_ended_does_not_hold_up_the_end_of_the_process():
    done = run_script(
        """
        import itertools
        from vidswap.streaming import Stage, run_stages
        run = run_stages(itertools.count(), [Stage("a", str)])
        print(next(run))
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


# ------------------------------------------------------------------ any order of failure

failures = st.lists(
    st.tuples(
        st.sampled_from(["map", "repeat"]),
        st.one_of(st.none(), st.integers(0, 12)),
        st.booleans(),
        st.sampled_from([0.0, 0.0, 0.001]),
    ),
    max_size=4,
)


def make_stage(number, kind, fail_at, fail_flush, delay) -> Stage:
    if kind == "repeat":
        return Stage(f"s{number}", Repeat(fail_at, fail_flush))

    def work(item):
        if delay:
            time.sleep(delay)
        if item == fail_at:
            raise Boom(f"s{number}")
        return item

    return Stage(f"s{number}", work)


def expected_results(count, source_fail, specs):
    """What one thread would do: the slow reference. Returns (results, fails)."""
    items = list(range(count))
    if source_fail is not None:
        return None, True
    for kind, fail_at, fail_flush, _ in specs:
        if fail_at in items or (kind == "repeat" and fail_flush):
            return None, True
        if kind == "repeat":
            items = [item for item in items for _ in range(2)]
    return items, False


@settings(max_examples=120, deadline=None)
@given(
    specs=failures,
    count=st.integers(0, 12),
    source_fail=st.one_of(st.none(), st.none(), st.integers(0, 12)),
    queue_size=st.integers(1, 3),
    leave_after=st.one_of(st.none(), st.none(), st.integers(0, 20)),
    consumer_delay=st.sampled_from([0.0, 0.0, 0.002]),
)
def test_any_order_of_failure(specs, count, source_fail, queue_size, leave_after, consumer_delay):
    source = ClosingSource(count, source_fail)
    stages = [make_stage(number, *spec) for number, spec in enumerate(specs)]
    results = []

    def use():
        with run_stages(source, stages, queue_size=queue_size) as run:
            for item in run:
                if consumer_delay:
                    time.sleep(consumer_delay)
                if len(results) == leave_after:
                    return "left"
                results.append(item)
        return "ended"

    how, error = in_time(use)
    expected, fails = expected_results(count, source_fail, specs)
    if error is not None:
        assert isinstance(error, Boom) and fails
        assert "in " in notes(error)
    elif how == "ended":
        assert not fails and results == expected
    else:
        assert len(results) == leave_after
    assert not our_threads()
    assert len(source.closed_on) <= 1  # 0 only when it was stopped before its first item
    assert source.taken == 0 or source.closed_on


def test_endless_runs_started_and_dropped_leave_nothing_behind():
    def many():
        for number in range(60):
            run = run_stages(itertools.count(), [Stage("a", str), Stage("b", Repeat())])
            for _ in range(number % 4):
                next(run)

    assert in_time(many)[1] is None
    gc.collect()
    assert not our_threads()


# ------------------------------------------------------------------ fixed lag


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_windows_reach_lag_items_to_either_side(lag):
    windows = list(run_stages(range(8), [Stage("look ahead", FixedLag(lag))]))
    assert [window.item for window in windows] == list(range(8))
    for window in windows:
        here = window.item
        assert window.items == tuple(range(max(0, here - lag), min(8, here + lag + 1)))
        assert tuple(item - here for item in window.items) == window.offsets


@given(
    keys=st.lists(st.integers(0, 2), max_size=30), lag=st.integers(0, 4), queue=st.integers(1, 3)
)
@settings(max_examples=60, deadline=None)
def test_windows_never_cross_a_change_of_key(keys, lag, queue):
    items = list(enumerate(keys))
    stage = FixedLag(lag, key=lambda item: item[1])
    windows = list(run_stages(items, [Stage("look ahead", stage)], queue_size=queue))
    assert [window.item for window in windows] == items
    for here, window in enumerate(windows):
        expected = [items[here]]
        for step in range(1, lag + 1):
            if here - step < 0 or keys[here - step] != keys[here]:
                break
            expected.insert(0, items[here - step])
        for step in range(1, lag + 1):
            if here + step >= len(items) or keys[here + step] != keys[here]:
                break
            expected.append(items[here + step])
        assert list(window.items) == expected


def test_fixed_lag_holds_a_bounded_number_of_items_and_can_be_used_again():
    stage = FixedLag(3)
    for index in range(100):
        for window in stage.process(index):
            assert window.item == index - 3
        assert len(stage._held) <= 2 * 3 + 1
    assert [window.item for window in stage.flush()] == [97, 98, 99]
    assert [window.items for window in stage.flush()] == []
    with pytest.raises(ValueError, match="lag: expected at least 0, got -1"):
        FixedLag(-1)

"""How fast a run goes and when it will be done."""

from __future__ import annotations

import pytest

from vidswap.reports import Pace, Progress, Telling


@pytest.fixture
def now() -> list[float]:
    return [0.0]


def test_the_rate_begins_with_the_first_frame(now: list[float]) -> None:
    """23 seconds of fitting the source before it once promised an hour and a half for three minutes."""
    pace = Pace(101, lambda: now[0])
    assert pace(0, "inverting the source") == Progress(0, 101, 0.0, None, "inverting the source")
    now[0] = 23.0
    assert pace(1) == Progress(1, 101, 0.0, None)
    now[0] = 25.0
    assert pace(2) == Progress(2, 101, 0.5, 198.0)
    assert pace(2, "fitting") == Progress(2, 101, 0.5, 198.0, "fitting")


def test_a_run_that_goes_on_counts_its_own_frames(now: list[float]) -> None:
    pace = Pace(200, lambda: now[0])
    pace(65)
    now[0] = 10.0
    assert pace(75) == Progress(75, 200, 1.0, 125.0)


def test_the_rate_is_that_of_the_last_minute(now: list[float]) -> None:
    pace = Pace(None, lambda: now[0])
    for done in range(1, 101):  # slow at first: nobody in the picture, later on two
        now[0] += 0.1 if done <= 50 else 10.0
        told = pace(done)
    assert told.frames_per_second == pytest.approx(0.1)
    assert told.seconds_left is None
    stalled = pace(100)
    now[0] += 60.0
    assert pace(100).frames_per_second < 0.6 * stalled.frames_per_second


def test_more_frames_than_promised_are_no_time_ago(now: list[float]) -> None:
    pace = Pace(2, lambda: now[0])
    for done in (1, 2, 3):
        now[0] += 1.0
        told = pace(done)
    assert told.seconds_left == 0.0


def test_what_takes_long_is_told_with_the_frames_done_and_written_into_the_log() -> None:
    told: list[Progress] = []
    lines: list[str] = []
    telling = Telling(told.append, lines.append, 9)
    telling.doing("inverting a.jpg")
    telling.frames(1)
    telling.doing("fitting a.jpg to person 1")
    assert [(each.frames_done, each.message) for each in told] == [
        (0, "inverting a.jpg"), (1, ""), (1, "fitting a.jpg to person 1"),
    ]  # fmt: skip
    assert lines == ["inverting a.jpg", "fitting a.jpg to person 1"]
    Telling(None, lines.append, 9).doing("nobody asks")
    assert lines[-1] == "nobody asks"

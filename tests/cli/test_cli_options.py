"""Times, sizes, the progress of a run and its log."""

from __future__ import annotations

import io
import logging

import click
import pytest

from vidswap.cli.logs import State, _StderrHandler, one_line
from vidswap.cli.options import SIZE, TIME, make_config
from vidswap.cli.progress import ProgressView, clock, rate
from vidswap.errors import OutputError, UsageError
from vidswap.reports import Progress


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12.5", 12.5),
        ("0", 0.0),
        (".5", 0.5),
        ("90", 90.0),
        ("1:30", 90.0),
        ("01:02:03.250", 3723.25),
        ("100:00:00", 360000.0),
        ("0:05.5", 5.5),
    ],
)
def test_times(text, seconds):
    assert TIME.convert(text, None, None) == seconds


@pytest.mark.parametrize(
    "text", ["", "-1", "x", "1:60", "1:60:00", "nan", "inf", "1e3", "1:2:3:4", "٣", "1:", "9" * 400]
)
def test_what_is_not_a_time(text):
    with pytest.raises(click.BadParameter, match="is not a time"):
        TIME.convert(text, None, None)


def test_sizes():
    assert SIZE.convert("640x360", None, None) == (640, 360)
    for text in ("640", "0x5", "640x", "-1x5", "640x360x3", "999999x1"):
        with pytest.raises(click.BadParameter, match="is not a size"):
            SIZE.convert(text, None, None)


def test_options_are_settings_with_their_own_names(monkeypatch):
    monkeypatch.delenv("VIDSWAP_SET_MIX__STRENGTH", raising=False)
    options = {"strength": ("mix.strength", "--strength"), "crf": ("video.crf", "--crf")}
    named = {"strength": "0.4", "crf": None, "device": "cpu"}
    config, origins = make_config(("fast",), None, ("smooth.lag=6",), named, options)
    assert (config.mix.strength, config.smooth.lag, config.device) == (0.4, 6, "cpu")
    assert origins["mix.strength"] == "--strength" and origins["video.crf"] == "default"
    assert origins["device"] == "--device"
    with pytest.raises(UsageError, match=r"from 0 to 1, got '1\.4' \(--strength\)"):
        make_config(named={"strength": "1.4"}, options=options)
    with pytest.raises(UsageError, match="given twice, by --strength"):
        make_config((), None, ("mix.strength=0.5",), named, options)


# ------------------------------------------------------------------ progress


def test_clock_and_rate():
    assert [clock(s) for s in (0, 59.6, 61, 3661)] == ["0:00", "1:00", "1:01", "1:01:01"]
    assert rate(Progress(1, 9, 2.44, 65)) == "2.4 frames/s, 1:05 left"
    assert rate(Progress(1, None, 0.4, None, "encoding")) == "2.5 s/frame, encoding"
    assert rate(Progress(0, None, 0.0, None)) == ""


def test_plain_lines_come_now_and_then_and_at_the_end(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("vidswap.cli.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    with ProgressView(stream=stream) as view:
        for done in range(1, 26):
            now[0] += 1.0
            view(Progress(done, 25, 1.0, 25.0 - done))
    assert stream.getvalue().splitlines() == [
        "10/25 frames, 1.0 frames/s, 0:15 left",
        "20/25 frames, 1.0 frames/s, 0:05 left",
        "25/25 frames, 1.0 frames/s, 0:00 left",
    ]


def test_plain_lines_of_a_run_that_never_moved_or_does_not_know_its_length():
    stream = io.StringIO()
    with ProgressView(stream=stream):
        pass
    assert stream.getvalue() == ""
    with pytest.raises(RuntimeError), ProgressView(stream=stream) as view:
        view(Progress(3, None, 0.0, None))
        raise RuntimeError
    assert stream.getvalue() == "3 frames\n"


def test_what_takes_long_is_a_line_at_once():
    stream = io.StringIO()
    with ProgressView(stream=stream) as view:
        view(Progress(0, 9, 0.0, None, "inverting the source a.jpg"))
        view(Progress(1, 9, 0.0, None))
    assert stream.getvalue().splitlines() == ["0/9 frames, inverting the source a.jpg", "1/9 frames"]


@pytest.mark.parametrize("total", [4, 2, None])
def test_the_bar_shows_frames_rate_and_time_left(total):
    stream = io.StringIO()
    with ProgressView(stream=stream, is_terminal=True) as view:
        view(Progress(0, total, 0.0, None, "inverting the source"))
        for done in range(1, 5):
            view(Progress(done, total, 2.0, (4 - done) / 2))
    shown = stream.getvalue()
    assert "inverting the source" in shown
    last = shown.rstrip().split("\r")[-1]
    assert ("4/4 frames" if total else "4 frames") in last
    assert "2.0 frames/s, 0:00 left" in last
    assert ("100%" in last) is (total is not None)


# ------------------------------------------------------------------ log


@pytest.fixture
def state():
    made = State()
    yield made
    made.close()


def test_the_log_is_shown_with_v_and_warnings_always_but_once(state, capsys):
    state.start_log()
    state.log("device: cpu")
    state.warn("no face was found")
    state.warn("no face was found")
    assert capsys.readouterr().err == "vidswap: warning: no face was found\n"
    state.start_log(verbose=True)
    state.start_log(verbose=False)
    state.log("device: cpu")
    assert capsys.readouterr().err == "vidswap: device: cpu\n"


def test_the_log_file_holds_more_than_the_screen(state, tmp_path, capsys):
    state.start_log(file=tmp_path / "run.log")
    state.log("100 % sure {really}")
    logging.getLogger("vidswap.cache").debug("found")
    state.close()
    text = (tmp_path / "run.log").read_text()
    assert "INFO 100 % sure {really}" in text and "DEBUG found" in text
    assert capsys.readouterr().err == ""
    ours = (logging.FileHandler, _StderrHandler)
    assert not [h for h in logging.getLogger("vidswap").handlers if isinstance(h, ours)]


def test_a_log_file_that_cannot_be_written(state, tmp_path):
    with pytest.raises(OutputError, match="cannot write the log file .*give --log-file another"):
        state.start_log(file=tmp_path / "none" / "run.log")


def test_one_line():
    assert one_line(" a\nb\tc\x07 ") == "a b\\tc\\x07"
    assert one_line("ünï 😀") == "ünï 😀"

"""Batches: what is planned, what is skipped, and one real run with a broken clip in it."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from vidswap.batch import JOURNAL_NAME, LOCK_NAME, REPORT_NAME, run_batch
from vidswap.batch_plan import plan_batch
from vidswap.cli.app import run as vidswap
from vidswap.cli.batch import BatchView
from vidswap.config import RunConfig
from vidswap.engines import make_engine
from vidswap.engines.local import LocalEngine
from vidswap.errors import InputError, UsageError
from vidswap.jobs import Job, JobEvent, JobResult, OnEvent, failure
from vidswap.locking import FileLock
from vidswap.reports import Progress

SOURCE = "synthetic:3"
CHEAP = ("inversion.first_steps=1", "inversion.next_steps=1", "mix.refine_steps=0", "threads=1")


def touch(path: Path, data: bytes = b"clip") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (1e9, 1e9))
    return path


def write_clip(path: Path, picture: np.ndarray, frames: int = 3) -> Path:
    """A tiny clip that shows one picture ``[h, w, 3]``, a pixel further to the right each frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            rolled = np.ascontiguousarray(np.roll(picture, index, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rolled, "rgb24")))
        container.mux(stream.encode())
    return path


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


# ------------------------------------------------------------------ planning


def test_a_folder_gives_its_clips_with_their_sub_folders(tmp_path: Path) -> None:
    for name in ("b.mp4", "a/x.MOV", "a/deep/y.avi", ".hidden.mp4", "notes.txt", "c/.git/z.mp4"):
        touch(tmp_path / "clips" / name)
    jobs = plan_batch(tmp_path / "clips", tmp_path / "out", source=SOURCE)
    assert [job.name for job in jobs] == ["b.mp4", "a/x.MOV", "a/deep/y.avi"]
    places = [job.output.relative_to(tmp_path / "out").as_posix() for job in jobs]
    assert places == ["b.mp4", "a/x.mov", "a/deep/y.mkv"]
    assert [job.index for job in jobs] == [0, 1, 2]


def test_results_inside_the_folder_are_not_taken_for_clips(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    touch(tmp_path / "out" / "a.mp4")
    for target in (str(tmp_path), str(tmp_path / "**" / "*.mp4")):
        jobs = plan_batch(target, tmp_path / "out", source=SOURCE)
        assert [job.name for job in jobs] == ["a.mp4"]
    with pytest.raises(UsageError, match="is the folder of the clips"):
        plan_batch(tmp_path, tmp_path, source=SOURCE)


def test_a_glob_keeps_what_is_below_its_fixed_part(tmp_path: Path) -> None:
    for name in ("one/a.mp4", "two/b.mp4", "two/c.mkv"):
        touch(tmp_path / "clips" / name)
    jobs = plan_batch(str(tmp_path / "clips" / "*" / "*.mp4"), tmp_path / "out", source=SOURCE)
    assert [job.name for job in jobs] == ["one/a.mp4", "two/b.mp4"]
    touch(tmp_path / "odd[1].mp4")  # a name that only looks like a glob
    assert plan_batch(str(tmp_path / "odd[1].mp4"), tmp_path / "out", source=SOURCE)[0].index == 0


def test_patterns_name_the_results(tmp_path: Path) -> None:
    touch(tmp_path / "in" / "sub" / "a.b.mp4")
    made = {}
    for pattern in ("{stem}-x.{ext}", "{name}", "{number}/{source}.mov", "{stem}/r.mp4"):
        (job,) = plan_batch(tmp_path / "in", tmp_path / "out", source=SOURCE, pattern=pattern)
        made[pattern] = job.output.relative_to(tmp_path / "out").as_posix()
    assert made == {
        "{stem}-x.{ext}": "sub/a.b-x.mp4",
        "{name}": "sub/a.b.mp4",
        "{number}/{source}.mov": "sub/1/synthetic-3.mov",
        "{stem}/r.mp4": "sub/a.b/r.mp4",
    }
    for bad in ("../{name}", "/{name}", "{stem}/../../{name}", "C:\\{name}", "{stem.__class__}", ""):
        with pytest.raises(UsageError):
            plan_batch(tmp_path / "in", tmp_path / "out", source=SOURCE, pattern=bad)


def test_two_clips_with_one_result_and_a_result_that_is_a_clip_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "in" / "a.avi")
    touch(tmp_path / "in" / "a.mkv")
    with pytest.raises(UsageError, match=r"a.avi and a.mkv would both become"):
        plan_batch(tmp_path / "in", tmp_path / "out", source=SOURCE)
    with pytest.raises(UsageError, match="is itself a clip"):
        plan_batch(tmp_path / "in" / "a.mkv", tmp_path / "in", source=SOURCE)


def test_nothing_to_do_is_an_input_error(tmp_path: Path) -> None:
    touch(tmp_path / "in" / "readme.md")
    for target in (tmp_path / "in", tmp_path / "absent", str(tmp_path / "*.mp4")):
        with pytest.raises(InputError):
            plan_batch(target, tmp_path / "out", source=SOURCE)
    touch(tmp_path / "in" / "a.mp4")
    with pytest.raises(UsageError, match="no source"):
        plan_batch(tmp_path / "in", tmp_path / "out")


YAML = """
defaults: {source: synthetic:5, settings: {mix: {strength: 0.5}, video.crf: 20}}
jobs:
  - sub/a.mp4
  - {target: b.mp4, output: "{stem}/done.mov", start: 1:30, end: 95.5, face: [largest]}
  - {target: c.mp4, source: [me.jpg, me2.jpg], preset: fast, mix.strength: 0.25}
"""
CSV = """target,source,start,end,settings,mix.strength
sub/a.mp4,,,,,
b.mp4,synthetic:9,0:10,0:12.5,video.crf=30;threads=2,0.75
"""


def test_lists_give_each_clip_its_own_settings(tmp_path: Path) -> None:
    for name in ("me.jpg", "me2.jpg"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "jobs.yaml").write_text(YAML)
    first, second, third = plan_batch(tmp_path / "jobs.yaml", tmp_path / "out", source=SOURCE)
    assert first.target == tmp_path / "sub/a.mp4" and first.output == tmp_path / "out/sub/a.mp4"
    assert (first.source, first.config.mix.strength, first.config.video.crf) == (
        ("synthetic:5",), 0.5, 20,
    )  # fmt: skip
    assert second.output == tmp_path / "out/b/done.mov"
    assert (second.start_seconds, second.end_seconds, second.face) == (90.0, 95.5, ("largest",))
    assert third.source == (str(tmp_path / "me.jpg"), str(tmp_path / "me2.jpg"))
    assert (third.config.mix.strength, third.config.inversion.first_steps) == (0.25, 20)
    assert third.config.video.crf == 20

    (tmp_path / "jobs.csv").write_text(CSV)
    first, second = plan_batch(tmp_path / "jobs.csv", tmp_path / "out", source=SOURCE)
    assert (first.source, first.config) == ((SOURCE,), RunConfig())
    assert (second.source, second.start_seconds, second.end_seconds) == (("synthetic:9",), 10, 12.5)
    shared = {"source": SOURCE, "start_seconds": 1.5, "end_seconds": 11.0}
    first, second = plan_batch(tmp_path / "jobs.csv", tmp_path / "out", **shared)
    assert [(job.start_seconds, job.end_seconds) for job in (first, second)] == [(1.5, 11.0), (10, 12.5)]
    assert (second.config.video.crf, second.config.threads, second.config.mix.strength) == (30, 2, 0.75)

    (tmp_path / "jobs.txt").write_text("# ours\n\nsub/a.mp4\n b.mp4 \n")
    assert [j.name for j in plan_batch(tmp_path / "jobs.txt", tmp_path / "out", source=SOURCE)] == [
        "sub/a.mp4",
        "b.mp4",
    ]


def test_a_list_says_who_is_swapped_by_number_or_by_picture(tmp_path: Path) -> None:
    for name in ("ours.png", "hers.png"):
        touch(tmp_path / name)
    text = "target,face,reference\na.mp4,,\nb.mp4,1,\nc.mp4,,hers.png\n"
    (tmp_path / "jobs.csv").write_text(text)
    shared = str(tmp_path / "ours.png")
    jobs = plan_batch(tmp_path / "jobs.csv", tmp_path / "out", source=SOURCE, reference=shared)
    chosen = [(job.face, job.reference) for job in jobs]
    assert chosen == [((), shared), (("1",), None), ((), str(tmp_path / "hers.png"))]
    with pytest.raises(UsageError, match="--reference and --face both"):
        plan_batch(tmp_path / "jobs.csv", tmp_path / "out", source=SOURCE, reference=shared, face=["0"])
    (tmp_path / "jobs.csv").write_text("target,face,reference\na.mp4,1,hers.png\n")
    with pytest.raises(UsageError, match="line 2: face and reference both say"):
        plan_batch(tmp_path / "jobs.csv", tmp_path / "out", source=SOURCE)
    (tmp_path / "jobs.csv").write_text("target,reference\na.mp4,../hers.png\n")
    with pytest.raises(UsageError, match="climbs out"):
        plan_batch(tmp_path / "jobs.csv", tmp_path / "out", source=SOURCE)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.txt", "../secret.mp4\n", "climbs out"),
        ("a.txt", "x/../../secret.mp4\n", "climbs out"),
        ("a.txt", "..\\secret.mp4\n", "climbs out"),
        ("a.yaml", "[{target: a.mp4, output: ../x.mp4}]", "climbs out"),
        ("a.yaml", "[{target: a.mp4, output: /tmp/x.mp4}]", "outside of the output folder"),
        ("a.yaml", "[{target: a.mp4, source: ../me.jpg}]", "climbs out"),
        ("a.yaml", "[{target: a.mp4, sorce: me.jpg}]", "did you mean 'source'"),
        ("a.yaml", "[{target: a.mp4, settings: {mix.strengh: 1}}]", "mix.strength"),
        ("a.yaml", "[{target: a.mp4, mix.strength: 7}]", "mix.strength"),
        ("a.yaml", "[{target: a.mp4, preset: fats}]", "unknown preset"),
        ("a.yaml", "[{target: a.mp4, start: 5, end: 4}]", "not after start"),
        ("a.yaml", "[{target: a.mp4, start: soon}]", "not a time: give seconds"),
            ("a.yaml", "[{target: a.mp4, start: '0:75'}]", "seconds after a colon"),
        ("a.yaml", "jobs: [a.mp4", "not valid YAML"),
        ("a.yaml", "clips: [a.mp4]", "expected a list of clips"),
        ("a.csv", "target,strength\na.mp4,1\n", "unknown word"),
        ("a.csv", "target\na.mp4,1\n", "header names 1"),
        ("a.csv", "source\nsynthetic:1\n", "target None"),
    ],
)
def test_lists_that_make_no_sense_are_refused(
    tmp_path: Path, name: str, text: str, says: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=says):
        plan_batch(tmp_path / name, tmp_path / "out", source=SOURCE)


# ------------------------------------------------------------------ journal


def copying(log: list[str], *, fails: Sequence[str] = ()) -> Callable[..., list[JobResult]]:
    """An engine for these tests of the journal alone: its result is a copy of the clip."""

    def run(jobs: Sequence[Job], on_event: OnEvent) -> list[JobResult]:
        results = []
        for job in jobs:
            on_event(JobEvent(job.index, "started"))
            log.append(job.name)
            result = JobResult(job.index, "done", 0.1, 3, 3)
            if job.name in fails:
                result = failure(job.index, InputError(f"{job.name} is bad"))
            else:
                job.output.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(job.target, job.output)
            on_event(JobEvent(job.index, "ended", result=result))
            results.append(result)
        return results

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.mp4", "sub/b.mp4", "c.mp4"):
        touch(tmp_path / "in" / name, name.encode())
    return tmp_path


def again(folder: Path, fails: Sequence[str] = (), **options: object) -> tuple[list[str], dict[str, int]]:
    """Run the batch of a folder: the clips that were worked on, and the states."""
    log: list[str] = []
    jobs = plan_batch(folder / "in", folder / "out", **{"source": SOURCE, **options})
    report = run_batch(jobs, copying(log, fails=fails), folder / "out")
    assert json.loads((folder / "out" / REPORT_NAME).read_text())["counts"] == report.counts
    return log, report.counts


def test_only_what_is_not_done_is_worked_on(folder: Path) -> None:
    assert again(folder, fails=("c.mp4",)) == (["a.mp4", "c.mp4", "sub/b.mp4"], {"done": 2, "failed": 1})
    assert again(folder, fails=("c.mp4",)) == (["c.mp4"], {"skipped": 2, "failed": 1})
    assert again(folder) == (["c.mp4"], {"skipped": 2, "done": 1})
    assert again(folder) == ([], {"skipped": 3})
    (folder / "out" / "a.mp4").unlink()
    assert again(folder) == (["a.mp4"], {"skipped": 2, "done": 1})


def test_settings_that_only_change_the_pace_are_not_another_result(folder: Path) -> None:
    again(folder)
    assert again(folder, config=RunConfig(threads=3, device="cpu"))[1] == {"skipped": 3}


def test_results_of_other_settings_are_replaced_by_force_only(folder: Path) -> None:
    again(folder)
    assert again(folder, source="synthetic:4") == ([], {"failed": 3})
    text = (folder / "out" / REPORT_NAME).read_text()
    assert "made from another clip, source or settings: use --force" in text
    assert len(again(folder, source="synthetic:4", force=True)[0]) == 3
    assert again(folder, source="synthetic:4", force=True) == ([], {"skipped": 3})


def test_other_weights_make_another_result(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again(folder)
    monkeypatch.setattr("vidswap.batch._weights_key", lambda: {"encoder": "0" * 64})
    assert again(folder) == ([], {"failed": 3})
    assert again(folder, force=True)[1] == {"done": 3}


def test_the_key_names_fetched_weights_and_those_in_the_package() -> None:
    from vidswap.batch import _weights_key

    key = _weights_key()
    assert {"mobilestylegan", "encoder"} <= key.keys()
    assert all(len(digest) == 64 for digest in key.values())


def test_a_changed_clip_or_result_and_a_strange_file_are_noticed(folder: Path) -> None:
    again(folder)
    touch(folder / "in" / "a.mp4", b"other")
    touch(folder / "out" / "c.mp4", b"somebody wrote here")
    assert again(folder) == ([], {"failed": 2, "skipped": 1})
    assert again(folder, force=True) == (["a.mp4", "c.mp4"], {"done": 2, "skipped": 1})
    touch(folder / "in" / "d.mp4")
    touch(folder / "out" / "d.mp4", b"was here first")
    assert again(folder) == ([], {"failed": 1, "skipped": 3})
    assert (folder / "out" / "d.mp4").read_bytes() == b"was here first"


def test_a_batch_killed_before_the_journal_heard_takes_the_result_as_done(folder: Path) -> None:
    class Killed(BaseException):
        pass

    jobs = plan_batch(folder / "in", folder / "out", source=SOURCE)

    def run(waiting: Sequence[Job], on_event: OnEvent) -> list[JobResult]:
        on_event(JobEvent(waiting[0].index, "started"))
        shutil.copy(waiting[0].target, waiting[0].output)
        raise Killed

    with pytest.raises(Killed):
        run_batch(jobs, run, folder / "out")
    report = json.loads((folder / "out" / REPORT_NAME).read_text())
    assert report["counts"] == {"pending": 3}
    assert again(folder) == (["c.mp4", "sub/b.mp4"], {"skipped": 1, "done": 2})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 1, "results": 3}'])
def test_a_damaged_journal_counts_nothing_as_done(folder: Path, text: str) -> None:
    again(folder)
    (folder / "out" / JOURNAL_NAME).write_text(text)
    assert again(folder) == ([], {"failed": 3})  # the results are there, made by who knows what
    assert again(folder, force=True)[1] == {"done": 3}


def test_two_batches_in_one_folder_and_newer_journals_are_refused(folder: Path) -> None:
    again(folder)
    with FileLock(folder / "out" / LOCK_NAME), pytest.raises(UsageError, match="another batch"):
        again(folder)
    (folder / "out" / JOURNAL_NAME).write_text('{"format": 99}')
    with pytest.raises(UsageError, match="newer vidswap"):
        again(folder)


# ------------------------------------------------------------------ engines


def test_engines_are_known_by_name() -> None:
    assert isinstance(make_engine("local", jobs=2), LocalEngine)
    with pytest.raises(UsageError, match="--engine"):
        make_engine("cloud")
    with pytest.raises(UsageError, match="--jobs"):
        make_engine("local", jobs=0)


def test_a_process_that_dies_takes_one_clip_with_it(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        touch(tmp_path / "in" / name, b"\0" * 64)
    jobs = plan_batch(tmp_path / "in", tmp_path / "out", source=SOURCE)
    killed: list[int] = []
    kinds: dict[int, list[str]] = {job.index: [] for job in jobs}

    def on_event(event: JobEvent) -> None:
        kinds[event.index].append(event.kind)
        if not killed:
            killed.append(min(child.pid for child in multiprocessing.active_children()))
            os.kill(killed[0], signal.SIGKILL)

    results = LocalEngine(jobs=2).run(jobs, on_event)
    died = [result for result in results if "signal 9" in result.error]
    assert len(died) == 1 and died[0].exit_code == 1
    # The others were really looked at, by the process that was left and by one that replaced it.
    assert [r.exit_code for r in results if r is not died[0]] == [3, 3]
    assert [result.index for result in results] == [0, 1, 2]
    assert all(heard == ["started", "ended"] for heard in kinds.values())
    assert not multiprocessing.active_children()


# ------------------------------------------------------------------ command


def test_wrong_use_of_the_command_has_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    touch(tmp_path / "in" / "a.mp4")
    out = ["-o", str(tmp_path / "out")]
    for code, words in (
        (3, [str(tmp_path / "empty"), "-s", SOURCE, *out]),
        (3, [str(tmp_path / "in"), "-s", "absent.jpg", *out]),
        (2, [str(tmp_path / "in"), *out]),
        (2, [str(tmp_path / "in"), "-s", SOURCE, *out, "--engine", "cloud"]),
        (2, [str(tmp_path / "in"), "-s", SOURCE, *out, "--jobs", "0"]),
        (2, ["-s", SOURCE, *out]),
    ):
        assert vidswap(["batch", *words]) == code
        shown = capsys.readouterr()
        assert shown.err.count("\n") == 1 and shown.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_view_has_a_bar_a_clip_or_a_line_a_clip(is_terminal: bool) -> None:
    stream = io.StringIO()
    with BatchView(["a.mp4", "b\n.mp4", "c.mp4"], 1, stream=stream, is_terminal=is_terminal) as view:
        view.skipped(0)
        for index, state in ((1, "done"), (2, "failed")):
            view(JobEvent(index, "started"))
            view(JobEvent(index, "progress", progress=Progress(3, 12, 0.5, 18.0)))
            error = "it is broken" if state == "failed" else ""
            view(JobEvent(index, "ended", result=JobResult(index, state, 9.0, 12, 12, error=error)))
    assert view.ended == 3
    text = stream.getvalue()
    for line in ("a.mp4: done already", "b .mp4: done, 12 frames in 0:09", "c.mp4: failed: it is broken"):
        assert line in text
    if is_terminal:
        assert "3/12 frames" in text and "3/3 clips" in text
    else:
        assert text.count("\n") == 3 and "[3/3] c.mp4" in text


# ------------------------------------------------------------------ a real run


def test_a_folder_with_a_broken_clip_and_one_without_a_face(
    tmp_path: Path, portrait: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    clips, out = tmp_path / "clips", tmp_path / "out"
    write_clip(clips / "sub" / "face.mp4", portrait)
    write_clip(clips / "wall.mp4", np.full((120, 160, 3), (90, 120, 60), np.uint8))
    touch(clips / "broken.mp4", b"\0" * 300)
    settings = [word for setting in CHEAP for word in ("--set", setting)]
    command = ["batch", str(clips), "-s", SOURCE, "-o", str(out), *settings]

    assert vidswap(command) == 6
    shown = capsys.readouterr()
    assert "3 clips: 2 done, 1 failed" in shown.out and "1 of 3 clips failed" in shown.err
    report = json.loads((out / REPORT_NAME).read_text())
    by_name = {clip["name"]: clip for clip in report["clips"]}
    assert by_name["broken.mp4"]["exit_code"] == 3 and not (out / "broken.mp4").exists()
    assert (by_name["wall.mp4"]["state"], by_name["wall.mp4"]["remark"]) == ("done", "no face")
    face = by_name["sub/face.mp4"]
    assert (face["state"], face["frames"], face["frames_swapped"]) == ("done", 3, 3)

    before, after = frames_of(clips / "sub" / "face.mp4"), frames_of(out / "sub" / "face.mp4")
    changed = np.abs(after[1].astype(float) - before[1]).mean(2)
    assert len(after) == 3 and changed[40:90, 55:105].mean() > 4 > changed[:, :12].mean()
    same = np.abs(np.subtract(frames_of(out / "wall.mp4"), frames_of(clips / "wall.mp4"), dtype=float))
    assert same.mean() < 2

    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    (clips / "broken.mp4").unlink()
    began = time.process_time()
    assert vidswap(command) == 0
    assert time.process_time() - began < 2.0
    assert "2 clips: 2 skipped" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")} == stamps

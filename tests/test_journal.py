from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vidswap import journal as module
from vidswap.errors import OutputError, UsageError
from vidswap.journal import JOURNAL_NAME, Chunk, Journal, RunKey

KEY = RunKey(
    "100-aa",
    weights={"generator": "ab" * 32},
    options={"source": "7-cc", "video": {"crf": 17, "codec": "libx264"}, "strength": 1.0},
    versions={"vidswap": "1.0"},
)


def plan_of(frames: int, length: int) -> list[Chunk]:
    """Chunks of equal length, the last one shorter."""
    starts = enumerate(range(0, frames, length))
    return [Chunk(index, first, min(length, frames - first)) for index, first in starts]


PLAN = plan_of(23, 5)


def content(chunk: Chunk) -> bytes:
    """Stands for an encoded chunk: one line a frame, so that it can be decoded and counted."""
    return b"".join(b"frame %06d %s\n" % (n, b"x" * 400) for n in range(
        chunk.first_frame, chunk.end_frame))


def count(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def make(journal: Journal, chunk: Chunk, **options) -> module.ChunkRecord:
    journal.temporary_of(chunk).write_bytes(content(chunk))
    return journal.record(chunk, verify=count, **options)


def done(folder: Path, plan=PLAN, key=KEY) -> list[int]:
    with Journal.open(folder, key) as journal:
        return [chunk.index for chunk in plan if journal.finished(chunk) is not None]


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / JOURNAL_NAME).read_text().splitlines()]


# --- going on -----------------------------------------------------------------------------------


def test_a_second_opening_finds_what_is_done(tmp_path):
    folder = tmp_path / "deep" / "work"
    with Journal.open(folder, KEY) as journal:
        record = make(journal, PLAN[0], data={"faces": 3})
        make(journal, PLAN[3])
        assert record.path.read_bytes() == content(PLAN[0])
    assert done(folder) == [0, 3]
    with Journal.open(folder, KEY) as journal:
        again = journal.finished(PLAN[0])
        assert again == record and again.data == {"faces": 3}
        assert again.sha256 == hashlib.sha256(content(PLAN[0])).hexdigest()
        assert journal.finished(Chunk(0, 0, 6)) is None  # another plan
    entries = lines(folder)
    assert entries[0]["key"] == KEY.to_dict() and entries[1]["frames"] == 5


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "swap"])
def test_a_changed_chunk_is_made_again(tmp_path, damage, caplog):
    with Journal.open(tmp_path, KEY) as journal:
        path, other = make(journal, PLAN[0]).path, make(journal, PLAN[1]).path
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[700] ^= 4
        path.write_bytes(data)
    elif damage == "cut":
        path.write_bytes(data[:-1])
    elif damage == "remove":
        path.unlink()
    else:
        path.write_bytes(other.read_bytes())
    assert done(tmp_path) == [1] and "making it again" in caplog.text
    with Journal.open(tmp_path, KEY) as journal:
        make(journal, PLAN[0])
    assert done(tmp_path) == [0, 1]


def test_a_torn_last_line_is_passed_over_and_the_next_entry_is_whole(tmp_path):
    with Journal.open(tmp_path, KEY) as journal:
        make(journal, PLAN[0])
        make(journal, PLAN[1])
    path = tmp_path / JOURNAL_NAME
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for cut in (last + 1, last + 40, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert done(tmp_path) == [0]
        with Journal.open(tmp_path, KEY) as journal:
            make(journal, PLAN[1])
        assert done(tmp_path) == [0, 1] and path.read_bytes() == whole


def test_every_flipped_byte_of_the_journal_costs_one_chunk_at_most(tmp_path):
    key = RunKey("1-a")
    with Journal.open(tmp_path, key) as journal:
        for chunk in PLAN:
            make(journal, chunk)
    path = tmp_path / JOURNAL_NAME
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    for place in range(start, len(whole), 11):
        data = bytearray(whole)
        data[place] ^= 1
        path.write_bytes(data)
        found = done(tmp_path, key=key)
        # The line end between two entries takes both with it.
        assert len(found) >= len(PLAN) - (2 if whole[place : place + 1] == b"\n" else 1)
    path.write_bytes(whole)
    assert len(done(tmp_path, key=key)) == len(PLAN)


@pytest.mark.parametrize("beginning", [b"", b"\x00" * 300, b'{"type": "run"}\n', b"text\n"])
def test_a_journal_without_a_beginning_starts_again(tmp_path, beginning):
    with Journal.open(tmp_path, KEY) as journal:
        make(journal, PLAN[0])
    (tmp_path / JOURNAL_NAME).write_bytes(beginning)
    assert done(tmp_path) == []
    assert not list(tmp_path.glob("chunk-*"))


# --- other options ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other, named",
    [
        (RunKey("100-bb", KEY.weights, KEY.options, KEY.versions), "input"),
        (RunKey("100-aa", {"generator": "00"}, KEY.options, KEY.versions), "weights.generator"),
        (RunKey("100-aa", {}, KEY.options, KEY.versions), "now (none)"),
        (RunKey("100-aa", KEY.weights, KEY.options, {"vidswap": "2.0"}), "versions.vidswap"),
        (
            RunKey(
                "100-aa",
                KEY.weights,
                {**KEY.options, "video": {"crf": 20, "codec": "libx264"}},
                KEY.versions,
            ),
            "video.crf: 17, now 20",
        ),
    ],
)
def test_other_settings_are_refused_by_name_and_nothing_is_touched(tmp_path, other, named):
    with Journal.open(tmp_path, KEY) as journal:
        make(journal, PLAN[0])
    before = (tmp_path / JOURNAL_NAME).read_bytes()
    with pytest.raises(UsageError) as caught:
        Journal.open(tmp_path, other)
    message = str(caught.value)
    assert named in message and "--restart" in message and "\n" not in message
    assert message.count("now") == 1
    assert (tmp_path / JOURNAL_NAME).read_bytes() == before and done(tmp_path) == [0]
    with Journal.open(tmp_path, other, restart=True) as journal:
        assert journal.finished(PLAN[0]) is None
        assert not list(tmp_path.glob("chunk-*"))
    assert done(tmp_path, key=other) == []


def test_a_journal_of_another_format_is_refused(tmp_path, monkeypatch):
    with Journal.open(tmp_path, KEY):
        monkeypatch.setattr(module, "JOURNAL_FORMAT", 99)
    with pytest.raises(UsageError, match="another version"):
        Journal.open(tmp_path, KEY)


def test_the_order_of_options_does_not_matter_and_long_values_are_shortened(tmp_path):
    turned = RunKey(KEY.input, KEY.weights, dict(reversed(KEY.options.items())), KEY.versions)
    assert turned.digest == KEY.digest
    long = RunKey("9-" + "f" * 64)
    (difference,) = long.differences(RunKey("9-" + "e" * 64).to_dict())
    assert len(difference) < 90 and "…" in difference


# --- two runs, cleaning up ----------------------------------------------------------------------


def test_two_runs_in_one_folder_are_refused(tmp_path):
    with Journal.open(tmp_path, KEY), pytest.raises(UsageError, match=f"process {os.getpid()}"):
        Journal.open(tmp_path, KEY)
    with Journal.open(tmp_path, KEY):
        pass


def test_only_our_own_files_are_ever_removed(tmp_path):
    strangers = ["chunk.mp4", "chunk-1.mp4", "movie.mp4", "chunk-000001.mp4.bak", "notes.txt"]
    for name in strangers:
        (tmp_path / name).write_bytes(b"mine")
    with Journal.open(tmp_path, KEY) as journal:
        make(journal, PLAN[0])
        journal.temporary_of(PLAN[1]).write_bytes(b"half a chunk")
    with Journal.open(tmp_path, KEY) as journal:
        assert not journal.temporary_of(PLAN[1]).exists()
        journal.restart()
        make(journal, PLAN[1])
        journal.discard()
    assert sorted(os.listdir(tmp_path)) == sorted(strangers)


def test_discard_removes_an_empty_folder_and_publishing_is_remembered(tmp_path):
    folder = tmp_path / "work"
    with Journal.open(folder, KEY) as journal:
        make(journal, PLAN[0])
        assert journal.published is None
        journal.note_published(output="out.mp4", content="12-ab")
        journal.path_of(PLAN[0]).unlink()
    with Journal.open(folder, KEY) as journal:
        assert journal.published == {"output": "out.mp4", "content": "12-ab"}
        assert journal.finished(PLAN[0]) is None
        journal.discard()
    assert not folder.exists()


def test_names_from_outside_do_not_reach_the_file_system(tmp_path):
    with Journal.open(tmp_path, KEY) as journal:
        for suffix in ("/../x", "mp4", ".a/b", ""):
            with pytest.raises(ValueError, match="suffix"):
                journal.path_of(PLAN[0], suffix)
        journal._append({"type": "chunk", "index": 0, "bytes": 1, "sha256": "", "data": {},
                         "suffix": "/../../x"})
    assert done(tmp_path) == []


# --- faults -------------------------------------------------------------------------------------


def test_a_chunk_with_another_number_of_frames_is_not_published(tmp_path):
    with Journal.open(tmp_path, KEY) as journal:
        journal.temporary_of(PLAN[0]).write_bytes(content(PLAN[4]))
        with pytest.raises(OutputError, match="3 frames where 5"):
            journal.record(PLAN[0], verify=count)
        assert sorted(os.listdir(tmp_path)) == [JOURNAL_NAME, "journal.lock"]
    assert done(tmp_path) == []


def test_a_fault_at_every_write_sync_and_rename_loses_nothing(tmp_path, monkeypatch):
    calls = {"left": -1, "made": 0}

    def faulty(name):
        original = getattr(os, name)

        def call(*arguments, **options):
            calls["made"] += 1
            calls["left"] -= 1
            if calls["left"] == 0:
                if name == "write":  # a disk that fills takes part of a write
                    original(arguments[0], bytes(arguments[1])[:10])
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*arguments, **options)

        return call

    for name in ("write", "fsync", "replace"):
        monkeypatch.setattr(os, name, faulty(name))
    for place in range(1, 100):
        folder = tmp_path / str(place)
        calls.update(left=-1, made=0)
        with Journal.open(folder, KEY) as journal:
            make(journal, PLAN[0])
        before = (folder / "chunk-000000.mp4").stat()
        calls.update(left=place, made=0)
        try:
            with Journal.open(folder, KEY) as journal:
                make(journal, PLAN[1])
            failed = False
        except OutputError as error:
            failed = True
            assert "free some space" in str(error) and error.exit_code == 4
        noted = calls["left"] > 0
        calls.update(left=-1)
        after = (folder / "chunk-000000.mp4").stat()
        assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
        found = done(folder)
        assert 0 in found and (1 in found) == (not failed)
        with Journal.open(folder, KEY) as journal:  # and it goes on
            make(journal, PLAN[1])
        assert done(folder) == [0, 1]
        if noted:
            break
    assert place > 5, "no fault was put in"


def test_a_full_disk_is_exit_4_and_the_journal_goes_on(tmp_path):
    with Journal.open(tmp_path, KEY) as journal:
        make(journal, PLAN[0])
        size = (tmp_path / JOURNAL_NAME).stat().st_size
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        journal.temporary_of(PLAN[1]).write_bytes(content(PLAN[1]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))
        try:
            with pytest.raises(OutputError, match="no room"):
                journal.record(PLAN[1], verify=count)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (tmp_path / JOURNAL_NAME).stat().st_size == size
        make(journal, PLAN[1])
    assert done(tmp_path) == [0, 1]


def test_a_folder_that_cannot_be_written_is_exit_4(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="work folder"):
        Journal.open(tmp_path / "file" / "work", KEY)


def test_clocks_play_no_part(tmp_path, monkeypatch):
    with Journal.open(tmp_path, KEY) as journal:
        make(journal, PLAN[0])
    for path in tmp_path.iterdir():
        os.utime(path, (4e9, 4e9))
    monkeypatch.setattr(time, "time", lambda: 1.0)
    assert done(tmp_path) == [0]


_RUN = """
import sys, time
from pathlib import Path
from vidswap.journal import Chunk, Journal, RunKey
folder, log = Path(sys.argv[1]), open(sys.argv[2], "a", buffering=1)
with Journal.open(folder, RunKey("100-aa")) as journal:
    print("ready", flush=True)
    for chunk in [Chunk(index, 5 * index, 5) for index in range(20)]:
        if journal.finished(chunk) is None:
            log.write(f"{chunk.index}\\n")
            with open(journal.temporary_of(chunk), "wb", buffering=0) as stream:
                for number in range(chunk.first_frame, chunk.end_frame):
                    stream.write(b"frame %06d %s\\n" % (number, b"x" * 400))
                    time.sleep(0.0005)
            journal.record(chunk, verify=lambda path: path.read_bytes().count(b"\\n"))
"""


def test_kill_at_random_moments_loses_at_most_the_chunk_being_made(tmp_path):
    folder, log, plan = tmp_path / "work", tmp_path / "log", plan_of(100, 5)
    command = [sys.executable, "-c", _RUN, str(folder), str(log)]
    chance = random.Random(5)
    seen: dict[int, tuple[int, int]] = {}
    kills = 0
    for turn in range(30):
        run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert run.stdout.readline() == "ready\n"
        if turn < 4:
            time.sleep(chance.uniform(0.0, 0.05))
            run.send_signal(signal.SIGKILL)
        code = run.wait(timeout=30)
        found = set(done(folder, plan, RunKey("100-aa")))
        assert seen.keys() <= found, "a finished chunk was lost"
        for index in found:
            stat = (folder / f"chunk-{index:06d}.mp4").stat()
            mark = (stat.st_ino, stat.st_mtime_ns)
            assert seen.setdefault(index, mark) == mark, "a finished chunk was changed"
        kills += code == -signal.SIGKILL
        if code == 0:
            break
    assert code == 0 and kills >= 2 and len(seen) == len(plan)
    made = log.read_text().split()
    assert len(made) - len(plan) <= kills, "more than one chunk a kill was redone"
    whole = b"".join((folder / f"chunk-{c.index:06d}.mp4").read_bytes() for c in plan)
    assert whole == b"".join(content(chunk) for chunk in plan)

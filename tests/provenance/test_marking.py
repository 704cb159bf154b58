from __future__ import annotations

import errno
import json
import os
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from vidswap.cli.verify import verify_command
from vidswap.errors import InputError, OutputError
from vidswap.provenance import (
    DIGITAL_SOURCE_TYPE,
    MarkInfo,
    check_signer,
    container_tags,
    mark_folder,
    mark_output,
    marking,
    read_mark,
)

CLAIM = MarkInfo("1.2.3", "mobilestylegan", {"generator": "ab" * 32}, "cd" * 32)
_TAGS = {"movflags": "use_metadata_tags"}
CLIPS = {
    "plain.mp4": ("libx264", "yuv420p", _TAGS),
    "fast.mp4": ("libx264", "yuv420p", {"movflags": "use_metadata_tags+faststart"}),
    "fragmented.mp4": ("libx264", "yuv420p", {"movflags": "use_metadata_tags+frag_keyframe"}),
    "clip.mov": ("libx264", "yuv420p", _TAGS),
    "clip.mkv": ("libx264", "yuv420p", {}),
    "clip.webm": ("libvpx-vp9", "yuv420p", {}),
    "clip.avi": ("mpeg4", "yuv420p", {}),
    "clip.gif": ("gif", "rgb8", {}),
}
STILLS = ["still.png", "still.jpg", "still.webp", "still.tiff", "still.bmp"]
SIDECARS = {"clip.mkv", "clip.webm", "still.bmp"}
WITH_XMP = {*[name for name in CLIPS if name.endswith(("mp4", "mov", "gif"))], *STILLS[:2]}
WITH_TAG = {"plain.mp4", "fast.mp4", "fragmented.mp4", "clip.mov", "clip.mkv", "clip.webm"}


@pytest.fixture(autouse=True)
def _home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("VIDSWAP_HOME", str(tmp_path_factory.mktemp("home")))


def make(path: Path, *, frames: int = 6, tags: dict[str, str] | None = None) -> Path:
    """A small clip or still of noise, as the video room would hand it over."""
    noise = np.random.default_rng(7).integers(0, 255, (frames, 48, 64, 3), dtype=np.uint8)
    if path.name not in CLIPS:
        Image.fromarray(noise[0]).save(path)
        return path
    codec, pix_fmt, options = CLIPS[path.name]
    with av.open(str(path), "w", options=options) as container:
        container.metadata.update(container_tags() if tags is None else tags)
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        for picture in noise:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("name", [*CLIPS, *STILLS])
def test_every_format_carries_a_mark_that_holds_and_decodes_as_before(tmp_path, name):
    unmarked, out = make(tmp_path / name), tmp_path / "out" / name
    out.parent.mkdir()
    before = unmarked.read_bytes()
    report = mark_output(unmarked, out, claim=CLAIM)
    assert unmarked.read_bytes() == before
    reading = read_mark(out)
    assert reading.state == "valid" and reading.has_valid_mark and not reading.is_trusted
    assert reading.source_types == (DIGITAL_SOURCE_TYPE,)
    assert reading.made_by == "vidswap 1.2.3"
    assert reading.generation["weights_sha256"] == {"generator": "ab" * 32}
    assert reading.generation["settings_sha256"] == "cd" * 32
    assert (reading.place == "sidecar") == (name in SIDECARS) == (report.sidecar is not None)
    assert report.has_xmp == (name in WITH_XMP)
    assert (reading.xmp_source_type == DIGITAL_SOURCE_TYPE) == (name in WITH_XMP)
    assert (report.tag == reading.tag == DIGITAL_SOURCE_TYPE) == (name in WITH_TAG)
    for old, new in zip(pictures(unmarked), pictures(out), strict=True):
        assert np.array_equal(old, new)
    expected = {name, f"{name}.c2pa"} if name in SIDECARS else {name}
    assert set(os.listdir(out.parent)) == expected


@pytest.mark.parametrize("name", [*CLIPS, *STILLS])
def test_a_changed_byte_is_found(tmp_path, name):
    out = tmp_path / name
    mark_output(make(out), out, claim=CLAIM)
    data = bytearray(out.read_bytes())
    place = len(data) // 2
    if name.endswith((".mp4", ".mov")):
        place = data.index(b"mdat") + 40
    elif name.endswith((".png", ".gif", ".jpg")):
        place = len(data) - 300  # in the picture's data (or XMP), not in the manifest
    data[place] ^= 0x10
    out.write_bytes(data)
    reading = read_mark(out)
    assert reading.state == "changed" and not reading.has_valid_mark
    assert any("mismatch" in problem for problem in reading.problems)
    result = CliRunner().invoke(verify_command, [str(out)])
    assert result.exit_code == 1 and "changed after it was signed" in result.output


def test_bytes_put_at_the_end_or_taken_away_are_found(tmp_path):
    for name in ("still.png", "clip.mkv", "plain.mp4"):
        out = tmp_path / name
        mark_output(make(out), out, claim=CLAIM)
        whole = out.read_bytes()
        out.write_bytes(whole[:-40])
        assert not read_mark(out).has_valid_mark
        out.write_bytes(whole + struct.pack(">I4s", 16, b"abcd") + b"12345678")
        assert not read_mark(out).has_valid_mark
        out.write_bytes(whole)
        assert read_mark(out).has_valid_mark


def test_a_remux_strips_the_manifest_and_keeps_tag_and_comment(tmp_path):
    out = tmp_path / "plain.mp4"
    mark_output(make(out), out, claim=CLAIM)
    for options in (_TAGS, {}):
        remuxed = tmp_path / "remuxed.mp4"
        with av.open(str(out)) as old, av.open(str(remuxed), "w", options=options) as new:
            new.metadata.update(old.metadata)
            stream = new.add_stream_from_template(old.streams.video[0])
            for packet in old.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    new.mux(packet)
        reading = read_mark(remuxed)
        assert reading.state == "absent" and not reading.has_valid_mark
        assert reading.says_synthetic
        assert reading.tag == (DIGITAL_SOURCE_TYPE if options else None)
        assert reading.comment is not None


def test_a_marked_file_can_be_marked_in_place_again_and_keeps_its_history(tmp_path):
    for name in ("plain.mp4", "clip.mkv", "still.jpg"):
        out = tmp_path / name
        make(out)
        for turn in range(3):
            alias = tmp_path / "alias"
            alias.unlink(missing_ok=True)
            alias.symlink_to(out)
            mark_output(out if turn != 2 else alias, out, target=out, claim=CLAIM)
            reading = read_mark(out)
            assert reading.has_valid_mark
            assert reading.parents == turn, name
        assert len(pictures(out)) == (1 if name == "still.jpg" else 6)


@pytest.mark.parametrize("name", ["plain.mp4", "clip.mkv", "clip.gif"])
def test_marks_of_the_target_are_kept_as_parent_without_its_name(tmp_path, name):
    target = tmp_path / ("jane-doe-at-home" + Path(name).suffix)
    (tmp_path / "in").mkdir()
    mark_output(make(tmp_path / "in" / name), target, claim=MarkInfo("0.9", "older"))
    out = tmp_path / "plain.mp4"
    report = mark_output(make(tmp_path / "in" / "plain.mp4"), out, target=target, claim=CLAIM)
    reading = read_mark(out)
    assert report.has_parent and reading.parents == 1 and reading.has_valid_mark
    assert reading.made_by == "vidswap 1.2.3"
    stated = reading.generation.get("target_stated", {})
    assert DIGITAL_SOURCE_TYPE in stated.values()
    assert b"jane" not in out.read_bytes()


def test_an_unmarked_or_missing_or_ruined_target_is_no_obstacle(tmp_path):
    (tmp_path / "in").mkdir()
    unmarked = make(tmp_path / "in" / "plain.mp4", tags={})
    ruined = tmp_path / "jane.mp4"
    mark_output(unmarked, ruined, claim=CLAIM)
    data = bytearray(ruined.read_bytes())
    start = data.index(b"jumb")
    data[start : start + 400] = os.urandom(400)
    ruined.write_bytes(data)
    for target, noted in ((unmarked, False), (tmp_path / "none.mp4", True), (ruined, True)):
        report = mark_output(unmarked, tmp_path / "out.mp4", target=target, claim=CLAIM)
        assert not report.has_parent and bool(report.notes) == noted
        assert read_mark(tmp_path / "out.mp4").has_valid_mark
        assert b"jane" not in (tmp_path / "out.mp4").read_bytes()


def test_a_changed_target_is_kept_and_the_output_holds(tmp_path):
    (tmp_path / "in").mkdir()
    target = tmp_path / "target.mp4"
    mark_output(make(tmp_path / "in" / "plain.mp4"), target, claim=CLAIM)
    data = bytearray(target.read_bytes())
    data[data.index(b"mdat") + 40] ^= 1
    target.write_bytes(data)
    out = tmp_path / "out.mp4"
    report = mark_output(tmp_path / "in" / "plain.mp4", out, target=target, claim=CLAIM)
    assert report.has_parent and read_mark(out).has_valid_mark


class _Failing:
    """A disk that has room for so many bytes."""

    def __init__(self, stream, room: int, error: BaseException) -> None:
        self._stream, self._room, self._error = stream, room, error

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stream.close()

    def write(self, data) -> int:
        self._room -= len(data)
        if self._room < 0:
            raise self._error
        return self._stream.write(data)


@pytest.mark.parametrize("name", ["plain.mp4", "clip.gif", "clip.mkv"])
@pytest.mark.parametrize("room", [0, 2000])
def test_a_full_disk_is_exit_4_and_leaves_what_was_there(tmp_path, monkeypatch, name, room):
    unmarked, out = make(tmp_path / name), tmp_path / "out" / name
    out.parent.mkdir()
    out.write_bytes(b"an older output")
    full = OSError(errno.ENOSPC, "No space left on device")

    def failing_open(path, mode="r", **kwargs):
        stream = open(path, mode, **kwargs)
        return _Failing(stream, room, full) if "x" in mode else stream

    def no_links(*_):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(marking, "open", failing_open, raising=False)
    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(OutputError, match="no room") as caught:
        mark_output(unmarked, out, claim=CLAIM)
    assert caught.value.exit_code == 4 and "\n" not in str(caught.value)
    assert os.listdir(out.parent) == [name] and out.read_bytes() == b"an older output"


def test_ctrl_c_while_signing_reaches_the_caller(tmp_path, monkeypatch):
    unmarked, out = make(tmp_path / "plain.mp4"), tmp_path / "out.mp4"

    def interrupted_open(path, mode="r", **kwargs):
        stream = open(path, mode, **kwargs)
        return _Failing(stream, 500, KeyboardInterrupt()) if "x" in mode else stream

    monkeypatch.setattr(marking, "open", interrupted_open, raising=False)
    with pytest.raises(KeyboardInterrupt):
        mark_output(unmarked, out, claim=CLAIM)
    assert os.listdir(tmp_path) == ["plain.mp4"]


def test_a_mark_that_does_not_read_back_is_not_published(tmp_path, monkeypatch):
    unmarked, out = make(tmp_path / "plain.mp4"), tmp_path / "out.mp4"
    sync = os.fsync

    def corrupting(handle):
        size = os.fstat(handle).st_size
        if size > 5000:
            os.pwrite(handle, b"\xff\x00\xff", size // 2)
        sync(handle)

    check_signer()
    monkeypatch.setattr(marking.os, "fsync", corrupting)
    with pytest.raises(OutputError, match="read back|cannot mark"):
        mark_output(unmarked, out, claim=CLAIM)
    assert os.listdir(tmp_path) == ["plain.mp4"]


def test_a_folder_that_is_not_there_and_a_rename_that_fails(tmp_path, monkeypatch):
    unmarked = make(tmp_path / "clip.mkv")
    with pytest.raises(OutputError, match="check the folder"):
        mark_output(unmarked, tmp_path / "none" / "out.mkv", claim=CLAIM)
    replace, out = os.replace, tmp_path / "out.mkv"

    def failing(source, goal):
        if Path(goal) == out:
            raise OSError(errno.EIO, "broken disk")
        replace(source, goal)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OutputError, match="broken disk"):
        mark_output(unmarked, out, claim=CLAIM)
    assert os.listdir(tmp_path) == ["clip.mkv"]


def test_every_image_of_a_folder_is_marked_or_none_is_left(tmp_path):
    frames, out = tmp_path / "frames", tmp_path / "out"
    frames.mkdir()
    for number in range(3):
        make(frames / f"{number:04d}.png")
    assert len(mark_folder(frames, out, target=frames, claim=CLAIM)) == 3
    assert all(read_mark(path).has_valid_mark for path in out.iterdir())
    assert CliRunner().invoke(verify_command, [str(out)]).exit_code == 0
    (out / "0001.png").write_bytes((frames / "0001.png").read_bytes())
    result = CliRunner().invoke(verify_command, [str(out)])
    assert result.exit_code == 1 and "2 of 3" in result.output

    mark_folder(frames, frames, claim=CLAIM)
    assert all(read_mark(path).has_valid_mark for path in frames.iterdir())

    (frames / "0003.png").mkdir()
    with pytest.raises(OutputError):
        mark_folder(frames, tmp_path / "second", claim=CLAIM)
    assert os.listdir(tmp_path / "second") == []


def test_verify_speaks_json_and_tells_no_mark_from_no_file(tmp_path):
    out = tmp_path / "still.png"
    make(out)
    result = CliRunner().invoke(verify_command, ["--json", str(out)])
    assert result.exit_code == 1 and json.loads(result.output)["c2pa"]["state"] == "absent"
    mark_output(out, out, claim=CLAIM)
    result = CliRunner().invoke(verify_command, ["--json", str(out)])
    said = json.loads(result.output)
    assert result.exit_code == 0 and said["valid_mark"] is True
    assert said["c2pa"]["trusted"] is False and said["xmp"] == DIGITAL_SOURCE_TYPE
    result = CliRunner().invoke(verify_command, [str(out)])
    assert "not on any trust list" in result.output
    missing = CliRunner().invoke(verify_command, [str(tmp_path / "none.mp4")])
    assert isinstance(missing.exception, InputError)


def test_verify_prints_no_control_sequences_from_a_file(tmp_path):
    path = make(tmp_path / "plain.mp4", tags={"digital_source_type": "a\x1b[31m\nb"})
    output = CliRunner().invoke(verify_command, [str(path)]).output
    assert "\x1b" not in output and "\\x1b[31m\\nb" in output


def test_the_comment_of_the_target_stays():
    assert container_tags({"Comment": "mine"}) == {"digital_source_type": DIGITAL_SOURCE_TYPE}
    assert "AI-generated" in container_tags({"title": "x", "comment": ""})["comment"]


@pytest.mark.parametrize("name", ["plain.mp4", "clip.mkv", "still.png", "still.jpg", "clip.gif"])
def test_mutated_files_never_raise_anything_but_input_errors(tmp_path, name):
    out = tmp_path / name
    mark_output(make(out), out, claim=CLAIM)
    whole, random = out.read_bytes(), np.random.default_rng(3)
    for _ in range(25):
        data = bytearray(whole)
        for place in random.integers(0, len(data), 20):
            data[place] = random.integers(0, 256)
        out.write_bytes(data[: random.integers(1, len(data))])
        try:
            assert not read_mark(out).has_valid_mark
        except InputError:
            pass

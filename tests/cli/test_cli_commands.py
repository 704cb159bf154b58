"""The commands themselves: what they refuse before any work, and one real run of each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from vidswap import weights
from vidswap.cli import run
from vidswap.cli.faces import table
from vidswap.cli.swap import checked_sources, summary
from vidswap.config import RunConfig
from vidswap.doctor import collect, describe
from vidswap.errors import UsageError
from vidswap.reports import SwapReport, TrackSummary


@pytest.fixture
def call(capsys):
    """Runs a command line; gives exit code, standard output, standard error."""

    def run_it(*args: object) -> tuple[int, str, str]:
        code = run([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return code, out, err

    return run_it


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"not looked at")
    return path


# ------------------------------------------------------------------ refused before any work


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["-s", "none.jpg"], 3, "no such source: none.jpg"),
        (["-s", "synthetic:x"], 2, "synthetic:x: the seed must be a whole number"),
        ([], 2, "no source given: name a photo with -s"),
        (["--face", "0"], 2, "no source given"),
        (["--face", "0=none.jpg"], 3, "no such source: none.jpg"),
        (["--face", "0=synthetic:1", "--face", "1"], 2, "no source given"),
        (["-s", "synthetic:1", "-s", "synthetic:2"], 2, "photos of one person"),
        (["-s", "synthetic:1@0.5"], 2, "synthetic:1@0.5: a share says how much of each"),
        (["--face", "0=synthetic:1@0.5"], 2, "synthetic:1@0.5: a share says how much of each"),
        (["--strength", "0", "--face", "0=none.jpg"], 3, "no such source: none.jpg"),
        (["-s", "synthetic:1", "--edit", "smile"], 2, "mix.edit: expected names and steps"),
        (["-s", "synthetic:1", "--reference", "none.png"], 3, "no such reference: none.png"),
        (["-s", "synthetic:1", "--reference", "synthetic:1"], 2, "expected a picture of a person"),
        (["-s", "synthetic:1", "--reference", "a.png", "--face", "all"], 2, "--reference and --face both"),
        (["--reference", "a.png"], 2, "no source given"),
        (["-s", "synthetic:1", "--start", "5", "--end", "0:04"], 2, "--end 4 is not after"),
        (["-s", "synthetic:1", "--start", "x"], 2, "'x' is not a time"),
        (["-s", "synthetic:1", "--strength", "2"], 2, "from 0 to 1, got '2' (--strength)"),
        (["-s", "synthetic:1", "--crf", "fine"], 2, "video.crf: expected a whole number"),
        (["-s", "synthetic:1", "--preset", "slow"], 2, "unknown preset 'slow'"),
        (["-s", "synthetic:1", "--config", "none.yaml"], 2, "cannot read the settings file"),
        (["-s", "synthetic:1", "--set", "size"], 2, "--set size: expected key=value"),
        (["-s", "synthetic:1", "--device", "tpu"], 2, "expected auto, cpu or cuda, got 'tpu'"),
        (["-s", "synthetic:1", "--log-file", "no/x.log"], 4, "cannot write the log file"),
    ],
)
def test_swap_refuses(call, tmp_path, monkeypatch, args, code, message):
    monkeypatch.chdir(tmp_path)
    found, out, err = call("swap", "clip.mp4", "-o", "out.mp4", *args)
    assert (found, out) == (code, "")
    assert message in err and err.startswith("vidswap: error: ") and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--reference", "none.png"], 3, "no such reference: none.png"),
        (["--reference", "synthetic:1"], 2, "expected a picture of a person"),
        (["--reference", "a.png", "--face", "all"], 2, "--reference and --face both"),
    ],
)
def test_export_refuses(call, tmp_path, monkeypatch, args, code, message):
    monkeypatch.chdir(tmp_path)
    found, out, err = call("export", "clip.mp4", "-o", "out", *args)
    assert (found, out) == (code, "")
    assert message in err and err.startswith("vidswap: error: ") and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_targets_and_outputs_that_cannot_be(call, tmp_path, photo):
    output = tmp_path / "out.mp4"
    text = tmp_path / "text.mp4"
    text.write_text("no video at all\n" * 50)
    cases = [
        (["swap", tmp_path / "none.mp4", "-o", output], 3, "none.mp4"),
        (["swap", text, "-o", output], 3, "text.mp4"),
        (["swap", text, "-o", text], 2, "input"),
        (["swap", text, "-o", photo], 2, "--force"),
        (["swap", text, "-o", tmp_path / "none" / "out.mp4"], 4, "no such folder"),
        (["preview", tmp_path / "none.mp4", "-o", tmp_path / "sheet.png"], 3, "none.mp4"),
        (["preview", text, "-o", photo], 2, "--force"),
    ]
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for args, code, message in cases:
        found, out, err = call(*args, "-s", "synthetic:1")
        assert (found, out) == (code, ""), (args, err)
        assert message in err and err.count("\n") == 1
    for args in (["faces", tmp_path / "none.mp4"], ["faces", text]):
        found, out, err = call(*args)
        assert (found, out) == (3, "") and err.count("\n") == 1
    found, _, err = call("faces", text, "-o", photo)
    assert found == 2 and "--force" in err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_missing_weights_are_5_and_leave_nothing(call, tmp_path, empty_home, small_clip):
    output = tmp_path / "out.mp4"
    code, out, err = call("swap", small_clip, "-s", "synthetic:1", "-o", output)
    assert (code, out) == (5, "")
    assert "vidswap weights fetch" in err and err.count("\n") == 1
    assert not output.exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == []


@pytest.fixture
def small_clip(tmp_path) -> Path:
    """Ten grey frames; made by the real encoder."""
    import av
    import numpy as np

    path = tmp_path / "grey.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in range(10):
            picture = np.full((48, 64, 3), 100 + level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    return path


# ------------------------------------------------------------------ config and doctor


def test_config_show_prints_a_file_that_means_the_same(call, tmp_path):
    code, first, err = call("config", "show", "--preset", "quality", "--set", "mix.strength=0.8")
    assert (code, err) == (0, "")
    assert "strength: 0.8  # from --set" in first and "# from preset quality" in first
    file = tmp_path / "mine.yaml"
    file.write_text(first)
    code, second, _ = call("config", "show", "--config", file, "--no-docs")
    assert code == 0
    assert yaml.safe_load(first) == yaml.safe_load(second)
    assert f"strength: 0.8  # from {file}" in second


def test_config_show_changed_and_json(call, monkeypatch):
    assert call("config", "show", "--changed") == (0, "", "")
    monkeypatch.setenv("VIDSWAP_SET_SMOOTH__LAG", "5")
    code, out, _ = call("config", "show", "--changed", "--no-docs", "--device", "cpu")
    assert (
        out == "device: cpu  # from --device\nsmooth:\n  lag: 5  # from VIDSWAP_SET_SMOOTH__LAG\n"
    )
    code, out, _ = call("config", "show", "--json")
    shown = json.loads(out)
    assert shown["settings"]["smooth"]["lag"] == 5
    assert shown["origins"]["smooth.lag"] == "VIDSWAP_SET_SMOOTH__LAG"


def test_doctor_without_weights_says_what_to_do(call, empty_home):
    code, out, err = call("doctor")
    assert code == 5
    assert "problem: weights are missing" in out
    assert "run `vidswap weights fetch`" in err and err.count("\n") == 1
    code, out, _ = call("doctor", "--json")
    found = json.loads(out)
    assert code == 5 and found["problems"][0]["exit_code"] == 5
    assert found["home"]["path"] == str(empty_home)
    assert found["packages"]["torch"] and found["ffmpeg"]["libavcodec"].count(".") == 2
    assert found["encoders"]["libx264"] is True
    states = {entry["name"]: entry["state"] for entry in found["weights"]}
    assert states["mobilestylegan"] == "missing"
    assert not empty_home.exists()  # looking changes nothing


def test_doctor_tells_what_would_be_used():
    found = collect(RunConfig(device="cpu"))
    assert found["device"]["chosen"] == "cpu" and found["device"]["threads"] >= 1
    expected = "gated" if weights.available("mixer-gated") else "layers"
    assert found["would_use"]["mixer"] == expected
    text = describe(found)
    assert f"mixer {expected}" in text and "weights:" in text
    assert ("ready: a swap can run" in text) is (not found["problems"])


def test_doctor_refuses_an_encoder_that_is_not_there(call):
    code, out, err = call("doctor", "--set", "video.codec=libx999", "--device", "cpu")
    assert "no encoder 'libx999' here: choose libx264" in err
    assert code == 2


# ------------------------------------------------------------------ texts


def test_summary_and_table():
    report = SwapReport(Path("o\nut.mp4"), 94, 92, 130.0, 1.31, "cpu", peak_memory_mb=1830.4)
    assert summary(report) == (
        "o ut.mp4: 94 frames, 92 with a swapped face, in 2:10 (1.31 s a frame with what is done once) "
        "on cpu, peak memory 1830 MB"
    )
    track = TrackSummary(3, 0.0, 12.5, 60, 201.4, 0.91, (0.0, 0.0, 1.0, 1.0), 4.2)
    header, row = table([track]).splitlines()
    assert header.split() == ["FACE", "FROM", "TO", "SEEN", "SIZE", "BEST", "AT", "SCORE"]
    assert row.split() == "3 0.00 s 12.50 s 60 x 201 px 4.20 s 0.91".split()
    assert len(header) == len(row)


# ------------------------------------------------------------------ for real


@pytest.fixture(scope="module")
def networks(weights_home):
    """Skips, and says so, while weights that are part of the package are not trained yet."""
    missing = [name for name in ("rgb-heads",) if not weights.available(name)]
    if missing:
        pytest.skip(f"weights of the package are not here yet: {', '.join(missing)}")
    pytest.importorskip("vidswap.sample", reason="make_sample is not written yet")


QUICK = (
    "--set", "mix.source_steps=2", "--set", "inversion.first_steps=2", "--set", "mix.refine_steps=2",
    "--set", "mix.refine_full_steps=1", "--device", "cpu",
)  # fmt: skip


@pytest.mark.slow
def test_sample_faces_preview_and_swap_of_a_real_clip(call, networks, tmp_path):
    clip, people = tmp_path / "clip.mp4", tmp_path / "people.png"
    sheet, output = tmp_path / "sheet.png", tmp_path / "out.mp4"
    code, out, err = call("sample", "-o", clip, "--seconds", "0.4", "--size", "256x256", *QUICK)
    assert code == 0, err
    code, out, err = call("faces", clip, "--json", "-o", people, "--device", "cpu")
    assert code == 0, err
    tracks = json.loads(out)
    assert len(tracks) == 1 and people.stat().st_size > 1000
    source = ("-s", "synthetic:7")
    code, out, err = call("preview", clip, *source, "--at", "0.1", "-o", sheet, *QUICK)
    assert code == 0, err
    assert sheet.read_bytes()[:4] == b"\x89PNG"
    code, out, err = call("verify", sheet)
    assert code == 0, out
    code, out, err = call("swap", clip, *source, "-o", output, *QUICK)
    assert code == 0, err
    frames, swapped = int(out.split(" frames")[0].split()[-1]), int(out.split(", ")[1].split()[0])
    assert frames >= 5 and swapped == frames
    assert f"{frames}/{frames} frames" in err
    code, _, err = call("swap", clip, *source, "-o", output, *QUICK)
    assert code == 2 and "--force" in err
    code, out, err = call("verify", output)
    assert code == 0, out


def test_at_strength_0_nobody_needs_to_be_named() -> None:
    assert checked_sources((), (), strength=0.0) == ("synthetic:0",)
    assert checked_sources((), ("1",), strength=0.0) == ("synthetic:0",)
    assert checked_sources(("synthetic:3",), (), strength=0.0) == ("synthetic:3",)
    assert checked_sources((), ("0=synthetic:3",), strength=0.0) == ()
    with pytest.raises(UsageError, match="no source given"):
        checked_sources((), (), strength=0.1)

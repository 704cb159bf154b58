"""All inputs and faults of the list, each with its verdict; files go through a real swap."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import resource
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vidswap.cli import run
from vidswap.config import (
    CompositeConfig,
    InversionConfig,
    MixConfig,
    RunConfig,
    RunsConfig,
    SmoothConfig,
    VideoConfig,
)
from vidswap.errors import InputError, NoFaceError, VidswapError, WeightsError
from vidswap.identities import to_image
from vidswap.mixing.directions import edit, load_directions
from vidswap.pipeline import Swapper
from vidswap.reports import SwapReport
from vidswap.video import open_frames, probe
from vidswap.weights import locate
from vidswap.weights.onnx_paths import check_onnx
from vidswap.weights.reading import load_tensors

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "synthetic:5"
CHEAP = RunConfig(
    device="cpu",
    threads=1,
    video=VideoConfig(encoder_preset="ultrafast"),
    inversion=InversionConfig(encoder=False, first_steps=1, next_steps=1),
    mix=MixConfig(refine_steps=0, source_steps=1, mixer="layers"),
    smooth=SmoothConfig(lag=1),
    composite=CompositeConfig(occlusion=False),
    runs=RunsConfig(chunk_frames=25, keep_latents=False),
)


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


sys.path.insert(0, str(ROOT / "tools"))
try:
    CASES = _load(Path(__file__).with_name("cases.py")).CASES
    fault_maker = _load(ROOT / "tools" / "make_fault_files.py")
finally:
    sys.path.remove(str(ROOT / "tools"))
BY_NUMBER = {case.number: case for case in CASES}
# The others are read as sources or weights below, or are slow to make and made small elsewhere.
THROUGH_A_SWAP = [
    case for case in fault_maker.CASES if case.number <= 36 and case.number not in (20, 33)
]  # fmt: skip


# --- the table ------------------------------------------------------------------------------------


def test_every_number_is_in_the_table_once() -> None:
    assert [case.number for case in CASES] == list(range(1, 63))
    assert {case.number for case in fault_maker.CASES} <= set(BY_NUMBER)


@pytest.mark.parametrize("number", range(1, 63))
def test_a_case_is_proved_by_tests_that_exist(number: int) -> None:
    case = BY_NUMBER[number]
    assert case.proofs and case.exits and case.how
    for proof in case.proofs:
        file, _, name = proof.partition("::")
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
        assert name.startswith("test_") and len(found) == 1, proof
    for made in fault_maker.CASES:
        if made.number == number:
            assert set(case.exits) & set(made.exits), "the table and the maker of the files disagree"


# --- files through the whole swap -----------------------------------------------------------------


@pytest.fixture(scope="module")
def swapper(own_home: Path) -> Any:
    return Swapper(CHEAP)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], Path]:
    """Makes the file of a case; links and neighbours come along."""
    folder = tmp_path_factory.mktemp("files")
    pictures = fault_maker.moving_pattern()

    def make(case: Any) -> Path:
        path = folder / case.file
        path.parent.mkdir(parents=True, exist_ok=True)
        case.make(path, pictures)
        return path

    return make


def outcome(swapper: Swapper, target: Path, output: Path, **options: Any) -> tuple[int, SwapReport | str]:
    """Exit code, and the report or the line that the user would see."""
    try:
        return 0, swapper.swap_video(target, SOURCE, output, **options)
    except VidswapError as error:
        return error.exit_code, str(error)


def output_for(target: Path, folder: Path) -> Path:
    if target.is_dir():
        return folder / "out"
    suffix = {".ts": ".mp4", ".avi": ".mkv", ".h264": ".mp4"}.get(target.suffix, target.suffix)
    return folder / f"out{suffix}"


def times_of(path: Path) -> list[Fraction]:
    with open_frames(path) as frames:
        times = [frame.pts * frame.time_base for frame in frames]
    return [time - times[0] for time in times]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", THROUGH_A_SWAP, ids=[repr(case.file)[1:-1] for case in THROUGH_A_SWAP])
def test_a_file_through_the_whole_swap(
    swapper: Swapper, made: Callable[[Any], Path], tmp_path: Path, case: Any
) -> None:
    target = made(case)
    output = output_for(target, tmp_path)
    code, said = outcome(swapper, target, output)
    assert code in BY_NUMBER[case.number].exits, said
    left = {path.name for path in tmp_path.iterdir()}
    if code:
        assert isinstance(said, str) and len(said.splitlines()) == 1 and left == set()
        assert "4" in said if case.number == 19 else True
        return
    assert left <= {output.name, output.name + ".c2pa"} and output.name in left
    assert isinstance(said, SwapReport)
    assert any("no face was found" in warning for warning in said.warnings)
    assert said.frames_swapped == 0 and said.frames == len(times_of(output))
    assert times_of(output) == times_of(target)
    if case.number in SPECIAL:
        SPECIAL[case.number](target, output, said)
    before, after = probe(target), probe(output)
    assert after.display_size_wh == before.display_size_wh
    assert (after.rotation, after.sample_aspect_ratio) == (before.rotation, before.sample_aspect_ratio)
    if before.kind == "video" and case.number not in (9, 17, 22):
        assert (after.layout.name, after.color_codes[:3]) == (before.layout.name, before.color_codes[:3])


def _streams(path: Path) -> list[str]:
    return sorted(stream.type for stream in probe(path).streams)


def _many_streams(target: Path, output: Path, _report: SwapReport) -> None:
    assert _streams(output) == _streams(target)
    assert probe(output).n_chapters == probe(target).n_chapters == 2


def _rotated(target: Path, output: Path, _report: SwapReport) -> None:
    assert probe(output).rotation == probe(target).rotation != 0


def _hdr(_target: Path, output: Path, _report: SwapReport) -> None:
    after = probe(output)
    assert after.layout.bit_depth == 10 and after.color_codes[:3] == (9, 16, 9)


def _alpha(_target: Path, output: Path, _report: SwapReport) -> None:
    assert probe(output).layout.has_alpha


def _says(words: str) -> Callable[[Path, Path, SwapReport], None]:
    def check(_target: Path, _output: Path, report: SwapReport) -> None:
        assert any(words in warning for warning in report.warnings), report.warnings

    return check


def _counts(count: int) -> Callable[[Path, Path, SwapReport], None]:
    def check(_target: Path, _output: Path, report: SwapReport) -> None:
        assert report.frames == count

    return check


def _gap(_target: Path, output: Path, report: SwapReport) -> None:
    assert report.frames == 20 and times_of(output)[-1] > 86_000


SPECIAL: dict[int, Callable[[Path, Path, SwapReport], None]] = {
    1: _counts(50), 2: _rotated, 6: _hdr, 9: _says("transparency"), 10: _alpha, 13: _counts(32),
    14: _counts(50), 15: _many_streams, 23: _says("scaled to 320x240"), 24: _counts(50),
    27: _says("damaged"), 30: _counts(50), 31: _gap,
}  # fmt: skip


@pytest.mark.slow
def test_8k_in_bounded_memory(swapper: Swapper, made: Callable[[Any], Path], tmp_path: Path) -> None:
    (case,) = [case for case in fault_maker.CASES if case.number == 20]
    target = made(case)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code, report = outcome(swapper, target, tmp_path / "out.mkv")
    assert code == 0 and isinstance(report, SwapReport) and report.frames == 2
    # 50 MB a picture in 4:2:0, 100 in RGB; the encoder alone holds some.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 3_000_000  # kB


# --- paths and outputs ----------------------------------------------------------------------------


def test_outputs_are_judged_before_the_work(made: Callable[[Any], Path], capsys: Any) -> None:
    (links,) = [case for case in fault_maker.CASES if case.number == 40]
    target = made(links)
    content = target.read_bytes()
    other = target.with_name("exists.mp4")
    other.write_bytes(b"mine")
    outputs = [(target, 2), (target.with_name("40_symlink.mp4"), 2), (target.with_name("40_hardlink.mp4"), 2)]
    outputs += [(other, 2), (Path("/proc/out.mp4"), 4), (target.with_name("none") / "out.mp4", 4)]
    for output, code in outputs:
        force = ["--force"] if code == 2 and output != other else []
        assert run(["swap", str(target), "-s", SOURCE, "-o", str(output), *force]) == code, output
        err = capsys.readouterr().err
        assert err.startswith("vidswap: error: ") and err.count("\n") == 1
    assert target.read_bytes() == content and other.read_bytes() == b"mine"


def test_a_list_that_leads_out(made: Callable[[Any], Path], tmp_path: Path, capsys: Any) -> None:
    (case,) = [case for case in fault_maker.CASES if case.number == 37]
    assert run(["batch", str(made(case)), "-s", SOURCE, "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.rglob("*.mp4")) == []


def test_a_read_only_target(swapper: Swapper, made: Callable[[Any], Path], tmp_path: Path) -> None:
    (case,) = [case for case in fault_maker.CASES if case.file == "36_names/with spaces.mp4"]
    folder, goal = tmp_path / "read only", tmp_path / "out"
    folder.mkdir()
    goal.mkdir()
    target = folder / "clip.mp4"
    target.write_bytes(made(case).read_bytes())
    sha = hashlib.sha256(target.read_bytes()).hexdigest()
    target.chmod(0o444)
    folder.chmod(0o555)
    try:
        code, said = outcome(swapper, target, goal / "clip.mp4")
        assert code == 0, said
        assert [path.name for path in folder.iterdir()] == ["clip.mp4"]
        assert hashlib.sha256(target.read_bytes()).hexdigest() == sha
        assert os.stat(goal / "clip.mp4").st_mode & 0o200  # the output is not read-only for that
    finally:
        folder.chmod(0o755)


# --- faces ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def portrait(swapper: Swapper) -> Callable[[float], np.ndarray]:
    """A generated face ``[512, 512, 3]``, turned by steps of about ten degrees."""

    def draw(yaw: float = 0.0) -> np.ndarray:
        generator = swapper.session.generator
        code = generator.sample(11, psi=0.6)[:, None].repeat(1, generator.n_styles, 1)
        if yaw:
            code = edit(code, {"yaw": yaw}, load_directions(locate("directions"), swapper.session.device))
        with torch.no_grad():
            face = to_image(generator.synthesize(code, size=generator.resolution))
        return (face.reshape(512, 2, 512, 2, 3).mean((1, 3)) * 255).astype(np.uint8)

    return draw


def test_a_rotated_face_is_swapped(swapper: Swapper, portrait: Any, tmp_path: Path) -> None:
    (case,) = [case for case in fault_maker.CASES if case.number == 2]
    case.make(tmp_path / "clip.mp4", fault_maker.moving_pattern(portrait()))
    code, report = outcome(swapper, tmp_path / "clip.mp4", tmp_path / "out.mp4", end_seconds=0.08)
    assert code == 0 and isinstance(report, SwapReport)
    assert (report.frames, report.frames_swapped) == (2, 2)
    assert probe(tmp_path / "out.mp4").rotation == probe(tmp_path / "clip.mp4").rotation != 0


def test_a_profile_and_a_tiny_face(swapper: Swapper, portrait: Any, tmp_path: Path) -> None:
    Image.fromarray(portrait(6.0)).save(tmp_path / "profile.png")
    code, report = outcome(swapper, tmp_path / "profile.png", tmp_path / "profile-out.png")
    assert code == 0 and isinstance(report, SwapReport)
    assert report.frames_swapped == 1 or any("no face" in warning for warning in report.warnings)
    small = Image.new("RGB", (320, 240), (90, 100, 110))
    small.paste(Image.fromarray(portrait()).resize((18, 18)), (150, 100))  # the face is 12 of them
    small.save(tmp_path / "small.png")
    code, report = outcome(swapper, tmp_path / "small.png", tmp_path / "small-out.png")
    assert code == 0 and isinstance(report, SwapReport) and report.frames_swapped == 0
    assert any("no face" in warning for warning in report.warnings)
    before, after = (np.asarray(Image.open(tmp_path / name)) for name in ("small.png", "small-out.png"))
    assert np.array_equal(before, after)


def _still(number: int, name: str, portrait: Any, folder: Path) -> Path:
    (case,) = [case for case in fault_maker.CASES if case.number == number and name in case.file]
    path = folder / case.file
    case.make(path, lambda _n, w, h: np.asarray(Image.fromarray(portrait()).resize((w, h))))
    return path


def test_sources_without_one_face(swapper: Swapper, portrait: Any, tmp_path: Path) -> None:
    none = _still(54, "no_face", portrait, tmp_path)
    two = _still(55, "two_faces", portrait, tmp_path)
    for path in (none, two):
        with pytest.raises(NoFaceError) as caught:
            swapper.source(str(path))
        assert caught.value.exit_code == 3 and len(str(caught.value).splitlines()) == 1
    first, second = swapper.source(f"{two}#0"), swapper.source(f"{two}#1")
    assert first.label != second.label


@pytest.mark.parametrize("name", ["exif_6", "cmyk", "sixteen_bits", "palette_alpha", "truncated"])
def test_stills_of_every_sort_as_sources(swapper: Swapper, portrait: Any, tmp_path: Path, name: str) -> None:
    path = _still(56, name, portrait, tmp_path)
    if name == "truncated":
        with pytest.raises(InputError, match="damaged or incomplete"):
            swapper.source(str(path))
        return
    plain = tmp_path / "plain.png"
    Image.fromarray(portrait()).resize((480, 480)).save(plain)
    found, wanted = swapper.source(str(path)), swapper.source(str(plain))
    # Grey and few colours change a face a little; lying on its side or inverted it would be another's.
    assert float(torch.dist(found.embedding, wanted.embedding)) < (0.45 if name != "exif_6" else 0.1)


# --- weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [57, 58, 59, 60, 61])
def test_evil_weights(
    made: Callable[[Any], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (case,) = [case for case in fault_maker.CASES if case.number == number]
    path = made(case)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError) as caught:
        if path.suffix == ".onnx":
            check_onnx(path)
        elif number == 58:
            load_tensors(path, sha256="0" * 64)
        else:
            load_tensors(path)
    assert caught.value.exit_code == 5 and len(str(caught.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []  # code inside would have left a file

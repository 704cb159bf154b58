"""A whole evaluation, on generated faces: a clip beside itself, and beside spoiled versions.

The clips are folders of PNG, so that nothing is lost on the way.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageFilter

from vidswap import weights
from vidswap.cli.evaluate import evaluate_command
from vidswap.config import RunConfig
from vidswap.errors import InputError, UsageError, WeightsError
from vidswap.evaluation import EvaluationOptions, evaluate, write_report
from vidswap.evaluation.judges import open_judge
from vidswap.metrics.report import Report
from vidswap.models.mobile_stylegan import MobileStyleGAN
from vidswap.session import Session

FRAMES = 7
SIDE = 224
FACE = np.s_[40:200, 44:180]
"""Within the frame, about the face."""


@pytest.fixture(scope="module")
def faces(weights_home: Path) -> list[np.ndarray]:
    """Three people, ``[1024, 1024, 3]`` uint8."""
    generator = MobileStyleGAN.load(weights.locate("mobilestylegan"))
    found = []
    with torch.no_grad():
        for seed in (3, 4, 11):
            code = generator.sample(seed, psi=0.6)[:, None].repeat(1, generator.n_styles, 1)
            image = generator.synthesize(code)[0].clamp(-1, 1)
            found.append(((image + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
    return found


@pytest.fixture(scope="module")
def place(faces: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target of one person swaying, a photo of another, and a distractor."""
    place = tmp_path_factory.mktemp("evaluation")
    save(place / "target", sway(faces[0]))
    Image.fromarray(faces[1]).save(place / "source.png")
    (place / "people").mkdir()
    Image.fromarray(faces[2]).save(place / "people" / "other.png")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(place / "people" / "nobody.png")
    return place


def sway(face: np.ndarray) -> list[np.ndarray]:
    picture = Image.fromarray(face)
    frames = []
    for k in range(FRAMES):
        shift = 20 * np.sin(k / 3)
        moved = picture.transform(
            (1024, 1024), Image.Transform.AFFINE, (1, 0, shift, 0, 1, shift / 2),
            Image.Resampling.BICUBIC,
        )  # fmt: skip
        frames.append(np.asarray(moved.resize((SIDE, SIDE), Image.Resampling.LANCZOS)))
    return frames


def save(folder: Path, frames: list[np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    for k, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{k:04d}.png", compress_level=1)
    return folder


def read(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]


@pytest.fixture(scope="module")
def session(weights_home: Path) -> Session:
    return Session(RunConfig(threads=1, device="cpu"))


def judged(place: Path, output: Path, session: Session, **options: object) -> Report:
    chosen = EvaluationOptions(**{"distractors": place / "people", **options})  # type: ignore[arg-type]
    return evaluate(place / "target", output, [str(place / "source.png")], options=chosen, session=session)


@pytest.fixture(scope="module")
def itself(place: Path, session: Session) -> Report:
    return judged(place, place / "target", session)


def test_a_clip_beside_itself_is_perfect_and_no_swap(itself: Report) -> None:
    assert len(itself.rows) == FRAMES
    clip, mean = itself.clip_summary, itself.frame_summary
    for name in ("warping_ratio", "jitter_ratio", "flicker_ratio", "tl_id", "tg_id", "faces_found"):
        assert clip[name] == pytest.approx(1.0), name
    for name in ("pose_degrees", "expression", "mouth_opening", "eye_aspect", "identity_original"):
        assert mean[name].worst == pytest.approx(0.0, abs=1e-5), name
    assert mean["psnr_outside_db"].mean == mean["psnr_inside_db"].mean == 100.0
    assert mean["sharpness_ratio"].mean == pytest.approx(1.0)
    assert mean["identity_source"].mean > 0.55
    assert clip["retrieval_top1"] == 0.0
    assert itself.gallery_size == 3  # source, original person, the other


def test_another_person_is_found_to_be_the_source(
    place: Path, session: Session, faces: list[np.ndarray]
) -> None:
    swapped = judged(place, save(place / "swapped", sway(faces[1])), session)
    assert swapped.clip_summary["retrieval_top1"] == 1.0
    assert swapped.frame_summary["identity_source"].mean < 0.3
    assert swapped.frame_summary["identity_original"].mean > 0.55
    assert swapped.frame_summary["expression"].mean > 0.01


def test_the_second_network_agrees(place: Path, session: Session, faces: list[np.ndarray]) -> None:
    judge = "faceres"
    if not weights.available(judge):
        pytest.skip(f"weights {judge!r} are optional and not here")
    swapped = judged(place, save(place / "swapped-judge", sway(faces[1])), session, judge=judge)
    kept = judged(place, place / "target", session, judge=judge)
    assert swapped.networks["second network"].startswith(judge)
    assert swapped.clip_summary["judge_top1"] == 1.0 and kept.clip_summary["judge_top1"] == 0.0
    found, before = swapped.frame_summary, kept.frame_summary
    assert found["judge_source"].mean > 0.6 > before["judge_source"].mean
    assert found["judge_original"].mean < 0.6 and before["judge_original"].mean == pytest.approx(1, abs=1e-4)


def test_a_judge_that_is_not_here_is_one_line(empty_home: Path) -> None:
    with pytest.raises(WeightsError, match="run `vidswap weights fetch judge`"):
        open_judge("faceres")
    with pytest.raises(UsageError, match="--judge facers: no such network, file or folder; did you mean"):
        open_judge("facers")


def spoiled(place: Path, name: str, change: object) -> Path:
    frames = []
    for k, frame in enumerate(read(place / "target")):
        frame = frame.copy()
        frame[FACE] = change(frame[FACE], k)  # type: ignore[operator]
        frames.append(frame)
    return save(place / name, frames)


def blurred(part: np.ndarray, _index: int) -> np.ndarray:
    return np.asarray(Image.fromarray(part).filter(ImageFilter.GaussianBlur(1.5)))


def flickering(part: np.ndarray, index: int) -> np.ndarray:
    return np.clip(part * (1 + 0.04 * (-1) ** index), 0, 255).astype(np.uint8)


def trembling(part: np.ndarray, index: int) -> np.ndarray:
    return np.roll(part, (2 if index % 2 else -2, 1 - index % 3), (0, 1))


def test_blur_lowers_sharpness_and_nothing_in_time(place: Path, session: Session, itself: Report) -> None:
    found = judged(place, spoiled(place, "blurred", blurred), session)
    assert found.frame_summary["sharpness_ratio"].mean < 0.5
    assert found.clip_summary["warping_ratio"] < 1.2
    assert found.clip_summary["flicker_ratio"] < 1.3
    assert found.clip_summary["retrieval_top1"] == 0.0


def mean_of(report: Report, column: str) -> float:
    return float(np.nanmean([row[column] for row in report.rows]))


def test_flicker_raises_flicker_and_warping_and_not_sharpness(place: Path, session: Session) -> None:
    found = judged(place, spoiled(place, "flickering", flickering), session)
    assert found.clip_summary["flicker_ratio"] > 3
    assert mean_of(found, "flicker_output") > 0.01
    assert found.clip_summary["warping_ratio"] > 2
    assert found.frame_summary["sharpness_ratio"].mean == pytest.approx(1.0, abs=0.1)
    assert found.frame_summary["expression"].mean < 0.02


def test_trembling_raises_jitter_and_warping_and_not_flicker(place: Path, session: Session) -> None:
    found = judged(place, spoiled(place, "trembling", trembling), session)
    assert found.clip_summary["jitter_ratio"] > 1.5
    assert found.clip_summary["warping_ratio"] > 2
    assert mean_of(found, "flicker_output") < 0.004  # under one step of 8 bits
    assert {w.reason for w in found.worst} >= {"expression", "warping_ratio"}


def test_a_cut_to_another_person_hides_nothing(
    place: Path, session: Session, faces: list[np.ndarray], tmp_path: Path
) -> None:
    """The jump at the cut, in target and output alike, brought a trembling clip's jitter near to 1."""
    save(tmp_path / "target", sway(faces[0])[:6] + sway(faces[2])[:6])
    shaken = read(tmp_path / "target")
    for index, picture in enumerate(shaken):
        shaken[index] = picture.copy()
        shaken[index][FACE] = trembling(picture[FACE], index)
    output = save(tmp_path / "output", shaken)
    options = EvaluationOptions(distractors=place / "people")
    source = [str(place / "source.png")]
    found = evaluate(tmp_path / "target", output, source, options=options, session=session)
    assert any("1 times the clip is cut" in note for note in found.notes)
    assert found.clip_summary["jitter_ratio"] > 1.5
    jitter = [row["jitter_original"] for row in found.rows]
    assert np.isnan(jitter).sum() == 4 and np.nanmax(jitter) < 0.05  # at both ends of both shots


def test_what_changes_outside_the_face_shows_outside_only(place: Path, session: Session) -> None:
    frames = [frame.copy() for frame in read(place / "target")]
    for frame in frames:
        frame[:20] = 0
    found = judged(place, save(place / "outside", frames), session)
    assert found.frame_summary["psnr_outside_db"].mean < 25
    assert found.frame_summary["psnr_inside_db"].mean == 100.0


def test_an_output_of_another_size_is_scaled_and_said(place: Path, session: Session) -> None:
    frames = [
        np.asarray(Image.fromarray(x).resize((320, 320), Image.Resampling.BICUBIC))
        for x in read(place / "target")
    ]
    found = judged(place, save(place / "larger", frames), session, end_seconds=0.1)
    assert any("another size" in note for note in found.notes)
    assert found.frame_summary["psnr_inside_db"].mean > 35


def test_another_shape_is_refused(place: Path, session: Session) -> None:
    wide = save(place / "wide", [np.zeros((100, 200, 3), np.uint8)] * 2)
    with pytest.raises(InputError, match="200x100.*224x224"):
        judged(place, wide, session)


def test_wrong_use(place: Path, session: Session) -> None:
    with pytest.raises(InputError, match="no such"):
        judged(place, place / "absent.mp4", session)
    with pytest.raises(UsageError, match="--face 7"):
        judged(place, place / "target", session, track=7, end_seconds=0.05)
    with pytest.raises(InputError, match="not a folder"):
        judged(place, place / "target", session, distractors=place / "absent")


def test_files_of_the_report(itself: Report, tmp_path: Path) -> None:
    written = write_report(itself, tmp_path / "made" / "report")
    body = json.loads(written["json"].read_text("utf-8"))
    assert body["clip"]["tl_id"] == pytest.approx(1.0) and body["target"] == "target"
    rows = list(csv.DictReader(written["csv"].open(encoding="utf-8")))
    assert [float(r["pts_seconds"]) for r in rows] == pytest.approx([k / 25 for k in range(FRAMES)])
    page = written["html"].read_text("utf-8")
    assert "data:image/jpeg;base64," in page and page.count("<svg") >= 6
    assert sorted(p.name for p in written["html"].parent.iterdir()) == [
        "frames.csv", "report.html", "report.json",
    ]  # fmt: skip
    assert str(tmp_path) not in page


def test_nobody_among_the_distractors_is_said(itself: Report) -> None:
    assert any("1 of 2 distractors" in note for note in itself.notes)


def test_command_writes_the_report_and_says_the_main_figures(place: Path, tmp_path: Path) -> None:
    target, folder = str(place / "target"), tmp_path / "report"
    result = CliRunner().invoke(
        evaluate_command,
        [target, target, "-s", str(place / "source.png"), "-o", str(folder), "--end", "0.1",
         "--distractors", str(place / "people"), "--seconds", "6"],
        catch_exceptions=False,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "TL-ID" in result.output and str(folder / "report.html") in result.output
    assert json.loads((folder / "report.json").read_text("utf-8"))["clip"]["seconds_a_frame"] == 2

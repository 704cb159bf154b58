"""``--reference`` in whole runs: who is swapped, what is refused, and that runs gone on with agree."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vidswap.cli.app import run as vidswap
from vidswap.config import CompositeConfig, InversionConfig, MixConfig, RunConfig, RunsConfig, SmoothConfig
from vidswap.errors import InputError, Interrupted, NoFaceError, UsageError
from vidswap.exporting import export, read_latents
from vidswap.identities import to_image
from vidswap.pipeline import Swapper, preview
from vidswap.reports import Progress
from vidswap.session import Session
from vidswap.video import open_frames
from vidswap.video.sample_writer import SampleWriter

FRAMES, SOURCE = 5, "synthetic:5"
CHEAP = RunConfig(
    device="cpu",
    threads=1,
    inversion=InversionConfig(encoder=False, first_steps=1, next_steps=1),
    mix=MixConfig(refine_steps=1, refine_full_steps=0, mixer="layers"),
    smooth=SmoothConfig(lag=1),
    composite=CompositeConfig(occlusion=False),
    runs=RunsConfig(chunk_frames=2, keep_latents=True),
)


@pytest.fixture(scope="module")
def session(own_home: Path) -> Session:
    return Session(CHEAP)


def swapper_of(session: Session, config: RunConfig = CHEAP) -> Swapper:
    """With the networks that are loaded already."""
    made = Swapper(config)
    for name in ("device", "generator", "identity", "encoder"):
        made.session.__dict__[name] = getattr(session, name)
    return made


@pytest.fixture
def swapper(session: Session) -> Swapper:
    return swapper_of(session)


@pytest.fixture(scope="module")
def people(session: Session) -> list[np.ndarray]:
    """Three who do not exist, ``[208, 220, 3]`` uint8."""
    generator, made = session.generator, []
    for seed in (11, 2, 7):
        code = generator.sample(seed)[:, None].repeat(1, generator.n_styles, 1)
        with torch.no_grad():
            face = to_image(generator.synthesize(code, size=generator.resolution))
        small = (face.reshape(256, 4, 256, 4, 3).mean((1, 3)) * 255).astype(np.uint8)
        made.append(small[4:212, 20:240])
    return made


@pytest.fixture(scope="module")
def folder(people: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``clip.mp4`` with the first two side by side, and pictures of all, of nobody and of two."""
    path = tmp_path_factory.mktemp("reference")
    options = {"size_wh": (512, 240), "fps": 25, "sound_rate_hz": 48000, "metadata": {}}
    with SampleWriter(path / "clip.mp4", sound=np.zeros(FRAMES * 1920, np.float32), **options) as writer:
        for index in range(FRAMES):
            picture = np.full((240, 512, 3), 70, np.uint8)
            picture[20 + index : 228 + index, 20:240] = people[0]
            picture[16:224, 270 + index : 490 + index] = people[1]
            writer.write(picture)
    for name, face in zip(("left", "right", "absent"), people, strict=True):
        Image.fromarray(face).resize((330, 312)).save(path / f"{name}.png")
    Image.fromarray(np.concatenate(people[:2], 1)).save(path / "both.png")
    Image.new("RGB", (200, 200), "grey").save(path / "nobody.png")
    return path


def changed(made: Path, target: Path) -> list[tuple[float, float]]:
    """Mean change of the left and of the right half, of each frame."""
    with open_frames(made) as ours, open_frames(target) as theirs:
        both = zip(ours, theirs, strict=True)
        pairs = [(a.planes[0].astype(float), b.planes[0].astype(float)) for a, b in both]
    halves = [np.abs(a - b).reshape(240, 2, 256).mean((0, 2)) for a, b in pairs]
    return [(float(left), float(right)) for left, right in halves]


def stop_after(frames: int):
    def progress(state: Progress) -> None:
        if state.frames_done >= frames:
            raise KeyboardInterrupt

    return progress


@pytest.mark.timeout(600)
def test_only_the_person_of_the_picture_is_swapped_also_when_gone_on_with(
    session: Session, swapper: Swapper, folder: Path, tmp_path: Path
) -> None:
    clip, output, right = folder / "clip.mp4", tmp_path / "whole.mp4", folder / "right.png"
    report = swapper.swap_video(clip, SOURCE, output, reference=right)
    assert (report.frames_swapped, report.warnings) == (FRAMES, ())
    assert all(other < 1.0 < 2.0 < hers for other, hers in changed(output, clip))

    # The picture of both with a number names the same person; nothing comes from the cache.
    stopped, named = tmp_path / "stopped.mp4", f"{folder / 'both.png'}#1"
    swapper = swapper_of(session, replace(CHEAP, runs=replace(CHEAP.runs, keep_latents=False)))
    with pytest.raises(Interrupted):
        swapper.swap_video(clip, SOURCE, stopped, reference=named, progress=stop_after(3))
    with pytest.raises(UsageError, match=r"other settings \(reference: .*, now .*\); repeat"):
        swapper.swap_video(clip, SOURCE, stopped, reference=right)
    with pytest.raises(UsageError, match=r'face: "reference", now "largest"; reference: .*, now \(none\)'):
        swapper.swap_video(clip, SOURCE, stopped)
    swapper.swap_video(clip, SOURCE, stopped, reference=named)
    assert changed(stopped, output) == [(0.0, 0.0)] * FRAMES


def test_somebody_who_is_not_there_is_a_warning_each_time(
    swapper: Swapper, folder: Path, tmp_path: Path
) -> None:
    absent = folder / "absent.png"
    for name in ("found.mp4", "from the cache.mp4"):
        report = swapper.swap_video(folder / "clip.mp4", SOURCE, tmp_path / name, reference=absent)
        assert report.frames_swapped == 0
        (warning,) = report.warnings
        assert "nobody who looks like" in warning and "2 people were seen, the nearest is 0." in warning
        assert warning.endswith("its frames passed unchanged")
        assert max(max(pair) for pair in changed(tmp_path / name, folder / "clip.mp4")) < 1.0
    sheet = tmp_path / "sheet.png"
    with pytest.raises(NoFaceError, match=r"at 0\.1 s: nobody who looks like .*absent.png was found: 2 "):
        preview(folder / "clip.mp4", SOURCE, config=CHEAP, at_seconds=[0.1], reference=absent, output=sheet)
    assert not sheet.exists()


def test_pictures_that_name_nobody_are_refused(swapper: Swapper, folder: Path, tmp_path: Path) -> None:
    clip, output = folder / "clip.mp4", tmp_path / "out.mp4"
    for name, error, message in (
        ("nobody.png", NoFaceError, "no face found in the reference"),
        ("both.png", NoFaceError, "2 faces in the reference; choose one, left to right"),
        ("both.png#2", NoFaceError, "there is no face #2; it has 2, #0 to #1"),
        ("none.png", InputError, "no such reference"),
    ):
        with pytest.raises(error, match=message):
            swapper.swap_video(clip, SOURCE, output, reference=folder / name)
    with pytest.raises(UsageError, match="--reference and --face both say who"):
        swapper.swap_video(clip, SOURCE, output, reference=folder / "left.png", face=["0"])
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ exports


def rows_of(exported: Path) -> list[dict]:
    return [json.loads(line) for line in (exported / "landmarks.jsonl").read_text().splitlines()]


def test_an_export_holds_only_the_person_of_the_picture(folder: Path, tmp_path: Path) -> None:
    clip, hers, named = folder / "clip.mp4", tmp_path / "hers", tmp_path / "named"
    kinds = ("landmarks", "latents")
    report = export(clip, hers, what=kinds, config=CHEAP, reference=folder / "right.png")
    assert (report.faces, report.tracks, report.warnings) == (FRAMES, 1, ())
    rows = rows_of(hers)
    assert len(rows) == FRAMES and all(row["box"][0] > 256 for row in rows)
    (track,) = {row["track"] for row in rows}
    assert read_latents(hers / "latents.safetensors").track.tolist() == [track] * FRAMES
    manifest = json.loads((hers / "manifest.json").read_text())
    assert manifest["reference"] == "right.png" and list(manifest["tracks"]) == [str(track)]

    # Without inversion, and by the picture of both: other stages, the same person.
    both = f"{folder / 'both.png'}#1"
    assert vidswap(["export", str(clip), "-o", str(named), "--what", "landmarks", "--reference", both]) == 0
    assert [row["box"] for row in rows_of(named)] == [row["box"] for row in rows]
    assert json.loads((named / "manifest.json").read_text())["reference"] == "both.png#1"


def test_an_export_of_somebody_who_is_not_there_says_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, absent = tmp_path / "out", folder / "absent.png"
    command = ["export", folder / "clip.mp4", "-o", output, "--what", "quads", "--reference", absent]
    assert vidswap([str(word) for word in command]) == 0
    said = capsys.readouterr().err
    assert "clip.mp4: nobody who looks like" in said and "2 people were seen, the nearest is 0." in said
    assert json.loads((output / "manifest.json").read_text())["tracks"] == {}


def test_pictures_that_name_nobody_are_refused_by_exports_too(folder: Path, tmp_path: Path) -> None:
    clip, output = folder / "clip.mp4", tmp_path / "out"
    for name, error, message in (
        ("nobody.png", NoFaceError, "no face found in the reference"),
        ("both.png", NoFaceError, "2 faces in the reference; choose one, left to right"),
        ("none.png", InputError, "no such reference"),
    ):
        with pytest.raises(error, match=message):
            export(clip, output, what=["quads"], config=CHEAP, reference=folder / name)
    with pytest.raises(UsageError, match="--reference and --face both say who"):
        export(clip, output, what=["quads"], config=CHEAP, reference=folder / "left.png", face="all")
    assert list(tmp_path.iterdir()) == []

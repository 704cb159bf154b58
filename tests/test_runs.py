"""Swaps that are killed, interrupted, gone on with, and begun again; faces kept for other sources."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vidswap.config import (
    CompositeConfig,
    InversionConfig,
    MixConfig,
    RunConfig,
    RunsConfig,
    SmoothConfig,
)
from vidswap.errors import InputError, Interrupted, UsageError
from vidswap.identities import SourceIdentity, source_crop, to_image
from vidswap.inversion import Inverter
from vidswap.journal import Journal, RunKey
from vidswap.kept_faces import KeptChunks, analysis_key
from vidswap.pipeline import Swapper
from vidswap.provenance import read_mark
from vidswap.records import Frame, PixelLayout
from vidswap.regenerate import Regenerate
from vidswap.reports import Progress
from vidswap.runs import clear_published, piece_suffix, work_folder
from vidswap.session import Session
from vidswap.sheet import _Works
from vidswap.sources import parse_source
from vidswap.stages import Selection
from vidswap.video import VideoWriter, open_frames, probe, read_image, write_image
from vidswap.video.sample_writer import SampleWriter

ROOT = Path(__file__).resolve().parents[1]
FRAMES, CHUNK = 5, 2
# Every stage keeps its state, but little is computed.
CHEAP = RunConfig(
    device="cpu",
    threads=1,
    inversion=InversionConfig(encoder=False, first_steps=1, next_steps=1),
    mix=MixConfig(refine_steps=1, refine_full_steps=0, mixer="layers"),
    smooth=SmoothConfig(lag=1),
    composite=CompositeConfig(occlusion=False),
    runs=RunsConfig(chunk_frames=CHUNK, keep_latents=False),
)
CHEAP_OPTIONS = (
    "device=cpu", "threads=1", "inversion.encoder=false", "inversion.first_steps=1",
    "inversion.next_steps=1", "mix.refine_steps=1", "mix.refine_full_steps=0", "mix.mixer=layers",
    "smooth.lag=1", "composite.occlusion=false", f"runs.chunk_frames={CHUNK}", "runs.keep_latents=false",
)  # fmt: skip
KEEPING = replace(CHEAP, runs=replace(CHEAP.runs, keep_latents=True))
SOURCE = "synthetic:5"


@pytest.fixture(scope="module")
def session(own_home: Path) -> Session:
    return Session(CHEAP)


def swapper(session: Session, config: RunConfig = CHEAP, log: list[str] | None = None) -> Swapper:
    """With the networks that are loaded already."""
    made = Swapper(config, (log if log is not None else []).append)
    for name in ("device", "generator", "identity", "encoder"):
        made.session.__dict__[name] = getattr(session, name)
    return made


@pytest.fixture(scope="module")
def clip(session: Session, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated face that moves over a grey ground, with sound."""
    generator = session.generator
    code = generator.sample(11)[:, None].repeat(1, generator.n_styles, 1)
    with torch.no_grad():
        face = to_image(generator.synthesize(code, size=generator.resolution))
    face = (face.reshape(256, 4, 256, 4, 3).mean((1, 3)) * 255).astype(np.uint8)
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    sound = np.sin(np.arange(FRAMES * 1920) * 0.05).astype(np.float32) * 0.2
    options = {"size_wh": (320, 240), "fps": 25, "sound_rate_hz": 48000, "metadata": {}}
    with SampleWriter(path, sound=sound, **options) as writer:
        for index in range(FRAMES):
            picture = np.full((240, 320, 3), 70, np.uint8)
            left = 40 + 3 * index
            picture[20 + index : 228 + index, left : left + 220] = face[4:212, 20:240]
            writer.write(picture)
    return path


@pytest.fixture(scope="module")
def whole(session: Session, clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The swap that nobody stopped; its faces and inversions are kept."""
    output = tmp_path_factory.mktemp("whole") / "out.mp4"
    report = swapper(session, KEEPING).swap_video(clip, SOURCE, output)
    assert (report.frames, report.frames_swapped) == (FRAMES, FRAMES)
    assert [path.name for path in output.parent.iterdir()] == ["out.mp4"]
    return output


def frames_of(path: Path) -> list[Frame]:
    with open_frames(path) as frames:
        return list(frames)


def assert_same_frames(made: Path, wanted: Path) -> None:
    ours, theirs = frames_of(made), frames_of(wanted)
    assert [frame.pts for frame in ours] == [frame.pts for frame in theirs]
    for one, other in zip(ours, theirs, strict=True):
        for plane, expected in zip(one.planes, other.planes, strict=True):
            assert np.array_equal(plane, expected), f"frame {one.index}"


def stopping_at(frame: int):
    def progress(state: Progress) -> None:
        if state.frames_done >= frame:
            raise KeyboardInterrupt

    return progress


def entries(folder: Path) -> int:
    """Finished chunks in the journal."""
    try:
        return (folder / "journal.jsonl").read_text().count('"type":"chunk"')
    except FileNotFoundError:
        return 0


def kill_after(chunks: int, clip: Path, output: Path) -> None:
    """The real command, killed as soon as so many chunks are finished."""
    options = [part for option in CHEAP_OPTIONS for part in ("--set", option)]
    command = ["swap", str(clip), "-s", SOURCE, "-o", str(output), "--no-progress", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "vidswap", *command], env=environment, stderr=subprocess.PIPE
    )
    try:
        while entries(work_folder(output)) < chunks:
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.timeout(900)  # several processes, on machines that may be busy
@pytest.mark.skipif(os.name == "nt", reason="kills as POSIX does")
def test_killed_runs_go_on_to_the_frames_of_one_that_was_not(
    session: Session, clip: Path, whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.mp4"
    folder = work_folder(output)
    kill_after(1, clip, output)
    first = (folder / "chunk-000000.mp4").read_bytes()
    kill_after(2, clip, output)
    assert (folder / "chunk-000000.mp4").read_bytes() == first
    assert not output.exists()
    log: list[str] = []
    done = entries(folder) * CHUNK
    report = swapper(session, CHEAP, log).swap_video(clip, SOURCE, output)
    assert f"resuming: {done} of {FRAMES} frames are done" in log and done >= 2 * CHUNK
    assert (report.frames, report.frames_swapped) == (FRAMES, FRAMES)
    assert_same_frames(output, whole)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_an_interrupted_run_refuses_other_settings_and_goes_on_without_inversion(
    session: Session, clip: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("inverted although the clip's inversions are kept")

    monkeypatch.setattr(Inverter, "step", never)
    output = tmp_path / "out.mp4"
    made = swapper(session, KEEPING)
    with pytest.raises(Interrupted, match=f"stopped with 2 of {FRAMES} frames done; run the same command"):
        made.swap_video(clip, SOURCE, output, progress=stopping_at(3))
    assert not output.exists() and entries(work_folder(output)) == 1
    weaker = replace(KEEPING, mix=replace(KEEPING.mix, strength=0.5))
    with pytest.raises(UsageError, match=r"mix\.strength: 1\.0, now 0\.5.*--restart"):
        swapper(session, weaker).swap_video(clip, SOURCE, output)
    with pytest.raises(UsageError, match="source: .*synthetic:6"):
        made.swap_video(clip, "synthetic:6", output)
    damage = work_folder(output) / "chunk-000000.mp4"
    damage.write_bytes(damage.read_bytes()[:-9])
    report = made.swap_video(clip, SOURCE, output)
    assert report.frames == FRAMES
    assert_same_frames(output, whole)


def test_what_is_in_front_of_faces_is_kept_too_and_another_mask_finds_what_it_needs(
    session: Session, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network's map is kept for both settings; the target redrawn only one of them asks always."""
    network = replace(KEEPING, composite=CompositeConfig())
    both = replace(KEEPING, composite=CompositeConfig(occlusion_by="both"))
    swapper(session, network).swap_video(clip, SOURCE, tmp_path / "network.mp4")
    own = replace(both, runs=replace(both.runs, keep_latents=False))
    swapper(session, own).swap_video(clip, SOURCE, tmp_path / "both.mp4")

    def never(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("asked although it is kept")

    output = tmp_path / "out.mp4"
    monkeypatch.setattr("vidswap.witnesses.with_occluders", never)
    monkeypatch.setattr("vidswap.witnesses._in_front", never)
    monkeypatch.setattr("vidswap.stages.with_occluders", never)
    made = swapper(session, both)
    with pytest.raises(Interrupted, match=f"stopped with {CHUNK} of"):
        made.swap_video(clip, SOURCE, output, progress=stopping_at(CHUNK + 1))
    made.swap_video(clip, SOURCE, output)
    assert_same_frames(output, tmp_path / "both.mp4")


def test_a_restart_begins_again_and_a_stop_before_the_first_chunk_leaves_nothing(
    session: Session, clip: Path, whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.mp4"
    made = swapper(session, KEEPING)
    with pytest.raises(Interrupted):
        made.swap_video(clip, "synthetic:6", output, progress=stopping_at(CHUNK + 1))
    assert entries(work_folder(output)) == 1
    with pytest.raises(Interrupted, match="nothing is kept"):
        made.swap_video(clip, SOURCE, output, restart=True, progress=stopping_at(1))
    assert list(tmp_path.iterdir()) == []


def test_inversions_do_not_depend_on_the_source_or_on_what_is_made_of_them(session: Session) -> None:
    def key(config: RunConfig, label: str) -> dict:
        source = SourceIdentity(label, torch.zeros(1, 23, 512), torch.zeros(1, 128))
        return analysis_key(swapper(session, config).session, Selection("largest", source))

    stronger = replace(CHEAP, composite=CompositeConfig(feather=10), mix=MixConfig(strength=0.3))
    assert key(stronger, "a") == key(CHEAP, "b")
    for other in (
        replace(CHEAP, inversion=InversionConfig(encoder=False, next_steps=2)),
        replace(CHEAP, smooth=SmoothConfig(lag=3)),
        replace(CHEAP, smooth=SmoothConfig(occlusion=0.0)),
    ):
        assert key(other, "a") != key(CHEAP, "a")


def test_a_sheet_shows_the_source_as_the_run_refined_it(session: Session, clip: Path, whole: Path) -> None:
    made, told = swapper(session, KEEPING), []
    selection = Selection("largest", made.source(SOURCE))
    works = _Works(made.session, probe(clip), selection, told.append)
    work, draw = works(frames_of(clip)[3])
    (face,) = work.faces
    # Later in the clip its code is another one, by which the source was never refined.
    later = work.with_faces([replace(face, pivot=replace(face.pivot, latent=face.pivot.latent + 0.1))])
    draw(later)
    assert not [line for line in told if "fitting" in line]
    Regenerate(made.session, told.append)(later)
    assert [line for line in told if "fitting" in line]


def test_a_chunk_that_is_encoded_again_is_the_same(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    ground = random.integers(40, 200, (15, 20), np.uint8).repeat(16, 0).repeat(16, 1)
    layout = PixelLayout("yuv420p", 8, (1, 1), False, False, "tv", "bt709")
    source = tmp_path / "source.mp4"
    options = {"size_wh": (320, 240), "fps": 25, "sound_rate_hz": 48000, "metadata": {}}
    with SampleWriter(source, sound=np.zeros(1920, np.float32), **options) as writer:
        writer.write(ground[..., None].repeat(3, -1))
    info = probe(source)
    made = []
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        with VideoWriter(tmp_path / name, info) as writer:
            for index in range(40):
                planes = (np.roll(ground, 3 * index, 1), *(np.full((120, 160), 128, np.uint8),) * 2)
                pts = index * info.nominal_step
                writer.write(Frame(index, pts, info.time_base, layout, planes, (320, 240)))
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1] == made[2]


def test_a_folder_left_by_a_kill_at_the_very_end_is_removed(tmp_path: Path) -> None:
    output, made = tmp_path / "out.mp4", tmp_path / "made.mp4"
    for moment in ("before", "about to", "has its name", "replaced another", "said so"):
        journal = Journal.open(work_folder(output), RunKey("1-a"))
        if moment != "before":
            journal.note_publishing(output)
        if moment in ("has its name", "replaced another"):
            made.write_bytes(b"whole")
            os.replace(made, output)
        if moment == "said so":
            journal.note_published()
        journal.close()
        clear_published(output)
        assert work_folder(output).exists() is (moment in ("before", "about to")), moment


def test_chunks_are_mp4_where_that_holds_the_codec() -> None:
    assert piece_suffix("libx264", Path("out.mkv")) == ".mp4"
    assert piece_suffix("libx264", Path("out.webm")) == ".webm"
    assert piece_suffix("ffv1", Path("out.MKV")) == ".mkv"
    folder = work_folder(Path("x" * 250 + ".mp4"))
    assert len(folder.name) < 60 and folder == work_folder(Path("x" * 250 + ".mp4"))


def test_folders_of_images_come_out_whole_and_a_stopped_one_goes_on(
    session: Session, clip: Path, tmp_path: Path
) -> None:
    made = swapper(session, KEEPING)
    from_clip = tmp_path / "from clip"
    report = made.swap_video(clip, SOURCE, from_clip)
    assert (report.frames, report.frames_swapped) == (FRAMES, FRAMES)
    assert any("leaves out other streams of clip.mp4 (1 audio)" in warning for warning in report.warnings)
    names = [f"frame_{index:06d}.png" for index in range(FRAMES)]
    assert sorted(path.name for path in from_clip.iterdir()) == names
    assert [path.name for path in tmp_path.iterdir()] == ["from clip"]
    assert all(read_mark(path).state == "valid" for path in from_clip.iterdir())

    # From that folder to others: one stopped and gone on with, one not stopped.
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert not made.swap_video(from_clip, SOURCE, whole).warnings
    with pytest.raises(Interrupted, match=f"stopped with {CHUNK} of {FRAMES} frames done"):
        made.swap_video(from_clip, SOURCE, stopped, progress=stopping_at(CHUNK + 1))
    assert not stopped.exists() and entries(work_folder(stopped)) == 1
    log: list[str] = []
    swapper(session, KEEPING, log).swap_video(from_clip, SOURCE, stopped)
    assert f"resuming: {CHUNK} of {FRAMES} frames are done" in log
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from clip", "stopped", "whole"]
    for name in names:
        assert np.array_equal(read_image(stopped / name).planes[0], read_image(whole / name).planes[0])
    with pytest.raises(UsageError, match="not empty; use --force"):
        made.swap_video(from_clip, SOURCE, whole)

    # To a clip: in chunks, with the tag that stays when the file is moved away from its sidecar.
    film, short = tmp_path / "film.mkv", {"end_seconds": (CHUNK + 2) / 25}
    with pytest.raises(Interrupted, match=f"stopped with {CHUNK} of"):
        made.swap_video(from_clip, SOURCE, film, progress=stopping_at(CHUNK + 1), **short)
    assert made.swap_video(from_clip, SOURCE, film, **short).frames == CHUNK + 2
    tags = {key.lower(): value for key, value in probe(film).metadata.items()}
    assert tags["digital_source_type"].endswith("compositeWithTrainedAlgorithmicMedia")
    link = tmp_path / "link"
    (tmp_path / "elsewhere").mkdir()
    link.symlink_to(tmp_path / "elsewhere")
    made.swap_video(from_clip, SOURCE, link, end_seconds=0.04)
    assert link.is_symlink() and len(list((tmp_path / "elsewhere").iterdir())) > 0


def test_a_clip_as_source_is_taken_by_its_first_frame_and_says_so(session: Session, clip: Path) -> None:
    lines: list[str] = []
    crop = source_crop(session, parse_source(str(clip)), log=lines.append)
    assert crop.mesh_xyz is not None
    assert lines == ["clip.mp4 is a clip: the source is who its first frame shows"]


def test_one_picture_to_a_folder(session: Session, clip: Path, tmp_path: Path) -> None:
    with open_frames(clip) as frames:
        write_image(next(frames), tmp_path / "still.png")
    report = swapper(session).swap_video(tmp_path / "still.png", SOURCE, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["frame_000000.png"]
    assert not report.warnings

    with Image.open(tmp_path / "still.png") as first:
        first.save(tmp_path / "moving.png", save_all=True, append_images=[first.rotate(90)])
    report = swapper(session).swap_video(tmp_path / "moving.png", SOURCE, tmp_path / "moved.png")
    assert [warning for warning in report.warnings if "holds 2 pictures and only the first" in warning]


def test_more_frames_than_were_kept_is_one_line_and_made_anew(
    session: Session, clip: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a damaged clip, which may decode differently each time; it once was a KeyError for ever."""
    made, output = swapper(session, KEEPING), tmp_path / "out.mp4"
    kept: list[list] = []
    get = KeptChunks.get

    def shorter(self: KeptChunks, index: int) -> dict | None:
        chunk = get(self, index)
        if chunk is not None and index == 1 and not kept:
            kept.append(chunk["frames"])
            chunk = {**chunk, "frames": chunk["frames"][:1]}
        return chunk

    monkeypatch.setattr(KeptChunks, "get", shorter)
    with pytest.raises(InputError, match="more frames than when it was last read"):
        made.swap_video(clip, SOURCE, output)
    assert len(kept) == 1 and not output.exists()
    report = made.swap_video(clip, SOURCE, output)
    assert report.frames == FRAMES
    assert_same_frames(output, whole)

"""Latents of an export taken back by a swap, and those that do not belong refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from vidswap.cli.app import run as vidswap
from vidswap.config import CompositeConfig, InversionConfig, MixConfig, RunConfig, RunsConfig, SmoothConfig
from vidswap.errors import InputError, Interrupted, UsageError
from vidswap.exporting import export
from vidswap.identities import to_image
from vidswap.inversion import Inverter
from vidswap.latent_files import LatentRows, read_latents
from vidswap.pipeline import Swapper
from vidswap.reports import Progress
from vidswap.video import open_frames
from vidswap.video.sample_writer import SampleWriter

FRAMES = 4
CONFIG = RunConfig(
    device="cpu",
    threads=1,
    inversion=InversionConfig(encoder=False, first_steps=2, next_steps=1),
    mix=MixConfig(refine_steps=0, source_steps=1, mixer="layers"),
    smooth=SmoothConfig(lag=1),
    composite=CompositeConfig(occlusion=False),
    runs=RunsConfig(chunk_frames=2, keep_latents=False),
)
SOURCE = "synthetic:5"


@pytest.fixture(scope="module")
def swapper(weights_home: Path) -> Swapper:
    return Swapper(CONFIG)


@pytest.fixture(scope="module")
def clip(swapper: Swapper, tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = swapper.session.generator
    code = generator.sample(11)[:, None].repeat(1, generator.n_styles, 1)
    with torch.no_grad():
        face = to_image(generator.synthesize(code, size=generator.resolution))
    face = (face.reshape(256, 4, 256, 4, 3).mean((1, 3)) * 255).astype(np.uint8)
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    options = {"size_wh": (320, 256), "fps": 25, "sound_rate_hz": 48000, "metadata": {}}
    with SampleWriter(path, sound=np.zeros(1920, np.float32), **options) as writer:
        for index in range(FRAMES):
            picture = np.full((256, 320, 3), 70, np.uint8)
            picture[:, 20 + 3 * index : 276 + 3 * index] = face
            writer.write(picture)
    return path


@pytest.fixture(scope="module")
def latents(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "out"
    export(clip, folder, what=["latents"], config=CONFIG)
    return folder / "latents.safetensors"


def changed(latents: Path, path: Path, *, rows: slice = slice(None), **metadata: str) -> Path:
    """A copy with fewer rows or other words."""
    with safe_open(latents, "np") as file:
        words = {**file.metadata(), **metadata}
    save_file({name: np.array(array[rows]) for name, array in load_file(latents).items()}, path, words)
    return path


def shown(path: Path) -> np.ndarray:
    with open_frames(path) as frames:
        return np.stack([frame.planes[0].astype(np.float32) for frame in frames])


def test_a_row_at_a_time_is_the_whole_file(latents: Path) -> None:
    whole, rows = read_latents(latents), LatentRows(latents)
    assert (rows.generator, rows.target, rows.time_base) == (whole.generator, whole.target, whole.time_base)
    assert len(whole.codes) == FRAMES == len(rows.pts)
    for index in range(FRAMES):
        assert np.array_equal(rows.code(index), whole.codes[index])


def test_a_swap_from_latents_is_that_from_inversion_and_goes_on(
    swapper: Swapper, clip: Path, latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swapper.swap_video(clip, SOURCE, tmp_path / "inverted.mp4")

    def never(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("inverted although latents are given")

    def stop(state: Progress) -> None:
        if state.frames_done == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Inverter, "step", never)
    output = tmp_path / "given.mp4"
    with pytest.raises(Interrupted, match="stopped with 2 of 4"):
        swapper.swap_video(clip, SOURCE, output, latents=latents, progress=stop)
    other = changed(latents, tmp_path / "other.safetensors", note="other")
    with pytest.raises(UsageError, match="other settings .latents: "):
        swapper.swap_video(clip, SOURCE, output, latents=other)
    report = swapper.swap_video(clip, SOURCE, output, latents=latents)
    assert (report.frames, report.frames_swapped) == (FRAMES, FRAMES)
    difference = np.abs(shown(output) - shown(tmp_path / "inverted.mp4"))
    by_the_swap = np.abs(shown(tmp_path / "inverted.mp4") - shown(clip)).mean()
    # A run rounds its pivots to 16 bits, a file has 32; the encoder makes a little more of it.
    assert by_the_swap > 4 and difference.mean() < 0.1 * by_the_swap


def test_latents_that_do_not_belong_are_refused(
    swapper: Swapper, clip: Path, latents: Path, tmp_path: Path
) -> None:
    file = tmp_path / "latents.safetensors"
    output = tmp_path / "out.mp4"
    wrong = [
        (changed(latents, file, generator="other:123"), UsageError, "belong to the generator other:123"),
        (changed(latents, tmp_path / "b.st", target="1-ab"), UsageError, "of another clip than clip.mp4"),
        (changed(latents, tmp_path / "c.st", format="x"), InputError, "no latents of vidswap"),
        (changed(latents, tmp_path / "d.st", rows=slice(2)), UsageError, r"no latent of person 0 at 0\.08"),
        (tmp_path / "none.st", InputError, "cannot be read as latents"),
    ]
    for path, kind, words in wrong:
        with pytest.raises(kind, match=words) as caught:
            swapper.swap_video(clip, SOURCE, output, latents=path)
        assert len(str(caught.value).splitlines()) == 1
        assert not output.exists()


def test_the_command_takes_them(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent = ["--latents", str(tmp_path / "none.safetensors")]
    assert vidswap(["swap", str(clip), "-s", SOURCE, "-o", str(tmp_path / "out.mp4"), *absent]) == 3
    assert capsys.readouterr().err.count("\n") == 1 and list(tmp_path.iterdir()) == []

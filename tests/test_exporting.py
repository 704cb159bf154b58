"""Exports: tables that grow on disk, masks at the frame's pixels, one real clip, reading back."""

from __future__ import annotations

import hashlib
import json
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from vidswap.cli.app import run as vidswap
from vidswap.config import RunConfig
from vidswap.errors import InputError, UsageError
from vidswap.export_files import Column, NewFolder, TensorTable, frame_mask
from vidswap.exporting import FORMAT_VERSION, export, read_latents
from vidswap.records import Frame, PixelLayout
from vidswap.settings import load_config

METADATA = {
    "format": "vidswap-latents", "format_version": "1", "time_base": "1/12800", "generator": "g:1",
    "target": "3-abc", "vidswap": "0",
}  # fmt: skip


def write_clip(path: Path, picture: np.ndarray, frames: int = 3) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            rolled = np.ascontiguousarray(np.roll(picture, index, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rolled, "rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def config() -> RunConfig:
    """As cheap as it gets: what is tested are files, not faces."""
    cheap = {"inversion.first_steps": 1, "inversion.next_steps": 1, "threads": 1}
    return load_config(overrides=cheap, environ={})[0]


# ------------------------------------------------------------------ tables


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_a_table_is_a_safetensors_file_with_the_rows_it_was_given(tmp_path: Path, rows: int) -> None:
    codes = np.random.default_rng(0).normal(size=(rows, 2, 3)).astype(np.float32)
    table = TensorTable(
        tmp_path / "t.safetensors", [Column("pts", "int64"), Column("codes", "float32", (2, 3))]
    )
    for index in range(rows):
        table.append(pts=-(2**40) + index, codes=codes[index])
    assert table.finish({"a": "b"}, npz=True) == [tmp_path / "t.safetensors", tmp_path / "t.npz"]
    for made in (load_file(tmp_path / "t.safetensors"), np.load(tmp_path / "t.npz")):
        assert made["pts"].tolist() == [-(2**40) + index for index in range(rows)]
        assert made["codes"].dtype == np.float32 and np.array_equal(made["codes"], codes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.npz", "t.safetensors"]


def test_a_row_of_another_shape_is_refused(tmp_path: Path) -> None:
    table = TensorTable(tmp_path / "t.safetensors", [Column("codes", "float32", (2,))])
    with pytest.raises(ValueError, match=r"expected \(2,\)"):
        table.append(codes=np.zeros(3))
    with pytest.raises(ValueError, match="row: expected"):
        table.append(codes=np.zeros(2), more=1)
    table.close()


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path, temporary = tmp_path / "out", tmp_path / ".t"
    with pytest.raises(ZeroDivisionError), NewFolder(path, temporary) as folder:
        (folder / "half").touch()
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []
    for content in ("one", "two"):
        with NewFolder(path, temporary) as folder:
            (folder / content).touch()
    assert [item.name for item in tmp_path.iterdir()] == ["out"]
    assert [item.name for item in path.iterdir()] == ["two"]


# ------------------------------------------------------------------ masks


@pytest.mark.parametrize(
    ("ratio", "rotation"), [(Fraction(1), 0), (Fraction(2), 0), (Fraction(1), 90), (Fraction(1, 2), 90)]
)
def test_a_mask_lies_where_the_quad_does(ratio: Fraction, rotation: int) -> None:
    layout = PixelLayout("gray", 8, (0, 0), False, False, "pc", "bt709")
    plane = np.zeros((40, 60), np.uint8)
    frame = Frame(0, 0, Fraction(1, 25), layout, (plane,), (60, 40), rotation, ratio)
    width, height = frame.display_size_wh
    # The quad is the right half of the picture as displayed; its mask is full.
    quad = np.array([[width / 2, 0], [width / 2, height], [width, height], [width, 0]], float)
    mask = frame_mask(np.ones((16, 16), np.float32), quad, frame)
    columns = frame.upright_size_wh[0]
    assert mask.shape == frame.upright_size_wh[::-1]
    assert mask[:, : columns // 2 - 1].max() == 0
    assert mask[2:-2, columns // 2 + 2 : -2].min() > 0.99
    away = frame_mask(np.ones((16, 16), np.float32), quad + 500, frame)
    assert not away.any()


# ------------------------------------------------------------------ landmarks as Parquet


def test_parquet_holds_what_the_json_lines_hold(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    from vidswap.parquet_rows import LandmarkRows

    row = {
        "frame": 0, "pts": 1 << 40, "track": 3, "score": 0.75, "box": [0.5, 1.0, 2.0, 3.0],
        "keypoints": [[1.0, 2.0]] * 5, "mesh": [[1.0, 2.0, 3.0]] * 468, "iris": None,
    }  # fmt: skip
    rows = [{**row, "frame": frame} for frame in range(1100)]  # more than two groups
    rows[7] = {**rows[7], "mesh": None, "iris": [[[0.25, 0.5]] * 5] * 2}
    table = LandmarkRows(tmp_path / "landmarks.parquet", {"time_base": "1/25"})
    for each in rows:
        table.append(each)
    table.close()
    table.close()
    read = parquet.read_table(tmp_path / "landmarks.parquet")
    assert read.to_pylist() == rows and table.rows == 1100
    assert read.schema.metadata[b"format"] == b"vidswap-landmarks"
    assert read.schema.metadata[b"time_base"] == b"1/25"


def test_parquet_without_pyarrow_or_landmarks_is_refused(tmp_path: Path, monkeypatch) -> None:
    clip = tmp_path / "clip.mp4"
    clip.touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    for options, reason in (
        ({"what": ["landmarks"], "landmark_format": "parquet"}, "pip install pyarrow"),
        ({"what": ["quads"], "landmark_format": "parquet"}, "add landmarks to --what"),
        ({"what": ["landmarks"], "landmark_format": "csv"}, "--format: expected jsonl or parquet"),
    ):
        with pytest.raises(UsageError, match=reason):
            export(clip, tmp_path / "out", **options)


# ------------------------------------------------------------------ a real clip


def test_everything_of_a_clip(tmp_path: Path, portrait: np.ndarray, config: RunConfig) -> None:
    clip, out = write_clip(tmp_path / "clip.mp4", portrait), tmp_path / "out"
    kinds = ("masks", "latents", "crops", "landmarks", "quads", "embeddings")
    seen = []
    report = export(clip, out, what=kinds, config=config, npz=True, progress=seen.append)
    assert (report.frames, report.faces, report.tracks, report.warnings) == (3, 3, 1, ())
    assert [progress.frames_done for progress in seen] == [1, 2, 3]
    assert not [path for path in tmp_path.iterdir() if path not in (clip, out)]

    frames = [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]
    pts = [row["pts"] for row in frames]
    track = frames[0]["tracks"][0]
    with av.open(str(clip)) as container:
        time_base = container.streams.video[0].time_base
        assert pts == [frame.pts for frame in container.decode(video=0)]

    latents = read_latents(out / "latents.safetensors")
    assert latents.codes.shape == (3, 23, 512) and latents.pts.tolist() == pts
    assert latents.frame.tolist() == [0, 1, 2] and set(latents.track.tolist()) == {track}
    assert latents.time_base == time_base and latents.generator.startswith("mobilestylegan:")
    with np.load(out / "latents.npz", allow_pickle=False) as npz:
        assert np.array_equal(npz["codes"], latents.codes)
    embeddings = load_file(out / "embeddings.safetensors")["embeddings"]
    assert embeddings.shape == (3, 128) and np.linalg.norm(embeddings[0] - embeddings[2]) < 0.4

    quads = [json.loads(line) for line in (out / "quads.jsonl").read_text().splitlines()]
    marks = [json.loads(line) for line in (out / "landmarks.jsonl").read_text().splitlines()]
    assert len(quads) == len(marks) == 3 and np.shape(marks[0]["mesh"]) == (468, 3)
    centre = np.mean(quads[0]["quad"], axis=0)
    assert np.abs(np.mean(marks[0]["mesh"], axis=0)[:2] - centre).max() < 20

    mask = np.asarray(Image.open(out / "masks" / f"track-{track}" / "000001.png"))
    assert mask.shape == (120, 160) and mask.dtype == np.uint8
    nose = np.round(np.array(marks[1]["mesh"])[1, :2]).astype(int)
    assert mask[nose[1], nose[0]] > 200 and mask[2, 2] == 0
    crop = Image.open(out / "crops" / f"track-{track}" / "000002.png")
    assert (crop.mode, crop.size) == ("RGB", (512, 512))

    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["format_version"] == FORMAT_VERSION and manifest["frames"] == 3
    assert manifest["tracks"] == {str(track): {"faces": 3, "first_pts": pts[0], "last_pts": pts[2]}}
    assert manifest["settings"]["inversion"]["first_steps"] == 1
    assert len(manifest["weights"]["mobilestylegan"]) == 64
    for name, said in manifest["files"].items():
        data = (out / name).read_bytes()
        assert said == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_masks_as_video_and_a_clip_without_a_face(
    tmp_path: Path, portrait: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", portrait)
    wall = write_clip(tmp_path / "wall.mp4", np.full((120, 160, 3), 90, np.uint8))
    common = ["--what", "masks", "--masks", "ffv1", "--set", "composite.occlusion=false"]
    assert vidswap(["export", str(clip), "-o", str(tmp_path / "a"), *common]) == 0
    assert vidswap(["export", str(wall), "-o", str(tmp_path / "b"), *common]) == 0
    assert "no face was found in wall.mp4" in capsys.readouterr().err
    for name, white in (("a", True), ("b", False)):
        with av.open(str(tmp_path / name / "masks.mkv")) as container:
            assert container.streams.video[0].codec_context.name == "ffv1"
            masks = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
        assert len(masks) == 3 and masks[0].shape == (120, 160)
        assert bool(masks[1].max() > 200) is white and masks[1][0, 0] == 0
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["generator"] is None and "mobilestylegan" not in manifest["weights"]


def test_what_is_in_the_way_is_not_replaced(
    tmp_path: Path, portrait: np.ndarray, config: RunConfig
) -> None:
    clip, out = write_clip(tmp_path / "clip.mp4", portrait, 1), tmp_path / "out"
    out.mkdir()
    (out / "diary.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        export(clip, out, what=["quads"], config=config)
    with pytest.raises(UsageError, match="is not an export"):
        export(clip, out, what=["quads"], config=config, force=True)
    assert (out / "diary.txt").read_text() == "mine"
    (out / "diary.txt").unlink()
    export(clip, out, what=["quads"], config=config)
    with pytest.raises(UsageError, match="not empty"):
        export(clip, out, what=["landmarks"], config=config)
    export(clip, out, what=["landmarks"], config=config, force=True)
    names = sorted(path.name for path in out.iterdir())
    assert names == ["frames.jsonl", "landmarks.jsonl", "manifest.json"]


@pytest.mark.parametrize(
    "options",
    [{"what": []}, {"what": ["hair"]}, {"mask_format": "gif"}, {"face": "me"}, {"npz": True}],
)
def test_words_that_make_no_sense_are_refused(tmp_path: Path, options: dict) -> None:
    options = {"what": ["quads"], **options}
    with pytest.raises(UsageError):
        export(tmp_path / "absent.mp4", tmp_path / "out", **options)
    with pytest.raises(InputError):
        export(tmp_path / "absent.mp4", tmp_path / "out", what=["quads"])
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ reading back


def save_latents(path: Path, metadata: dict[str, str], **changes: np.ndarray) -> Path:
    index = np.arange(2)
    tensors = {
        "codes": np.zeros((2, 23, 512), np.float32), "error": np.zeros(2, np.float32),
        "pts": index, "frame": index, "track": index, **changes,
    }  # fmt: skip
    save_file({name: array for name, array in tensors.items() if array is not None}, path, metadata)
    return path


def test_latents_are_read_back(tmp_path: Path) -> None:
    latents = read_latents(save_latents(tmp_path / "l.safetensors", METADATA))
    assert (latents.time_base, latents.generator, latents.target) == (Fraction(1, 12800), "g:1", "3-abc")
    assert latents.format_version == 1 and latents.pts.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("metadata", "changes", "says"),
    [
        ({**METADATA, "format_version": "99"}, {}, "update vidswap"),
        ({**METADATA, "format_version": "one"}, {}, "format version 'one'"),
        ({**METADATA, "format": "other"}, {}, "holds no latents"),
        ({**METADATA, "time_base": "1/0"}, {}, "cannot be read as latents"),
        ({**METADATA, "time_base": "-1/25"}, {}, "does not hold"),
        ({k: v for k, v in METADATA.items() if k != "generator"}, {}, "cannot be read as latents"),
        (METADATA, {"codes": np.full((2, 23, 512), np.nan, np.float32)}, "does not hold"),
        (METADATA, {"codes": np.zeros((2, 512), np.float32)}, "does not hold"),
        (METADATA, {"pts": np.arange(3)}, "does not hold"),
        (METADATA, {"pts": np.zeros(2, np.float32)}, "does not hold"),
        (METADATA, {"track": None}, "does not hold"),
    ],
)
def test_latents_that_are_not_are_refused(
    tmp_path: Path, metadata: dict[str, str], changes: dict[str, np.ndarray], says: str
) -> None:
    path = save_latents(tmp_path / "l.safetensors", metadata, **changes)
    with pytest.raises(InputError, match=says):
        read_latents(path)


def test_damaged_and_missing_latents_are_refused(tmp_path: Path) -> None:
    path = save_latents(tmp_path / "l.safetensors", METADATA)
    path.write_bytes(path.read_bytes()[:5000])
    for bad in (path, tmp_path / "absent.safetensors"):
        with pytest.raises(InputError, match="cannot be read as latents"):
            read_latents(bad)

"""What is kept of a clip: found by time, and whole."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from vidswap.cache import ContentCache
from vidswap.identities import SourceIdentity
from vidswap.kept_faces import KeptChunks, kept_work
from vidswap.records import Face, Frame, Pivot, PixelLayout
from vidswap.snapshots import squeeze
from vidswap.stages import Selection

CPU = torch.device("cpu")
LAYOUT = PixelLayout("gray", 8, (0, 0), False, False, "tv", "bt709")


def frame(index: int) -> Frame:
    return Frame(index, 10 * index, Fraction(1, 250), LAYOUT, (np.full((64, 64), 90, np.uint8),), (64, 64))


def entry(index: int, seen: np.ndarray | None = None) -> dict:
    face = Face(np.array([0, 0, 9, 9], np.float32), 1.0, np.zeros((5, 2), np.float32), track_id=0)
    pivot = Pivot(np.full((23, 512), index, np.float16), "test")
    kept = None if seen is None else squeeze(seen)
    made = {
        "face": face, "quad": np.zeros((4, 2)), "pivot": pivot,
        "occluded": kept, "glasses": kept, "inversion": None,
    }  # fmt: skip
    return {"index": index, "pts": 10 * index, "shot": 0, "sought": None, "faces": [made]}


def test_frames_are_found_by_time_and_chunks_read_once_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = KeptChunks(ContentCache(tmp_path), {"clip": "a"}, CPU)
    for chunk in range(4):
        kept.put(chunk, [entry(3 * chunk + place) for place in range(3)], None)
    read: list[int] = []
    get = KeptChunks.get

    def counted(self: KeptChunks, index: int) -> dict | None:
        read.append(index)
        return get(self, index)

    monkeypatch.setattr(KeptChunks, "get", counted)
    assert [kept.at(pts)["index"] for pts in (40, 50, 30)] == [4, 5, 3]
    assert read == [0, 1]
    assert kept.at(0)["index"] == 0 and kept.at(110)["index"] == 11
    assert read == [0, 1, 0, 2, 3]
    assert kept.at(45) is None and kept.at(120) is None
    kept.put(4, [entry(12)], None)  # by a run that is still going on
    assert kept.at(120)["index"] == 12
    assert KeptChunks(None, {}, CPU).at(0) is None


def test_a_chunk_that_went_meanwhile_is_not_there(tmp_path: Path) -> None:
    kept = KeptChunks(ContentCache(tmp_path), {"clip": "a"}, CPU)
    for chunk in range(2):
        kept.put(chunk, [entry(chunk)], None)
    assert kept.at(10)["index"] == 1
    kept.forget(0)
    assert kept.at(0) is None and kept.at(10)["index"] == 1


def test_a_kept_face_comes_with_what_was_seen_in_front_of_it(tmp_path: Path) -> None:
    seen = np.random.default_rng(0).integers(0, 256, (192, 192), np.uint8)
    kept = KeptChunks(ContentCache(tmp_path), {}, CPU)
    kept.put(0, [entry(0, seen), entry(1)], None)
    selection = Selection("largest", SourceIdentity("somebody", torch.zeros(0), torch.zeros(0)))
    first, second = (kept_work(kept.at(10 * i), frame(i), selection).faces[0] for i in (0, 1))
    assert np.array_equal(first.occluded, seen.astype(np.float32) / np.float32(255))
    assert np.array_equal(first.glasses, first.occluded)
    assert second.occluded is None and second.glasses is None and second.inversion is None
    assert second.pivot.latent.dtype == np.float32

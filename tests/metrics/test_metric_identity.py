"""Identity metrics: hand-worked figures and slow twins."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from vidswap.metrics.identity import (
    cosine_similarity,
    embedding_distance,
    retrieval,
    temporal_identity,
)


def test_distance_is_l2_over_the_last_axis() -> None:
    first = np.array([[0.0, 0.0], [1.0, 1.0]])
    assert embedding_distance(first, np.array([3.0, 4.0])) == pytest.approx([5.0, 13**0.5])


def test_cosine_of_parallel_and_square_vectors() -> None:
    assert cosine_similarity([2.0, 0.0], [5.0, 0.0]) == pytest.approx(1.0)
    assert cosine_similarity([2.0, 0.0], [0.0, 3.0]) == pytest.approx(0.0)


def test_retrieval_ranks_against_a_loop(rng: np.random.Generator) -> None:
    probes, right, others = rng.normal(size=(20, 8)), rng.normal(size=8), rng.normal(size=(30, 8))
    found = retrieval(probes, right, others)
    for probe, rank in zip(probes, found.rank, strict=True):
        limit = np.linalg.norm(probe - right)
        assert rank == sum(np.linalg.norm(probe - other) < limit for other in others)
    assert found.gallery_size == 31


def test_retrieval_misses_when_the_face_is_still_the_original_person() -> None:
    source, original, other = np.eye(3)
    distractors = np.stack([original, other])
    untouched, swapped = original + 0.01, source + 0.1
    found = retrieval(np.stack([untouched, swapped]), source, distractors)
    assert found.rank.tolist() == [1, 0]
    assert found.top1 == 0.5


def test_retrieval_takes_the_nearest_of_several_photos() -> None:
    photos = np.array([[5.0, 5.0], [1.0, 0.0]])
    assert retrieval(np.array([[1.0, 0.1]]), photos, np.array([[1.0, 0.5]])).top1 == 1.0


def test_retrieval_refuses_embeddings_of_two_networks() -> None:
    with pytest.raises(ValueError, match="probes 3, right 4, distractors 3"):
        retrieval(np.ones((1, 3)), np.ones(4), np.ones((2, 3)))


def _slow_pairs(x: np.ndarray, pairs: list[tuple[int, int]]) -> float:
    return float(np.mean([cosine_similarity(x[i], x[j]) for i, j in pairs]))


def test_temporal_identity_against_loops(rng: np.random.Generator) -> None:
    output, original = rng.normal(1.0, 0.5, (12, 6)), rng.normal(1.0, 0.3, (12, 6))
    found = temporal_identity(output, original)
    near = [(i, i + 1) for i in range(11)]
    every = list(itertools.combinations(range(12), 2))
    assert found.local == pytest.approx(_slow_pairs(output, near) / _slow_pairs(original, near))
    assert found.global_ == pytest.approx(_slow_pairs(output, every) / _slow_pairs(original, every))


def test_temporal_identity_of_a_clip_with_itself_is_one(rng: np.random.Generator) -> None:
    x = rng.normal(size=(9, 16)) + 2
    found = temporal_identity(x, x, center=np.full(16, 0.3))
    assert (found.local, found.global_) == (pytest.approx(1.0), pytest.approx(1.0))


def test_trembling_identity_lowers_both_and_drift_mainly_the_global(
    rng: np.random.Generator,
) -> None:
    still = np.tile(rng.normal(size=32), (40, 1)) + rng.normal(0, 0.01, (40, 32))
    trembling = still + rng.normal(0, 0.5, still.shape)
    drifting = still + np.linspace(0, 3, 40)[:, None] * rng.normal(size=32)
    tremble, drift = temporal_identity(trembling, still), temporal_identity(drifting, still)
    assert tremble.local < 0.95 and tremble.global_ < 0.95
    assert drift.local > 0.99 and drift.global_ < 0.95


def test_pairs_across_a_gap_do_not_count() -> None:
    output = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    same = np.ones((4, 2))
    with_gap = temporal_identity(output, same, adjacent=np.array([True, False, True]))
    without = temporal_identity(output, same)
    assert with_gap.local == pytest.approx(1.0)
    assert without.local == pytest.approx(2 / 3)


def test_centering_shows_what_a_narrow_cone_hides(rng: np.random.Generator) -> None:
    center = np.full(64, 4.0)
    original = center + np.tile(rng.normal(size=64), (6, 1))
    other_people = center + rng.normal(size=(6, 64))  # a different person in every frame
    assert temporal_identity(other_people, original).local > 0.9
    assert temporal_identity(other_people, original, center=center).local < 0.4


def test_one_frame_has_no_pairs() -> None:
    found = temporal_identity(np.ones((1, 4)), np.ones((1, 4)))
    assert np.isnan(found.local) and np.isnan(found.global_)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)

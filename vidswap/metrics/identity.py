"""Who a face shows, and whether it stays the same person over time.

Embeddings are those of an identity network (dlib's: 128 numbers, judged by their L2 distance;
ArcFace's: 512 numbers, judged by their angle). Nothing here knows which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidswap.metrics._checks import rows

Array = NDArray[Any]


def embedding_distance(first: Array, second: Array) -> Array:
    """L2 distance between embeddings; unit: that of the embedding, lower is more alike.

    For dlib's network two photos of one person are under 0.6 apart and different people about
    0.75 (King, dlib 19.3). Broadcasts over leading axes, ``[..., D]`` to ``[...]``.
    """
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    return np.linalg.norm(difference, axis=-1)


def cosine_similarity(first: Array, second: Array) -> Array:
    """Cosine of the angle between embeddings ``[..., D]``, in [-1, 1]; 1 is the same direction."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return (a * b).sum(-1) / np.maximum(norms, 1e-12)


@dataclass(frozen=True)
class Retrieval:
    """Where the right person stands when a gallery is sorted by likeness to a probe."""

    rank: NDArray[np.int64]
    """``[N]`` gallery members strictly nearer to the probe than the right one; 0 is a hit."""
    gallery_size: int
    """Members of the gallery, the right one included."""

    @property
    def top1(self) -> float:
        """Share of the probes whose nearest gallery member is the right one, 0..1."""
        return float((self.rank == 0).mean())


def retrieval(probes: Array, right: Array, distractors: Array) -> Retrieval:
    """Identity retrieval as in FaceShifter (Li et al., 1912.13457), by L2 distance.

    The gallery is the right person and all distractors; a probe is a hit when nobody in the
    gallery is nearer to it than the right person.

    :param probes: ``[N, D]`` embeddings of swapped frames.
    :param right: ``[D]``, or ``[K, D]`` for several photos of them (the nearest counts).
    :param distractors: ``[M, D]`` other people; the target's own person belongs among them,
        for a swap that did nothing must not count as a hit.
    :raises ValueError: when a shape is wrong.
    """
    probe, others = rows("probes", probes), rows("distractors", distractors)
    true = np.atleast_2d(np.asarray(right, dtype=np.float64))
    if not probe.shape[1] == others.shape[1] == true.shape[1]:
        raise ValueError(
            f"embeddings differ in length: probes {probe.shape[1]}, right {true.shape[1]}, "
            f"distractors {others.shape[1]}"
        )
    to_right = _distances(probe, true).min(axis=1)
    rank = (_distances(probe, others) < to_right[:, None]).sum(axis=1)
    return Retrieval(rank.astype(np.int64), len(others) + 1)


def _distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0))


@dataclass(frozen=True)
class TemporalIdentity:
    """Steadiness of the identity over a clip, beside the original's."""

    local: float
    """TL-ID: 1 is as steady as the original from frame to frame, lower is less steady."""
    global_: float
    """TG-ID: the same over all pairs of frames."""


def temporal_identity(
    output: Array,
    original: Array,
    *,
    adjacent: NDArray[np.bool_] | None = None,
    people: Sequence[int] | None = None,
    center: Array | None = None,
) -> TemporalIdentity:
    """TL-ID and TG-ID of STIT (Tzaban et al., 2201.08361, section 5).

    Mean cosine similarity of the embeddings of neighbouring frames (TL-ID) and of all pairs of
    frames (TG-ID) in the output, each divided by the same figure of the original clip.

    :param output: ``[N, D]`` embeddings of the output's frames in order of time.
    :param original: ``[N, D]`` those of the original's same frames.
    :param adjacent: ``[N - 1]`` whether frame i + 1 follows frame i directly; pairs across a gap
        (no face found) are left out of TL-ID. None: all are neighbours.
    :param people: ``[N]`` whose face each frame shows; TG-ID takes pairs of one person. None: all are one.
    :param center: ``[D]`` subtracted before the cosine. Networks trained for L2 distances (dlib's)
        put all faces into one narrow cone, where any two people have a cosine near 0.9; with the
        mean embedding of many people taken off, the cosine tells people apart and these figures
        become strict. None: the plain definition.
    :return: NaN where there is no pair.
    """
    a, b = rows("output", output), rows("original", original)
    if a.shape != b.shape:
        raise ValueError(f"output {list(a.shape)} and original {list(b.shape)} differ in shape")
    if center is not None:
        a, b = a - np.asarray(center, dtype=np.float64), b - np.asarray(center, dtype=np.float64)
    follows = np.ones(max(len(a) - 1, 0), bool) if adjacent is None else np.asarray(adjacent, bool)
    if follows.shape != (max(len(a) - 1, 0),):
        raise ValueError(f"adjacent: expected [{len(a) - 1}], got {list(follows.shape)}")
    return TemporalIdentity(
        _ratio(_neighbour_similarity(a, follows), _neighbour_similarity(b, follows)),
        _ratio(_pair_similarity(a, people), _pair_similarity(b, people)),
    )


def _neighbour_similarity(x: NDArray[np.float64], follows: NDArray[np.bool_]) -> float:
    if not follows.any():
        return float("nan")
    return float(cosine_similarity(x[1:], x[:-1])[follows].mean())


def _pair_similarity(x: NDArray[np.float64], people: Sequence[int] | None) -> float:
    """Mean cosine over all pairs i < j of a person, in O(N) by the square of the sum of unit vectors."""
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    numbers = np.zeros(len(x), int) if people is None else np.asarray(people)
    likeness, pairs = 0.0, 0
    for number in np.unique(numbers):
        own = unit[numbers == number]
        total = own.sum(0)
        likeness += float(total @ total - (own * own).sum())
        pairs += len(own) * (len(own) - 1)
    return likeness / pairs if pairs else float("nan")


def _ratio(value: float, reference: float) -> float:
    return value / reference if reference else float("nan")

"""The metrics by name, what they mean, and their summary over a clip."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

Row = dict[str, float]
"""Figures of one frame by the name of the column; NaN where there is none."""


@dataclass(frozen=True)
class Measure:
    """One figure, per frame or per clip."""

    name: str
    title: str
    unit: str
    better: Literal["lower", "higher", "one"]
    """``one``: 1 means like the original."""
    meaning: str


def _table(*measures: Measure) -> Mapping[str, Measure]:
    return MappingProxyType({measure.name: measure for measure in measures})


FRAME_MEASURES = _table(
    Measure(
        "identity_source", "Identity distance to the source", "L2", "lower",
        "L2 distance of dlib embeddings between output and source, each face aligned by itself.",
    ),
    Measure(
        "identity_original", "Identity distance to the original person", "L2", "higher",
        "L2 distance of dlib embeddings between output and original, same frame.",
    ),
    Measure(
        "judge_source", "Second network: similarity to the source", "cosine", "higher",
        "Cosine similarity of the second network's embeddings between output and source. faceres took "
        "no part in the training of what draws faces; mobileface did.",
    ),
    Measure(
        "judge_original", "Second network: similarity to the original person", "cosine", "lower",
        "Cosine similarity of the second network's embeddings between output and original, same frame.",
    ),
    Measure(
        "pose_degrees", "Head pose", "degrees", "lower",
        "Angle of the rotation between the head poses of output and original.",
    ),
    Measure(
        "expression", "Expression", "inter-ocular distances", "lower",
        "Mean distance of the landmarks of output and original after Procrustes.",
    ),
    Measure(
        "mouth_opening", "Mouth opening", "inter-ocular distances", "lower",
        "Difference of the mean gap between the inner lips.",
    ),
    Measure(
        "eye_aspect", "Eye opening", "eye aspect ratio", "lower",
        "Difference of the eye aspect ratio (Soukupova and Cech 2016), the worse of both eyes.",
    ),
    Measure(
        "gaze", "Gaze", "widths of the eye", "lower",
        "Distance of the iris centre within the eye, mean of the eyes open in both.",
    ),
    Measure(
        "psnr_outside_db", "PSNR outside the face", "dB", "higher",
        "Output against original outside the face's outline grown by an eighth of its size.",
    ),
    Measure(
        "psnr_inside_db", "PSNR inside the face", "dB", "higher",
        "Output against original inside the face's outline: how much a swap changed; for an "
        "inversion, how well it reconstructs.",
    ),
    Measure(
        "ssim_inside", "SSIM inside the face", "1", "higher",
        "Structural similarity (Wang et al. 2004) of output and original inside the outline.",
    ),
    Measure(
        "sharpness_ratio", "Sharpness", "ratio", "one",
        "Laplacian energy of the luma inside the face, output over original.",
    ),
)  # fmt: skip
"""Columns of a row that are summarised by mean and 95th percentile."""

CLIP_MEASURES = _table(
    Measure(
        "retrieval_top1", "Retrieval top-1", "share", "higher",
        "Frames whose nearest neighbour by dlib embedding, among the distractors, the original "
        "person and the source, is the source.",
    ),
    Measure(
        "judge_top1", "Retrieval top-1, second network", "share", "higher",
        "The same by the second network, among the same people.",
    ),
    Measure(
        "tl_id", "TL-ID", "ratio", "one",
        "Mean cosine of the embeddings of neighbouring frames, over the original's (STIT, Tzaban "
        "et al., 2201.08361).",
    ),
    Measure(
        "tg_id", "TG-ID", "ratio", "one",
        "The same over all pairs of frames.",
    ),
    Measure(
        "tl_id_centered", "TL-ID, centred", "ratio", "one",
        "TL-ID with the mean embedding of the distractors taken off first, which makes the cosine "
        "tell people apart: stricter.",
    ),
    Measure(
        "tg_id_centered", "TG-ID, centred", "ratio", "one",
        "TG-ID likewise.",
    ),
    Measure(
        "warping_ratio", "Warping error", "ratio", "lower",
        "Warping error inside the face (Lai et al., 1808.00449) over the original's, with the "
        "optical flow of the original and its occlusion check.",
    ),
    Measure(
        "jitter_ratio", "Landmark jitter", "ratio", "lower",
        "Second difference over time of the landmarks, normalised by the inter-ocular distance, "
        "over the original's.",
    ),
    Measure(
        "flicker_ratio", "Flicker", "ratio", "lower",
        "Root mean square of the fast part of the face's mean colour (the frame minus a 5-frame "
        "binomial mean), over the original's.",
    ),
    Measure(
        "faces_found", "Faces found again", "share", "higher",
        "Frames with a face in the original where the output shows one at its place.",
    ),
    Measure(
        "seconds_a_frame", "Cost", "seconds a frame", "lower",
        "Seconds that the swap took, over the frames, where it was told.",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Summary:
    """A figure over the frames that have it."""

    mean: float
    p95: float
    """95th percentile in the bad direction: 95 % of the frames are no worse."""
    worst: float
    frames: int


def summarize(values: Iterable[float], better: str) -> Summary:
    """Mean, bad-side 95th percentile and worst of the finite values (linear interpolation).

    For PSNR, infinite values (equal pictures) count as 100 dB, so that a mean exists.
    For ``one`` the bad side is the farther from 1, on a logarithmic scale.
    """
    x = np.asarray(list(values), dtype=np.float64)
    x = np.where(np.isposinf(x), 100.0, x)
    x = x[np.isfinite(x)]
    if not len(x):
        return Summary(math.nan, math.nan, math.nan, 0)
    if better == "one":
        badness = np.abs(np.log(np.maximum(x, 1e-6)))
    else:
        badness = x if better == "lower" else -x
    order = np.sort(badness)
    p95, worst = float(np.quantile(order, 0.95)), float(order[-1])
    if better == "higher":
        p95, worst = -p95, -worst
    elif better == "one":
        p95 = float(x[np.argmin(np.abs(badness - p95))])
        worst = float(x[np.argmax(badness)])
    return Summary(float(x.mean()), p95, worst, len(x))

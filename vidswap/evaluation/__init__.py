"""How good is a swapped clip? Measured against its target and its source (composer level).

Works on outputs of any tool: nothing is asked of the output but that it shows the target's
frames at the target's times.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from vidswap.config import RunConfig
from vidswap.errors import InputError, OutputError, UsageError
from vidswap.evaluation.judges import (
    Judges,
    embed_sources,
    folder_distractors,
    second_distractors,
    synthetic_distractors,
)
from vidswap.evaluation.observe import PairObserver
from vidswap.evaluation.pairing import FramePairs, frame_seconds, time_offset
from vidswap.evaluation.worst import WorstFrames
from vidswap.metrics import identity, temporal
from vidswap.metrics.report import Report, to_csv, to_html, to_json
from vidswap.metrics.table import FRAME_MEASURES, Row, Summary, summarize
from vidswap.session import Session
from vidswap.video import VideoInfo, open_frames, probe

__all__ = ["EvaluationOptions", "evaluate", "write_report"]

Progress = Callable[[str, int, int], None]
"""Called with a stage (``distractors``, ``frames``), what is done, and how much there is."""

_JITTER_FLOOR = 1e-5
_FLICKER_FLOOR = 1e-4
_WARPING_FLOOR = 1e-7
"""Below these a clip counts as still: figures of pictures that were made, not filmed."""


@dataclass(frozen=True)
class EvaluationOptions:
    """What to look at, and beside what."""

    start_seconds: float | None = None
    """First time looked at, counted from the target's first frame."""
    end_seconds: float | None = None
    """Time of the first frame no longer looked at."""
    track: int | None = None
    """Which face, as ``vidswap faces`` numbers them; None the largest."""
    distractors: int | Path = 100
    """People that do not exist in the gallery of the retrieval, or a folder of photos."""
    judge: str | Path | None = None
    """Second judge: ``faceres``, ``mobileface`` or an ArcFace file; None takes what is there already."""
    offset_seconds: float | None = None
    """Added to the output's times; None finds out whether the clips start together."""
    worst_each: int = 2
    """Frames shown a reason in the strip of the worst."""
    seconds_spent: float | None = None
    """Time that the swap took, for the cost a frame."""


def evaluate(
    target: str | os.PathLike[str],
    output: str | os.PathLike[str],
    sources: Sequence[str],
    *,
    options: EvaluationOptions | None = None,
    session: Session | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure an output beside its target.

    :param sources: photos of the person swapped in, or ``synthetic:SEED``.
    :raises UsageError: no source, or options that make no sense.
    :raises InputError: a file cannot be read, the clips share no time, or differ in shape.
    :raises NoFaceError: no face in a source, or several.
    """
    options = options or EvaluationOptions()
    session = session or Session(RunConfig())
    infos = probe(target), probe(output)
    judges = Judges(session, options.judge)
    person = embed_sources(session, judges, sources)
    notes: list[str] = []
    if isinstance(options.distractors, Path):
        others, notes = folder_distractors(session, judges, options.distractors)
    else:
        others = synthetic_distractors(session, judges, options.distractors, progress=progress)
    strangers = second_distractors(session, judges, options.distractors, progress=progress)
    observer = PairObserver(judges, person, (session.new_finder(), session.new_finder()), track=options.track)
    worst = WorstFrames(options.worst_each)
    pairs = _observe(infos, options, observer, worst, progress)
    _finish_rows(observer, person.first, others)
    notes += _notes(pairs, observer, options, judges)
    clip = _clip_summary(observer, others)
    seen = observer.sightings.second
    if strangers is not None and person.second is not None and seen:
        swapped, original = (np.stack(rows) for rows in zip(*seen, strict=True))
        gallery = np.concatenate([strangers, original.mean(axis=0, keepdims=True)])
        clip["judge_top1"] = identity.retrieval(swapped, person.second, gallery).top1
    if options.seconds_spent is not None:
        clip["seconds_a_frame"] = options.seconds_spent / max(pairs.pairs, 1)
    return Report(
        target=infos[0].path.name,
        output=infos[1].path.name,
        sources=person.labels,
        rows=observer.rows,
        frame_summary=_frame_summary(observer.rows),
        clip_summary=clip,
        networks=judges.names,
        notes=notes,
        worst=worst.result(),
        gallery_size=len(others) + 2,
    )


def _observe(
    infos: tuple[VideoInfo, VideoInfo],
    options: EvaluationOptions,
    observer: PairObserver,
    worst: WorstFrames,
    progress: Progress | None,
) -> FramePairs:
    target, output = infos
    if options.offset_seconds is None:
        offset = time_offset(target, output)
    else:
        offset = Fraction(options.offset_seconds).limit_denominator(1_000_000)
    start, end = options.start_seconds, options.end_seconds
    total = target.frames_expected(start, end) or 0
    with (
        open_frames(target.path, info=target, start_seconds=start, end_seconds=end) as frames,
        open_frames(output.path, info=output) as others,
    ):
        tolerance = frame_seconds(target) / 2
        pairs = FramePairs(
            frames,
            others,
            tolerance=tolerance,
            offset=offset,
            count_rest=options.end_seconds is None,
        )
        for frame, other in pairs:
            row = observer.observe(frame, other)
            worst.offer(row, observer.pictures)
            if progress is not None:
                progress("frames", len(observer.rows), total)
    if not observer.rows:
        raise InputError(
            f"{output.path.name} shows no frame at the times of {target.path.name}; "
            "say with --offset by how many seconds it is shifted"
        )
    if options.track is not None and options.track not in observer.tracks:
        seen = ", ".join(map(str, sorted(observer.tracks))) or "none"
        raise UsageError(f"--face {options.track}: the target has no such face; found: {seen}")
    return pairs


def _finish_rows(observer: PairObserver, source: np.ndarray, others: np.ndarray) -> None:
    """What can only be said at the end: ranks, and the fast part of the colours."""
    seen = observer.sightings
    if seen.index:
        original = np.mean(seen.original, axis=0, keepdims=True)
        found = identity.retrieval(np.stack(seen.output), source, np.concatenate([others, original]))
        for index, rank in zip(seen.index, found.rank, strict=True):
            observer.rows[index]["retrieval_rank"] = float(rank)
    for kind, colors in zip(("output", "original"), observer.colors, strict=True):
        fast = np.sqrt(np.square(temporal.high_pass(np.stack(colors), observer.takes)).mean(axis=1))
        for row, value in zip(observer.rows, fast, strict=True):
            row[f"flicker_{kind}"] = float(value)


def _column(rows: Sequence[Row], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows])


def _frame_summary(rows: Sequence[Row]) -> Mapping[str, Summary]:
    found = {name: summarize(_column(rows, name), measure.better) for name, measure in FRAME_MEASURES.items()}
    return {name: summary for name, summary in found.items() if summary.frames}


def _clip_summary(observer: PairObserver, others: np.ndarray) -> dict[str, float]:
    rows, seen = observer.rows, observer.sightings
    faces = _column(rows, "face").sum()
    clip = {"faces_found": float(_column(rows, "output_face").sum() / faces) if faces else math.nan}
    for name, floor in (
        ("warping", _WARPING_FLOOR),
        ("jitter", _JITTER_FLOOR),
        ("flicker", _FLICKER_FLOOR),
    ):
        output, original = _column(rows, f"{name}_output"), _column(rows, f"{name}_original")
        both = np.isfinite(output) & np.isfinite(original)
        means = [float(x[both].mean()) if both.any() else math.nan for x in (output, original)]
        if name == "flicker":  # a root mean square, as it is defined
            means = [temporal.flicker(np.stack(colors), observer.takes) for colors in observer.colors]
        clip[f"{name}_ratio"] = temporal.steadiness_ratio(*means, floor=floor)
    if len(seen.index) >= 2:
        output, original = np.stack(seen.output), np.stack(seen.original)
        takes = np.take(observer.takes, seen.index)
        follows = {"adjacent": (np.diff(seen.index) == 1) & (np.diff(takes) == 0), "people": seen.track}
        plain = identity.temporal_identity(output, original, **follows)
        centered = identity.temporal_identity(output, original, **follows, center=others.mean(axis=0))
        clip.update(tl_id=plain.local, tg_id=plain.global_)
        clip.update(tl_id_centered=centered.local, tg_id_centered=centered.global_)
    ranks = _column(rows, "retrieval_rank")
    ranks = ranks[np.isfinite(ranks)]
    if len(ranks):
        clip["retrieval_top1"] = float((ranks == 0).mean())
    return clip


def _notes(
    pairs: FramePairs, observer: PairObserver, options: EvaluationOptions, judges: Judges
) -> list[str]:
    notes = []
    if pairs.target_alone:
        notes.append(f"{pairs.target_alone} frames of the target have no partner in the output.")
    whole = options.start_seconds is None and options.end_seconds is None
    if pairs.output_alone and whole:
        notes.append(f"{pairs.output_alone} frames of the output have no partner in the target.")
    if observer.is_rescaled:
        notes.append("The output has another size; it was scaled to the target's.")
    rows = observer.rows
    missing = int(len(rows) - _column(rows, "face").sum())
    if missing:
        notes.append(f"{missing} frames show no face in the target; they count outside only.")
    if len(observer.tracks) > 1 and options.track is None:
        notes.append(f"The target shows {len(observer.tracks)} people; the largest face was measured.")
    if observer.takes[-1]:
        notes.append(
            f"{observer.takes[-1]} times the clip is cut or another person is measured: jitter, flicker, "
            "warping and TL-ID are taken between these, TG-ID within each person."
        )
    outside = summarize(_column(rows, "psnr_outside_db"), "higher")
    if outside.frames and outside.mean < 25:
        notes.append(
            f"Outside the face the clips differ much ({outside.mean:.1f} dB): they may be shifted "
            "in time, and the figures then mean little."
        )
    if judges.flatter:
        notes.append("The second network taught the mixer, which flatters; faceres took no part in that.")
    if judges.second is None:
        notes.append(
            "No second identity network was at hand: identity is judged by the network that the "
            "training knows, which flatters."
        )
    return notes


def write_report(report: Report, folder: str | os.PathLike[str]) -> Mapping[str, Path]:
    """Write ``report.html``, ``report.json`` and ``frames.csv`` into a folder (made when absent).

    :return: the files by kind: ``html``, ``json``, ``csv``.
    :raises OutputError: the folder cannot be written.
    """
    place = Path(folder)
    texts = {
        "json": ("report.json", to_json(report)),
        "csv": ("frames.csv", to_csv(report.rows)),
        "html": ("report.html", to_html(report)),
    }
    written = {}
    try:
        place.mkdir(parents=True, exist_ok=True)
        for kind, (name, text) in texts.items():
            path = place / name
            temporary = path.with_name(f".{name}.{os.getpid()}.tmp")
            try:
                temporary.write_text(text, encoding="utf-8")
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
            written[kind] = path
    except OSError as error:
        raise OutputError(
            f"cannot write the report into {place}: {error.strerror or error}; choose another folder with -o"
        ) from error
    return written

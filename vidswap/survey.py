"""Who is in a clip: the tracks with their times and a picture of each (composer level)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vidswap import warp
from vidswap.errors import NoFaceError
from vidswap.faces import align_quad, look_weight
from vidswap.records import Face, Frame
from vidswap.reports import TrackSummary
from vidswap.session import Session
from vidswap.stages import FindFaces, Selection, detection_picture
from vidswap.video import open_frames

_THUMBNAIL, _NUMBER_PX = 256, 28


@dataclass
class _Seen:
    first: float
    last: float
    frames: int
    best: Face
    best_seconds: float
    picture: np.ndarray
    """``[256, 256, 3]`` of the best frame."""


def survey(
    session: Session,
    target: Path,
    every_seconds: float,
    thumbnails: Path | None,
    log: Callable[[str], None],
) -> list[TrackSummary]:
    """Look at a clip and list its people by their numbers.

    :param every_seconds: a track counts a frame at most this often; every frame is followed, so that
        numbers are those of a swap.
    :param thumbnails: PNG sheet of all people, or None.
    :raises NoFaceError: when there is no face at all.
    """
    finder = session.new_finder()
    stage = FindFaces(session, finder, Selection("all", None))
    seen: dict[int, _Seen] = {}
    with open_frames(target) as frames:
        for frame in frames:
            _look(frame, stage, seen, every_seconds)
    if not seen:
        raise NoFaceError(f"{target}: no face was found in it")
    log(f"{len(seen)} people in {target.name}")
    ordered = sorted(seen.items())
    if thumbnails is not None:
        _write_sheet({number: found.picture for number, found in ordered}, thumbnails)
    return [_summary(number, found, thumbnails) for number, found in ordered]


def _look(frame: Frame, stage: FindFaces, seen: dict[int, _Seen], every_seconds: float) -> None:
    rgb, scale = detection_picture(frame)
    now = frame.pts_seconds
    for face in stage.finder.find(rgb, now, scale=scale, embed=stage.embed):
        found = seen.get(face.track_id)
        if found is None:
            seen[face.track_id] = _Seen(now, now, 1, face, now, _picture(rgb, face, scale))
            continue
        if now - found.last >= every_seconds - 1e-6:
            found.frames += 1
            found.last = now
        if _worth(face) > 1.1 * _worth(found.best):
            found.best, found.best_seconds = face, now
            found.picture = _picture(rgb, face, scale)


def _worth(face: Face) -> float:
    """How well a face would stand for its person: large and frontal, for people to know and `--reference`."""
    return face.size_px * look_weight(face)


def _picture(rgb: np.ndarray, face: Face, scale: float) -> np.ndarray:
    image, _ = warp.crop(rgb, align_quad(face) * scale, _THUMBNAIL, extend=False)
    return image


def _write_sheet(pictures: dict[int, np.ndarray], path: Path) -> None:
    """Side by side, each with its number in the corner."""
    joined = np.concatenate(list(pictures.values()), axis=1)
    sheet = Image.fromarray((np.clip(joined, 0, 1) * 255 + 0.5).astype(np.uint8))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_NUMBER_PX)
    side = joined.shape[0]
    for place, number in enumerate(pictures):
        corner = (place * side + _NUMBER_PX // 3, 0)
        draw.text(corner, str(number), "white", font, stroke_width=2, stroke_fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _summary(number: int, found: _Seen, thumbnails: Path | None) -> TrackSummary:
    left, top, right, bottom = (float(value) for value in found.best.box_xyxy)
    return TrackSummary(
        track_id=number,
        first_seconds=found.first,
        last_seconds=found.last,
        frames=found.frames,
        size_px=found.best.size_px,
        score=found.best.score,
        box_xyxy=(left, top, right, bottom),
        best_seconds=found.best_seconds,
        thumbnail=thumbnails,
    )

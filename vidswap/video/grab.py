"""One frame at a time of the clip, for previews."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path

from vidswap.errors import InputError
from vidswap.records import Frame
from vidswap.video.container import MAX_PIXELS
from vidswap.video.probe import VideoInfo, probe
from vidswap.video.reader import open_frames

log = logging.getLogger(__name__)


def grab_frame(
    path: str | os.PathLike[str], seconds: float, *, max_pixels: int = MAX_PIXELS
) -> Frame:
    """The frame that is shown at a time, with the samples that the streaming reader gives.

    decord, where it is installed, says when that frame begins without decoding up to it; PyAV
    decodes it. Without decord, or where it cannot read the file, PyAV searches alone.

    :param seconds: counted from the first frame; beyond the last frame, the last frame.
    :raises InputError: unreadable, or a negative time.
    """
    if not (math.isfinite(seconds) and seconds >= 0):
        raise InputError(f"there is no frame at {seconds} s; give a time from 0 on")
    info = probe(path, max_pixels=max_pixels)
    if info.kind in ("image", "folder"):
        return _shown_at(info, 0.0 if info.kind == "image" else seconds, seconds)
    begin = frame_begin_seconds(info, seconds)
    tick = float(info.time_base)
    if begin is not None and begin > 0.5 * tick:
        frame = _shown_at(info, begin - 0.5 * tick, seconds)
        if abs(frame.pts - info.start_pts - begin / tick) <= 1:
            return frame
    return _shown_at(info, max(0.0, seconds - _lead_seconds(info)), seconds)


def _lead_seconds(info: VideoInfo) -> float:
    return max(1.0, 3 * info.nominal_step * float(info.time_base))


def _shown_at(info: VideoInfo, start: float, seconds: float) -> Frame:
    """Last frame from ``start`` on that begins at or before ``seconds``."""
    shown: Frame | None = None
    limit = info.start_pts + seconds / float(info.time_base) + 1e-6
    try:
        with open_frames(info.path, start_seconds=start, info=info, threads=1) as frames:
            for frame in frames:
                if frame.pts > limit:
                    break
                shown = frame
    except InputError:
        if start <= 0:
            raise
    if shown is not None:
        return shown
    # Nothing that recently (a hole in time, or beyond the end): search from further back.
    if start > 0:
        return _shown_at(info, 0.0 if start < 16 else start - 4 * (seconds - start) - 8, seconds)
    raise InputError(f"{info.path}: no frame at {seconds} s")


def frame_begin_seconds(info: VideoInfo, seconds: float) -> float | None:
    """When the frame shown at a time begins, by decord; None where decord cannot say."""
    if "mp4" not in info.container.split(",") or info.is_truncated:
        return None  # decord's own, older demuxers are unsure of the others, and slow
    try:
        import decord
    except ImportError:
        return None
    try:
        decord.logging.set_level(decord.logging.QUIET)
        name = str(Path(info.path).absolute())
        video = decord.VideoReader(name, ctx=decord.cpu(0), num_threads=1)
        times = video.get_frame_timestamp(range(len(video)))[:, 0]
    except Exception as error:  # decord raises errors of its own kind for anything it cannot read
        log.debug("decord cannot index %s: %s", info.path, error)
        return None
    if len(times) == 0:
        return None
    times = times - times.min()
    shown = times[times <= seconds + 1e-6]
    return float(shown.max()) if len(shown) else None

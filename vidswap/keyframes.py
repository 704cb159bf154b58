"""Tuning the generator for one clip: keyframes first, then one tuned copy for all frames (composer level)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from vidswap.errors import InputError
from vidswap.identities import to_tensor
from vidswap.inversion import tune_generator
from vidswap.session import Session
from vidswap.stages import CropFaces, FindFaces, Selection
from vidswap.video import VideoInfo, grab_frame
from vidswap.witnesses import seen_maps, with_occluders

_KEYFRAMES = 6


def tuned_for(
    session: Session,
    target: Path,
    info: VideoInfo,
    selection: Selection,
    *,
    start_seconds: float | None,
    end_seconds: float | None,
    log: Callable[[str], None],
) -> Session:
    """A session whose generator is tuned on a few frames spread over the clip.

    Every keyframe is inverted on its own; the tuning is shared, and held local (see
    :mod:`vidswap.inversion.tuning`), so one copy serves the whole clip and never drifts along it.
    Gives the session back as it is when no keyframe shows a face.
    """
    first = start_seconds or 0.0
    last = end_seconds or info.duration_seconds or first
    # Nobody has a number yet: all are tuned on where it is not simply the largest who is swapped.
    wanted = "largest" if selection.wanted == "largest" and not selection.per_track else "all"
    images, codes, maps = [], [], []
    for seconds in np.linspace(first, last, _KEYFRAMES + 2)[1:-1]:
        try:
            frame = grab_frame(target, float(seconds))
        except InputError:
            continue
        who = Selection(wanted, selection.any_source, reference=selection.reference)
        find = FindFaces(session, session.new_finder(), who)
        work = CropFaces(session.config.composite)(find(frame))
        for face in work.faces:
            image = to_tensor(face.crop.image, session.device)
            seen = seen_maps(with_occluders(face, session), session.device)
            pivot = session.inverter.first(image, **seen)
            images.append(image)
            maps.append(seen)
            codes.append(torch.from_numpy(pivot.latent)[None].to(session.device))
    if not images:
        return session
    config = session.config.inversion
    tuned, report = tune_generator(
        session.full_generator, session.identity, images, codes, seen=maps, config=config
    )
    log(
        f"generator tuned on {len(images)} faces of keyframes: face {report.psnr_before:.1f} -> "
        f"{report.psnr_after:.1f} dB, other people moved by {report.drift:.3f}"
    )
    return session.with_generator(tuned)

"""Single frames are those of the stream."""

from __future__ import annotations

import sys
from fractions import Fraction

import numpy as np
import pytest

from vidswap.errors import InputError
from vidswap.video import grab_frame, open_frames, probe
from vidswap.video.grab import frame_begin_seconds

CLIPS = {
    "plain": {"frames": 30, "b_frames": 3},
    "variable": {"pts": [0, 3, 4, 11, 12, 13, 40, 41, 60], "time_base": Fraction(1, 25)},
    "late": {"pts": range(250, 280)},
    "matroska": {"name": "clip.mkv", "frames": 30},
}


@pytest.mark.parametrize("with_decord", [True, False])
@pytest.mark.parametrize("kind", CLIPS)
def test_frame_shown_at_a_time(make_clip, monkeypatch, kind, with_decord):
    if not with_decord:
        monkeypatch.setitem(sys.modules, "decord", None)  # as where no wheel exists
    clip = make_clip(**CLIPS[kind])
    with open_frames(clip) as frames:
        whole = list(frames)
    start = whole[0].pts
    times = [0.0, 0.1, 0.45, 0.5, 0.799, 1.0, 99.0]
    for seconds in times:
        limit = start + seconds / float(whole[0].time_base) + 1e-6
        wanted = [frame for frame in whole if frame.pts <= limit][-1]
        found = grab_frame(clip, seconds)
        assert found.pts == wanted.pts, seconds
        assert all(
            np.array_equal(a, b) for a, b in zip(found.planes, wanted.planes, strict=True)
        )


def test_decord_finds_the_begin(make_clip):
    pytest.importorskip("decord")
    info = probe(make_clip(**CLIPS["variable"]))
    assert frame_begin_seconds(info, 0.4) == pytest.approx(11 / 25 - 7 / 25, abs=1e-4)
    assert frame_begin_seconds(info, 0.45) == pytest.approx(11 / 25, abs=1e-4)
    assert frame_begin_seconds(info, 5.0) == pytest.approx(60 / 25, abs=1e-4)


def test_times_before_the_start_are_refused(make_clip):
    for seconds in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="no frame at"):
            grab_frame(make_clip(frames=2), seconds)

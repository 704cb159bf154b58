"""The sample clip: picture, sound, mark, and what the person does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vidswap.errors import UsageError
from vidswap.provenance import read_mark
from vidswap.sample import FPS, Acting, head_and_shoulders, make_sample
from vidswap.speech import SOUND_RATE_HZ, Speech
from vidswap.video import open_frames, probe, read_rgb8


def test_the_mouth_goes_with_the_voice() -> None:
    speech = Speech(3, 4.0)
    sound = speech.sound()
    assert sound.shape == (4 * SOUND_RATE_HZ,)
    assert 0.05 < np.abs(sound).max() <= 0.9
    step = SOUND_RATE_HZ // FPS
    loudness = np.sqrt((sound.reshape(-1, step) ** 2).mean(1))
    opening = np.array([speech.opening((i + 0.5) / FPS) for i in range(4 * FPS)])
    assert opening.min() < 0.02 and opening.max() > 0.4  # rests and open vowels
    lags = {
        lag: float(np.corrcoef(np.roll(opening, lag), loudness)[0, 1]) for lag in range(-4, 5)
    }
    assert max(lags, key=lags.__getitem__) in (-1, 0, 1)
    assert lags[0] > 0.5


def test_a_voice_too_short_for_a_syllable_is_silent() -> None:
    speech = Speech(7, 0.12)
    assert speech.sound().shape == (5760,) and not speech.sound().any()
    assert speech.opening(0.06) == 0.0


def test_acting_is_the_same_for_a_seed_and_lively() -> None:
    acting = Acting(7, 4.0)
    times = (np.arange(4 * FPS) + 0.5) / FPS
    amounts = [acting.amounts(t) for t in times]
    assert amounts == [Acting(7, 4.0).amounts(t) for t in times]
    assert amounts != [Acting(8, 4.0).amounts(t) for t in times]
    yaw = np.array([step["yaw"] for step in amounts])
    assert np.ptp(yaw) > 0.8 and np.abs(yaw).max() < 1.4  # steps of 10 degrees
    assert np.abs(np.diff(yaw)).max() < 0.25
    blinks = np.array([acting.blink(t) for t in times])
    assert blinks.max() > 0.8 and (blinks == 0).mean() > 0.7


def test_matte_holds_the_face_and_fades_before_the_edges() -> None:
    from vidswap.landmarks import FACE_OVAL
    from vidswap.models.aligned_mesh import canonical_mesh

    mesh = canonical_mesh().numpy() * 0.35 + np.array([0.5, 0.5, 0.0])
    matte = head_and_shoulders(mesh, 128)
    inside = (mesh[list(FACE_OVAL), :2] * 128).astype(int).clip(0, 127)
    assert matte[inside[:, 1], inside[:, 0]].min() > 0.95
    for edge in (matte[0], matte[:, 0], matte[:, -1]):
        assert edge.max() < 0.05
    assert matte[-1, 64] > 0.95  # the body goes on below the picture


def test_wrong_use_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    for options in ({"size_wh": (16, 16)}, {"seconds": 0.0}):
        with pytest.raises(UsageError):
            make_sample(tmp_path / "a.mp4", **options)  # type: ignore[arg-type]
    (tmp_path / "there.mp4").write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists"):
        make_sample(tmp_path / "there.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there.mp4"]
    assert (tmp_path / "there.mp4").read_bytes() == b"mine"


def test_a_short_clip(weights_home: Path, tmp_path: Path) -> None:
    path = make_sample(tmp_path / "clip.mp4", seed=5, seconds=0.12, size_wh=(144, 112))
    info = probe(path)
    assert info.size_wh == (144, 112)
    assert {stream.type for stream in info.streams} == {"video", "audio"}
    with open_frames(path) as frames:
        shown = list(frames)
    assert len(shown) == round(0.12 * FPS)
    assert [float(frame.pts_seconds) for frame in shown] == pytest.approx(
        [index / FPS for index in range(len(shown))], abs=1e-4
    )
    first, last = (read_rgb8(frame)[0].astype(float) for frame in (shown[0], shown[-1]))
    assert first.std() > 10
    assert np.abs(first - last).mean() > 0.5  # it moves
    assert read_mark(path).tag
    assert sorted(item.name for item in tmp_path.iterdir()) == ["clip.mp4"]

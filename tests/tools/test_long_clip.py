"""The long-clip measurement: its clips are whole, and its figures are those of what it saw."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import av
import numpy as np
import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))
try:
    from long_clip import Sample, look, repeat, slope, table
finally:
    sys.path.remove(str(TOOLS))


def write_clip(path: Path, frames: int = 10) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac", rate=48000)
        for number in range(frames):
            picture = np.full((48, 64, 3), number * 20, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 48000 * frames // 25), np.float32), "fltp", "mono")
        silence.sample_rate = 48000
        container.mux(sound.encode(silence))
        container.mux(sound.encode())
    return path


def test_a_repeated_clip_has_every_frame_at_an_even_pace(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4")
    assert repeat(clip, tmp_path / "long.mp4", 2.0) == 5
    with av.open(str(clip)) as container:
        once = [frame.to_ndarray() for frame in container.decode(video=0)]
    with av.open(str(tmp_path / "long.mp4")) as container:
        frames = list(container.decode(video=0))
    steps = {later.pts - earlier.pts for earlier, later in zip(frames, frames[1:], strict=False)}
    assert len(frames) == 50 and len(steps) == 1
    assert all(np.array_equal(frame.to_ndarray(), once[n % 10]) for n, frame in enumerate(frames))


def _samples(growth_mb: float) -> list[Sample]:
    # The first tenth grows fast, as networks and buffers do.
    own = [500 + min(n, 100) * 2 + growth_mb * n / 1000 for n in range(0, 1001, 50)]
    return [
        Sample(float(n), n * 50, mb + 50, mb, 20, 9, n * 0.5, 0.2) for n, mb in enumerate(own)
    ]


@pytest.mark.parametrize("growth_mb", [0.0, 12.0])
def test_the_slope_is_that_after_the_warm_up(growth_mb: float) -> None:
    samples = _samples(growth_mb)
    assert slope(samples[2:], "own_mb") == pytest.approx(growth_mb, abs=1e-6)
    lines = table(samples, 1200)
    assert lines[0].startswith("1000 of 1200 frames") and "from frame 100 on" in lines[0]
    (line,) = (line for line in lines if line.startswith("own_mb"))
    assert f"{growth_mb:+.3f} MB per 1,000 frames" in line
    assert table(samples[:2], 1200) == ["50 of 1200 frames: too few for a slope"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_it_sees_the_files_and_the_folder_of_a_process(tmp_path: Path) -> None:
    assert look(os.getpid(), tmp_path, 0.0) is None  # no journal yet
    (tmp_path / "journal.jsonl").write_text('{"type": "run"}\n{"type": "chunk", "frames": 64}\n{"type": "ch')
    (tmp_path / "chunk-000000.mp4").write_bytes(bytes(2_000_000))
    before = look(os.getpid(), tmp_path, 0.0)
    with open(tmp_path / "state", "wb") as file:
        file.write(bytes(1_000_000))
        file.flush()
        after = look(os.getpid(), tmp_path, 0.0)
    assert before.frames == 64 and before.chunks_mb == 2.0
    assert after.open_files == before.open_files + 1
    assert after.rest_mb - before.rest_mb == pytest.approx(1.0, abs=0.01)
    assert 0 < after.own_mb < after.resident_mb

"""Two streams side by side: times decide, whatever the time bases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vidswap.evaluation.pairing import FramePairs, frame_seconds, time_offset
from vidswap.records import Frame, PixelLayout
from vidswap.video import VideoInfo

LAYOUT = PixelLayout("rgb24", 8, (0, 0), True, False, "pc", "rgb")


def frames(times: Sequence[int], base: Fraction) -> list[Frame]:
    plane = np.zeros((1, 1, 3), np.uint8)
    return [Frame(k, pts, base, LAYOUT, (plane,), (1, 1)) for k, pts in enumerate(times)]


def paired(
    target: list[Frame], output: list[Frame], offset: Fraction = Fraction(0)
) -> tuple[list[tuple[int, int]], FramePairs]:
    pairs = FramePairs(iter(target), iter(output), tolerance=Fraction(1, 50), offset=offset)
    return [(a.index, b.index) for a, b in pairs], pairs


def test_the_same_times_in_other_bases() -> None:
    target = frames(range(10), Fraction(1, 25))
    output = frames([round(k * 1000 / 25) for k in range(10)], Fraction(1, 1000))
    found, pairs = paired(target, output)
    assert found == [(k, k) for k in range(10)]
    assert (pairs.pairs, pairs.target_alone, pairs.output_alone) == (10, 0, 0)


def test_a_lost_frame_does_not_shift_the_rest() -> None:
    target = frames(range(10), Fraction(1, 25))
    output = frames([k for k in range(10) if k != 4], Fraction(1, 25))
    found, pairs = paired(target, output)
    assert found == [(k, k - (k > 4)) for k in range(10) if k != 4]
    assert (pairs.target_alone, pairs.output_alone) == (1, 0)


def test_a_part_of_the_target_and_frames_between() -> None:
    target = frames(range(20), Fraction(1, 25))
    output = frames([2 * k for k in range(15)], Fraction(1, 100))  # 50 a second
    found, pairs = paired(target, output)
    assert found == [(k, 2 * k) for k in range(8)]
    assert (pairs.target_alone, pairs.output_alone) == (12, 7)


def test_offset_lays_a_late_output_on_the_target() -> None:
    target, output = frames(range(5), Fraction(1, 25)), frames(range(100, 105), Fraction(1, 25))
    assert paired(target, output)[0] == []
    assert paired(target, output, Fraction(-4))[0] == [(k, k) for k in range(5)]


@given(st.lists(st.integers(1, 9), max_size=30), st.lists(st.integers(1, 9), max_size=30))
def test_every_frame_is_counted_once_and_order_is_kept(a: list[int], b: list[int]) -> None:
    target = frames(np.cumsum(a, dtype=int).tolist(), Fraction(1, 200))
    output = frames(np.cumsum(b, dtype=int).tolist(), Fraction(1, 200))
    found, pairs = paired(target, output)
    assert pairs.pairs + pairs.target_alone == len(target)
    assert pairs.pairs + pairs.output_alone == len(output)
    assert [x for x, _ in found] == sorted({x for x, _ in found})
    assert [y for _, y in found] == sorted({y for _, y in found})


INFO = VideoInfo(
    path=Path("x.mp4"), container="mp4", kind="video", size_wh=(64, 48), layout=LAYOUT,
    codec="h264", time_base=Fraction(1, 12800), average_rate=Fraction(25), duration_seconds=10.0,
)  # fmt: skip


def test_offset_is_found_only_where_the_clips_share_no_time() -> None:
    late = replace(INFO, start_pts=1000 * 12800)
    assert time_offset(INFO, INFO) == 0
    assert time_offset(INFO, replace(INFO, start_pts=4 * 12800)) == 0  # a swap of a part
    assert time_offset(late, INFO) == 1000
    assert time_offset(INFO, late) == -1000


def test_usual_step_of_a_clip() -> None:
    assert frame_seconds(INFO) == Fraction(1, 25)

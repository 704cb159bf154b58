"""Clocks, shifts and rotations."""

from __future__ import annotations

from fractions import Fraction

import pytest

from vidswap.video.timing import (
    MonotonicClock,
    output_shift,
    quarter_turns_clockwise,
    rotation_matrix,
    seconds_to_pts,
)


def test_good_times_pass_unchanged():
    clock = MonotonicClock(step=40)
    times = [-500, -460, -100, 0, 3, 86_400_000]
    assert [clock.next(time) for time in times] == times
    assert clock.repaired == 0


def test_missing_times_get_the_step():
    clock = MonotonicClock(step=40)
    assert [clock.next(time) for time in (None, None, 100, None)] == [0, 40, 100, 140]


def test_a_jump_back_goes_on_from_where_it_was():
    clock = MonotonicClock(step=40)
    assert [clock.next(t, 40) for t in (1000, 1040, 0, 40, 80)] == [1000, 1040, 1080, 1120, 1160]
    assert clock.repaired == 1


def test_shift_of_outputs():
    mp4 = "mov,mp4,m4a,3gp,3g2,mj2"
    early = Fraction(-1, 40)
    assert output_shift(mp4, Fraction(0), Fraction(0)) == 0
    assert output_shift(mp4, Fraction(3), Fraction(4)) == 0
    assert output_shift("matroska,webm", early, Fraction(0)) == 0
    assert output_shift("matroska,webm", Fraction(-1, 2), Fraction(-1, 2)) == Fraction(1, 2)
    assert output_shift("mpegts", Fraction(1000), Fraction(1001)) == -1000
    cut = Fraction(7, 10)
    assert output_shift(mp4, early, Fraction(0), trimmed_from_seconds=cut) == -cut


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotation_survives_its_matrix(rotation):
    assert quarter_turns_clockwise(rotation_matrix(rotation, (1920, 1080))) == rotation


def test_mirrored_pictures_keep_heads_up():
    one = 1 << 16
    assert quarter_turns_clockwise((-one, 0, 0, 0, one, 0, 0, 0, 1 << 30)) == 0
    assert quarter_turns_clockwise((one, 0, 0, 0, -one, 0, 0, 0, 1 << 30)) == 180
    assert quarter_turns_clockwise(None) == 0


def test_seconds_round_to_the_nearest_tick():
    assert seconds_to_pts(0.04, Fraction(1, 12800)) == 512
    assert seconds_to_pts(1.0, Fraction(1001, 24000)) == 24

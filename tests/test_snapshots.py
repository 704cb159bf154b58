"""States survive being written down bit for bit; look-ahead goes on over a border."""

from __future__ import annotations

import math
import typing
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidswap.cache import ContentCache
from vidswap.faces.track import Tracker
from vidswap.inversion import Correction, WarmState
from vidswap.records import Face
from vidswap.snapshots import _RECORDS, pack, squeeze, unpack, unsqueeze
from vidswap.streaming import FixedLag

CPU = torch.device("cpu")


def back(value):
    return unpack(pack(value), CPU)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple)
    | st.dictionaries(st.integers() | st.tuples(st.integers(), st.text()), inner),
    max_leaves=12,
))  # fmt: skip
def test_plain_values_come_back_as_they_were(value) -> None:
    assert repr(back(value)) == repr(value)  # NaN is not equal to itself, -0.0 is to 0.0


def _records_within(hint: object) -> set[type]:
    inner = set().union(*(_records_within(each) for each in typing.get_args(hint)))
    return inner | {hint} if isinstance(hint, type) and is_dataclass(hint) else inner


@pytest.mark.parametrize("kind", _RECORDS.values(), ids=_RECORDS)
def test_what_records_hold_is_known_too(kind) -> None:
    """A run of more than a chunk failed at its first border: the state had a new record inside."""
    hints = typing.get_type_hints(kind)
    held = set().union(*(_records_within(hints[each.name]) for each in fields(kind)))
    assert held <= set(_RECORDS.values())


def test_arrays_tensors_and_records_come_back_through_a_file(tmp_path) -> None:
    state = {
        3: (1, WarmState(torch.randn(1, 23, 512), None, float("nan"))),
        4: replace(
            WarmState(torch.zeros(1), None, 0.0), correction=Correction(torch.randn(3), torch.randn(2), 5)
        ),
        "small": np.arange(12, dtype=np.uint8).reshape(2, 2, 3),
        "shared": np.float32(0.1),
    }
    cache = ContentCache(tmp_path)
    assert cache.put("state", {"border": 4}, pack(state))
    found = unpack(cache.get("state", {"border": 4}), CPU)
    assert torch.equal(found[3][1].code, state[3][1].code)
    assert found[3][1].encoded is None and math.isnan(found[3][1].psnr) and found[3][0] == 1
    assert torch.equal(found[4].correction.added, state[4].correction.added)
    assert found[4].correction.age == 5
    assert found["small"].dtype == np.uint8 and np.array_equal(found["small"], state["small"])
    assert found["shared"] == state["shared"] and found["shared"].dtype == np.float32


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([(), (1,), (3,)]), st.integers(0, 2**32 - 1))
def test_pictures_of_8_bits_come_back_exactly(height: int, width: int, rest: tuple, seed: int) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, *rest), np.uint8)
    again = unsqueeze(back(squeeze(picture)))
    assert again.dtype == np.uint8 and again.shape == picture.shape and np.array_equal(again, picture)


def test_smooth_and_empty_pictures_take_little_room() -> None:
    y, x = np.mgrid[:128, :128]
    smooth = np.stack([x + y, 2 * x, 200 - y], -1).astype(np.uint8)
    assert squeeze(smooth)["zlib"].nbytes < smooth.nbytes / 20
    assert squeeze(np.zeros((192, 192), np.uint8))["zlib"].nbytes < 300
    short = {**squeeze(smooth), "shape": [128, 129, 3]}
    with pytest.raises(ValueError, match="expected 49536 samples, got 49152"):
        unsqueeze(short)


def test_a_state_is_what_it_was_when_it_was_taken() -> None:
    array = np.zeros(4, np.float32)
    packed = pack([array])
    array += 1
    assert unpack(packed, CPU)[0].sum() == 0


def test_tracks_go_on_as_if_nothing_had_been() -> None:
    def faces(t: int) -> list[Face]:
        box = np.array([10 + 3 * t, 10, 60 + 3 * t, 60], np.float32)
        return [Face(box, 0.9, np.full((5, 2), 30 + t, np.float32), embedding=np.full(128, 0.05, np.float32))]

    straight, first, second = Tracker(), Tracker(), Tracker()
    for t in range(4):
        straight.update(faces(t), t / 25)
        first.update(faces(t), t / 25)
    second.open, second.closed, second.next_id = back([first.open, first.closed, first.next_id])
    assert second.update(faces(4), 4 / 25)[0].track_id == straight.update(faces(4), 4 / 25)[0].track_id
    assert np.array_equal(second.open[0].velocity_xy, straight.open[0].velocity_xy)
    assert second.open[0].embedded_seconds == straight.open[0].embedded_seconds


def test_what_snapshots_do_not_know_is_refused_and_not_lost() -> None:
    with pytest.raises(TypeError, match="Tracker"):
        pack({"tracker": Tracker()})
    with pytest.raises(ValueError, match="not a snapshot"):
        unpack({}, CPU)


@pytest.mark.parametrize("lag", [0, 1, 2, 3])
@pytest.mark.parametrize("border", range(0, 11, 2))
def test_look_ahead_goes_on_over_a_border(lag: int, border: int) -> None:
    items = list(range(11))

    def windows(begin: int) -> list:
        holder = FixedLag(lag, key=lambda i: i > 6)
        holder.remember(items[max(0, begin - lag) : begin])
        made = [window for item in items[begin:] for window in holder.process(item)]
        return made + list(holder.flush())

    assert windows(border) == windows(0)[border:]

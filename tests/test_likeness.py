"""The person of a reference: which track it is, how sure, and that a run gone on with knows as much."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidswap.likeness import Likeness, Reference, Sought, look_weight
from vidswap.records import Face
from vidswap.snapshots import pack, unpack
from vidswap.stages import Selection

FRONTAL = np.array([[30, 40], [70, 40], [50, 60], [35, 80], [65, 80]], np.float32)


def away(distance: float, axis: int = 0) -> np.ndarray:
    """An embedding at a distance from the reference, which is 0."""
    return np.eye(128, dtype=np.float32)[axis] * np.float32(distance)


def face(track: int, distance: float | None = None, *, aside: float = 0.0, axis: int = 0) -> Face:
    points = FRONTAL + np.array([[0, 0], [0, 0], [40 * aside, 0], [0, 0], [0, 0]], np.float32)
    embedding = None if distance is None else away(distance, axis)
    box = np.array([0, 0, 100, 100], np.float32)
    return Face(box, 1.0, points, track_id=track, embedding=embedding)


@pytest.fixture
def likeness() -> Likeness:
    return Likeness(np.zeros(128, np.float32))


def test_one_look_is_enough_to_begin_with_and_holds_without_others(likeness: Likeness) -> None:
    assert likeness([face(3, 0.75), face(4, 0.4)]).track_id == 4
    assert likeness([face(3), face(4)]).track_id == 4
    assert likeness([face(3)]) is None
    assert likeness.sought == Sought(2, pytest.approx(0.4))


def test_looks_are_asked_for_until_the_answer_is_known(likeness: Likeness) -> None:
    for _ in range(2):
        assert likeness.unsure == (frozenset() if not likeness.sought.people else {0, 1})
        likeness([face(0, 0.4), face(1, 0.58)])
    likeness([face(1, 0.62)])
    assert likeness.unsure == {1}  # so close that more looks are needed
    for _ in range(3):
        likeness([face(1, 0.61)])
    assert likeness.unsure == frozenset()


def test_profiles_say_little_and_settle_nothing(likeness: Likeness) -> None:
    assert look_weight(face(0)) == pytest.approx(1.0)
    assert look_weight(face(0, aside=0.35)) == pytest.approx(0.5)
    for _ in range(10):
        assert likeness([face(0, 0.8, aside=1.2)]) is None
    assert likeness.unsure == {0}
    assert likeness([face(0, 0.3)]) is not None  # a frontal look outweighs ten profiles


def test_what_is_settled_needs_clear_and_lasting_evidence_to_the_contrary(likeness: Likeness) -> None:
    for _ in range(8):
        likeness([face(0, 0.45)])
    assert likeness([face(0, 0.9)]) is not None  # one bad look
    for _ in range(40):
        found = likeness([face(0, 0.63)])
    assert found is not None  # a little over the line is no reason
    looks = 0
    while likeness([face(0, 0.8)]) is not None:  # another person took the track over
        looks += 1
    assert 1 <= looks <= 12


def test_of_several_who_look_alike_the_nearest_is_taken(likeness: Likeness) -> None:
    assert likeness([face(0, 0.5), face(1, 0.3), face(2, 0.55)]).track_id == 1
    assert likeness([face(0), face(2)]).track_id == 0


def test_a_new_number_is_judged_anew(likeness: Likeness) -> None:
    likeness([face(0, 0.3)])
    assert likeness([face(7)]) is None  # nothing is known yet
    assert likeness([face(7, 0.35)]).track_id == 7


def test_what_is_remembered_is_bounded_and_the_count_goes_on(likeness: Likeness) -> None:
    for track in range(700):
        likeness([face(track, 0.9), face(9999, 0.2)])
    assert len(likeness.state()["tracks"]) == 256
    assert likeness.sought.people == 701
    assert likeness([face(9999)]) is not None


def test_messages_say_how_near_and_how_many(likeness: Likeness) -> None:
    assert "no face was seen" in Sought().describe("her.png")
    likeness([face(0, 0.81)])
    assert likeness.sought.describe("her.png") == (
        "nobody who looks like her.png was found: 1 person was seen, who is 0.81 away "
        "(the same person: under 0.60)"
    )
    likeness([face(1, 0.7)])
    assert "2 people were seen, the nearest is 0.70 away" in likeness.sought.describe("her.png")


def test_a_selection_goes_on_exactly_after_a_snapshot() -> None:
    source, random = object(), np.random.default_rng(0)
    reference = Reference("her.png", "1-a", np.zeros(128, np.float32))

    def looks(count: int) -> list[list[Face]]:
        return [
            [face(n, random.uniform(0.3, 0.9), aside=random.uniform(0, 1), axis=n) for n in (0, 1)]
            for _ in range(count)
        ]

    first, second = looks(5), looks(20)
    whole = Selection("largest", source, reference=reference)
    for faces in first:
        whole(faces)
    other = whole.fresh()
    assert other.sought == Sought()
    other.restore(unpack(pack(whole.state()), torch.device("cpu")))
    for faces in second:
        assert other(faces) == whole(faces) and other.unsure == whole.unsure
    assert other.sought == whole.sought
    other.heard(Sought(9, 0.01))
    assert other.sought == Sought(9, 0.01)

    largest = Selection("largest", source)
    largest([face(5), face(6)])
    again = largest.fresh()
    again.restore(unpack(pack(largest.state()), torch.device("cpu")))
    assert again.state() == largest.state() == {"chosen": 5, "likeness": None}


def test_only_the_person_of_the_reference_is_swapped() -> None:
    source = object()
    selection = Selection("all", source, reference=Reference("her.png", "1-a", np.zeros(128, np.float32)))
    assert selection([]) == []
    assert selection([face(0, 0.9), face(1, 0.8)]) == []
    ((found, given),) = selection([face(0), face(1), face(2, 0.2)])
    assert (found.track_id, given) == (2, source)

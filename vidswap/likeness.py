"""Who of a clip is the person of a reference picture: judged a track at a time, by the identity embedding.

One look at a face is weak evidence: a profile, a blur or a hand moves its embedding by more than what lies
between two people. So a track is judged by the mean of its looks, each weighted by how frontal the face
was, and what was once settled is only unsettled by clear evidence to the contrary. A person who comes back
under a new number is judged anew, from the first look on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidswap.faces import look_weight
from vidswap.records import Face

SAME_PERSON = 0.6
"""Usual L2 distance of dlib's network below which two faces are one person's (D. King, 2017)."""
_MARGIN = 0.06
"""How far beyond :data:`SAME_PERSON` what was settled must be contradicted."""
_KNOWN = 2.0
"""Weight of the looks (1: a frontal face) from which a clear answer is settled."""
_ENOUGH = 5.0
"""Weight from which any answer is."""
_MEMORY = 8.0
"""Weight at which older looks begin to fade, so that a track taken over by someone else is noticed."""
_REMEMBERED = 256


@dataclass(frozen=True)
class Reference:
    """The person to look for."""

    label: str
    """What the user called the picture."""
    key: str
    """What the picture holds, and which face of it."""
    embedding: np.ndarray
    """``[128]`` identity."""


@dataclass(frozen=True)
class Sought:
    """What the search has come to, for messages."""

    people: int = 0
    """Tracks seen so far."""
    nearest: float | None = None
    """Least distance to the reference among them; None before the first look."""

    def describe(self, label: str) -> str:
        """Why nobody is swapped, for the user."""
        if self.nearest is None:
            return f"nobody who looks like {label} was found: no face was seen"
        people = "1 person was seen" if self.people == 1 else f"{self.people} people were seen"
        who = "who is" if self.people == 1 else "the nearest is"
        return (
            f"nobody who looks like {label} was found: {people}, {who} {self.nearest:.2f} away "
            f"(the same person: under {SAME_PERSON:.2f})"
        )


@dataclass
class _Judged:
    """One track."""

    mean: np.ndarray
    """``[128]`` weighted mean of its embeddings."""
    weight: float
    distance: float
    settled: bool = False
    same: bool = False


class Likeness:
    """Finds the person of a reference among the faces of frame after frame.

    :param reference: embedding ``[128]``.
    """

    def __init__(self, reference: np.ndarray) -> None:
        self.reference = np.asarray(reference, np.float64)
        self.sought = Sought()
        self._judged: dict[int, _Judged] = {}

    def __call__(self, faces: Sequence[Face]) -> Face | None:
        """The face of the person, or None; of several who look alike the nearest.

        :param faces: of one frame, with ``track_id``, and with embeddings where there was a look.
        """
        for face in faces:
            if face.embedding is not None:
                self._look(face)
        found = [face for face in faces if (one := self._judged.get(face.track_id)) and one.same]
        return min(found, key=lambda face: self._judged[face.track_id].distance, default=None)

    @property
    def unsure(self) -> frozenset[int]:
        """Tracks that another look would help."""
        return frozenset(number for number, one in self._judged.items() if not one.settled)

    def _look(self, face: Face) -> None:
        embedding, weight = np.asarray(face.embedding, np.float64), look_weight(face)
        one = self._judged.pop(face.track_id, None)
        if one is None:
            one = _Judged(embedding, weight, self._distance(embedding))
            self.sought = Sought(self.sought.people + 1, self.sought.nearest)
        else:
            share = weight / (one.weight + weight)
            one.mean = one.mean + share * (embedding - one.mean)
            one.weight = min(one.weight + weight, _MEMORY)
            one.distance = self._distance(one.mean)
        beyond = _MARGIN if one.settled else 0.0
        one.same = one.distance < SAME_PERSON + (beyond if one.same else -beyond)
        clear = abs(one.distance - SAME_PERSON) > _MARGIN
        one.settled = one.settled or one.weight >= _ENOUGH or (clear and one.weight >= _KNOWN)
        self._judged[face.track_id] = one  # the latest at the end
        while len(self._judged) > _REMEMBERED:
            del self._judged[next(iter(self._judged))]
        nearest = self.sought.nearest
        if nearest is None or one.distance < nearest:
            self.sought = Sought(self.sought.people, one.distance)

    def _distance(self, embedding: np.ndarray) -> float:
        return float(np.linalg.norm(embedding - self.reference))

    # --- for runs that are gone on with ---------------------------------------------------------

    def heard(self, sought: Sought) -> None:
        """What an earlier run saw in frames that are not looked at again."""
        known = [value for value in (self.sought.nearest, sought.nearest) if value is not None]
        self.sought = Sought(max(self.sought.people, sought.people), min(known, default=None))

    def state(self) -> dict[str, Any]:
        """All that is known, as plain values and arrays."""
        tracks = [
            [number, one.mean, one.weight, one.distance, one.settled, one.same]
            for number, one in self._judged.items()
        ]
        return {"tracks": tracks, "sought": [self.sought.people, self.sought.nearest]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""
        self._judged = {number: _Judged(*rest) for number, *rest in state["tracks"]}
        self.sought = Sought(*state["sought"])

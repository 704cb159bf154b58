"""Which face is whose: tracks through the clip, held by place first and by identity after a loss.

The tracker sees faces only; it knows no pictures. All distances in pixels are relative to the
size of the faces, all times are seconds of the clip.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from vidswap.faces.blazeface import overlap
from vidswap.records import Face

Array = NDArray[np.float32]

_REMEMBERED = 256
"""Closed tracks whose identity is kept to know a person again."""
_CLEAR = 0.5
"""Weight of a look from which it may say that a followed face is somebody else's."""
_PART_HIDDEN = 0.6
"""An overlapping face this far from its track shows part of another one: nothing is learnt from it."""
_JUST_SECONDS = 0.2
"""Nobody else takes the place of a half hidden face within this time."""
_EAGER_SECONDS = 0.1
"""From one embedding to the next where they are wanted soon; nearer frames tell the same again."""
_COMPARABLE = 0.6
"""Part of the largest face's size from which on a face is of comparable size."""


def largest_face(faces: Sequence[Face], chosen: int | None = None) -> Face:
    """The largest of some faces, at least one; the track chosen before while its is of comparable size."""
    largest = max(faces, key=lambda face: face.size_px)
    least = _COMPARABLE * largest.size_px
    return next((face for face in faces if face.track_id == chosen and face.size_px > least), largest)


@dataclass
class Track:
    """What is known of one person."""

    track_id: int
    face: Face
    """As last seen."""
    first_seconds: float
    last_seconds: float
    velocity_xy: Array = field(default_factory=lambda: np.zeros(2, dtype=np.float32))
    """Motion of the box's centre in pixels a second, smoothed."""
    embedding: Array | None = None
    """Running mean of the identity embeddings."""
    embedded_seconds: float = -np.inf
    """When the last embedding was taken."""
    sightings: int = 1
    known: float = 0.0
    """Sum of the weights of its looks."""


class Tracker:
    """Gives each face the ``track_id`` of its person.

    :param lost_seconds: a track not seen for longer is closed; its person can still be known
        again by the embedding.
    :param same_person: embeddings nearer than this are one person (dlib's network: two photos of
        one person are under 0.6 apart, different people about 0.75).
    :param other_person: embeddings farther apart than this are never joined by place.
    :param returned_person: nor those farther apart than this where the face was not followed there from the
        frame before: dlib's usual limit.
    :param embed_every_seconds: how old the embedding of a track may grow before
        :meth:`wants_embedding` asks for another.
    """

    def __init__(
        self,
        *,
        lost_seconds: float = 2.0,
        same_person: float = 0.55,
        other_person: float = 0.8,
        returned_person: float = 0.6,
        embed_every_seconds: float = 2.0,
    ) -> None:
        if lost_seconds < 0:
            raise ValueError(f"lost_seconds: expected >= 0, got {lost_seconds}")
        self.lost_seconds = lost_seconds
        self.same_person = same_person
        self.other_person = other_person
        self.returned_person = returned_person
        self.embed_every_seconds = embed_every_seconds
        self.open: list[Track] = []
        """Tracks that may be continued by place, in order of their ids."""
        self.closed: list[Track] = []
        """Tracks lost for long, or of a shot before; continued by identity only."""
        self.next_id = 0

    def cut(self) -> None:
        """A new shot begins: places mean nothing any more, identities do."""
        self._close(self.open)

    def wants_embedding(
        self,
        faces: list[Face],
        pts_seconds: float,
        eager: Container[int] = (),
        fresh: Sequence[bool] | None = None,
    ) -> list[bool]:
        """For which faces an embedding would help: new ones, and tracks whose own is old or weak.

        Changes nothing.

        :param eager: numbers of tracks that somebody wants to know better soon.
        :param fresh: as for :meth:`update`.
        """
        open_now = [track for track in self.open if not self._is_lost(track, pts_seconds)]
        matched = self._match(open_now, faces, pts_seconds, fresh)
        wants = []
        for index, face in enumerate(faces):
            track = matched.get(index)
            age = np.inf if track is None else pts_seconds - track.embedded_seconds
            # Where faces overlap, or one is near where another was, they may be mistaken for each other.
            near = [t for t in open_now if _place_cost(t, face, pts_seconds) is not None]
            doubtful = len(near) > 1 or _is_crowded(index, faces) or (track is not None and track.known < 0.9)
            due = self.embed_every_seconds * (0.1 if doubtful else 1.0)
            if track is not None and track.track_id in eager:
                due = min(due, _EAGER_SECONDS)
            again = fresh is not None and fresh[index]
            wants.append(face.embedding is None and (again or age >= due or age < 0))
        return wants

    def update(
        self, faces: list[Face], pts_seconds: float, fresh: Sequence[bool] | None = None
    ) -> list[Face]:
        """Continue the tracks with the faces of one frame.

        :param faces: faces of the frame, with embeddings where there are any.
        :param pts_seconds: time of the frame; going back in time closes all tracks.
        :param fresh: for each face whether it was not followed there from the frame before; none was if not
            given.
        :return: the same faces in the same order, with ``track_id`` set.
        """
        if any(track.last_seconds > pts_seconds for track in self.open):
            self.cut()
        self._close([track for track in self.open if self._is_lost(track, pts_seconds)])
        matched = self._match(self.open, faces, pts_seconds, fresh)
        taken = {id(track) for track in matched.values()}
        free = [track for track in self.open + self.closed if id(track) not in taken]
        for index, track in self._rejoin(faces, matched, free).items():
            matched[index] = track
        out = []
        for index, face in enumerate(faces):
            if index not in matched:
                track = Track(self.next_id, face, pts_seconds, pts_seconds)
                self.next_id += 1
                self.open.append(track)
                _learn(track, face, pts_seconds, False)
            else:
                track = matched[index]
                if track in self.closed:
                    self.closed.remove(track)
                    track.velocity_xy = np.zeros(2, dtype=np.float32)
                    self.open.append(track)
                elif pts_seconds > track.last_seconds:
                    _move(track, face, pts_seconds)
                _learn(track, face, pts_seconds, _is_crowded(index, faces))
                track.face, track.last_seconds = face, pts_seconds
                track.sightings += 1
            out.append(replace(face, track_id=track.track_id))
        self.open.sort(key=lambda track: track.track_id)
        return out

    def _is_lost(self, track: Track, pts_seconds: float) -> bool:
        return pts_seconds - track.last_seconds > self.lost_seconds

    def _close(self, tracks: list[Track]) -> None:
        for track in list(tracks):
            self.open.remove(track)
            if track.embedding is not None:
                self.closed.append(track)
        del self.closed[:-_REMEMBERED]

    def _match(
        self, tracks: list[Track], faces: list[Face], pts_seconds: float, fresh: Sequence[bool] | None
    ) -> dict[int, Track]:
        """Face index -> track by place: overlap of boxes and distance of meshes, and by likeness."""
        pairs, weak = [], []
        for order, track in enumerate(tracks):
            for index, face in enumerate(faces):
                cost = _place_cost(track, face, pts_seconds)
                if cost is None:
                    continue
                if face.embedding is not None and track.embedding is not None:
                    distance = float(np.linalg.norm(face.embedding - track.embedding))
                    returns = fresh is not None and fresh[index]
                    if distance > (self.returned_person if returns else self.other_person):
                        # Half hidden or in profile, a face is like nobody: that alone splits no track.
                        unclear = _is_crowded(index, faces) or look_weight(face) < _CLEAR
                        just_seen = pts_seconds - track.last_seconds <= _JUST_SECONDS
                        if unclear and (not returns or just_seen or distance <= self.other_person):
                            weak.append((cost + distance, index, order))
                        continue
                    # Where two people are close, the likeness decides.
                    cost += distance
                pairs.append((cost, index, order))
        sure = _greedy(pairs)
        faces_left = set(range(len(faces))) - {index for index, _ in sure}
        tracks_left = set(range(len(tracks))) - {order for _, order in sure}
        rest = [pair for pair in weak if pair[1] in faces_left and pair[2] in tracks_left]
        return {index: tracks[order] for index, order in [*sure, *_greedy(rest)]}

    def _rejoin(
        self, faces: list[Face], matched: dict[int, Track], free: list[Track]
    ) -> dict[int, Track]:
        """Unmatched faces to free tracks by identity, the nearest pairs first."""
        pairs = []
        for index, face in enumerate(faces):
            if index in matched or face.embedding is None:
                continue
            for order, track in enumerate(free):
                if track.embedding is not None:
                    distance = float(np.linalg.norm(face.embedding - track.embedding))
                    if distance < self.same_person:
                        pairs.append((distance, index, order))
        return {index: free[order] for index, order in _greedy(pairs)}


def _place_cost(track: Track, face: Face, pts_seconds: float) -> float | None:
    """0 for the same place, larger farther off; None when it cannot be the same face.

    The track's box counts both where it was last and where its motion would have taken it: a
    face that stops at once must not be lost.
    """
    elapsed = min(max(pts_seconds - track.last_seconds, 0.0), 0.5)
    size = 0.5 * (track.face.size_px + face.size_px)
    ratio = track.face.size_px / max(face.size_px, 1e-6)
    if size <= 0 or not 0.4 < ratio < 2.5:
        return None
    best = None
    for shift in (np.zeros(2, dtype=np.float32), track.velocity_xy * np.float32(elapsed)):
        box = track.face.box_xyxy + np.tile(shift, 2)
        common = float(overlap(box, face.box_xyxy[None])[0])
        apart = _distance(track.face, face, shift) / size
        # Without any overlap only a near neighbour of similar size may be the same face.
        if common <= 0.05 and apart > 0.5:
            continue
        cost = (1 - common) + apart
        best = cost if best is None else min(best, cost)
    return best


def _distance(a: Face, b: Face, shift: Array) -> float:
    """Mean distance in pixels of the landmarks of ``a``, moved, and ``b``."""
    if a.mesh_xyz is not None and b.mesh_xyz is not None:
        first, second = a.mesh_xyz[:, :2], b.mesh_xyz[:, :2]
    else:
        first, second = a.keypoints_xy, b.keypoints_xy
    return float(np.linalg.norm(first + shift - second, axis=1).mean())


def _greedy(pairs: list[tuple[float, int, int]]) -> list[tuple[int, int]]:
    """Cheapest pairs first, each face and each track once; ties by the lower numbers."""
    used_faces: set[int] = set()
    used_tracks: set[int] = set()
    out = []
    for _, index, order in sorted(pairs):
        if index not in used_faces and order not in used_tracks:
            used_faces.add(index)
            used_tracks.add(order)
            out.append((index, order))
    return out


def _move(track: Track, face: Face, pts_seconds: float) -> None:
    elapsed = pts_seconds - track.last_seconds
    before = (track.face.box_xyxy[:2] + track.face.box_xyxy[2:]) / 2
    now = (face.box_xyxy[:2] + face.box_xyxy[2:]) / 2
    speed = (now - before) / np.float32(elapsed)
    track.velocity_xy = (0.5 * track.velocity_xy + 0.5 * speed).astype(np.float32)


def _learn(track: Track, face: Face, pts_seconds: float, crowded: bool) -> None:
    if face.embedding is None:
        return
    if track.embedding is None:
        track.embedding, track.known = face.embedding.astype(np.float32), look_weight(face)
        track.embedded_seconds = pts_seconds
        return
    if crowded and np.linalg.norm(face.embedding - track.embedding) > _PART_HIDDEN:
        return  # and it is looked at again as soon as it can be
    track.embedded_seconds = pts_seconds
    # A running mean: one odd view (profile, blur, a hand) moves it little, a first one soon gives way.
    weight = look_weight(face)
    share = max(0.2 * weight, weight / (track.known + weight))
    track.embedding = (track.embedding + share * (face.embedding - track.embedding)).astype(np.float32)
    track.known += weight


def look_weight(face: Face) -> float:
    """How much an embedding of this face says, 0..1: less for profiles and where the mesh is unsure.

    The nose leaves the middle between the eyes as the head turns: by about 0.2 of their distance at 20
    degrees, 0.35 at 30 (weight one half), 0.6 at 45.
    """
    left, right, nose = face.keypoints_xy[:3].astype(np.float64)
    axis = right - left
    length = max(float(axis @ axis), 1e-6)
    aside = float((nose - (left + right) / 2) @ axis) / length
    return float(np.clip(face.score, 0.05, 1.0)) / (1 + (aside / 0.35) ** 2)


def _is_crowded(index: int, faces: list[Face]) -> bool:
    """Whether another face of the frame overlaps this one."""
    box = faces[index].box_xyxy
    return any(
        other != index and overlap(box, face.box_xyxy[None])[0] > 0.1 for other, face in enumerate(faces)
    )

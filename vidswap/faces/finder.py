"""Faces of a clip, frame after frame: detection now and then, mesh tracking in between, and where the mesh
network loses a face in a blur, the face's own picture."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vidswap.faces.blazeface import overlap
from vidswap.faces.carry import agreement, carry, moved, patch_of
from vidswap.faces.cuts import is_cut, small_rgb
from vidswap.faces.detect import Detector
from vidswap.faces.mesh import FaceMesher, mesh_quad
from vidswap.faces.track import Tracker
from vidswap.records import Face

Array = NDArray[np.float32]
Embed = Callable[[Face, NDArray[np.uint8]], "Array | None"]

# Between two frames a face does not change its size by more.
_SIZE_JUMP = 1.6
# A face that the mesh network loses agrees with its last good picture by more than this in a blur (0.96 to
# 1.00 up to a standard deviation of 0.07 of the face's size), and by less once something covers it (at most
# 0.75 under a grey bar) or somebody else is there (at most 0.84; 15 pairs of generated people).
_SAME_PICTURE = 0.9
_MOST_CARRIED = 12
# From one frame to the next a followed face changes by less, unless it is another one: without a search other
# people agreed by at most 0.73.
_SAME_FOLLOWED = 0.8
# For so long after a loss the detector looks for the face at every other frame.
_SEARCH_SECONDS = 2.0
_SEARCH_EVERY = 2
# Boxes of one face by mesh and by detector overlap by more than this.
_SAME_FACE = 0.3


@dataclass
class Followed:
    """A face that is followed from frame to frame by its mesh."""

    face: Face
    """In pixels of the picture."""
    unconfirmed: int = 0
    """Detections in a row that did not find it."""
    patch: Array | None = None
    """Its picture when the mesh network last saw it, see :mod:`vidswap.faces.carry`."""
    quad: Array | None = None
    """Where that picture lies now."""
    carried: int = 0
    """Frames in a row in which only its picture was followed."""
    fresh: bool = True
    """It may be somebody else than in the frame before: found just now, or changed at once."""


@dataclass
class FinderState:
    """What the finder carries from one frame to the next."""

    followed: list[Followed]
    small: NDArray[np.uint8] | None = None
    """Thumbnail of the frame before."""
    since_detection: int = 0
    size_hw: tuple[int, int] = (0, 0)
    cuts: int = 0
    """Cuts seen so far."""
    detections: int = 0
    """How often the detector has run."""
    search_until: float = -np.inf
    """A face was lost not long ago: look for it often until then."""
    search_for: int = 0
    """Faces there were before that loss."""


class FaceFinder:
    """Detector, mesh and tracker together. Feed it the frames of one clip in their order.

    :param detect_every: frames from one run of the detector to the next; it also runs at cuts,
        when a face was lost, and (if no face is known) every ``search_every`` frames.
    :param min_presence: faces whose mesh network is less sure are lost.
    :param new_presence: nor is a face taken for one at first sight where it is less sure than this. Of 745
        detections in photos and clips 743 had 1.00, the others 0.19 and 0.00; letters that went out of focus
        had up to 0.93.
    :param min_size_px: faces smaller than this (longer side, display pixels) are left out.
    :param max_unconfirmed: detections in a row that may miss a face which the mesh still follows
        (behind a hand, in profile) before it is dropped.
    :param track_passes: mesh passes a frame while following. A second one costs about 5 ms.
        It helped in the first, still frames of one clip (second differences 0.6 % to 0.2 % of the
        interocular distance); the medians over 60 frames of three clips hardly changed.
    """

    def __init__(
        self,
        detector: Detector,
        mesher: FaceMesher,
        tracker: Tracker | None = None,
        *,
        detect_every: int = 5,
        search_every: int = 1,
        min_presence: float = 0.5,
        new_presence: float = 0.97,
        min_size_px: float = 24.0,
        max_unconfirmed: int = 6,
        track_passes: int = 2,
    ) -> None:
        if detect_every < 1 or search_every < 1:
            raise ValueError(
                f"detect_every, search_every: expected >= 1, got {detect_every}, {search_every}"
            )
        self.detector = detector
        self.mesher = mesher
        self.tracker = tracker if tracker is not None else Tracker()
        self.detect_every = detect_every
        self.search_every = search_every
        self.min_presence = min_presence
        self.new_presence = new_presence
        self.min_size_px = min_size_px
        self.max_unconfirmed = max_unconfirmed
        self.track_passes = track_passes
        self.state = FinderState([])

    def reset(self) -> None:
        """Forget the picture before (after a jump in the clip); identities are kept."""
        self.state = FinderState([], cuts=self.state.cuts, detections=self.state.detections)
        self.tracker.cut()

    def find(
        self,
        rgb: NDArray[np.uint8],
        pts_seconds: float,
        *,
        scale: float = 1.0,
        embed: Embed | None = None,
        eager: Container[int] = (),
    ) -> list[Face]:
        """Faces of the next frame.

        :param rgb: ``[H, W, 3]`` uint8, upright; may be smaller than the frame to save time.
        :param pts_seconds: time of the frame.
        :param scale: size of ``rgb`` over that of the frame as displayed.
        :param embed: ``(face in pixels of rgb, rgb) -> [128]`` or None; called for new faces and
            now and then for known ones.
        :param eager: tracks whose embedding is wanted more often.
        :return: faces with mesh, irises and ``track_id``, in display coordinates of the frame,
            the largest first.
        :raises ValueError: when ``rgb`` is not uint8 RGB or ``scale`` is not positive.
        """
        if not scale > 0:
            raise ValueError(f"scale: expected > 0, got {scale}")
        state = self.state
        if rgb.shape[:2] != state.size_hw:
            self._forget_places(state)
            state.small, state.size_hw = None, (rgb.shape[0], rgb.shape[1])
        small = small_rgb(rgb)
        if state.small is not None and is_cut(state.small, small):
            state.cuts += 1
            self._forget_places(state)
        state.small = small
        before = len(state.followed)
        lost = self._follow(rgb)
        state.since_detection += 1
        due = self.detect_every if state.followed else self.search_every
        if pts_seconds < state.search_until:
            due = min(due, _SEARCH_EVERY)
        if lost or state.since_detection >= due:
            self._detect(rgb)
        if lost:
            state.search_until = pts_seconds + _SEARCH_SECONDS
            state.search_for = max(before, state.search_for)
        if len(state.followed) >= state.search_for:
            state.search_until, state.search_for = -np.inf, 0
        large = [f for f in state.followed if f.face.size_px / scale >= self.min_size_px]
        faces, fresh = [f.face for f in large], [f.fresh for f in large]
        if embed is not None:
            wanted = self.tracker.wants_embedding(faces, pts_seconds, eager, fresh)
            faces = [
                replace(face, embedding=embed(face, rgb)) if want else face
                for face, want in zip(faces, wanted, strict=True)
            ]
        tracked = self.tracker.update(faces, pts_seconds, fresh)
        return sorted((_scaled(face, 1 / scale) for face in tracked), key=lambda f: -f.size_px)

    def _forget_places(self, state: FinderState) -> None:
        state.followed = []
        state.search_until, state.search_for = -np.inf, 0
        state.since_detection = max(self.detect_every, self.search_every)
        self.tracker.cut()

    def _follow(self, rgb: NDArray[np.uint8]) -> bool:
        """Move each followed mesh to this frame; True when one of them was lost."""
        kept = []
        for followed in self.state.followed:
            before = followed.face
            face = replace(
                self.mesher.refine(rgb, before, passes=self.track_passes), embedding=None
            )
            ratio = face.size_px / max(before.size_px, 1e-6)
            if face.score >= self.min_presence and 1 / _SIZE_JUMP < ratio < _SIZE_JUMP:
                kept.append(_seen(rgb, face, followed))
            elif (carried := _carried(rgb, followed, face.score)) is not None:
                kept.append(carried)
        kept = _without_doubles(kept)
        lost = len(kept) < len(self.state.followed)
        self.state.followed = kept
        return lost

    def _detect(self, rgb: NDArray[np.uint8]) -> None:
        state = self.state
        state.since_detection = 0
        state.detections += 1
        confirmed: set[int] = set()
        fresh = []
        for found in self.detector.detect(rgb):
            same = [i for i, f in enumerate(state.followed) if _is_same(f.face, found)]
            if same:
                confirmed.update(same)
                continue
            face = self.mesher.refine(rgb, found)
            if face.score >= self.new_presence:
                fresh.append(_seen(rgb, face))
        for index, followed in enumerate(state.followed):
            followed.unconfirmed = 0 if index in confirmed else followed.unconfirmed + 1
        kept = [f for f in state.followed if f.unconfirmed <= self.max_unconfirmed]
        state.followed = _without_doubles(kept + fresh)


def _seen(rgb: NDArray[np.uint8], face: Face, before: Followed | None = None) -> Followed:
    """A face that the mesh network sees well."""
    quad = mesh_quad(face.mesh)
    patch = patch_of(rgb, quad)
    if before is None or before.patch is None:
        return Followed(face, patch=patch, quad=quad)
    changed = agreement(before.patch, patch) < _SAME_FOLLOWED
    return Followed(face, before.unconfirmed, patch, quad, fresh=changed)


def _carried(rgb: NDArray[np.uint8], before: Followed, score: float) -> Followed | None:
    """A face that the mesh network has lost, moved as its picture moved; None where that is gone too."""
    if before.patch is None or before.quad is None or before.carried >= _MOST_CARRIED:
        return None
    quad, agrees = carry(rgb, before.patch, before.quad)
    if agrees < _SAME_PICTURE:
        return None
    old, iris = before.face, before.face.iris_xy
    mesh, keypoints = (moved(points, before.quad, quad) for points in (old.mesh, old.keypoints_xy))
    if iris is not None:
        iris = moved(iris.reshape(-1, 2), before.quad, quad).reshape(iris.shape)
    face = replace(
        old,
        box_xyxy=np.concatenate((mesh[:, :2].min(0), mesh[:, :2].max(0))).astype(np.float32),
        score=score,
        keypoints_xy=keypoints,
        mesh_xyz=mesh,
        iris_xy=iris,
        embedding=None,
    )
    return Followed(face, before.unconfirmed, before.patch, quad, before.carried + 1, fresh=False)


def _is_same(a: Face, b: Face) -> bool:
    """Boxes overlap, or the centre of one lies deep in the other (sizes differ by detector)."""
    if float(overlap(a.box_xyxy, b.box_xyxy[None])[0]) > _SAME_FACE:
        return True
    apart = np.linalg.norm(a.box_xyxy[:2] + a.box_xyxy[2:] - b.box_xyxy[:2] - b.box_xyxy[2:]) / 2
    return bool(apart < 0.25 * min(a.size_px, b.size_px))


def _without_doubles(followed: list[Followed]) -> list[Followed]:
    """Two meshes that slid onto one face: the first (longest known) stays."""
    kept: list[Followed] = []
    for one in followed:
        if not any(overlap(one.face.box_xyxy, k.face.box_xyxy[None])[0] > 0.5 for k in kept):
            kept.append(one)
    return kept


def _scaled(face: Face, factor: float) -> Face:
    if factor == 1.0:
        return face
    f = np.float32(factor)
    return replace(
        face,
        box_xyxy=face.box_xyxy * f,
        keypoints_xy=face.keypoints_xy * f,
        mesh_xyz=None if face.mesh_xyz is None else face.mesh_xyz * f,
        iris_xy=None if face.iris_xy is None else face.iris_xy * f,
    )

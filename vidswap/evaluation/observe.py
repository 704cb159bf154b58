"""What is seen in one pair of frames."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidswap import geometry, landmarks, warp
from vidswap.errors import InputError
from vidswap.evaluation.judges import Judges, Person
from vidswap.faces import FaceFinder, align_quad, face_in_crop, largest_face
from vidswap.metrics import attributes, identity, images, temporal, warping
from vidswap.metrics.table import FRAME_MEASURES, Row
from vidswap.records import Face, Frame
from vidswap.video import read_rgb8

Array = NDArray[Any]

ALIGNED_SIZE = 256
"""Side of the aligned crops that the identity networks see."""
FLOW_SIZE = 256
"""Side of the crops for optical flow, a little more than the face."""
_FLOW_PART = (0.14, 0.22, 0.86, 0.94)
"""Left, top, right, bottom of those crops within the aligned square."""
_GROWTH = 1.25
"""The outline is scaled by this before what lies outside of it is compared."""
_LEAST_VISIBLE = 0.2
_SAME_FACE_OVERLAP = 0.2
_ASPECT_SLACK = 0.02


@dataclass
class Sightings:
    """What the figures of the whole clip need, by frame with a face in both."""

    index: list[int] = field(default_factory=list)
    """Rows that these belong to."""
    output: list[Array] = field(default_factory=list)
    """Identity embeddings ``[128]``."""
    original: list[Array] = field(default_factory=list)
    track: list[int] = field(default_factory=list)
    """Whose face it is."""
    second: list[tuple[Array, Array]] = field(default_factory=list)
    """Those of the second network, output and original; empty without it."""


class PairObserver:
    """Looks at pairs of frames in order of time; holds one frame of the past.

    :param track: number of the track to follow; None the largest face, kept while it stays
        of comparable size.
    """

    def __init__(
        self,
        judges: Judges,
        person: Person,
        finders: tuple[FaceFinder, FaceFinder],
        *,
        track: int | None = None,
    ) -> None:
        self._judges, self._person = judges, person
        self._finders = finders
        self._track, self._is_fixed = track, track is not None
        self._jitter = temporal.LandmarkJitter(), temporal.LandmarkJitter()
        self._before: tuple[Array, Array, Array] | None = None
        self.sightings = Sightings()
        self.colors: tuple[list[Array], list[Array]] = [], []
        """Mean colour in the mask of each row, of output and original; NaN without a face."""
        self.rows: list[Row] = []
        self.takes: list[int] = []
        """Number of the stretch of each row: another begins at a cut, and with another person. What is
        compared with its neighbours in time is so within one only."""
        self._shown: tuple[int, int] | None = None
        self.tracks: dict[int, int] = {}
        """Tracks of the original and how many frames they were seen in."""
        self.is_rescaled = False
        self.pictures: tuple[Array, Array] | None = None
        """Crops of original and output of the last frame, uint8, for the strip; None: no face."""

    def observe(self, target: Frame, output: Frame) -> Row:
        """Add the row of one pair."""
        original, _ = read_rgb8(target)
        changed = self._fitted(read_rgb8(output)[0], original)
        row = _empty_row(len(self.rows), target)
        self.rows.append(row)
        self.pictures = None
        face = self._choose(original, target.pts_seconds)
        self._take(face)
        again = self._match(changed, target.pts_seconds, face)
        row["face"] = float(face is not None)
        row["output_face"] = float(again is not None)
        if face is None or face.mesh_xyz is None:
            self._miss()
            row["psnr_outside_db"] = images.psnr_outside(changed, original)
            return row
        quad = align_quad(face)
        self._compare_pixels(row, changed, original, face.mesh_xyz)
        self._compare_motion(row, changed, original, face, quad)
        self._compare_faces(row, changed, original, face, again, quad)
        return row

    def _fitted(self, picture: Array, original: Array) -> Array:
        """The output at the size of the original."""
        if picture.shape == original.shape:
            return picture
        (height, width), (own_h, own_w) = original.shape[:2], picture.shape[:2]
        if abs(math.log((own_w / own_h) / (width / height))) > _ASPECT_SLACK:
            raise InputError(
                f"the output shows {own_w}x{own_h}, the target {width}x{height}: another aspect "
                "ratio cannot be compared; make an output of the target's shape"
            )
        self.is_rescaled = True
        resized = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(resized)

    def _choose(self, rgb: Array, seconds: float) -> Face | None:
        """The face of the original that is followed."""
        faces = self._finders[0].find(rgb, seconds, embed=self._embed)
        for face in faces:
            self.tracks[face.track_id] = self.tracks.get(face.track_id, 0) + 1
        if self._is_fixed:
            return next((face for face in faces if face.track_id == self._track), None)
        if not faces:
            return None
        face = largest_face(faces, self._track)
        self._track = face.track_id
        return face

    def _embed(self, face: Face, rgb: Array) -> Array | None:
        return self._judges.first(warp.crop(rgb, align_quad(face), ALIGNED_SIZE)[0])

    def _match(self, rgb: Array, seconds: float, face: Face | None) -> Face | None:
        """The output's face at the place of the original's."""
        found = self._finders[1].find(rgb, seconds)
        if face is None or not found:
            return None
        best = max(found, key=lambda other: _overlap(face.box_xyxy, other.box_xyxy))
        return best if _overlap(face.box_xyxy, best.box_xyxy) >= _SAME_FACE_OVERLAP else None

    def _take(self, face: Face | None) -> None:
        """Enter which stretch the new row belongs to."""
        take = self.takes[-1] if self.takes else 0
        if face is not None:
            shown = self._finders[0].state.cuts, face.track_id
            if self._shown is not None and shown != self._shown:
                take += 1
                self._break_off()
            self._shown = shown
        self.takes.append(take)

    def _break_off(self) -> None:
        self._before = None
        for jitter in self._jitter:
            jitter.add(None)

    def _miss(self) -> None:
        self._break_off()
        for colors in self.colors:
            colors.append(np.full(3, np.nan))

    def _compare_pixels(self, row: Row, changed: Array, original: Array, mesh: Array) -> None:
        """Likeness, sharpness and colour inside the outline; likeness outside the grown one."""
        (outline,) = landmarks.region_polygon(mesh, "face")
        centre = outline.mean(axis=0)
        grown = centre + _GROWTH * (outline - centre)
        size_wh = (original.shape[1], original.shape[0])
        box = geometry.quad_box(_corners(grown), size_wh, margin=8)
        if box is None:
            for colors in self.colors:
                colors.append(np.full(3, np.nan))
            return
        left, top, right, bottom = box
        part = np.s_[top:bottom, left:right]
        size_hw = (bottom - top, right - left)
        inside = fill(outline - (left, top), size_hw)
        a, b = (x[part].astype(np.float32) / 255 for x in (changed, original))
        row["psnr_inside_db"] = images.psnr(a, b, inside)
        row["ssim_inside"] = images.ssim(a, b, inside)
        row["sharpness_ratio"] = images.sharpness_ratio(a, b, inside)
        near = fill(grown - (left, top), size_hw)
        row["psnr_outside_db"] = images.psnr_outside(changed, original, (left, top), near)
        for colors, image in zip(self.colors, (a, b), strict=True):
            colors.append(images.mean_color(image, inside))

    def _compare_motion(self, row: Row, changed: Array, original: Array, face: Face, quad: Array) -> None:
        """Warping error since the frame before, in the coordinates of the aligned face."""
        place = geometry.apply_homography(geometry.quad_to_homography(quad), _flow_corners())
        a, b = (warp.crop(x, place, FLOW_SIZE, extend=False)[0] for x in (changed, original))
        self.pictures = np.round(b * 255).astype(np.uint8), np.round(a * 255).astype(np.uint8)
        inverse = np.linalg.inv(geometry.quad_to_homography(place))
        (outline,) = landmarks.region_polygon(face.mesh, "face")
        mask = fill(geometry.apply_homography(inverse, outline) * FLOW_SIZE, (FLOW_SIZE,) * 2)
        if self._before is not None:
            before_changed, before_original, before_mask = self._before
            found = warping.pair_warping_error(
                (before_changed, a), (before_original, b), before_mask
            )
            if found.visible_share >= _LEAST_VISIBLE:
                row["warping_output"], row["warping_original"] = found.output, found.original
            row["visible_share"] = found.visible_share
        self._before = a, b, mask

    def _compare_faces(
        self,
        row: Row,
        changed: Array,
        original: Array,
        face: Face,
        again: Face | None,
        quad: Array,
    ) -> None:
        """Identity, attributes and landmarks, each face by its own mesh and alignment."""
        for kind, jitter, one in zip(("output", "original"), self._jitter, (again, face), strict=True):
            mesh = None if one is None else one.mesh_xyz
            points = None if mesh is None else mesh[:, :2]
            scale = 1.0 if mesh is None else landmarks.interocular(mesh)
            value = jitter.add(points, scale)
            if len(self.rows) > 1:  # the figure is that of the frame before
                self.rows[-2][f"jitter_{kind}"] = value
        if again is None or again.mesh_xyz is None:
            return
        kept = attributes.attribute_difference(again.mesh_xyz, face.mesh, again.iris_xy, face.iris_xy)
        row.update(asdict(kept))
        own = align_quad(again)
        crops = [warp.crop(x, q, ALIGNED_SIZE)[0] for x, q in ((changed, own), (original, quad))]
        first = [self._judges.first(image) for image in crops]
        row["identity_source"] = identity.embedding_distance(self._person.first, first[0]).mean()
        row["identity_original"] = float(identity.embedding_distance(*first))
        self.sightings.index.append(len(self.rows) - 1)
        self.sightings.track.append(face.track_id)
        self.sightings.output.append(first[0])
        self.sightings.original.append(first[1])
        if self._person.second is not None:
            meshes = (face_in_crop(again, own).mesh_xyz, face_in_crop(face, quad).mesh_xyz)
            new, old = (self._judges.other(image, mesh) for image, mesh in zip(crops, meshes, strict=True))
            if new is not None and old is not None:
                row["judge_source"] = float(identity.cosine_similarity(self._person.second, new).mean())
                row["judge_original"] = float(identity.cosine_similarity(new, old))
                self.sightings.second.append((new, old))


_COLUMNS = (
    "frame", "pts", "pts_seconds", "face", "output_face", *FRAME_MEASURES, "retrieval_rank",
    "warping_output", "warping_original", "visible_share", "jitter_output", "jitter_original",
    "flicker_output", "flicker_original",
)  # fmt: skip
"""Order of the columns of a row."""


def _empty_row(index: int, frame: Frame) -> Row:
    row = dict.fromkeys(_COLUMNS, math.nan)
    row.update(frame=float(index), pts=float(frame.pts), pts_seconds=frame.pts_seconds)
    return row


def fill(outline_xy: Array, size_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Mask ``[H, W]`` of a polygon ``[N, 2]``: 1 where a pixel's centre lies inside (even-odd)."""
    height, width = size_hw
    start = np.asarray(outline_xy, dtype=np.float64)
    end = np.roll(start, -1, axis=0)
    y = np.arange(height)[:, None] + 0.5
    row, edge = np.nonzero((start[:, 1] <= y) != (end[:, 1] <= y))
    share = (y[row, 0] - start[edge, 1]) / (end[edge, 1] - start[edge, 1])
    x = start[edge, 0] + share * (end[edge, 0] - start[edge, 0])
    # Each crossing of the outline turns all pixels to its right over.
    turns = np.zeros((height, width + 1), np.int32)
    np.add.at(turns, (row, np.clip(np.ceil(x - 0.5), 0, width).astype(int)), 1)
    return (turns.cumsum(axis=1)[:, :width] % 2).astype(np.float32)


def _corners(points_xy: Array) -> Array:
    (left, top), (right, bottom) = points_xy.min(axis=0), points_xy.max(axis=0)
    return np.array([[left, top], [left, bottom], [right, bottom], [right, top]])


def _flow_corners() -> Array:
    left, top, right, bottom = _FLOW_PART
    return np.array([[left, top], [left, bottom], [right, bottom], [right, top]])


def _overlap(a: Array, b: Array) -> float:
    """Intersection over union of two boxes."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    areas = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]))
    return shared / max(areas - shared, 1e-9)

"""Stages of a swap: faces -> crops -> inversion -> mixing -> compositing (composer level).

Every stage is an object with its state in the open; what passes between them is a
:class:`vidswap.works.Work`. What is in front of a face is asked in :mod:`vidswap.witnesses`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from vidswap import warp
from vidswap.compositing import (
    ColorMatcher,
    ColorState,
    FrownState,
    LidState,
    TeethState,
    above_beard,
    composite,
    deepen_eyes,
    dim_lips,
    face_mask,
    knit_brows,
    lend_inner_mouth,
    lend_lids,
    lend_sheen,
    light_teeth,
    match_detail,
    snap_outline,
    tint_lips,
)
from vidswap.compositing.arrays import resize_map, widest
from vidswap.config import CompositeConfig, RunConfig
from vidswap.faces import FaceFinder, align_quad, largest_face
from vidswap.geometry import quad_box, quad_size_px
from vidswap.identities import SourceIdentity, aligned_crop, to_tensor, visible_face
from vidswap.inversion import WarmState
from vidswap.likeness import Likeness, Reference, Sought
from vidswap.marks import labelled
from vidswap.records import Face, Frame, Swap
from vidswap.session import Session
from vidswap.streaming import FixedLag, Window
from vidswap.video import read_region, read_rgb8, write_region
from vidswap.witnesses import (
    CROP_SIZE,
    SEEN_SIZE,
    Occlusion,
    draw_mask,
    seen_maps,
    visible_mask,
    with_occluders,
)
from vidswap.works import SMALL_SIZE, FaceWork, Work, of_shot

_DETECT_SIDE = 1280
_BOX_MARGIN = 4
_FEATURES_SIZE = 96
_BESIDE_FEATURES = 4
"""Pixels of that around brows, eyes and lips where skin is no plain skin: lids turned milky."""


class Selection:
    """Which faces get which source.

    :param wanted: ``largest``, ``all``, or track numbers; ``N=source`` pairs are resolved by the caller
        into ``per_track``.
    :param reference: only the person of this picture is swapped, whatever ``wanted`` says.
    """

    def __init__(
        self,
        wanted: str,
        source: SourceIdentity | None,
        per_track: Mapping[int, SourceIdentity] | None = None,
        *,
        reference: Reference | None = None,
    ) -> None:
        self.wanted = wanted if reference is None else "reference"
        self.source = source
        self.per_track = dict(per_track or {})
        self.reference = reference
        self._likeness = None if reference is None else Likeness(reference.embedding)
        self._chosen: int | None = None

    @property
    def any_source(self) -> SourceIdentity | None:
        """One of the sources; None when there is none."""
        return self.source or next(iter(self.per_track.values()), None)

    @property
    def numbers(self) -> list[int]:
        """People that are chosen by their numbers."""
        named = [] if self.wanted in ("all", "largest", "reference") else map(int, self.wanted.split(","))
        return sorted({*named, *self.per_track})

    @property
    def unsure(self) -> frozenset[int]:
        """Tracks whose embedding is wanted more often than now and then."""
        return frozenset() if self._likeness is None else self._likeness.unsure

    @property
    def sought(self) -> Sought | None:
        """How the search for the reference's person goes; None without one."""
        return None if self._likeness is None else self._likeness.sought

    def heard(self, sought: Sought | None) -> None:
        """What an earlier run saw in frames that are not looked at again."""
        if self._likeness is not None and sought is not None:
            self._likeness.heard(sought)

    def fresh(self) -> Selection:
        """The same choice with no memory: for another clip, or a frame on its own."""
        return Selection(self.wanted, self.source, self.per_track, reference=self.reference)

    def state(self) -> dict[str, Any]:
        """What is remembered from frame to frame, for :mod:`vidswap.snapshots`."""
        likeness = None if self._likeness is None else self._likeness.state()
        return {"chosen": self._chosen, "likeness": likeness}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""
        self._chosen = state["chosen"]
        if self._likeness is not None:
            self._likeness.restore(state["likeness"])

    def __call__(self, faces: Sequence[Face]) -> list[tuple[Face, SourceIdentity]]:
        """The faces of a frame to be swapped, with their sources."""
        if self._likeness is not None:
            face = self._likeness(faces)
            return [] if face is None or self.source is None else [(face, self.source)]
        if self.per_track:
            return [(f, self.per_track[f.track_id]) for f in faces if f.track_id in self.per_track]
        if self.source is None or not faces:
            return []
        if self.wanted == "all":
            return [(face, self.source) for face in faces]
        if self.wanted == "largest":
            largest = largest_face(faces, self._chosen)
            self._chosen = largest.track_id
            return [(largest, self.source)]
        numbers = self.numbers
        return [(face, self.source) for face in faces if face.track_id in numbers]


def detection_picture(frame: Frame) -> tuple[np.ndarray, float]:
    """A frame for the detector, uint8 RGB, and its size over that of the frame as displayed.

    Rounding makes the two axes differ by less than a pixel; crop and paste share the quad, so their
    mean serves.
    """
    rgb, (scale_x, scale_y) = read_rgb8(frame, max_side=_DETECT_SIDE)
    return rgb, 0.5 * (scale_x + scale_y)


@dataclass
class FindFaces:
    """Stage: detection, tracking, selection, alignment."""

    session: Session
    finder: FaceFinder
    selection: Selection

    def __call__(self, frame: Frame) -> Work:
        rgb, scale = detection_picture(frame)
        faces = self.finder.find(
            rgb, frame.pts_seconds, scale=scale, embed=self.embed, eager=self.selection.unsure
        )
        works = [FaceWork(face, align_quad(face), source) for face, source in self.selection(faces)]
        return Work(frame, self.finder.state.cuts, tuple(works), self.selection.sought)

    @torch.no_grad()
    def embed(self, face: Face, rgb: np.ndarray) -> np.ndarray:
        """Identity embedding of a face in pixels of ``rgb``, by which tracks are joined again."""
        image, _ = warp.crop(rgb, align_quad(face), 256, extend=False, mode="bilinear")
        tensor = to_tensor(image, self.session.device)
        return self.session.identity.embed_aligned(tensor)[0].cpu().numpy()


class FixedLagStage:
    """Processor: gives each work with its neighbours of the same shot, up to ``lag`` on either side, to
    ``smooth(work, [(offset, neighbour), ...])``."""

    def __init__(
        self, lag: int, smooth: Callable[[Work, Sequence[tuple[int, Work]]], Work]
    ) -> None:
        self.smooth = smooth
        self._windows: FixedLag[Work] = FixedLag(lag, key=lambda work: work.shot)

    def remember(self, before: Iterable[Work]) -> None:
        """Works before the first one, of a run that is gone on with; only their faces are looked at."""
        self._windows.remember(before)

    def process(self, item: Work) -> Iterable[Work]:
        return map(self._smoothed, self._windows.process(item))

    def flush(self) -> Iterable[Work]:
        return map(self._smoothed, self._windows.flush())

    def _smoothed(self, window: Window[Work]) -> Work:
        return self.smooth(window.item, list(zip(window.offsets, window.items, strict=True)))


def line_weights(offsets: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Weights that give the value at offset 0 of the line fitted with ``shares``, ``[n]``, sum 1.

    A plain weighted mean would lag where the window is one-sided (at a cut, at the ends of a track)
    and the face moves.
    """
    shares = shares / shares.sum()
    mean = (shares * offsets).sum()
    spread = (shares * (offsets - mean) ** 2).sum()
    if spread < 1e-12:
        return shares
    return shares * (1 - mean * (offsets - mean) / spread)


def smooth_quads(sigma: float) -> Callable[[Work, Sequence[tuple[int, Work]]], Work]:
    """Gaussian smoothing of the quads of each track (sub-pixel jitter of landmarks would swim)."""

    def smooth(here: Work, near: Sequence[tuple[int, Work]]) -> Work:
        made = []
        for face in here.faces:
            mates = _mates(face, near)
            offsets = np.array([offset for offset, _ in mates], np.float64)
            shares = line_weights(offsets, np.exp(-0.5 * (offsets / sigma) ** 2))
            quads = np.stack([mate.quad for _, mate in mates])
            made.append(replace(face, quad=(shares[:, None, None] * quads).sum(0)))
        return here.with_faces(made)

    return smooth


def smooth_latents(sigma: float) -> Callable[[Work, Sequence[tuple[int, Work]]], Work]:
    """Smoothing of the pivots of each track that steps back where the face moves fast.

    A neighbour counts less the further its code lies from this one's, measured against how far
    near neighbours lie (the lower quartile over the window): an expression that comes quickly is not lagged.
    """

    def smooth(here: Work, near: Sequence[tuple[int, Work]]) -> Work:
        made = []
        for face in here.faces:
            mates = [(offset, mate) for offset, mate in _mates(face, near) if mate.pivot is not None]
            if face.pivot is None or len(mates) < 2:
                made.append(face)
                continue
            codes = np.stack([mate.pivot.latent for _, mate in mates])
            away = np.sqrt(np.square(codes - face.pivot.latent).mean((1, 2)))
            usual = max(float(np.quantile(away[away > 0], 0.25)) if (away > 0).any() else 0.0, 1e-6)
            time = np.array([offset for offset, _ in mates], np.float64)
            shares = np.exp(-0.5 * (time / sigma) ** 2) * np.exp(-0.5 * (away / (2.0 * usual)) ** 2)
            latent = (shares[:, None, None] * codes).sum(0) / shares.sum()
            made.append(replace(face, pivot=replace(face.pivot, latent=latent.astype(np.float32))))
        return here.with_faces(made)

    return smooth


def _mates(face: FaceWork, near: Sequence[tuple[int, Work]]) -> list[tuple[int, FaceWork]]:
    """The same track in the neighbouring works, without a gap to this one."""
    found = {}
    for offset, work in near:
        for other in work.faces:
            if other.face.track_id == face.face.track_id:
                found[offset] = other
    kept = [(0, face)]
    for direction in (-1, 1):
        offset = direction
        while offset in found:
            kept.append((offset, found[offset]))
            offset += direction
    return sorted(kept, key=lambda pair: pair[0])


@dataclass(frozen=True)
class CropFaces:
    """Stage: cut the faces out of the frame, and draw the masks of what is swapped."""

    options: CompositeConfig

    def __call__(self, work: Work) -> Work:
        made = []
        frame = work.frame
        scale = frame.display_scale_xy
        for face in work.faces:
            box = quad_box(
                face.quad / scale, frame.upright_size_wh, margin=_BOX_MARGIN + 8, multiple=2
            )
            if box is None or face.face.mesh_xyz is None:
                continue
            crop = aligned_crop(
                read_region(frame, box), face.face, face.quad,
                size=CROP_SIZE, origin_xy=(box[0], box[1]), scale_xy=scale,
            )  # fmt: skip
            solid = draw_mask(crop, self.options)
            small = resize_map(crop.image, SMALL_SIZE)
            visible = visible_face(crop, SEEN_SIZE)
            made.append(replace(face, crop=crop, small=small, solid=solid, visible=visible))
        return work.with_faces(made)


@dataclass
class InvertFaces:
    """Stage: the pivot of each face, warm-started along its track."""

    session: Session
    states: dict[int, tuple[int, WarmState]] = field(default_factory=dict)
    """Shot and state a track."""

    def __call__(self, work: Work) -> Work:
        made = []
        device = self.session.device
        for face in work.faces:
            image = to_tensor(face.crop.image, device)
            if face.occluded is None:
                face = with_occluders(face, self.session)
            pivot, state = self.session.inverter.step(
                image, of_shot(self.states, face.face.track_id, work.shot), **seen_maps(face, device)
            )
            self.states[face.face.track_id] = (work.shot, state)
            made.append(replace(face, pivot=pivot))
        return work.with_faces(made)


@dataclass
class PasteFaces:
    """Stage: mask, colour, detail, and back into the frame's own samples."""

    config: RunConfig
    colors: dict[int, tuple[int, ColorState | None]] = field(default_factory=dict)
    occluders: dict[int, Occlusion] = field(default_factory=dict)
    lids: dict[int, tuple[int, LidState]] = field(default_factory=dict)
    depths: dict[int, tuple[int, np.ndarray]] = field(default_factory=dict)
    teeth: dict[int, tuple[int, TeethState | None]] = field(default_factory=dict)
    lips: dict[int, tuple[int, np.ndarray]] = field(default_factory=dict)
    frowns: dict[int, tuple[int, FrownState]] = field(default_factory=dict)
    """Shot, and what is remembered of eyes, teeth, lips and brows, a track."""

    def __call__(self, work: Work) -> tuple[Frame, int]:
        """The finished frame and how many faces were swapped in it."""
        frame = work.frame
        for face in work.faces:
            frame = self._paste(frame, self.finish(face, work))
        return labelled(frame, self.config.mark), len(work.faces)

    def finish(self, face: FaceWork, work: Work, *, whole: bool = False) -> Swap:
        """The face with its final mask, colours and grain, ready for the paste.

        :param whole: bring all of the picture to the target's colours, not only what is pasted.
        """
        options, smooth = self.config.composite, self.config.smooth
        crop, swap = face.crop, face.swap
        mask = visible_mask(face, self.config, work.shot, self.occluders)
        matcher = ColorMatcher(options.color, smooth.color, contrast=options.contrast)
        # Colour is measured where both pictures show skin; a beard is pasted over as well.
        pasted, skin = mask, mask
        if face.beyond is not None:
            pasted = np.maximum(mask, resize_map(face.beyond, mask.shape[0]))
            skin = above_beard(mask, crop.mesh)
        if options.regions == "face":  # the outline of lips or a nose is not that of the head
            pasted = snap_outline(pasted, crop.image, share=options.outline, occluded=face.occluded)
        features = _features(face)
        image, state = matcher(
            swap.image, crop.image, skin, of_shot(self.colors, face.face.track_id, work.shot),
            features=features, shown=None if whole else pasted,
        )  # fmt: skip
        self.colors[face.face.track_id] = (work.shot, state)
        bare = resize_map(skin, _FEATURES_SIZE)
        if options.sheen > 0:
            far = 1 - widest(features, _BESIDE_FEATURES)
            image = lend_sheen(image, crop.image, bare * far, share=options.sheen)
        filmed = _as_filmed(face, work.frame)
        if options.sharpness:
            image = match_detail(
                image, filmed, mask,
                footage_scale=quad_size_px(face.quad) / image.shape[0], seed=int(work.frame.pts) & 0x7FFFFFFF,
                texture=options.texture * bare * (1 - features) if options.texture > 0 else None,
            )  # fmt: skip
        image = self._with_brows(image, face, work.shot)
        # Last: they have the footage's light, sharpness and grain already.
        image = self._with_lips(image, face, work.shot)
        image = self._with_teeth(image, face, work.shot)
        image = lend_inner_mouth(
            image, face.drawn_mesh, filmed, crop.mesh, share=options.inner_mouth, occluded=face.occluded
        )
        image = self._with_eyes(image, face, filmed, work.shot)
        return replace(swap, image=image, mask=pasted)

    def _with_brows(self, image: np.ndarray, face: FaceWork, shot: int) -> np.ndarray:
        """The new face with brows that frown as the target's."""
        track = face.face.track_id
        image, now = knit_brows(
            image, face.drawn_mesh, face.crop.image, face.crop.mesh, of_shot(self.frowns, track, shot),
            share=self.config.composite.frown, occluded=face.occluded,
        )  # fmt: skip
        if now is not None:
            self.frowns[track] = shot, now
        return image

    def _with_lips(self, image: np.ndarray, face: FaceWork, shot: int) -> np.ndarray:
        """The new face with lips of the target's colour, and no brighter than its skin."""
        options, track = self.config.composite, face.face.track_id
        seen = face.drawn_mesh, face.crop.image, face.crop.mesh
        image, tint = tint_lips(
            image, *seen, of_shot(self.lips, track, shot), share=options.lip_color, occluded=face.occluded
        )
        if tint is not None:
            self.lips[track] = shot, tint
        return dim_lips(image, *seen, share=options.lips, occluded=face.occluded)

    def _with_teeth(self, image: np.ndarray, face: FaceWork, shot: int) -> np.ndarray:
        """The new face with teeth as bright as the target's."""
        share, track = self.config.composite.teeth, face.face.track_id
        if share <= 0 or face.drawn_mesh is None:
            return image
        image, now = light_teeth(
            image, face.drawn_mesh, face.crop.image, face.crop.mesh,
            of_shot(self.teeth, track, shot), share=share, occluded=face.occluded,
        )  # fmt: skip
        self.teeth[track] = shot, now
        return image

    def _with_eyes(self, image: np.ndarray, face: FaceWork, filmed: np.ndarray, shot: int) -> np.ndarray:
        """The new face with eyes as dark as the target's, and its own lids where they are closed."""
        options, track = self.config.composite, face.face.track_id
        if options.eye_depth <= 0 and options.closed_eyes <= 0:
            return image
        lids = of_shot(self.lids, track, shot)
        seen = face.drawn_mesh, filmed, face.crop.mesh, lids
        image, depth = deepen_eyes(
            image, *seen, of_shot(self.depths, track, shot),
            share=options.eye_depth, occluded=face.occluded,
        )  # fmt: skip
        if depth is not None:
            self.depths[track] = shot, depth
        image, now = lend_lids(image, *seen, share=options.closed_eyes, occluded=face.occluded)
        self.lids[track] = shot, now
        return image

    def _paste(self, frame: Frame, swap: Swap) -> Frame:
        stored = replace(swap, quad_xy=swap.quad_xy / frame.display_scale_xy)
        box = quad_box(stored.quad_xy, frame.upright_size_wh, margin=_BOX_MARGIN, multiple=2)
        if box is None:
            return frame
        blend = self.config.composite.blend
        around = None if blend == "alpha" else read_region(frame, box)
        rgb, alpha = composite(around, box, stored, blend=blend)
        return write_region(frame, box, rgb, alpha)


def _as_filmed(face: FaceWork, frame: Frame) -> np.ndarray:
    """The target's crop with all the detail that the frame has of it: near faces have more than the crop that
    the stages share, and would be softened down to that, or get blurred lids."""
    side = min(round(quad_size_px(face.quad)), face.swap.image.shape[0])
    if side <= CROP_SIZE:
        return face.crop.image
    quad = face.quad / frame.display_scale_xy
    box = quad_box(quad, frame.upright_size_wh, margin=_BOX_MARGIN + 8, multiple=2)
    if box is None:
        return face.crop.image
    image, _ = warp.crop(read_region(frame, box), quad, side, origin_xy=(box[0], box[1]))
    return image


def _features(face: FaceWork) -> np.ndarray:
    """Brows, eyes and lips of the target's face and of the new one, ``[96, 96]`` in [0, 1]."""
    meshes = [mesh for mesh in (face.crop.mesh, face.drawn_mesh) if mesh is not None]
    masks = [face_mask(mesh, _FEATURES_SIZE, regions="brows,eyes,mouth", feather=8.0) for mesh in meshes]
    return np.maximum.reduce(masks)

"""What is in front of a face: the witnesses of it, and the mask that it leaves (composer level).

Two are asked: the occlusion network, which looks at the crop, and the target as its pivot draws it, which
cannot explain a hand. Neither knows of the source, so both are kept with a clip's pivots, in 8 bits a sample.
They come in that precision from the start, so that a run that makes them and one that finds them give the
same frames.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from vidswap.compositing import (
    HeldOcclusion,
    combine,
    doubt,
    face_mask,
    hold_occlusion,
    own_fringe,
    residual_occlusion,
    steady_occlusion,
    without_islands,
)
from vidswap.compositing.arrays import smoothstep
from vidswap.config import CompositeConfig, RunConfig
from vidswap.glasses import clear_lenses, in_one_piece, places_of_bridge, see_glasses
from vidswap.identities import to_image, to_tensor
from vidswap.inversion import Maps
from vidswap.records import AlignedCrop
from vidswap.session import Session
from vidswap.works import FaceWork, Work, of_shot

CROP_SIZE = 512
SEEN_SIZE = 128
"""Side of the maps of what is seen of a face."""
_SPECK = 0.002
"""Share of the face below which what covers it is not worth a second look."""
_PARTS, _PARTS_GROWN = 4.0, 24.0
"""How much more the pixels of mouth and eyes count in an inversion, and how far around them, in pixels of a
1024 crop: lips that part and lids that close are few pixels of a face, but they are what it says."""
_WORN_RATE = 0.1
"""Share a frame by which it is learnt whether somebody wears glasses."""
_GUESS = 0.25
"""Probability up to which a pixel is still the face, and as far from 1 from which it is not."""

Occlusion = tuple[int, np.ndarray, np.ndarray]
"""What is remembered of a track's occluders: its shot, their map, the picture that it belongs to."""


def in_bytes(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as uint8."""
    return (values * 255 + 0.5).astype(np.uint8)


def from_bytes(kept: np.ndarray) -> np.ndarray:
    """The float32 values of :func:`in_bytes`, rounded as they were."""
    return kept.astype(np.float32) / np.float32(255)


def rounded(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as they come back once they were kept."""
    return from_bytes(in_bytes(values))


def with_occluders(face: FaceWork, session: Session) -> FaceWork:
    """The face with what the networks see in front of it; they need its crop alone."""
    return _with_maps(face, *_in_front(face, session))


def _in_front(face: FaceWork, session: Session) -> tuple[np.ndarray | None, np.ndarray | None]:
    """What the occlusion network sees in front of a face, and the frames of glasses, ``[192, 192]``."""
    frames = see_glasses(face.crop, session)
    return see_things(face, session), None if frames is None else rounded(frames)


def _with_maps(face: FaceWork, things: np.ndarray | None, frames: np.ndarray | None) -> FaceWork:
    """A face with these in front of it."""
    return replace(face, occluded=_joined(things, frames), glasses=frames)


def _joined(seen: np.ndarray | None, frames: np.ndarray | None) -> np.ndarray | None:
    return seen if seen is None or frames is None else np.maximum(seen, frames)


@torch.no_grad()
def see_things(face: FaceWork, session: Session) -> np.ndarray | None:
    """Map ``[192, 192]`` of what the occlusion network sees in front of the face; None without it."""
    if session.occlusion_net is None:
        return None
    seen = session.occlusion_net.occluded(to_tensor(face.small, session.device))
    # A guess must not leave a ghost of the old face in the new one, nor a veil over a hand.
    sure = smoothstep((seen[0, 0].cpu().numpy() - _GUESS) / (1 - 2 * _GUESS))
    return rounded(without_islands(sure, face.visible))


@torch.no_grad()
def redraw_target(face: FaceWork, session: Session) -> np.ndarray:
    """The target ``[s, s, 3]`` as its pivot gives it, small."""
    code = torch.from_numpy(face.pivot.latent)[None].to(session.device)
    drawn = session.generator.synthesize(code, size=session.config.inversion.fast_size)
    return rounded(to_image(drawn))


def asks_redrawn(face: FaceWork, session: Session) -> bool:
    """Whether the target redrawn is asked: the settings ask it, or the network sees something that it may
    explain."""
    options = session.config.composite
    if not options.occlusion:
        return False
    if options.occlusion_by == "network" and session.occlusion_net is not None:
        return face.occluded is not None and _covers(face.occluded, face)
    return True


def _covers(occluded: np.ndarray, face: FaceWork) -> bool:
    """Whether anything to speak of is in front of the face."""
    size = occluded.shape[0]
    mask = torch.from_numpy(face.solid)[None, None]
    inside = torch.nn.functional.interpolate(mask, (size, size), mode="area")[0, 0].numpy()
    return float((occluded * inside).sum()) > _SPECK * max(float(inside.sum()), 1.0)


def visible_mask(
    face: FaceWork, config: RunConfig, shot: int, memory: dict[int, Occlusion]
) -> np.ndarray:
    """The mask of a face, less what is in front of it: what the network sees there, and what the inversion
    does not explain.

    :param memory: occluders by track, read and brought up to date.
    """
    options = config.composite
    if not options.occlusion or (face.inversion is None and face.occluded is None):
        return face.solid
    residual, seen = None, face.occluded
    if face.inversion is not None and (seen is None or options.occlusion_by != "network"):
        residual = residual_occlusion(
            face.crop.image, face.inversion, face.solid, mesh_xyz=face.crop.mesh_xyz
        )
    occlusion = combine(residual, seen)
    before = memory.get(face.face.track_id)
    if occlusion is None:
        return face.solid
    occlusion, small = steady_occlusion(
        occlusion, face.small, before[1:] if before and before[0] == shot else None,
        frames=config.smooth.occlusion,
    )  # fmt: skip
    memory[face.face.track_id] = shot, occlusion, small
    if not occlusion.any():
        return face.solid
    return np.minimum(face.solid, draw_mask(face.crop, options, occlusion))


def draw_mask(
    crop: AlignedCrop, options: CompositeConfig, occlusion: np.ndarray | None = None
) -> np.ndarray:
    """Mask ``[512, 512]`` of the regions that the settings name."""
    return face_mask(
        crop.mesh,
        CROP_SIZE,
        regions=options.regions,
        erode=options.erode,
        feather=options.feather,
        inside=crop.inside,
        occlusion=occlusion,
    )


def uncovered(face: FaceWork, device: torch.device) -> torch.Tensor:
    """Where the face itself is seen, ``[1, 1, 128, 128]``."""
    visible, covers = torch.from_numpy(face.visible)[None, None].to(device), _covered(face, device)
    return visible if covers is None else visible * (1 - covers)


def seen_maps(face: FaceWork, device: torch.device) -> Maps:
    """What an inversion is told of a face, as arguments of :meth:`vidswap.inversion.Inverter.step`, maps
    ``[1, 1, 128, 128]``: a hand must not be explained by the pivot."""
    counts = face.visible
    if face.crop.mesh_xyz is not None:
        parts = face_mask(
            face.crop.mesh_xyz, counts.shape[0], regions="eyes,mouth",
            erode=-_PARTS_GROWN, feather=_PARTS_GROWN,
        )  # fmt: skip
        counts = counts * (1 + _PARTS * parts)
    return {"face": torch.from_numpy(counts)[None, None].to(device), "covered": _covered(face, device)}


def _covered(face: FaceWork, device: torch.device) -> torch.Tensor | None:
    """What is in front of the face in the size that inversions look at, ``[1, 1, 128, 128]``."""
    if face.occluded is None:
        return None
    covers = torch.from_numpy(face.occluded)[None, None].to(device)
    return torch.nn.functional.interpolate(covers, (SEEN_SIZE, SEEN_SIZE), mode="area")


@dataclass
class WatchOccluders:
    """Stage: what the network sees in front of the faces, held on to along their tracks. Before the
    inversion, which must not look at it."""

    session: Session
    held: dict[int, tuple[int, HeldOcclusion]] = field(default_factory=dict)
    """Shot, and what is remembered, a track."""
    worn: dict[int, tuple[int, float]] = field(default_factory=dict)
    """Shot, and how surely glasses are worn, 0 to 1, a track."""

    def __call__(self, work: Work) -> Work:
        return work.with_faces(self._watched(face, work.shot) for face in work.faces)

    def _watched(self, face: FaceWork, shot: int) -> FaceWork:
        things, frames = _in_front(face, self.session)
        if self.session.config.smooth.occlusion <= 0:
            return _with_maps(face, things, frames)
        track = face.face.track_id
        wears = self._wears(track, frames is not None, shot)
        face = _with_maps(face, things, frames if wears else None)
        if face.occluded is None:
            return face
        before = of_shot(self.held, track, shot)
        held, now = hold_occlusion(face.occluded, face.small, face.visible, before)
        self.held[track] = shot, now
        frames = self._held_frames(face, held) if wears and face.glasses is None else face.glasses
        # What is left of a background that touched the cheek is one. Pieces of a rim are not.
        seen = rounded(without_islands(held, face.visible))
        return _with_maps(face, seen, frames)

    def _wears(self, track: int, sees: bool, shot: int) -> bool:
        """Whether somebody wears glasses. Of a bare face a finger across the nose looks like the bridge of
        some, and the brow like their rim, for a few frames.

        :param sees: whether the network sees some in this frame.
        """
        now = float(sees)
        before = of_shot(self.worn, track, shot)
        worn = now if before is None else before + _WORN_RATE * (now - before)
        self.worn[track] = shot, worn
        return worn >= 0.5

    def _held_frames(self, face: FaceWork, held: np.ndarray) -> np.ndarray | None:
        """What is held of a wearer's frames where the network sees none."""
        across = places_of_bridge(face.crop.mesh, len(held))
        kept = clear_lenses(in_one_piece(held, across), face.crop.mesh)
        return rounded(kept) if kept.any() else None


@dataclass
class SeeOccluders:
    """Stage: what the masks ask about occluders. Before the pivots are steadied over time, so that what it
    makes belongs to the frame alone; and one of its own, since it need not wait for the new face."""

    session: Session
    believed: dict[int, tuple[int, np.ndarray]] = field(default_factory=dict)
    """Shot, and which patches were believed to be in front of the face, a track."""

    def __call__(self, work: Work) -> Work:
        return self.doubted(self.witnessed(work))

    def witnessed(self, work: Work) -> Work:
        """The faces with what each witness says for itself; what is there already is not made again."""
        return work.with_faces(self._witnessed(face) for face in work.faces)

    def doubted(self, work: Work) -> Work:
        """The faces with what the witnesses say together, which the masks of this run decide too."""
        return work.with_faces(self._doubted(face, work.shot) for face in work.faces)

    def _witnessed(self, face: FaceWork) -> FaceWork:
        if face.occluded is None:
            face = with_occluders(face, self.session)
        if face.inversion is None and asks_redrawn(face, self.session):
            face = replace(face, inversion=redraw_target(face, self.session))
        return face

    def _doubted(self, face: FaceWork, shot: int) -> FaceWork:
        shot_before, before = self.believed.pop(face.face.track_id, (shot, None))
        if face.inversion is None:
            return face
        if not asks_redrawn(face, self.session):  # kept by a run with another mask
            return replace(face, inversion=None)
        if face.occluded is None:
            return face
        # Here, not where the mask is cut: the new face's place and the target's beard go by this map too.
        steadies = shot_before == shot and self.session.config.smooth.occlusion > 0
        occluded, believed = doubt(
            face.occluded, face.crop.image, face.inversion, face.solid, before if steadies else None
        )
        self.believed[face.face.track_id] = shot, believed
        # The generator draws fringes and glasses as well: that it explains them is no reason to drop them.
        fringe = own_fringe(face.occluded, face.crop.image, face.solid, face.crop.mesh)
        return replace(face, occluded=_joined(np.maximum(occluded, fringe), face.glasses))

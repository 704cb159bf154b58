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
from vidswap.compositing.arrays import grown, resize_map, smoothstep
from vidswap.config import CompositeConfig, RunConfig
from vidswap.identities import to_image, to_tensor
from vidswap.inversion import Maps
from vidswap.landmarks import EYE_CORNERS
from vidswap.models.occlusion_net import GLASSES_SIZE, INPUT_SIZE
from vidswap.records import AlignedCrop
from vidswap.session import Session
from vidswap.works import FaceWork, Work

CROP_SIZE = 512
SEEN_SIZE = 128
"""Side of the maps of what is seen of a face."""
_SPECK = 0.002
"""Share of the face below which what covers it is not worth a second look."""
_PARTS, _PARTS_GROWN = 4.0, 24.0
"""How much more the pixels of mouth and eyes count in an inversion, and how far around them, in pixels of a
1024 crop: lips that part and lids that close are few pixels of a face, but they are what it says."""
_NO_FRAME, _FRAME = 0.35, 0.75
"""Probability up to which a pixel is no frame of glasses, and from which it is."""
_FIRMER = 1.6
_NO_BRIDGE, _BRIDGE = 0.3, 0.7
"""How much of a bridge over the nose there is at most without glasses, and at least with them. 48 frames of
three clips and six photos without had up to 0.02; of 68 generated wearers 65 had 0.72 or more."""
_WORN_RATE = 0.1
"""Share a frame by which it is learnt whether somebody wears glasses."""
_EYE_WIDE, _EYE_TALL = 0.75, 0.42
"""Half of what an eye takes up behind a lens, in widths of the eye."""
_NO_LENS, _DARK_LENS = 0.45, 0.7
"""Share of an eye that is covered at most by what is no lens, and at least by a dark one."""
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


def with_occluders(face: FaceWork, session: Session) -> FaceWork:
    """The face with what the networks see in front of it; they need its crop alone."""
    frames = see_glasses(face, session)
    return replace(face, occluded=_joined(see_things(face, session), frames), glasses=frames)


@torch.no_grad()
def see_glasses(face: FaceWork, session: Session) -> np.ndarray | None:
    """Map ``[192, 192]`` of the frames of glasses, and of dark lenses; None where none are worn.

    They stay the target's own. They belong to no identity: drawn anew they came out in pieces.
    """
    if session.glasses_net is None:
        return None
    picture = to_tensor(resize_map(face.crop.image, GLASSES_SIZE), session.device)
    frames = session.glasses_net.occluded(picture, GLASSES_SIZE)[0, 0].cpu().numpy()
    # Thin rims are paler in a smaller map.
    frames = resize_map(smoothstep((frames - _NO_FRAME) / (_FRAME - _NO_FRAME)), INPUT_SIZE)
    frames = np.minimum(_FIRMER * frames, 1)
    across = places_of_bridge(face.crop.mesh, INPUT_SIZE)
    bridge = float(frames[across].max(1).mean())
    worn = float(smoothstep(np.float32((bridge - _NO_BRIDGE) / (_BRIDGE - _NO_BRIDGE))))
    if worn == 0:
        return None
    frames = _clear_lenses(in_one_piece(frames, across), face.crop.mesh)
    return from_bytes(in_bytes(worn * frames))


def _clear_lenses(frames: np.ndarray, mesh_xyz: np.ndarray) -> np.ndarray:
    """Frames ``[n, n]`` without lids and lashes behind a clear lens, which look like pieces of a dark one.
    A dark lens covers the whole eye."""
    out, place = frames.copy(), (np.arange(len(frames), dtype=np.float32) + 0.5) / len(frames)
    for start, end in mesh_xyz[np.array(EYE_CORNERS), :2]:
        across = end - start
        away = np.stack(np.meshgrid(place, place), -1) - (start + end) / 2
        square = float(across @ across)
        u, v = away @ across / square, away @ np.array([-across[1], across[0]]) / square
        eye = smoothstep((1 - np.hypot(u / _EYE_WIDE, v / _EYE_TALL)) / 0.3)
        share = float((frames * eye).sum()) / max(float(eye.sum()), 1e-6)
        dark = float(smoothstep(np.float32((share - _NO_LENS) / (_DARK_LENS - _NO_LENS))))
        out *= 1 - eye * (1 - dark)
    return out


def in_one_piece(values: np.ndarray, seeds: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """What of a map ``[n, n]`` hangs together with its places ``(rows, columns)``.

    Frames hang together with their bridge. Brows, lashes and strands of hair do not.
    """
    # At half of the size, where neighbours are joined: a gap of a pixel parts nothing.
    coarse = torch.nn.functional.max_pool2d(torch.from_numpy(values)[None, None], 2)[0, 0].numpy()
    start = np.zeros_like(coarse)
    rows, columns = (axis // 2 for axis in seeds)
    start[rows, columns] = coarse[rows, columns]
    reached = grown(start, coarse, len(coarse))
    return np.minimum(values, np.kron(reached, np.ones((2, 2), np.float32)))


def places_of_bridge(mesh_xyz: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns, in a map of this size, where the bridge of glasses may cross the nose.

    ``[9, 34]`` each, a line downwards a row. All glasses have one. Dark lids, which look like dark lenses, do
    not.

    :param mesh_xyz: ``[468, 3]`` in the crop, in [0, 1].
    """
    left, right = (mesh_xyz[inner, :2] for inner in (EYE_CORNERS[0][1], EYE_CORNERS[1][0]))
    across = right - left
    down = np.array([-across[1], across[0]])
    # Between the eyes, as far up and down as a bridge may sit.
    along, levels = np.linspace(0.25, 0.75, 9), np.linspace(-0.6, 0.5, 34)
    at = left + along[:, None, None] * across + levels[None, :, None] * down
    x, y = np.clip((at * size).astype(int), 0, size - 1).transpose(2, 0, 1)
    return y, x


def _joined(seen: np.ndarray | None, frames: np.ndarray | None) -> np.ndarray | None:
    return seen if seen is None or frames is None else np.maximum(seen, frames)


@torch.no_grad()
def see_things(face: FaceWork, session: Session) -> np.ndarray | None:
    """What the occlusion network sees."""
    if session.occlusion_net is None:
        return None
    seen = session.occlusion_net.occluded(to_tensor(face.small, session.device))
    # A guess must not leave a ghost of the old face in the new one, nor a veil over a hand.
    sure = smoothstep((seen[0, 0].cpu().numpy() - _GUESS) / (1 - 2 * _GUESS))
    return from_bytes(in_bytes(without_islands(sure, face.visible)))


@torch.no_grad()
def redraw_target(face: FaceWork, session: Session) -> np.ndarray:
    """The target ``[s, s, 3]`` as its pivot gives it, small."""
    code = torch.from_numpy(face.pivot.latent)[None].to(session.device)
    drawn = session.generator.synthesize(code, size=session.config.inversion.fast_size)
    return from_bytes(in_bytes(to_image(drawn)))


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


def uncovered(face: FaceWork, occluded: np.ndarray | None, device: torch.device) -> torch.Tensor:
    """Where the face itself is seen, ``[1, 1, 128, 128]``."""
    visible, covers = torch.from_numpy(face.visible)[None, None].to(device), _covered(occluded, device)
    return visible if covers is None else visible * (1 - covers)


def seen_maps(face: FaceWork, occluded: np.ndarray | None, device: torch.device) -> Maps:
    """What an inversion is told of a face, as arguments of :meth:`vidswap.inversion.Inverter.step`, maps
    ``[1, 1, 128, 128]``: a hand must not be explained by the pivot."""
    counts = face.visible
    if face.crop.mesh_xyz is not None:
        parts = face_mask(
            face.crop.mesh_xyz, counts.shape[0], regions="eyes,mouth",
            erode=-_PARTS_GROWN, feather=_PARTS_GROWN,
        )  # fmt: skip
        counts = counts * (1 + _PARTS * parts)
    return {"face": torch.from_numpy(counts)[None, None].to(device), "covered": _covered(occluded, device)}


def _covered(occluded: np.ndarray | None, device: torch.device) -> torch.Tensor | None:
    """A map of occluders in the size that inversions look at, ``[1, 1, 128, 128]``."""
    if occluded is None:
        return None
    covers = torch.from_numpy(occluded)[None, None].to(device)
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
        face = with_occluders(face, self.session)
        if face.occluded is None or self.session.config.smooth.occlusion <= 0:
            return face
        track = face.face.track_id
        before_shot, before = self.held.get(track, (shot, None))
        held, now = hold_occlusion(
            face.occluded, face.small, face.visible, before if before_shot == shot else None
        )
        self.held[track] = shot, now
        frames = self._frames(face, held, shot)
        # What is left of a background that touched the cheek is one. Pieces of a rim are not.
        seen = from_bytes(in_bytes(without_islands(held, face.visible)))
        return replace(face, occluded=_joined(seen, frames), glasses=frames)

    def _frames(self, face: FaceWork, held: np.ndarray, shot: int) -> np.ndarray | None:
        """The frames of glasses; of a wearer what is held of them where the network sees none."""
        track, now = face.face.track_id, float(face.glasses is not None)
        before_shot, worn = self.worn.get(track, (shot, now))
        worn = worn + _WORN_RATE * (now - worn) if before_shot == shot else now
        self.worn[track] = shot, worn
        if face.glasses is not None or worn < 0.5:
            return face.glasses
        across = places_of_bridge(face.crop.mesh, len(held))
        kept = _clear_lenses(in_one_piece(held, across), face.crop.mesh)
        return from_bytes(in_bytes(kept)) if kept.any() else None


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

"""The new face moved as the target's face moves.

A code follows its target closely but not exactly: smoothed, and fitted in a few steps, it lags behind a
head that nods, and the new face swims on the head by some pixels. Nothing shows a swap sooner. Two things
say where the new face belongs:

* the meshes of both faces. That two people's meshes differ is right; that the difference *changes* from
  frame to frame is not, so its slow part is kept and the rest is taken out by one affine map;
* the motion of the footage itself. The face as it was placed in the frame before, carried on by
  the target's optical flow, is where this frame's ought to be; the flow from there to the face as drawn is
  taken out, less a small share, so that errors do not add up. Lips and lids move as they are drawn and
  only come along with what is around them: their flow would pull teeth over lips.

What is left then is light and shade that differ from one drawing to the next. Where the footage itself
is explained by its motion, so that nothing new came to be seen, they are averaged along it; a mouth that
opens is not.

Everything that is drawn later (masks, colour, paste) sees the moved picture. The outline of the mask is
carried on by the same flow: one that is found anew in every frame makes the edge of the face simmer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from vidswap.compositing.arrays import gaussian_blur, luma, resize, resize_map, smoothstep, to_tensor
from vidswap.flow import optical_flow, warp
from vidswap.landmarks import LEFT_EYE, MOUTH, RIGHT_EYE
from vidswap.records import FloatArray

_SIDE = 192
"""Side of the pictures that the motion is read from."""
_LEVELS, _ROUNDS = 4, 2
"""Pyramid and steps of a flow: a face in its crop moves by some pixels only."""
_MOST = 0.06
"""Part of the crop's side by which a face may be moved; beyond it a mesh is wrong."""
_MOST_FLOW = 0.04
"""The same for what the flow adds."""
_FLOW_BLUR = 3.0
"""Smoothness of what the flow adds, in pixels of ``_SIDE``."""
_FILL_BLUR = 12.0
"""How far it reaches into what has no flow of its own."""
_PART_ROOM = 0.015
"""Part of the side by which eyes and mouth are taken larger than they are."""
_LEAST = 0.02
"""Weight below which there is no flow to go by, and none is added."""
_FACE_BOX = np.array([[0.25, 0.25], [0.75, 0.25], [0.25, 0.85], [0.75, 0.85]])
"""Corners of the face in an aligned crop."""
Affine = NDArray[np.float64]
"""``[2, 3]``."""
_STILL: Affine = np.eye(2, 3)
_UNEXPLAINED = 0.03
"""Difference of the footage to its last frame, moved, at which half is taken for new."""
_OTHER = 0.12
"""The same for the new face."""


@dataclass(frozen=True)
class MotionState:
    """What is remembered of a track's last frame."""

    offset: Affine
    """``[2, 3]`` where the drawn face lies on the target's, on average: an affine map from the target's
    landmarks to the drawn ones, both in [0, 1]."""
    frames: int
    """Frames that it was learnt from."""
    target: np.ndarray
    """``[192, 192]`` luma of the target's crop."""
    placed: np.ndarray
    """``[192, 192, 3]`` the new face as it was placed."""
    mask: np.ndarray | None = None
    """``[192, 192]`` the mask as it was used."""


@dataclass(frozen=True)
class Placement:
    """How a drawn face is moved; see :func:`follow`."""

    back: Affine
    """``[2, 3]`` affine map, from where the face should be to where it was drawn, both in [0, 1]."""
    flow: torch.Tensor | None
    """``[1, 2, 192, 192]`` added before the map, in shares of the side; None adds nothing."""
    backward: torch.Tensor | None = None
    """``[1, 2, 192, 192]`` the target's flow to the frame before, in pixels."""
    seen: torch.Tensor | None = None
    """``[1, 1, 192, 192]`` 1 where that flow is to be believed."""
    shade: torch.Tensor | None = None
    """``[1, 3, 192, 192]`` added to the picture once it is moved; there with a flow only."""

    def places(self, size: int, part: tuple[slice, slice]) -> torch.Tensor:
        """Where the pixels of a part of a picture come from: ``[1, h, w, 2]`` in [-1, 1]."""
        return self._places_and_shade(size, part)[0]

    def _places_and_shade(
        self, size: int, part: tuple[slice, slice]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The places, and the shade there ``[1, 3, h, w]``."""
        y, x = ((torch.arange(s.start, s.stop, dtype=torch.float32) + 0.5) / size for s in part)
        found = None
        if self.flow is not None:
            # Turned as the map turns it while it is small, and looked up together with the shade.
            turn = torch.tensor(2 * self.back[:, :2], dtype=torch.float32)
            turned = torch.einsum("ij,njhw->nihw", turn, self.flow)
            fields = turned if self.shade is None else torch.cat([turned, self.shade], 1)
            at = torch.empty(1, len(y), len(x), 2)
            at[..., 0], at[..., 1] = x * 2 - 1, (y * 2 - 1)[:, None]
            # Linear on purpose: what is added is smooth.
            found = F.grid_sample(fields, at, padding_mode="border", align_corners=False)
        places = torch.empty(1, len(y), len(x), 2)
        for axis, (a, b, c) in enumerate(self.back.tolist()):
            here = (2 * a * x) + (2 * b * y + (2 * c - 1))[:, None]
            places[0, ..., axis] = here if found is None else here.add_(found[0, axis])
        return places, None if found is None or self.shade is None else found[:, 2:]

    def moved(self, image: FloatArray, part: tuple[slice, slice]) -> FloatArray:
        """A picture ``[S, S, 3]`` in [0, 1] with the rows and columns ``part`` moved (cubic)."""
        size = image.shape[0]
        places, shade = self._places_and_shade(size, part)
        sampled = _cubic(to_tensor(image), places)
        if shade is not None:
            sampled += shade
        out = np.array(image, dtype=np.float32)
        out[part] = sampled.clamp_(0, 1)[0].permute(1, 2, 0).numpy()
        return out

    def moved_points(self, points: FloatArray) -> FloatArray:
        """Points ``[n, 2 or 3]`` of the picture, in [0, 1], where they come to lie; depths stay."""
        out = np.array(points)
        out[:, :2] = (points[:, :2] - self.back[:, 2]) @ np.linalg.inv(self.back[:, :2]).T
        if self.flow is not None:
            at = torch.from_numpy(out[None, None, :, :2].astype(np.float32)) * 2 - 1
            added = F.grid_sample(self.flow, at, padding_mode="border", align_corners=False)
            out[:, :2] -= added[0, :, 0].T.numpy()
        return out


def follow(
    image: FloatArray,
    drawn_xy: FloatArray | None,
    target: FloatArray,
    target_xy: FloatArray,
    face: FloatArray,
    before: MotionState | None,
    *,
    frames: float,
    shade: float,
) -> tuple[Placement, MotionState]:
    """Where a drawn face belongs on the target's head.

    :param image: ``[S, S, 3]`` the face as drawn, RGB in [0, 1].
    :param drawn_xy: ``[468, 2]`` its landmarks in [0, 1]; None where they are not to be believed.
    :param target: ``[T, T, 3]`` the target's crop; ``target_xy`` its landmarks.
    :param face: ``[m, m]`` where the target's face itself is seen.
    :param before: state of the frame before, None after a cut.
    :param frames: time constant with which the face's place may change.
    :param shade: time constant of the averaging along the motion, both in frames.
    """
    now = luma(resize(to_tensor(target), _SIDE))
    drawn = resize(to_tensor(image), _SIDE)
    back, offset, learnt = _STILL, _STILL, 0
    if before is not None:
        offset, learnt = before.offset, before.frames
    if drawn_xy is not None:
        matrix = affine_between(target_xy, drawn_xy)
        share = 1 / min(learnt + 1, max(frames, 1.0))
        offset, learnt = offset + share * (matrix - offset), learnt + 1
        back = correction(offset, matrix)
    placement = Placement(back, None)
    placed = _sampled(drawn, placement)
    if before is not None:
        last = to_tensor(before.target)
        backward = optical_flow(now, last, levels=_LEVELS, iterations=_ROUNDS)
        seen = _near(now - warp(last, backward), _UNEXPLAINED)
        due = warp(to_tensor(before.placed), backward)
        parts = [target_xy] if drawn_xy is None else [target_xy, placement.moved_points(drawn_xy)]
        skin = resize(to_tensor(face), _SIDE) * _away_from_lips_and_lids(parts)
        flow = _motion_left(luma(due), luma(placed), seen * skin)
        flow = flow * (1 - 1 / max(frames, 1.0))
        placement = replace(placement, flow=flow, backward=backward, seen=seen)
        placed = _sampled(drawn, placement)
        if shade > 0:
            known = seen * skin * _near(due - placed, _OTHER)
            change = gaussian_blur((due - placed) * known, 1.0) * (1 - 1 / (1 + shade))
            placement, placed = replace(placement, shade=change), placed + change
    return placement, MotionState(offset, learnt, now[0, 0].numpy(), placed[0].permute(1, 2, 0).numpy())


def _motion_left(due: torch.Tensor, placed: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Flow from where the new face should be to where its mesh places it, in shares of the side."""
    left = optical_flow(due, placed, levels=_LEVELS, iterations=_ROUNDS)
    longest = _MOST_FLOW * _SIDE
    # Not norm(dim=1): over two channels it takes longer than the flow.
    far = torch.hypot(left[:, :1], left[:, 1:])
    left = left * (longest / far.clamp_min(1e-6)).clamp_max(1.0)
    votes = torch.cat([left * weight, weight], 1)
    near, known = gaussian_blur(votes, _FLOW_BLUR).split((2, 1), 1)
    # Where nothing is known, what is known around it holds.
    around, heard = gaussian_blur(votes, _FILL_BLUR).split((2, 1), 1)
    return (near + (1 - known) * (around / heard.clamp_min(_LEAST))) / _SIDE


def _away_from_lips_and_lids(meshes_xy: Sequence[FloatArray]) -> torch.Tensor:
    """0 on the eyes and the mouth of faces ``[468, 2]`` and 1 away from them, ``[1, 1, 192, 192]``."""
    axis = ((np.arange(_SIDE) + 0.5) / _SIDE).astype(np.float32)
    out = np.ones((_SIDE, _SIDE), np.float32)
    for mesh in meshes_xy:
        for part in (MOUTH, LEFT_EYE, RIGHT_EYE):
            points = np.asarray(mesh, np.float32)[list(part)]
            low, high = points.min(0), points.max(0)
            x, y = (low + high) / 2
            wide, tall = _PART_ROOM + (high - low) / 2
            away = np.sqrt(((axis[None, :] - x) / wide) ** 2 + ((axis[:, None] - y) / tall) ** 2)
            np.minimum(out, smoothstep(2 * (away - 1)), out=out)
    return to_tensor(out)


def steady_mask(
    mask: FloatArray, placement: Placement, before: MotionState | None, *, frames: float
) -> tuple[FloatArray, FloatArray]:
    """A mask whose outline moves with the target.

    :param mask: ``[M, M]`` as drawn for this frame.
    :param placement: of this frame; ``before`` the state of the one before, None after a cut.
    :param frames: time constant with which the outline may change on the face.
    :return: the mask, and small for :attr:`MotionState.mask`.
    """
    small = resize(to_tensor(mask), _SIDE)
    if frames <= 0 or before is None or before.mask is None:
        return mask, small[0, 0].numpy()
    if placement.backward is None or placement.seen is None:
        return mask, small[0, 0].numpy()
    carried = warp(to_tensor(before.mask), placement.backward)
    change = (carried - small) * placement.seen * (1 - 1 / max(frames, 1.0))
    steady = np.clip(mask + resize_map(change[0, 0].numpy(), mask.shape[0]), 0.0, 1.0)
    return steady, (small + change)[0, 0].clamp(0, 1).numpy()


def _near(difference: torch.Tensor, half: float) -> torch.Tensor:
    """1 where a difference ``[1, c, h, w]`` is small around a pixel, a half where it is ``half``."""
    square = gaussian_blur(difference.square().mean(1, keepdim=True), 1.5)
    return 1 / (1 + square / half**2)


def _sampled(picture: torch.Tensor, placement: Placement) -> torch.Tensor:
    return _cubic(picture, placement.places(_SIDE, (slice(0, _SIDE), slice(0, _SIDE))))


def _cubic(picture: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return F.grid_sample(picture, places, mode="bicubic", padding_mode="border", align_corners=False)


def affine_between(start_xy: FloatArray, end_xy: FloatArray) -> Affine:
    """Affine map ``[2, 3]`` that brings one face's landmarks nearest to another's, by least squares.

    Lips do not count: they move on their own.

    :param start_xy: ``[468, 2]``; ``end_xy`` alike.
    """
    kept = np.ones(len(start_xy), bool)
    kept[list(MOUTH)] = False
    ones = np.ones((int(kept.sum()), 1))
    points = np.concatenate([np.asarray(start_xy, np.float64)[kept], ones], 1)
    found, *_ = np.linalg.lstsq(points, np.asarray(end_xy, np.float64)[kept], rcond=None)
    return found.T


def correction(offset: Affine, matrix: Affine) -> Affine:
    """Affine map ``[2, 3]``, from where the face should be to where it was drawn.

    :param offset: usual map from the target to the drawn face; ``matrix`` that of this frame.
    """
    square = [np.vstack([one, [0.0, 0.0, 1.0]]) for one in (matrix, offset)]
    try:
        back = (square[0] @ np.linalg.inv(square[1]))[:2]
    except np.linalg.LinAlgError:
        return _STILL
    most = np.linalg.norm(_FACE_BOX @ back[:, :2].T + back[:, 2] - _FACE_BOX, axis=1).max()
    return back if most <= _MOST else _STILL + (back - _STILL) * (_MOST / most)

"""What passes between the stages of a swap: a frame with its faces (composer level)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from vidswap.identities import SourceIdentity
from vidswap.likeness import Sought
from vidswap.records import AlignedCrop, Face, Frame, Pivot, Swap

SMALL_SIZE = 192
"""Side of a face's small picture: what motion and occluders are read from."""
_LATER: Any = None
"""Of what each face has once the stage that makes it has run: the stages after it read it without asking, and
the order of the stages sees to it that they may. What a face may well never have is typed ``| None``."""


@dataclass(frozen=True)
class FaceWork:
    """One face of one frame on its way through the stages."""

    face: Face
    quad: np.ndarray
    """``[4, 2]`` display coordinates."""
    source: SourceIdentity = _LATER
    crop: AlignedCrop = _LATER
    small: np.ndarray = _LATER
    """``[192, 192, 3]`` the crop's picture, small."""
    solid: np.ndarray = _LATER
    """``[512, 512]`` mask of the regions that are swapped, occluders not yet taken out."""
    visible: np.ndarray = _LATER
    """``[128, 128]`` where the crop shows the face."""
    pivot: Pivot = _LATER
    swap: Swap = _LATER
    drawn: Face | None = None
    """The new face's mesh, in pixels of its picture; None where it is not to be believed."""
    inversion: np.ndarray | None = None
    """``[s, s, 3]`` the target as the generator redraws it, small."""
    occluded: np.ndarray | None = None
    """``[192, 192]`` what the networks see in front of the face, from the stage "see occluders" on
    less what ``inversion`` explains; None without them."""
    glasses: np.ndarray | None = None
    """``[192, 192]`` what of ``occluded`` are frames of glasses; None where none are worn."""
    beyond: np.ndarray | None = None
    """``[128, 128]`` opacity of the new face beyond ``solid``, over the rim of a beard; None without one."""

    @property
    def drawn_mesh(self) -> np.ndarray | None:
        """``[468, 3]`` the new face's mesh in [0, 1]; None where it is not to be believed."""
        return None if self.drawn is None else self.drawn.mesh / self.swap.image.shape[0]


@dataclass(frozen=True)
class Work:
    """A frame with its faces."""

    frame: Frame
    shot: int
    """Number of the shot (cuts are counted); states start afresh at each."""
    faces: tuple[FaceWork, ...] = ()
    sought: Sought | None = None
    """How the search for the person of a reference goes, up to this frame."""

    def with_faces(self, faces: Iterable[FaceWork]) -> Work:
        return replace(self, faces=tuple(faces))


State = TypeVar("State")


def of_shot(memory: Mapping[int, tuple[int, State]], track: int, shot: int) -> State | None:
    """What is remembered of a track; None where it was not seen in this shot.

    :param memory: shot and state by track.
    """
    before = memory.get(track)
    return before[1] if before is not None and before[0] == shot else None

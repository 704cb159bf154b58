"""Glasses on a face: their frames stay what they are, whoever wears them (composer level)."""

from __future__ import annotations

import numpy as np
import torch

from vidswap.compositing.arrays import grown, resize_map, smoothstep, to_tensor
from vidswap.landmarks import EYE_CORNERS
from vidswap.models.occlusion_net import GLASSES_SIZE, INPUT_SIZE
from vidswap.records import AlignedCrop
from vidswap.session import Session

_NO_FRAME, _FRAME = 0.35, 0.75
"""Probability up to which a pixel is no frame of glasses, and from which it is."""
_FIRMER = 1.6
"""Factor of the map once it is small: there thin rims are paler."""
_NO_BRIDGE, _BRIDGE = 0.3, 0.7
"""How much of a bridge over the nose there is at most without glasses, and at least with them. 48 frames of
three clips and six photos without had up to 0.02; of 68 generated wearers 65 had 0.72 or more."""
_EYE_WIDE, _EYE_TALL = 0.75, 0.42
"""Half of what an eye takes up behind a lens, in widths of the eye."""
_NO_LENS, _DARK_LENS = 0.45, 0.7
"""Share of an eye that is covered at most by what is no lens, and at least by a dark one."""


@torch.no_grad()
def see_glasses(crop: AlignedCrop, session: Session) -> np.ndarray | None:
    """Map ``[192, 192]`` of the frames of glasses, and of dark lenses; None where none are worn.

    They stay the target's own. They belong to no identity: drawn anew they came out in pieces.
    """
    if session.glasses_net is None:
        return None
    picture = to_tensor(resize_map(crop.image, GLASSES_SIZE)).to(session.device) * 2 - 1
    frames = session.glasses_net.occluded(picture, GLASSES_SIZE)[0, 0].cpu().numpy()
    frames = resize_map(smoothstep((frames - _NO_FRAME) / (_FRAME - _NO_FRAME)), INPUT_SIZE)
    frames = np.minimum(_FIRMER * frames, 1)
    across = places_of_bridge(crop.mesh, INPUT_SIZE)
    bridge = float(frames[across].max(1).mean())
    worn = float(smoothstep(np.float32((bridge - _NO_BRIDGE) / (_BRIDGE - _NO_BRIDGE))))
    if worn == 0:
        return None
    frames = clear_lenses(in_one_piece(frames, across), crop.mesh)
    return worn * frames


def clear_lenses(frames: np.ndarray, mesh_xyz: np.ndarray) -> np.ndarray:
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

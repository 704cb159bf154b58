"""Warping error: does a surface keep its look when it moves?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidswap.flow import optical_flow, visible, warp
from vidswap.metrics._checks import mask_for, picture, same_shape
from vidswap.metrics.images import luma

Array = NDArray[Any]


@dataclass(frozen=True)
class WarpingError:
    """Warping errors of one pair of neighbouring frames, with one flow for both clips."""

    output: float
    original: float
    visible_share: float
    """Share of the mask where the flow passed the forward-backward check, 0..1."""


def warping_error(first: Array, second: Array, flow: Tensor, weight: Array) -> float:
    """Warping error of Lai et al. (1808.00449, section 4.1), for one pair of frames.

    ``sum(M |V_t - warp(V_t+1)|^2) / sum(M)``: the squared difference (summed over RGB in [0, 1])
    between a frame and its follower warped back onto it, averaged over the pixels that are
    visible in both.

    :param first: ``[H, W, 3]`` RGB, the earlier frame; ``second`` its follower.
    :param flow: ``[1, 2, H, W]`` flow from first to second, in pixels.
    :param weight: ``[H, W]`` mask times visibility.
    :return: NaN when nothing is visible.
    """
    a, b = picture("first", first), picture("second", second)
    same_shape(a, b)
    mask = mask_for(a.shape, weight)
    total = float(mask.sum(dtype=np.float64))
    if total <= 0:
        return float("nan")
    moved = warp(_planes(b), flow)[0].permute(1, 2, 0).numpy()
    return float((np.square(a - moved).sum(2) * mask).sum(dtype=np.float64) / total)


def pair_warping_error(
    output: tuple[Array, Array], original: tuple[Array, Array], mask: Array
) -> WarpingError:
    """Warping errors of the output and of the original over the original's motion.

    The flow is computed on the original clip only, both ways, and its forward-backward check
    masks what is hidden in one of the frames: a swapped face must move as the original did.

    :param output: earlier and later frame of the output, ``[H, W, 3]`` RGB; original alike, in
        the same coordinates.
    :param mask: ``[H, W]`` area of the earlier frame that counts.
    """
    first, second = (_planes(luma(image)[..., None]) for image in original)
    both = optical_flow(torch.cat([first, second]), torch.cat([second, first]))
    forward, backward = both[:1], both[1:]
    seen = visible(forward, backward)[0, 0].numpy()
    area = mask_for(np.shape(original[0]), mask)
    weight = area * seen
    total = float(area.sum(dtype=np.float64))
    return WarpingError(
        warping_error(*output, forward, weight),
        warping_error(*original, forward, weight),
        float(weight.sum(dtype=np.float64)) / total if total > 0 else float("nan"),
    )


def _planes(image: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)))[None]

"""What is in front of the face, read from where the inversion cannot explain the target.

The generator knows faces. What its inversion gets badly wrong inside the face, in a connected
patch, is likely to be no face: fingers, a microphone, a mug. This is a conservative witness, to
be joined with a trained network's map by :func:`combine`: ordinary misfits (wrinkles, glints on
glasses, teeth, a beard drawn a little wrong) must not punch holes into the swap.
"""

from __future__ import annotations

from dataclasses import dataclass

import kornia
import numpy as np
import torch
import torch.nn.functional as F

from vidswap.compositing.arrays import (
    gaussian_blur,
    grown,
    luma,
    resize,
    resize_map,
    smoothstep,
    to_array,
    to_tensor,
    widest,
)
from vidswap.compositing.masks import face_mask
from vidswap.flow import optical_flow, warp
from vidswap.records import FloatArray

_SIZE = 128
_COLOR_LOW, _COLOR_HIGH = 9.0, 17.0
"""Colour difference (L*a*b*, lightness counted less) that may, and that must, be an occluder."""
_STRUCTURE_SHARE = 10.0
"""A patch whose structure is wholly unlike the target's counts as this much colour difference."""
_MIN_AREA = 0.006
"""Patches smaller than this part of the crop are features, not occluders."""
_FEATURE_ROOM = 36.0
"""Pixels of a 1024 crop around eyes, brows and mouth that still belong to them."""
_FEATURE_SHARE = 0.9
_EXPLAINED, _UNEXPLAINED = 5.0, 6.6
"""How much worse than the rest of the face a patch may fit, and must fit to be an occluder. On eleven patches
of real frames false alarms had 0.5 to 7.0 (most below 5.7), hands 6.7 to 16."""
_REACH = 5
_STILL = 0.05
"""Change of colour from frame to frame, of 1, at which a pixel counts as moving."""
_GROW_STEPS = 24
_EDGE_PX = 2.0

_ISLAND = (0.015, 0.03)
"""Share of the face at which a patch in the midst of it may, and must, be an occluder."""
_ISLAND_SIZE = 96

_LEVELS, _ROUNDS = 4, 2
"""Pyramid and steps of the flow that carries a map on."""
_SAME, _OTHER = 0.03, 0.06
"""How unlike a place may be to what was last seen there of an occluder, and must be to be something else:
change of colour, of 1, and :data:`_SHAPE` times what its structure lacks in correlation."""
_SHAPE = 0.08
_FAINT = 0.02**2
"""Variance of light that is hardly structure; a correlation of less means nothing."""
_GAIN, _LOSS, _FADE, _FAST_LOSS = 0.15, 1 / 80, 1 / 64, 1 / 6
"""What a frame in which an occluder is seen adds to its evidence, and what one without takes away: ``_FADE``
where it looks the same, up to ``_FAST_LOSS`` where there is no structure to tell by and the network sees most
of it still. ``_LOSS`` is that of a patch that the inversion explains."""
_LOST, _LEFT = 0.35, 0.6
"""Share of what was in front of the face that is still seen, up to which nothing, and from which all, is lost
so fast."""
_HOLDS, _HOLDS_WHOLE = 0.2, 0.6
"""Evidence that is believed in part, and wholly."""


@dataclass(frozen=True)
class HeldOcclusion:
    """What is remembered of what was in front of a face."""

    evidence: FloatArray
    """``[n, n]`` in [0, 1], how long something was seen there."""
    picture: FloatArray
    """``[n, n, 3]`` the frame's crop."""
    looks: FloatArray
    """``[n, n, 3]`` what was last seen as an occluder, carried along its motion; the crop elsewhere."""


def residual_occlusion(
    target_crop: FloatArray,
    inversion_image: FloatArray,
    mask: FloatArray,
    *,
    mesh_xyz: FloatArray | None = None,
) -> FloatArray:
    """Soft map of occluders inside the mask.

    :param target_crop: ``[S, S, 3]`` RGB in [0, 1].
    :param inversion_image: ``[T, T, 3]`` RGB in [0, 1], the target as the generator redraws it.
    :param mask: ``[M, M]`` the face; outside of it nothing is said (0).
    :param mesh_xyz: ``[468, 3]`` mesh in the crop scaled to [0, 1]. With it, a patch that hardly
        leaves eyes, brows or mouth is taken for a wink or a smile that the inversion missed.
    :return: ``[S, S]`` in [0, 1], 1 where something is in front. All 0 when the mask is empty or
        when more than two thirds of the face do not fit: then it is the inversion that failed.
    """
    size = target_crop.shape[0]
    empty = np.zeros((size, size), np.float32)
    face = resize_map(mask, _SIZE)
    solid = face > 0.5
    if solid.sum() < 64:
        return empty
    score = _misfit(target_crop, inversion_image, face)
    usual = float(np.median(score[solid]))
    # A poor inversion raises the whole face; only what stands out of it counts.
    lift = max(0.0, usual - 4.0)
    low, high = _COLOR_LOW + 1.5 * lift, _COLOR_HIGH + 1.5 * lift
    visible = face > 0.05
    region = hysteresis((score > low) & visible, (score > high) & visible)
    region = _plausible(region, None if mesh_xyz is None else _features(mesh_xyz))
    if region[solid].mean() > 2 / 3:
        return empty
    soft = to_array(gaussian_blur(to_tensor(region.astype(np.float32)), _EDGE_PX))
    soft = smoothstep((soft - 0.15) / 0.6) * smoothstep(face / 0.2)
    return resize_map(soft, size)


def combine(residual: FloatArray | None, network: FloatArray | None) -> FloatArray | None:
    """Join the residual's map with a trained network's; either may be missing.

    Both agree: certain. The network alone is believed as it is. The residual alone is believed
    by half unless it is sure, since a bad inversion looks like an occluder to it.

    :param residual: ``[n, n]`` in [0, 1] or None; ``network`` likewise, of any other size.
    :return: ``[m, m]`` of the network's size when there is one; None when both are missing.
    """
    if network is None:
        return residual
    if residual is None:
        return network
    seen = resize_map(residual, network.shape[0])
    supported = np.sqrt(np.clip(seen * network, 0.0, 1.0))
    alone = 0.5 * smoothstep((seen - 0.5) / 0.5)
    return np.maximum(np.maximum(network, supported), alone).astype(np.float32)


def doubt(
    network: FloatArray,
    target_crop: FloatArray,
    inversion_image: FloatArray,
    mask: FloatArray,
    before: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray]:
    """A trained network's map, less the patches that the inversion explains as well as the rest of the face.

    A beard in side light is taken for a hand now and then. The inversion, fitted without the patch, draws
    the cheek there and is right; where there is a hand it is wrong. Patches are judged as a whole, so that no
    finger gets holes, and one that was believed in the frames before is believed on for a while: a fist
    before the chin is as light and as broad as the chin. Specks too small for a patch, of which a beard gives
    many, are dropped: each would show a spot of it.

    :param network: ``[n, n]`` in [0, 1]. :param target_crop: ``[S, S, 3]`` RGB in [0, 1].
    :param inversion_image: ``[T, T, 3]`` the target as its pivot draws it. :param mask: ``[M, M]`` the face.
    :param before: what was believed in the frame before; None at the start of a shot.
    :return: the map ``[n, n]``, and what is believed, ``[128, 128]``, to be given with the next frame.
    """
    face, seen = resize_map(mask, _SIZE), resize_map(network, _SIZE)
    believed = np.zeros_like(face)
    bare = (face > 0.5) & (seen < 0.3)
    sure = seen > 0.5
    labels = label_patches(sure & (face > 0.3))
    if bare.sum() < 64:
        return network, believed
    # Of a patch that is outside of the face too, the soft edge reaches in.
    specks = smoothstep((face - 0.3) / 0.4) * (1 - widest(sure, _REACH))
    trust = 1 - specks
    patches = np.unique(labels[labels > 0])
    if len(patches):
        score = _misfit(target_crop, inversion_image, face)
        usual = float(np.median(score[bare]))
    for patch in patches:
        here = labels == patch
        excess = float(score[here].mean()) - usual
        belief = smoothstep((np.float32(excess) - _EXPLAINED) / (_UNEXPLAINED - _EXPLAINED))
        last = np.float32(0.0 if before is None else before[here].mean() - _LOSS)
        near = widest(here, _REACH) > 0.5
        trust[near] = np.minimum(trust[near], max(belief, _held(last)))
        believed[near] = np.maximum(believed[near], max(belief, last))
    trust = to_array(gaussian_blur(to_tensor(trust), 1.0))
    return (network * resize_map(trust, network.shape[0])).astype(np.float32), believed


def without_islands(seen: FloatArray, face: FloatArray) -> FloatArray:
    """A map less its small patches in the midst of the face.

    What comes before a face comes from beyond it: a hand, hair, a microphone. A small patch that does not go
    on over the face's outline is the end of a raised brow or a highlight, and would show it in the new face.

    :param seen: ``[n, n]`` in [0, 1]. :param face: ``[M, M]`` where the crop shows the face, covered or not.
    """
    inside, there = resize_map(face, _ISLAND_SIZE) > 0.95, resize_map(seen, _ISLAND_SIZE) > 0.3
    labels = label_patches(there & inside)
    entering = np.unique(labels[widest((there & ~inside).astype(np.float32), 1) > 0.5])
    islands = (labels > 0) & ~np.isin(labels, entering)
    if not islands.any():
        return seen
    numbers, counts = np.unique(labels[islands], return_counts=True)
    kept = np.ones(labels.shape, np.float32)
    for number, share in zip(numbers, counts / inside.sum(), strict=True):
        near = widest((labels == number).astype(np.float32), 2) > 0.5
        believed = smoothstep(np.float32((share - _ISLAND[0]) / (_ISLAND[1] - _ISLAND[0])))
        kept[near] = np.minimum(kept[near], believed)
    return (seen * resize_map(kept, seen.shape[0])).astype(np.float32)


def _held(evidence: FloatArray) -> FloatArray:
    """How far evidence in [0, 1] of what was seen before is believed."""
    return smoothstep((evidence - _HOLDS) / (_HOLDS_WHOLE - _HOLDS))


def steady_occlusion(
    fresh: FloatArray,
    picture: FloatArray,
    before: tuple[FloatArray, FloatArray] | None,
    *,
    frames: float,
) -> tuple[FloatArray, FloatArray]:
    """Hold the map of occluders steady where the picture stands still.

    A plain average over time would trail behind a moving hand; where the colour of a pixel changes, the
    fresh map counts at once.

    :param fresh: ``[n, n]`` in [0, 1], this frame's map.
    :param picture: ``[S, S, 3]`` this frame's crop.
    :param before: what this function gave for the frame before, None at the start of a shot.
    :param frames: time constant; 0 switches the smoothing off.
    :return: the steady map ``[n, n]`` and the picture at its size, to be given with the next frame.
    """
    small = resize_map(picture, fresh.shape[0])
    if before is None or frames <= 0 or before[0].shape != fresh.shape:
        return fresh, small
    held, seen = before
    change = to_array(gaussian_blur(to_tensor(np.abs(small - seen).max(axis=2)), 1.0))
    share = np.float32(np.exp(-1.0 / frames)) * np.exp(-np.square(change / _STILL))
    return (fresh + share * (held - fresh)).astype(np.float32), small


def hold_occlusion(
    fresh: FloatArray, picture: FloatArray, face: FloatArray, before: HeldOcclusion | None
) -> tuple[FloatArray, HeldOcclusion]:
    """Hold on to what was in front of the face, along its motion, while it looks the same.

    A network that looks at single frames loses a hand that closes to a fist, or the finger that lies along a
    lip, though it is plainly the one that came in before. So what was seen for some frames stays for a
    second or two, carried by the optical flow; where a place comes to look otherwise than the hand did when
    it was last seen there, the hand has left it.

    :param fresh: ``[n, n]`` in [0, 1], this frame's map. :param picture: ``[S, S, 3]`` its crop.
    :param face: ``[M, M]`` where the crop shows the face, covered or not.
    :param before: what this function gave for the frame before, None at the start of a shot.
    :return: the map ``[n, n]``, nowhere below ``fresh``, and what is to be given with the next frame.
    """
    small = resize_map(picture, fresh.shape[0])
    seen = fresh > 0.5
    if before is None or before.evidence.shape != fresh.shape:
        return fresh, HeldOcclusion(np.where(seen, np.float32(_GAIN), np.float32(0)), small, small)
    if not seen.any() and not before.evidence.any():
        return fresh, HeldOcclusion(before.evidence, small, small)
    now, last = to_tensor(small), to_tensor(before.picture)
    flow = optical_flow(luma(now), luma(last), levels=_LEVELS, iterations=_ROUNDS)
    looks = warp(to_tensor(before.looks), flow)
    unlike, structure = _unlike(looks, now)
    evidence = to_array(warp(to_tensor(before.evidence), flow))
    evidence *= 1 - smoothstep((unlike - _SAME) / (_OTHER - _SAME))
    there = (evidence > (_HOLDS + _HOLDS_WHOLE) / 2) & (resize_map(face, fresh.shape[0]) > 0.5)
    still = np.float32((seen & there).sum() / max(int(there.sum()), 1))
    fast = float(smoothstep((still - _LOST) / (_LEFT - _LOST))) * (1 - structure)
    loss = _FADE + fast * (_FAST_LOSS - _FADE)
    evidence = np.clip(evidence + np.where(seen, _GAIN, -loss), 0, 1).astype(np.float32)
    held = np.where((evidence > 0)[..., None] & ~seen[..., None], to_array(looks), small)
    return np.maximum(fresh, _held(evidence)), HeldOcclusion(evidence, small, held)


def _unlike(one: torch.Tensor, two: torch.Tensor) -> tuple[FloatArray, FloatArray]:
    """How unlike two pictures ``[1, 3, n, n]`` are around each pixel, and how much of 1 the first has there
    of structure to tell by, ``[n, n]``."""
    one, two = gaussian_blur(one, 0.7), gaussian_blur(two, 0.7)
    colour = gaussian_blur((one - two).abs().amax(1, keepdim=True), 1.5)
    var_one, var_two, both = _local_variances(luma(one), luma(two), 3.0)
    alike = (both + _FAINT) / ((var_one + _FAINT) * (var_two + _FAINT)).sqrt()
    structure = to_array(var_one / (var_one + _FAINT))
    return to_array(colour + _SHAPE * (1 - alike.clamp(-1, 1))), structure


def hysteresis(low: np.ndarray, high: np.ndarray, *, steps: int = _GROW_STEPS) -> np.ndarray:
    """The parts of ``low`` that are reached from ``high`` within ``steps`` pixels, ``[n, n]``."""
    limit = low.astype(np.float32)
    return grown((high & low).astype(np.float32), limit, steps) > 0.5


def _misfit(target: FloatArray, inversion: FloatArray, face: FloatArray) -> FloatArray:
    """Difference ``[128, 128]`` in units of L*a*b*, after taking off a smooth change of light."""
    # Blurred by the width of a wrinkle: its exact place is not what is asked.
    one = gaussian_blur(resize(to_tensor(target), _SIZE), 1.0)
    two = gaussian_blur(resize(to_tensor(inversion), _SIZE), 1.0)
    difference = kornia.color.rgb_to_lab(one) - kornia.color.rgb_to_lab(two)
    vote = to_tensor(face)
    for _ in range(2):
        # Broad light differs between any two renderings; the second round leaves out what
        # the first found to be far off, or an occluder would explain itself away.
        broad = _broad(difference * vote) / (_broad(vote) + 0.02)
        rest = (difference - broad).square().sum(dim=1, keepdim=True).sqrt()
        vote = to_tensor(face) / (1.0 + (rest / 8.0) ** 4)
    rest = difference - broad
    # Lightness errs more than colour when only a wrinkle or a shadow is drawn wrong.
    color = (0.5 * rest[:, :1] ** 2 + rest[:, 1:].square().sum(dim=1, keepdim=True)).sqrt()
    color = gaussian_blur(color, 1.5)
    structure = _structure_misfit(luma(one), luma(two))
    return to_array(color + _STRUCTURE_SHARE * structure)


def _broad(tensor: torch.Tensor) -> torch.Tensor:
    """Blur by an eighth of the crop, at a quarter of the size."""
    small = gaussian_blur(F.avg_pool2d(tensor, 4), 4.0)
    return F.interpolate(small, size=tensor.shape[-2:], mode="bilinear", align_corners=False)


def _structure_misfit(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """1 - local correlation, weighed by how much structure the target has there, in [0, 1]."""
    var_one, var_two, both = _local_variances(one, two, 4.0)
    # The constant is the variance of faint texture: below it correlation is chance.
    faint = 0.03**2
    correlation = both / torch.sqrt((var_one + faint) * (var_two + faint))
    present = var_one / (var_one + faint)
    return ((1.0 - correlation.clamp(0, 1)) * present).clamp(0, 1)


def _local_variances(
    one: torch.Tensor, two: torch.Tensor, sigma: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Variances and covariance of two pictures ``[1, 1, n, n]`` around each pixel."""
    products = torch.cat([one, two, one * one, two * two, one * two], 1)
    mean_one, mean_two, square_one, square_two, both = gaussian_blur(products, sigma).split(1, 1)
    var_one, var_two = (square_one - mean_one**2).clamp(min=0), (square_two - mean_two**2).clamp(min=0)
    return var_one, var_two, both - mean_one * mean_two


def _features(mesh_xyz: FloatArray) -> np.ndarray:
    """Where expression and glasses move most: eyes, brows and mouth with some room around."""
    regions = "eyes,brows,mouth"
    return face_mask(mesh_xyz, _SIZE, regions=regions, erode=-_FEATURE_ROOM, feather=0.0) > 0.5


def _plausible(region: np.ndarray, features: np.ndarray | None) -> np.ndarray:
    """Close gaps, drop threads, then patches that are too small or only a feature."""
    kernel = torch.ones(5, 5)
    solid = kornia.morphology.closing(to_tensor(region.astype(np.float32)), kernel)
    solid = kornia.morphology.opening(solid, kernel)
    labels = label_patches(to_array(solid) > 0.5)
    patch_ids, labels = np.unique(labels, return_inverse=True)
    labels = labels.reshape(region.shape)
    area = np.bincount(labels.ravel(), minlength=len(patch_ids))
    keep = (area >= _MIN_AREA * region.size) & (patch_ids > 0)
    if features is not None:
        within = np.bincount(labels[features], minlength=len(patch_ids))
        keep &= within < _FEATURE_SHARE * area
    return keep[labels]


def label_patches(region: np.ndarray) -> np.ndarray:
    """Number the 8-connected patches of a boolean map: 0 outside, the same number in a patch."""
    inside = region.astype(np.float32)
    # Every patch takes the largest number within it; float32 holds them exactly to 2**24.
    seeds = np.arange(1, region.size + 1, dtype=np.float32).reshape(region.shape) * inside
    limit = inside * np.float32(region.size + 1)
    return grown(seeds, limit, region.size).astype(np.int64)

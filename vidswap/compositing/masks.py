"""Soft masks of face regions from the 468-point mesh.

Every region is an outline whose **signed distance** (positive inside) is computed on a coarse
grid and read off at full size. A distance field is smooth, so few samples carry it, and
erosion, feather and antialiasing all become arithmetic on one number a pixel.

Coordinates are those of the crop scaled to [0, 1], x right, y down; distances are in the same
unit, so ``40 / 1024`` is "40 pixels of a 1024 crop" at every mask size.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from vidswap import landmarks
from vidswap.compositing.arrays import resize_map, smoothstep
from vidswap.errors import UsageError
from vidswap.records import FloatArray

REFERENCE_SIZE = 1024
"""Lengths of masks are given in pixels of a crop of this side."""

REGIONS = tuple(landmarks.REGIONS)
"""Names that :func:`face_mask` knows."""

_GROW = {
    "face": 0.012,
    "eyes": 0.014,
    "brows": 0.010,
    "nose": 0.004,
    "mouth": 0.006,
    "inner-mouth": 0.0,
}
"""How far a region reaches beyond its mesh contour: lids and lashes, the hairs of a brow,
the rim of jaw and beard that the mesh's oval cuts off."""

_SKIN_WITHOUT = ("eyes", "brows", "mouth")
_MIDLINE = (10, 151, 9, 8, 168, 6, 197, 195, 5, 4, 1, 2, 164, 0, 17, 18, 200, 199, 175, 152)
"""Mesh points down the middle of the face: the silhouette of a profile."""
_FOREHEAD = 0.13
"""The mesh ends below the hairline; the outline is lifted by this part of the face's height."""
_STAR_DIRECTIONS = 56
_COARSE = 128
_FINE = 256


def parse_regions(regions: str) -> tuple[frozenset[str], frozenset[str]]:
    """Split ``"face,-mouth"`` into the regions to take and those to leave out.

    Only removals (``"-mouth"``) are taken from the whole face.

    :raises UsageError: for an unknown or missing name.
    """
    names = [name.strip().lower() for name in regions.split(",") if name.strip()]
    added = {name for name in names if not name.startswith("-")}
    removed = {name[1:].strip() for name in names if name.startswith("-")}
    unknown = sorted((added | removed) - set(REGIONS))
    if unknown or not names:
        raise UsageError(
            f"unknown face region {', '.join(unknown) or repr(regions)}: "
            f"use a comma-separated list of {', '.join(REGIONS)}, with '-' before one to leave out"
        )
    return frozenset(added or {"face"}), frozenset(removed)


def face_mask(
    mesh_xyz: NDArray[np.floating],
    size: int,
    *,
    regions: str = "face",
    erode: float = 0.0,
    feather: float = 40.0,
    occlusion: FloatArray | None = None,
    inside: FloatArray | None = None,
) -> FloatArray:
    """Opacity of the swapped face over the crop.

    The soft edge lies **inside** the outline: 0 on it and beyond, 1 from ``feather`` inwards.
    A region narrower than the feather gets a narrower one, so that its middle still counts.
    The mask is exactly 0 along the border of the crop.

    :param mesh_xyz: ``[468, 3]`` (or ``[468, 2]``) mesh in crop coordinates scaled to [0, 1].
    :param size: side of the mask in pixels.
    :param regions: see :func:`parse_regions`.
    :param erode: shrinks every region by this many pixels of a 1024 crop; negative grows it.
    :param feather: width of the soft edge in pixels of a 1024 crop, at least 0.
    :param occlusion: ``[n, n]``, 1 where something is in front of the face.
    :param inside: ``[n, n]``, 0 where the crop lies outside the frame.
    :return: ``[size, size]`` float32 in [0, 1].
    :raises UsageError: for unknown regions or a negative feather.
    :raises ValueError: for a mesh of the wrong shape or with numbers that are not finite.
    """
    points = np.asarray(mesh_xyz, dtype=np.float64)
    if points.ndim != 2 or points.shape[0] != 468 or points.shape[1] < 2:
        raise ValueError(f"mesh_xyz: expected [468, 3], got {list(points.shape)}")
    if not np.isfinite(points).all():
        raise ValueError("mesh_xyz: expected finite numbers")
    if feather < 0:
        raise UsageError(f"feather {feather}: give a width in pixels of a 1024 crop, 0 or more")
    added, removed = parse_regions(regions)
    shrink, soft = erode / REFERENCE_SIZE, feather / REFERENCE_SIZE
    xy = points[:, :2]
    if "skin" in added:
        removed = removed | (frozenset(_SKIN_WITHOUT) - added)

    mask = np.zeros((size, size), np.float32)
    for name in sorted(added):
        for distance in _region_distances(name, xy, size):
            np.maximum(mask, _edge(distance - shrink, soft, size), out=mask)
    for name in sorted(removed):
        for distance in _region_distances(name, xy, size):
            # What is left out is left out whole: the soft edge lies outside of it.
            width = min(soft, max(0.6 * float(distance.max()), 8 / REFERENCE_SIZE))
            mask *= 1.0 - _edge(distance + shrink + width, width, size, keep_width=True)
    mask *= _edge(_border_distance(size), soft / 2, size)
    if occlusion is not None:
        mask *= 1.0 - np.clip(resize_map(occlusion, size), 0.0, 1.0)
    if inside is not None:
        mask *= _soft_inside(inside, size, soft)
    return mask


def face_outline(mesh_xy: NDArray[np.floating]) -> NDArray[np.float64]:
    """Simple closed outline ``[n, 2]`` of the face, also when the mesh folds in a profile.

    The mesh's own oval runs behind the nose once the head turns. The outline taken is the
    farthest point of the face in each direction from its middle, which is a simple polygon
    whatever the mesh does, and the oval itself while the face looks at the camera.
    """
    xy = np.asarray(mesh_xy, dtype=np.float64)[:, :2]
    oval = xy[list(landmarks.FACE_OVAL)]
    up = xy[10] - xy[152]
    height = float(np.hypot(*up)) or 1.0
    up = up / height
    # Lift grows from the temples to the middle of the forehead.
    level = ((xy[10] - oval) @ up) / height
    lift = np.clip(1.0 - level / 0.36, 0.0, 1.0) ** 0.7
    oval = oval + (_FOREHEAD * height * lift)[:, None] * up
    middle = xy[list(_MIDLINE)]
    middle = np.concatenate([middle[:1] + _FOREHEAD * height * up, middle])
    samples = np.concatenate([_dense(oval, closed=True), _dense(middle, closed=False), xy])

    centre = (samples.min(axis=0) + samples.max(axis=0)) / 2
    offset = samples - centre
    angle = np.arctan2(offset[:, 1], offset[:, 0])
    radius = np.hypot(offset[:, 0], offset[:, 1])
    sector = np.round(angle / (2 * np.pi) * _STAR_DIRECTIONS).astype(int) % _STAR_DIRECTIONS
    reach = np.zeros(_STAR_DIRECTIONS)
    np.maximum.at(reach, sector, radius)
    known = reach > 0
    where = np.arange(_STAR_DIRECTIONS)
    reach = np.interp(where, where[known], reach[known], period=_STAR_DIRECTIONS)
    reach = (np.roll(reach, 1) + 2 * reach + np.roll(reach, -1)) / 4
    theta = where / _STAR_DIRECTIONS * 2 * np.pi
    return centre + reach[:, None] * np.stack([np.cos(theta), np.sin(theta)], axis=1)


def _dense(points: NDArray[np.float64], *, closed: bool, steps: int = 8) -> NDArray[np.float64]:
    ends = np.roll(points, -1, axis=0) if closed else points[1:]
    starts = points if closed else points[:-1]
    t = (np.arange(steps) / steps)[None, :, None]
    return (starts[:, None] * (1 - t) + ends[:, None] * t).reshape(-1, 2)


def _region_distances(name: str, xy: NDArray[np.float64], size: int) -> list[FloatArray]:
    if name in ("face", "skin"):
        coarse = outline_distance(xy, min(_COARSE, size))
        return [_at_size(coarse, size) + np.float32(_GROW["face"])]
    grid = min(_FINE, size)
    return [
        _distance_map(xy[list(outline)], size, grid=grid) + np.float32(_GROW[name])
        for outline in landmarks.REGIONS[name]
    ]


def outline_distance(mesh_xy: NDArray[np.floating], grid: int = _COARSE) -> FloatArray:
    """Signed distance to :func:`face_outline`, positive inside, ``[grid, grid]``; not to be written to.

    Farther than 1/10 of the crop beyond the outline it is only said to be that far. Masks of one face are
    drawn several times a frame: the last few maps are kept.
    """
    return _kept_distance(np.ascontiguousarray(np.asarray(mesh_xy)[:, :2], np.float64).tobytes(), grid)


@lru_cache(maxsize=16)
def _kept_distance(mesh_xy: bytes, grid: int) -> FloatArray:
    coarse = _coarse_distance(face_outline(np.frombuffer(mesh_xy).reshape(-1, 2)), grid, margin=0.1)
    coarse.flags.writeable = False
    return coarse


def signed_distance(
    polygon_xy: NDArray[np.floating], points_xy: NDArray[np.floating]
) -> FloatArray:
    """Distance of points to a closed polygon, positive inside (non-zero winding).

    :param polygon_xy: ``[n, 2]``, may cross itself.
    :param points_xy: ``[m, 2]``.
    :return: ``[m]``.
    """
    x, y = np.asarray(points_xy, dtype=np.float32).T
    return _signed_distance(polygon_xy, x, y)


def _signed_distance(polygon_xy: NDArray[np.floating], x: FloatArray, y: FloatArray) -> FloatArray:
    """The same for places ``x``, ``y`` of shapes that broadcast: on a grid, ``[1, w]`` and ``[h, 1]``."""
    start = np.asarray(polygon_xy, dtype=np.float32)
    edge = np.roll(start, -1, axis=0) - start
    length = np.hypot(edge[:, 0], edge[:, 1])
    shape = np.broadcast_shapes(x.shape, y.shape)
    best = np.full(shape, np.inf, np.float32)
    winding = np.zeros(shape, np.int8)
    # A loop over edges keeps the working set in cache: faster than one [m, n] array. An edge's own axes,
    # along it and across, are sums of what rows and columns say.
    for (sx, sy), (ex, ey), long in zip(start, edge, length, strict=True):
        px, py = x - sx, y - sy
        if long == 0:
            np.minimum(best, px * px + py * py, out=best)
            continue
        ux, uy = ex / long, ey / long
        beside = ux * py - uy * px
        level = np.flatnonzero((py >= 0) & (py < ey) if ey > 0 else (py < 0) & (py >= ey))
        if len(level):
            winding[level] += beside[level] > 0 if ey > 0 else -(beside[level] < 0).astype(np.int8)
        beyond = ux * px + uy * py
        beyond -= np.minimum(np.maximum(beyond, 0), long)
        beyond *= beyond
        beside *= beside
        beside += beyond
        np.minimum(best, beside, out=best)
    distance = np.sqrt(best, out=best)
    return np.where(winding != 0, distance, -distance)


def _distance_map(polygon: NDArray[np.float64], size: int, *, grid: int) -> FloatArray:
    """Signed distance over the crop, ``[size, size]``; beyond a margin only a lower bound."""
    return _at_size(_coarse_distance(polygon, grid), size)


def _coarse_distance(
    polygon: NDArray[np.float64], grid: int, *, margin: float = 64 / REFERENCE_SIZE
) -> FloatArray:
    low = np.floor((polygon.min(axis=0) - margin) * grid).astype(int).clip(0, grid)
    high = np.ceil((polygon.max(axis=0) + margin) * grid).astype(int).clip(0, grid)
    coarse = np.full((grid, grid), -margin, np.float32)
    if (high > low).all():
        x = ((np.arange(low[0], high[0]) + 0.5) / grid).astype(np.float32)
        y = ((np.arange(low[1], high[1]) + 0.5) / grid).astype(np.float32)
        window = _signed_distance(polygon, x[None, :], y[:, None])
        coarse[low[1] : high[1], low[0] : high[0]] = np.maximum(window, -margin)
    return coarse


def _at_size(coarse: FloatArray, size: int) -> FloatArray:
    if coarse.shape[0] == size:
        return coarse
    tensor = torch.tensor(coarse)[None, None]
    return F.interpolate(tensor, size=(size, size), mode="bilinear", align_corners=False)[0, 0].numpy()


def _edge(distance: FloatArray, soft: float, size: int, *, keep_width: bool = False) -> FloatArray:
    """Opacity from distance: 0 at and below 0, 1 from ``soft`` on, one pixel wide at least."""
    if not keep_width:
        soft = min(soft, 0.8 * max(float(distance.max()), 0.0))
    return smoothstep(distance * np.float32(1.0 / max(soft, 1.0 / size)))


def _border_distance(size: int) -> FloatArray:
    # One pixel is taken off so that the outermost row is 0 and not merely small.
    centre = (np.arange(size, dtype=np.float32) + 0.5) / size
    reach = np.minimum(centre, 1 - centre) - np.float32(1.0 / size)
    return np.minimum(reach[:, None], reach[None, :])


def _soft_inside(inside: FloatArray, size: int, soft: float) -> FloatArray:
    """Fade out towards the edge of the frame, within the frame."""
    grid = min(_COARSE, size)
    small = resize_map(inside, grid)
    if small.min() >= 1.0:
        return np.ones((size, size), np.float32)
    radius = max(1, round(soft * grid))
    tensor = F.pad(torch.from_numpy(small)[None, None], (radius,) * 4, mode="replicate")
    blurred = F.avg_pool2d(tensor, 2 * radius + 1, stride=1)[0, 0].numpy()
    fade = smoothstep(np.clip(2 * blurred - 1, 0.0, 1.0))
    return resize_map(fade, size) * (resize_map(inside, size) >= 1.0)

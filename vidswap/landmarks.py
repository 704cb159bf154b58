"""The 468-point face mesh: regions, and measures of expression, gaze and head pose.

Point numbers are those of MediaPipe's canonical face mesh (Kartynnik et al., 1907.06724).
"Left" and "right" are the image's, for an upright face; subjects see them mirrored.
Meshes are ``[468, 3]`` (or ``[468, 2]`` where depth is not needed), x right, y down, z away from
the camera, all in the same unit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

MESH_POINTS = 468

FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
"""Outline of the face, clockwise from the middle of the forehead."""
LEFT_EYE = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
"""Lids of the eye on the image's left, from the outer corner over the upper lid."""
RIGHT_EYE = (362, 398, 384, 385, 386, 387, 388, 466, 263, 249, 390, 373, 374, 380, 381, 382)
"""Lids of the eye on the image's right, from the inner corner over the upper lid."""
LEFT_BROW = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
RIGHT_BROW = (336, 296, 334, 293, 300, 276, 283, 282, 295, 285)
NOSE = (
    168, 417, 351, 412, 399, 437, 420, 429, 279, 278, 294, 327, 326,
    2, 97, 98, 64, 48, 49, 209, 198, 217, 174, 188, 122, 193,
)  # fmt: skip
"""From the root of the nose down its right flank, below the nostrils and up again."""
MOUTH = (
    61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146,
)  # fmt: skip
"""Outer edge of the lips, from the left corner over the upper lip."""
INNER_MOUTH = (
    78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95,
)  # fmt: skip
"""Inner edge of the lips, from the left corner over the upper lip."""

REGIONS: dict[str, tuple[tuple[int, ...], ...]] = {
    "face": (FACE_OVAL,),
    "skin": (FACE_OVAL,),
    "eyes": (LEFT_EYE, RIGHT_EYE),
    "brows": (LEFT_BROW, RIGHT_BROW),
    "nose": (NOSE,),
    "mouth": (MOUTH,),
    "inner-mouth": (INNER_MOUTH,),
}
"""Region -> closed outlines. ``skin`` has the outline of the face."""

INNER_BROWS = ((55, 107), (285, 336))
"""The ends of the left and of the right brow beside the nose."""
EYE_CORNERS = ((33, 133), (362, 263))
"""Left and right corner of the left and of the right eye."""
MOUTH_CORNERS = (61, 291)

# The mesh points of dlib's six points an eye: outer corner, two above, inner corner, two below.
DLIB_EYES = ((33, 160, 158, 133, 153, 144), (362, 385, 387, 263, 373, 380))

# The iris network's first 16 contour points (lower lid from the outer corner, then the upper one).
IRIS_NETWORK_EYE = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398),
)

# The skin between lid and brow, on the side of the nose, and its rows in that network's contour. What
# knits brows pushes it down on the eye; the mesh network hardly sees that.
IRIS_NETWORK_FROWN = ((222, 221, 189), (442, 441, 413))
IRIS_NETWORK_FROWN_ROWS = (45, 46, 47)

# From the middle of an eye's corners to the mean of its six dlib points, over the eye's width:
# outwards and up. Means over 48 faces of the generator at psi 0.7 (deviation 0.012 and 0.006).
_EYE_CENTER_OUT = 0.034
_EYE_CENTER_UP = 0.032

# Points that expressions hardly move (forehead, bridge and wings of the nose, eye corners,
# temples) of the mean face, in interocular distances: Procrustes mean of 48 meshes of the
# generator's faces at psi 0.7 and their mirror images, turned so that their mean pose is (0, 0, 0).
_RIGID: dict[int, tuple[float, float, float]] = {
    10: (0.000, -0.515, -0.150), 151: (0.000, -0.335, -0.186), 9: (0.000, -0.144, -0.211),
    8: (0.000, -0.047, -0.192), 168: (0.000, 0.035, -0.185), 6: (0.000, 0.123, -0.236),
    197: (0.000, 0.206, -0.294), 195: (0.000, 0.282, -0.357), 5: (0.000, 0.365, -0.423),
    4: (0.000, 0.466, -0.449), 1: (0.000, 0.542, -0.421), 33: (-0.500, 0.090, 0.085),
    263: (0.500, 0.090, 0.085), 133: (-0.208, 0.108, 0.021), 362: (0.208, 0.108, 0.021),
    127: (-0.824, 0.135, 0.683), 356: (0.824, 0.135, 0.683), 234: (-0.816, 0.298, 0.745),
    454: (0.816, 0.298, 0.745), 54: (-0.701, -0.303, 0.242), 284: (0.701, -0.303, 0.242),
    103: (-0.586, -0.407, 0.086), 332: (0.586, -0.407, 0.086), 67: (-0.411, -0.476, -0.050),
    297: (0.411, -0.476, -0.050), 109: (-0.223, -0.509, -0.129), 338: (0.223, -0.509, -0.129),
    98: (-0.214, 0.577, -0.132), 327: (0.214, 0.577, -0.132),
}
_RIGID_INDEX = list(_RIGID)
_RIGID_XYZ = np.array(list(_RIGID.values()))

# Pairs (upper, lower) whose distance tells how far lids and lips are apart.
_LID_PAIRS = (((160, 144), (159, 145), (158, 153)), ((385, 380), (386, 374), (387, 373)))
_LIP_PAIRS = ((81, 178), (82, 87), (13, 14), (312, 317), (311, 402))


def _points(mesh: NDArray[np.floating]) -> NDArray[np.float64]:
    points = np.asarray(mesh, dtype=np.float64)
    if points.ndim != 2 or points.shape[0] != MESH_POINTS or points.shape[1] not in (2, 3):
        raise ValueError(f"mesh: expected [468, 2] or [468, 3], got {list(points.shape)}")
    return points


def _mesh3(mesh: NDArray[np.floating]) -> NDArray[np.float64]:
    points = _points(mesh)
    if points.shape[1] != 3:
        raise ValueError("mesh: expected [468, 3] (depth is needed), got [468, 2]")
    return points


def region_polygon(mesh: NDArray[np.floating], region: str) -> list[Array]:
    """Outlines of a region as closed polygons ``[n, 2]``, in the mesh's unit.

    :param region: a name in :data:`REGIONS`.
    :raises ValueError: when the region is unknown or the mesh's shape wrong.
    """
    if region not in REGIONS:
        raise ValueError(f"region: expected one of {', '.join(REGIONS)}, got {region!r}")
    points = _points(mesh)[:, :2].astype(np.float32)
    return [points[list(outline)] for outline in REGIONS[region]]


def keypoints_from_mesh(mesh: NDArray[np.floating]) -> Array:
    """Five keypoints ``[5, 2]``: eye left, eye right, nose tip, mouth corner left, right."""
    points = _points(mesh)[:, :2]
    eyes = eye_centers(mesh)
    return np.stack((*eyes, points[1], *points[list(MOUTH_CORNERS)])).astype(np.float32)


def eye_centers(mesh: NDArray[np.floating]) -> NDArray[np.float64]:
    """Centres ``[2, 2]`` of the left and the right eye, where dlib's six points have their mean.

    Computed from the eye's corners and a fixed offset rather than from the lids, so that a blink
    moves nothing.
    """
    points = _points(mesh)[:, :2]
    centers = []
    for (start, end), outwards in zip(EYE_CORNERS, (-1.0, 1.0), strict=True):
        axis = points[end] - points[start]
        up = np.array([axis[1], -axis[0]])
        middle = (points[start] + points[end]) / 2
        centers.append(middle + _EYE_CENTER_OUT * outwards * axis + _EYE_CENTER_UP * up)
    return np.stack(centers)


def interocular(mesh: NDArray[np.floating]) -> float:
    """Distance of the outer eye corners, in three dimensions when the mesh has depth.

    With depth it does not shrink when the head turns.
    """
    points = _points(mesh)
    return max(float(np.linalg.norm(points[EYE_CORNERS[1][1]] - points[EYE_CORNERS[0][0]])), 1e-9)


def eye_aspect(mesh: NDArray[np.floating]) -> NDArray[np.float64]:
    """Opening over width of the left and the right eye, ``[2]`` (Soukupova & Cech, 2016).

    About 0.3 for an open eye, below 0.15 for a closed one.
    """
    points = _points(mesh)
    ratios = []
    for corners, pairs in zip(EYE_CORNERS, _LID_PAIRS, strict=True):
        width = np.linalg.norm(points[corners[1], :2] - points[corners[0], :2])
        gaps = [np.linalg.norm(points[low, :2] - points[high, :2]) for high, low in pairs]
        ratios.append(np.mean(gaps) / max(float(width), 1e-9))
    return np.array(ratios)


def mouth_opening(mesh: NDArray[np.floating]) -> float:
    """Mean gap between the inner lips over the distance of the outer eye corners; 0 is closed."""
    points = _points(mesh)
    gaps = [np.linalg.norm(points[low] - points[high]) for high, low in _LIP_PAIRS]
    return float(np.mean(gaps)) / interocular(mesh)


def gaze(mesh: NDArray[np.floating], iris_xy: NDArray[np.floating]) -> NDArray[np.float64]:
    """Where the irises sit in the eyes: ``[2, 2]`` for the left and right eye, (across, down).

    Measured from the middle between the eye's corners along and across the line that joins them,
    over the eye's width: (0, 0) is the middle, across is about +-0.25 at the sides.

    :param iris_xy: ``[2, 5, 2]`` iris points (the first is the centre) in the mesh's unit.
    """
    points = _points(mesh)[:, :2]
    irises = np.asarray(iris_xy, dtype=np.float64)
    if irises.shape != (2, 5, 2):
        raise ValueError(f"iris_xy: expected [2, 5, 2], got {list(irises.shape)}")
    out = []
    for (start, end), iris in zip(EYE_CORNERS, irises, strict=True):
        axis = points[end] - points[start]
        squared = max(float(axis @ axis), 1e-12)
        offset = iris[0] - (points[start] + points[end]) / 2
        out.append((offset @ axis / squared, offset @ np.array([-axis[1], axis[0]]) / squared))
    return np.array(out)


def _fit(
    moving: NDArray[np.float64], fixed: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float, NDArray[np.float64]]:
    """Rotation, scale and shift of least squares: ``fixed ~ scale * moving @ R.T + shift``.

    Umeyama (1991), without reflections.
    """
    moving_mean, fixed_mean = moving.mean(axis=0), fixed.mean(axis=0)
    a, b = moving - moving_mean, fixed - fixed_mean
    u, singular, vt = np.linalg.svd(b.T @ a)
    signs = np.ones(len(singular))
    signs[-1] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * signs) @ vt
    scale = float((singular * signs).sum() / max(float((a**2).sum()), 1e-12))
    return rotation, scale, fixed_mean - scale * rotation @ moving_mean


def head_pose(mesh: NDArray[np.floating]) -> tuple[float, float, float]:
    """Yaw, pitch and roll of the head in degrees, by a weak-perspective fit of a mean face.

    Yaw is positive when the nose points to the image's right, pitch when it points up, roll when
    the head is turned clockwise in the image. (0, 0, 0) is the mean pose of aligned portraits.
    """
    rotation, _, _ = _fit(_RIGID_XYZ, _mesh3(mesh)[_RIGID_INDEX])
    forward = -rotation[:, 2]
    yaw = np.arctan2(forward[0], -forward[2])
    pitch = np.arcsin(np.clip(-forward[1], -1, 1))
    # rotation = turn(yaw) @ nod(pitch) @ tilt(roll)
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    turn = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    tilt = (turn @ nod).T @ rotation
    roll = np.arctan2(tilt[1, 0], tilt[0, 0])
    return tuple(float(np.degrees(angle)) for angle in (yaw, pitch, roll))  # type: ignore[return-value]


def expression_vector(mesh: NDArray[np.floating]) -> Array:
    """The mesh without pose and size: ``[468, 3]`` in interocular distances.

    The rigid part of the face is fitted to a mean face (Procrustes), so that what moves
    against the skull stays: jaw, lips, cheeks, brows, lids.
    """
    points = _mesh3(mesh)
    rotation, _, _ = _fit(_RIGID_XYZ, points[_RIGID_INDEX])
    upright = points @ rotation
    shift = _RIGID_XYZ.mean(axis=0) - upright[_RIGID_INDEX].mean(axis=0) / interocular(points)
    return (upright / interocular(points) + shift).astype(np.float32)


def expression_distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Mean distance of the landmarks of two meshes after Procrustes, in interocular distances.

    All 468 points of ``b`` are fitted to those of ``a`` by rotation, scale and shift in three
    dimensions. Works on meshes and on expression vectors alike; 0 means the same expression (and
    the same proportions of the face).

    :param a: ``[468, 3]``; its interocular distance is the unit.
    :param b: ``[468, 3]``
    """
    first, second = _mesh3(a), _mesh3(b)
    rotation, scale, shift = _fit(second, first)
    difference = scale * second @ rotation.T + shift - first
    return float(np.linalg.norm(difference, axis=1).mean()) / interocular(first)

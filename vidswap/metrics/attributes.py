"""What of the target's face was kept: head pose, expression, mouth, eyes, gaze.

All differences are between the faces of one frame of the original and of the output, from their
468-point meshes in display coordinates (``[468, 3]``) and irises (``[2, 5, 2]``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidswap import landmarks

Array = NDArray[Any]


@dataclass(frozen=True)
class AttributeDifference:
    """Differences of one frame; 0 is kept perfectly."""

    pose_degrees: float
    """Angle of the rotation between the two head poses (axis-angle), degrees."""
    expression: float
    """Mean distance of the landmarks after Procrustes, over the inter-ocular distance."""
    mouth_opening: float
    """Difference of the gap between the inner lips over the inter-ocular distance."""
    eye_aspect: float
    """Difference of the eye aspect ratio (Soukupova and Cech 2016), the worse of the two eyes."""
    gaze: float
    """Distance of the iris centre within the eye, in widths of the eye, mean of both; NaN
    without irises or with an eye closed in either picture."""


CLOSED_EYE = 0.12
"""Eye aspect ratios below this are closed eyes, in which an iris is guessed, not seen."""


def attribute_difference(
    output_mesh: Array,
    original_mesh: Array,
    output_iris: Array | None = None,
    original_iris: Array | None = None,
) -> AttributeDifference:
    """All attribute differences of one frame.

    :raises ValueError: when a mesh is not ``[468, 3]``.
    """
    output_eyes = landmarks.eye_aspect(output_mesh)
    original_eyes = landmarks.eye_aspect(original_mesh)
    gaze = float("nan")
    if output_iris is not None and original_iris is not None:
        is_open = np.minimum(output_eyes, original_eyes) >= CLOSED_EYE
        gaze = gaze_difference(
            landmarks.gaze(output_mesh, output_iris),
            landmarks.gaze(original_mesh, original_iris),
            is_open,
        )
    return AttributeDifference(
        pose_degrees=pose_difference_degrees(
            pose_rotation(*landmarks.head_pose(output_mesh)),
            pose_rotation(*landmarks.head_pose(original_mesh)),
        ),
        expression=float(landmarks.expression_distance(output_mesh, original_mesh)),
        mouth_opening=abs(
            landmarks.mouth_opening(output_mesh) - landmarks.mouth_opening(original_mesh)
        ),
        eye_aspect=float(np.abs(output_eyes - original_eyes).max()),
        gaze=gaze,
    )


def pose_rotation(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """Rotation matrix ``[3, 3]`` of the angles in degrees of :func:`vidswap.landmarks.head_pose`.

    Turned by roll first, then by pitch, then by yaw, in x right, y down, z away from the camera.
    """
    (sy, sp, sr), (cy, cp, cr) = (f(np.radians([yaw, pitch, roll])) for f in (np.sin, np.cos))
    turn = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return turn @ nod @ tilt


def pose_difference_degrees(first: Array, second: Array) -> float:
    """Angle of the rotation that turns one head pose ``[3, 3]`` into the other, in degrees.

    By the chord rather than the trace, so that small angles are exact.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != (3, 3) or b.shape != (3, 3):
        raise ValueError(f"poses: expected two [3, 3], got {list(a.shape)} and {list(b.shape)}")
    half_chord = np.linalg.norm(a - b) / np.sqrt(8.0)
    return float(np.degrees(2 * np.arcsin(min(half_chord, 1.0))))


def gaze_difference(first: Array, second: Array, is_open: Array | None = None) -> float:
    """Mean distance of iris positions ``[2, 2]`` (eye; across, down) over the eyes that are open.

    :param is_open: ``[2]`` which eyes count; None: both.
    :return: in widths of the eye, NaN with no eye open. 0.05 is about 5 degrees of gaze.
    """
    distance = np.linalg.norm(np.asarray(first, float) - np.asarray(second, float), axis=-1)
    if is_open is not None:
        distance = distance[np.asarray(is_open, bool)]
    return float(distance.mean()) if len(distance) else float("nan")

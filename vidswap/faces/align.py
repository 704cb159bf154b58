"""FFHQ alignment: from a face to the square that the generator was trained on.

Karras et al., "A Style-Based Generator Architecture for GANs" (1812.04948), appendix C.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vidswap.geometry import apply_homography, quad_size_px, quad_to_homography
from vidswap.landmarks import MOUTH_CORNERS, eye_centers
from vidswap.records import AlignedCrop, Face
from vidswap.warp import crop

Array = NDArray[np.float32]

# The rule was made for dlib's landmarks. With the mesh's, the faces of the generator itself (48 at
# psi 0.7) gave squares of 0.99 times the picture, centred within 0.0015 of it; this makes them 1.
_MESH_SCALE = 1.01


def align_quad(face: Face) -> Array:
    """Corners TL, BL, BR, TR, ``[4, 2]``, of the aligned square, in the face's own coordinates.

    Eyes and mouth corners come from the mesh when the face has one (eye corners, not lids: a
    blink does not move the square), from the five keypoints otherwise.

    :raises ValueError: when eyes and mouth fall on one point.
    """
    if face.mesh_xyz is not None:
        eyes = eye_centers(face.mesh_xyz)
        mouth = face.mesh_xyz[list(MOUTH_CORNERS), :2].astype(np.float64).mean(axis=0)
        scale = _MESH_SCALE
    else:
        points = face.keypoints_xy.astype(np.float64)
        eyes, mouth, scale = points[:2], points[3:].mean(axis=0), 1.0
    eye_middle = eyes.mean(axis=0)
    eye_to_eye = eyes[1] - eyes[0]
    eye_to_mouth = mouth - eye_middle
    x = eye_to_eye - np.array([-eye_to_mouth[1], eye_to_mouth[0]])
    length = float(np.hypot(*x))
    if not np.isfinite(length) or length < 1e-6:
        raise ValueError(f"face: eyes and mouth do not span a square, got {face.keypoints_xy}")
    side = max(float(np.hypot(*eye_to_eye)) * 2.0, float(np.hypot(*eye_to_mouth)) * 1.8)
    x *= scale * side / length
    y = np.array([-x[1], x[0]])
    center = eye_middle + 0.1 * eye_to_mouth
    corners = (center - x - y, center - x + y, center + x + y, center + x - y)
    return np.stack(corners).astype(np.float32)


def align(
    image: NDArray[np.floating],
    face: Face,
    size: int,
    *,
    quad_xy: Array | None = None,
    origin_xy: tuple[float, float] = (0.0, 0.0),
) -> AlignedCrop:
    """Crop a face and bring its mesh along.

    :param image: ``[h, w, 3]`` float RGB in [0, 1] (or uint8): the frame or a box of it.
    :param face: in display coordinates.
    :param quad_xy: the square to use, a smoothed one for example; None takes :func:`align_quad`.
    :param origin_xy: display coordinates of the image's top left corner.
    """
    quad = align_quad(face) if quad_xy is None else np.asarray(quad_xy, dtype=np.float32)
    pixels, inside = crop(image, quad, size, origin_xy=origin_xy)
    moved = face_in_crop(face, quad)
    return AlignedCrop(pixels, quad, moved.mesh_xyz, moved.iris_xy, inside)


def face_in_crop(face: Face, quad_xy: NDArray[np.floating]) -> Face:
    """The face in crop coordinates, [0, 1] across the crop (z in the same scale)."""
    inverse = np.linalg.inv(quad_to_homography(quad_xy))
    box = apply_homography(inverse, face.box_xyxy.reshape(2, 2))
    mesh, iris = face.mesh_xyz, face.iris_xy
    if mesh is not None:
        depth = mesh[:, 2:] / quad_size_px(quad_xy)
        mesh = np.concatenate((apply_homography(inverse, mesh[:, :2]), depth), axis=1)
        mesh = mesh.astype(np.float32)
        box = np.stack((mesh[:, :2].min(axis=0), mesh[:, :2].max(axis=0)))
    if iris is not None:
        iris = apply_homography(inverse, iris).astype(np.float32)
    return replace(
        face,
        box_xyxy=np.concatenate((box.min(axis=0), box.max(axis=0))).astype(np.float32),
        keypoints_xy=apply_homography(inverse, face.keypoints_xy).astype(np.float32),
        mesh_xyz=mesh,
        iris_xy=iris,
    )

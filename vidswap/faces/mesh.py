"""Face mesh, irises and lips (Kartynnik et al., 1907.06724; Ablavatski et al., 2006.11341; Grishchenko et
al., 2006.10962).

A rotated square around the face goes through the mesh network and that of the lips, a square around each eye
through the iris network; all answer in their square's coordinates, which are mapped back.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vidswap.errors import WeightsError
from vidswap.faces.backends import check_picture
from vidswap.geometry import quad_size_px
from vidswap.landmarks import (
    EYE_CORNERS,
    IRIS_NETWORK_EYE,
    IRIS_NETWORK_FROWN,
    IRIS_NETWORK_FROWN_ROWS,
    MESH_POINTS,
    MOUTH_CORNERS,
    keypoints_from_mesh,
)
from vidswap.models.lips import LIPS, LipNet
from vidswap.models.litert import LiteRTModel
from vidswap.records import Face

Array = NDArray[np.float32]

# Margins that the networks were trained with: side of the square over the extent of the face
# (longer side of the landmarks' box) and over the eye's width.
_FACE_MARGIN = 1.5
_EYE_MARGIN = 2.3
_MESH_SIZE = 192
_EYE_SIZE = 64


class FaceMesher:
    """Refines a detected face to 468 points, ten iris points and a presence score.

    :param facemesh_path: mesh network (192 px input).
    :param iris_path: iris network (64 px input).
    :param refine_eyelids: take the eyelid contours from the iris network, whose crop shows them
        some four times larger: blinks are followed much better.
    :param lips: network that the points of the lips are taken from; None leaves them to the mesh network,
        which hardly tells closed lips from open ones.
    :raises WeightsError: when a file is missing or is another network.
    """

    def __init__(
        self,
        facemesh_path: Path,
        iris_path: Path,
        *,
        refine_eyelids: bool = True,
        lips: LipNet | None = None,
        threads: int = 1,
    ) -> None:
        self.refine_eyelids = refine_eyelids
        self._lips = lips
        self._mesh = LiteRTModel(facemesh_path, threads=threads)
        self._iris = LiteRTModel(iris_path, threads=threads)
        self._mesh_out = _outputs(self._mesh, (MESH_POINTS * 3, 1), facemesh_path)
        self._iris_out = _outputs(self._iris, (213, 15), iris_path)

    def refine(self, rgb: NDArray[np.uint8], face: Face, *, passes: int | None = None) -> Face:
        """Fit the mesh to a face.

        :param rgb: ``[H, W, 3]`` uint8.
        :param face: a fresh detection, or the face of the frame before (with its mesh), in pixels
            of ``rgb``.
        :param passes: how often the region is taken anew from the last mesh. None: twice after a
            detection, whose box is rough, once when tracking.
        :return: the face with mesh, irises, box and keypoints from the mesh, and the presence
            score of the mesh network; its track and embedding are kept.
        :raises ValueError: when the picture is not uint8 RGB or ``passes`` < 1.
        """
        picture = check_picture(rgb)
        last = face.mesh_xyz
        count = passes if passes is not None else (2 if last is None else 1)
        if count < 1:
            raise ValueError(f"passes: expected >= 1, got {count}")
        for _ in range(count):
            quad = _face_quad(face) if last is None else mesh_quad(last)
            crop = crop_square(picture, quad, _MESH_SIZE)
            points, score = self._run_mesh(crop)
            mesh = np.empty((MESH_POINTS, 3), dtype=np.float32)
            mesh[:, :2] = _from_quad(points[:, :2], quad)
            mesh[:, 2] = points[:, 2] * quad_size_px(quad)
            last = mesh
        # Keypoints keep the mesh network's corners of the mouth, as detectors and trackers know them.
        corners = mesh[list(MOUTH_CORNERS), :2].copy()
        if self._lips is not None:
            mesh[list(LIPS), :2] = _from_quad(self._run_lips(self._lips, crop, points), quad)
        irises = []
        for side in (0, 1):
            iris, contour = self._run_iris(picture, mesh, right_in_image=side == 1)
            irises.append(iris)
            if self.refine_eyelids:
                mesh[IRIS_NETWORK_EYE[side], :2] = contour[: len(IRIS_NETWORK_EYE[side])]
                mesh[IRIS_NETWORK_FROWN[side], :2] = contour[list(IRIS_NETWORK_FROWN_ROWS)]
        keypoints = keypoints_from_mesh(mesh)
        keypoints[3:] = corners
        return replace(
            face,
            box_xyxy=np.concatenate((mesh[:, :2].min(0), mesh[:, :2].max(0))).astype(np.float32),
            score=score,
            keypoints_xy=keypoints,
            mesh_xyz=mesh,
            iris_xy=np.stack(irises).astype(np.float32),
        )

    def _run_mesh(self, crop: Array) -> tuple[Array, float]:
        """The mesh ``[468, 3]`` in the unit square of a crop, and its presence."""
        out = self._mesh(crop)
        points = out[self._mesh_out[0]].reshape(MESH_POINTS, 3) / np.float32(_MESH_SIZE)
        logit = float(out[self._mesh_out[1]].reshape(-1)[0])
        return points, float(1 / (1 + np.exp(-np.clip(logit, -60, 60))))

    @staticmethod
    @torch.no_grad()
    def _run_lips(lips: LipNet, crop: Array, points: Array) -> Array:
        """Points ``[80, 2]`` of the lips in the unit square of a crop, from the mesh found in it."""
        pixels = torch.from_numpy(crop).permute(2, 0, 1)[None]
        there = torch.from_numpy(points * np.float32(_MESH_SIZE))[None]
        return lips(pixels, there)[0].numpy() / np.float32(_MESH_SIZE)

    def _run_iris(
        self, rgb: NDArray[np.uint8], mesh: Array, *, right_in_image: bool
    ) -> tuple[Array, Array]:
        """Iris ``[5, 2]`` of one eye, and 71 points around it, the eyelid's 16 first.

        The network was trained on the eye that is on the image's left (outer corner on the
        left); the other eye is shown to it mirrored. On seven portraits its lids then lie 0.01
        to 0.07 interocular distances from the mesh's, and 0.16 to 0.20 the other way round.
        """
        start, end = EYE_CORNERS[int(right_in_image)]
        quad = _square(
            (mesh[start, :2] + mesh[end, :2]) / 2,
            mesh[end, :2] - mesh[start, :2],
            _EYE_MARGIN * float(np.linalg.norm(mesh[end, :2] - mesh[start, :2])),
        )
        pixels = crop_square(rgb, quad, _EYE_SIZE)
        if right_in_image:
            pixels = pixels[:, ::-1]
        out = self._iris(pixels)
        iris = out[self._iris_out[1]].reshape(5, 3)[:, :2] / np.float32(_EYE_SIZE)
        contour = out[self._iris_out[0]].reshape(71, 3)[:, :2] / np.float32(_EYE_SIZE)
        if right_in_image:
            iris, contour = iris * (-1, 1) + (1, 0), contour * (-1, 1) + (1, 0)
        return _from_quad(iris, quad), _from_quad(contour, quad)


def mesh_quad(mesh_xyz: Array, *, margin: float = _FACE_MARGIN) -> Array:
    """Square ``[4, 2]`` turned with the eyes around a mesh, ``margin`` times its extent."""
    points = np.asarray(mesh_xyz[:, :2], dtype=np.float64)
    axis = points[EYE_CORNERS[1][1]] - points[EYE_CORNERS[0][0]]
    axis /= max(float(np.linalg.norm(axis)), 1e-6)
    basis = np.stack((axis, (-axis[1], axis[0])))
    turned = points @ basis.T
    low, high = turned.min(0), turned.max(0)
    return _square(((low + high) / 2) @ basis, axis, float((high - low).max()) * margin)


def _face_quad(face: Face) -> Array:
    box = face.box_xyxy
    # The margin is meant for BlazeFace's boxes. Those of other detectors end elsewhere; the second
    # pass, whose square comes from the mesh itself, is what makes up for it.
    side = max(float(box[2] - box[0]), float(box[3] - box[1]))
    return _square(
        (box[:2] + box[2:]) / 2, face.keypoints_xy[1] - face.keypoints_xy[0], side * _FACE_MARGIN
    )


def _square(center: NDArray[np.floating], axis: NDArray[np.floating], side: float) -> Array:
    length = float(np.linalg.norm(axis))
    unit = np.asarray(axis, dtype=np.float64) / length if length > 1e-6 else np.array([1.0, 0.0])
    x = unit * max(side, 2.0) / 2
    y = np.array([-x[1], x[0]])
    c = np.asarray(center, dtype=np.float64)
    return np.stack((c - x - y, c - x + y, c + x + y, c + x - y)).astype(np.float32)


def _from_quad(points: NDArray[np.floating], quad: Array) -> Array:
    """Points of the unit square into the picture; the quad is a square."""
    u, v = points[:, :1], points[:, 1:]
    return (quad[0] + u * (quad[3] - quad[0]) + v * (quad[1] - quad[0])).astype(np.float32)


def crop_square(rgb: NDArray[np.uint8], quad: Array, size: int) -> Array:
    """``[size, size, 3]`` float32 in [0, 1] under a square quad; edges repeat outside.

    The same transform as :func:`vidswap.warp.crop`, by Pillow: for squares this small torch's
    threads cost more than the sampling (0.5 s a face was seen on busy cores).
    """
    height, width = rgb.shape[:2]
    block = max(1, int(quad_size_px(quad) / size))
    margin = 2 * block + 1
    left, top = (int(v) for v in np.floor(quad.min(0)) - margin)
    right, bottom = (int(v) for v in np.ceil(quad.max(0)) + margin)
    part = rgb[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if part.size == 0:
        return np.zeros((size, size, 3), dtype=np.float32)
    outside = (
        (max(-top, 0), max(bottom - height, 0)),
        (max(-left, 0), max(right - width, 0)),
        (0, 0),
    )
    if any(sum(pair) for pair in outside):
        part = np.pad(part, outside, mode="edge")
    picture = Image.fromarray(np.ascontiguousarray(part))
    if block > 1:  # means of whole blocks against aliasing; the last ones may be cut short
        picture = picture.reduce(block)
    local = (np.asarray(quad, dtype=np.float64) - (left, top)) / block
    across, down = (local[3] - local[0]) / size, (local[1] - local[0]) / size
    data = (across[0], down[0], local[0, 0], across[1], down[1], local[0, 1])
    crop = picture.transform(
        (size, size), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR
    )
    return np.asarray(crop, dtype=np.float32) * np.float32(1 / 255)


def _outputs(model: LiteRTModel, sizes: tuple[int, int], path: Path) -> tuple[str, str]:
    """Names of the outputs with these numbers of values."""
    found = {int(np.prod(shape)): name for name, shape in model.output_shapes.items()}
    missing = [size for size in sizes if size not in found]
    if missing:
        raise WeightsError(
            f"{path} has outputs of {sorted(found)} values, expected {list(sizes)}; "
            "run `vidswap weights verify`."
        )
    return found[sizes[0]], found[sizes[1]]

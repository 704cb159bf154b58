"""Face mesh and irises of FFHQ-aligned images, differentiable, and features of expression.

The generator's frame (FFHQ alignment) always holds the face at the same place, so the mesh
network's region of interest (ROI) is one fixed square: no detector, and gradients that do not
jump. Mesh, iris and eye coordinates are fractions of the aligned image ([0, 1], x right, y down,
z in the same scale, towards the camera negative). "Left" and "right" are those of the image.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidswap.errors import WeightsError
from vidswap.landmarks import (
    EYE_CORNERS,
    IRIS_NETWORK_EYE,
    IRIS_NETWORK_FROWN,
    IRIS_NETWORK_FROWN_ROWS,
    LEFT_BROW,
    MOUTH_CORNERS,
    RIGHT_BROW,
)
from vidswap.models.lips import LIPS, LipNet
from vidswap.models.mesh import EYE_SIZE, FACE_SIZE, FaceMeshNet, IrisNet

FACE_ROI_CENTRE_XY = (0.5, 0.59)
FACE_ROI_SIDE = 0.96
"""MediaPipe's rule (1.5 times the longer side of the landmarks' box), iterated to rest on 40
samples of the generator at psi 0.8: centre (0.499, 0.589), deviation (0.039, 0.014); side 0.956,
deviation 0.052; turned by -0.4 degrees, deviation 1. Seven photographs: (0.50, 0.594), 0.96."""

_CROP_SCALE = FACE_ROI_SIDE / FACE_SIZE
EYE_ROI_SCALE = 2.3
"""Side of the iris network's ROI in widths of the eye."""

# Pairs (upper, lower) whose distance tells how far lids (left, right eye) and lips are apart; the
# same as in vidswap.landmarks, whose measures those below are the differentiable twins of.
_LID_PAIRS = (((160, 144), (159, 145), (158, 153)), ((385, 380), (386, 374), (387, 373)))
_UPPER_LIP = 13
_OUTER_CORNERS = (33, 263)
_ALL_CORNERS = (33, 133, 362, 263)
_LIP_PAIRS = ((81, 178), (82, 87), (13, 14), (312, 317), (311, 402))
RIGID_POINTS = (
    10, 151, 9, 8, 168, 6, 197, 195, 5, 4, 1, 33, 133, 362, 263, 127, 356, 234, 454, 54, 284,
    103, 332, 67, 297, 109, 338, 98, 327,
)  # fmt: skip
"""Forehead, bridge and wings of the nose, eye corners, temples: what expressions move least."""

def _corners(mesh: Tensor) -> Tensor:
    """Eye corners ``[B, 2 eyes, 2 (left, right), 2]``."""
    return mesh[:, torch.tensor(EYE_CORNERS, device=mesh.device), :2]


class AlignedMesh(nn.Module):
    """Mesh, presence and irises of aligned images.

    Images above 512 px are first halved by area averaging down to 512 px: the face ROI has then
    2.6 pixels a sample at most, and the mesh agrees between sizes (no aliasing). At 128 px the
    ROI is enlarged to the network's 192 px.

    :param refine_eyes: replace x and y of the 32 eyelid points by those of the iris network,
        as MediaPipe and :mod:`vidswap.faces` do. Use it wherever eye aspect counts: the mesh
        alone hardly follows the lids (its eye aspect spans 0.19 to 0.34 over faces where the
        refined one spans 0.10 to 0.48). The 6 points that tell a frown are replaced as well.
    :param lips: replaces x and y of the 80 points of the lips by its own, whose gap is 0 when they are
        closed.
    """

    _face_grid: Tensor
    _eye_grid: Tensor
    _centre: Tensor

    def __init__(
        self, mesh: FaceMeshNet, iris: IrisNet, *, refine_eyes: bool = False, lips: LipNet | None = None
    ) -> None:
        super().__init__()
        self.mesh = mesh
        self.iris = iris
        self.lips = lips
        self.refine_eyes = refine_eyes
        self.register_buffer(
            "_face_grid", _roi_grid(FACE_SIZE) * FACE_ROI_SIDE, persistent=False
        )
        self.register_buffer("_eye_grid", _roi_grid(EYE_SIZE), persistent=False)
        self.register_buffer("_centre", torch.tensor(FACE_ROI_CENTRE_XY), persistent=False)

    @classmethod
    def load(cls, locate: Callable[[str], Path], *, refined: bool = True) -> AlignedMesh:
        """From the converted files, frozen.

        :param locate: a name in the catalogue of weights to its file.
        :param refined: with eyelids by the iris network and lips by their own.
        :raises WeightsError: when a file is missing, damaged or another network.
        """
        nets = FaceMeshNet.load(locate("facemesh-torch")), IrisNet.load(locate("iris-torch"))
        lips = LipNet.load(locate("lips-features"), locate("lips-points")) if refined else None
        return cls(*nets, refine_eyes=refined, lips=lips).eval()

    def forward(self, images: Tensor, *, lids_only: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Mesh, presence, irises.

        :param images: ``[B, 3, S, S]`` RGB in [-1, 1], S in 128, 256, 512, 1024.
        :param lids_only: leave lips and frown as the mesh network has them.
        :return: mesh ``[B, 468, 3]``; presence probability ``[B]``; irises ``[B, 2, 5, 2]``,
            left eye in the image first, each the centre, then the iris's edge on the side of the
            nose, above, on the side of the temple, below.
            The eye boxes follow the mesh but carry no gradient to it.
        :raises ValueError: for another shape.
        """
        images = self._prepared(images)
        crops, mesh, presence = self._mesh(images)
        contour, iris = self._eyes(images, mesh)
        if self.lips is not None and not lids_only:
            mesh = self._with_lips(self.lips, crops, mesh)
        if self.refine_eyes:
            lids = contour[:, :, : len(IRIS_NETWORK_EYE[0])]
            mesh = _with_points(mesh, sum(IRIS_NETWORK_EYE, ()), lids.flatten(1, 2))
            if not lids_only:
                frown = contour[:, :, list(IRIS_NETWORK_FROWN_ROWS)]
                mesh = _with_points(mesh, sum(IRIS_NETWORK_FROWN, ()), frown.flatten(1, 2))
        return mesh, torch.sigmoid(presence), iris

    def mesh_only(self, images: Tensor) -> Tensor:
        """Just the mesh ``[B, 468, 3]``, for a third of the cost; never with refined eyes or lips."""
        return self._mesh(self._prepared(images))[1]

    def kept_shape(self, images: Tensor) -> Tensor:
        """What a swap must keep of the face in images ``[B, 3, S, S]``, ``[B, 18]``; differentiable."""
        mesh, _, iris = self(images)
        return kept_shape(mesh, iris)

    @torch.no_grad()
    def measures(self, images: Tensor) -> Tensor:
        """Pose and expression of the face in images ``[B, 3, S, S]``: ``[B, 8]`` of :func:`face_measures`."""
        mesh, _, iris = self(images)
        return face_measures(mesh, iris)

    def _prepared(self, images: Tensor) -> Tensor:
        size = images.shape[-1]
        if images.ndim != 4 or images.shape[1:] != (3, size, size) or size not in _SIZES:
            raise ValueError(
                f"images: expected [B, 3, S, S] with S in {_SIZES}, got {list(images.shape)}"
            )
        if size > 512:
            # Means of 2 x 2 pixels; slices are several times faster here than avg_pool2d.
            images = images[..., ::2, :] + images[..., 1::2, :]
            images = (images[..., ::2] + images[..., 1::2]) * 0.25
        return images

    def _mesh(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The network's crops, the mesh, the logit of its presence."""
        grid = (self._centre + self._face_grid).expand(images.shape[0], -1, -1, -1)
        crops = _sample(images, grid)
        landmarks, presence = self.mesh(crops)
        offset = F.pad(self._offset, (0, 1))
        return crops, landmarks * _CROP_SCALE + offset, presence

    @property
    def _offset(self) -> Tensor:
        """Corner of the crop."""
        return self._centre - 0.5 * FACE_ROI_SIDE

    def _with_lips(self, lips: LipNet, crops: Tensor, mesh: Tensor) -> Tensor:
        points = lips(crops, (mesh[..., :2] - self._offset) / _CROP_SCALE)
        return _with_points(mesh, LIPS, points * _CROP_SCALE + self._offset)

    def _eyes(self, images: Tensor, mesh: Tensor) -> tuple[Tensor, Tensor]:
        """Points around the eyes ``[B, 2, 71, 2]`` and irises ``[B, 2, 5, 2]``."""
        count = images.shape[0]
        corners = _corners(mesh.detach())
        centre = corners.mean(2)
        across = EYE_ROI_SCALE * (corners[:, :, 1] - corners[:, :, 0])
        down = torch.stack([-across[..., 1], across[..., 0]], -1)
        # The network knows left eyes: the right eye's x axis runs backwards.
        mirror = torch.tensor([1.0, -1.0], device=across.device)[:, None]
        axes = torch.stack([across * mirror, down], -2)  # [B, 2 eyes, 2 axes, 2]
        grid = torch.einsum("ijk,bekl->beijl", self._eye_grid, axes) + centre[:, :, None, None]
        # One tall grid an image, so that the image is not repeated for its two eyes.
        crops = _sample(images, grid.reshape(count, 2 * EYE_SIZE, EYE_SIZE, 2))
        crops = crops.reshape(count, 3, 2, EYE_SIZE, EYE_SIZE).transpose(1, 2)
        contour, iris = self.iris(crops.reshape(2 * count, 3, EYE_SIZE, EYE_SIZE))
        points = torch.cat([contour[..., :2], iris[..., :2]], 1).reshape(count, 2, 76, 2)
        points = torch.einsum("bepk,bekl->bepl", points / EYE_SIZE - 0.5, axes)
        points = points + centre[:, :, None]
        return points[:, :, :71], points[:, :, 71:]


_SIZES = (128, 256, 512, 1024)


def _roi_grid(size: int) -> Tensor:
    """Pixel centres of a square of side 1 around 0, ``[size, size, 2]`` (x, y)."""
    axis = (torch.arange(size) + 0.5) / size - 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], -1)


def _sample(images: Tensor, grid: Tensor) -> Tensor:
    """Bilinear samples at ``grid`` ``[B, h, w, 2]`` (fractions of the image), brought to [0, 1]."""
    grid = grid.to(images.dtype) * 2 - 1
    crops = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return crops * 0.5 + 0.5  # here, where the pixels are few


def _with_points(mesh: Tensor, numbers: Sequence[int], xy: Tensor) -> Tensor:
    """A mesh with x and y of some points from elsewhere, ``[B, n, 2]``; depths stay."""
    index = torch.tensor(numbers, device=mesh.device)
    return mesh.index_copy(1, index, torch.cat([xy, mesh[:, index, 2:]], -1))


# --- features ------------------------------------------------------------------------------


def interocular_distance(mesh: Tensor) -> Tensor:
    """Distance of the outer eye corners in space, ``[B]``; it does not shrink with head turns."""
    return _length(mesh[:, EYE_CORNERS[1][1]] - mesh[:, EYE_CORNERS[0][0]])


def mouth_opening(mesh: Tensor) -> Tensor:
    """Mean gap between the inner lips over the inter-ocular distance, ``[B]``; 0 is closed."""
    upper, lower = mesh[:, torch.tensor(_LIP_PAIRS, device=mesh.device)].unbind(2)
    return _length(upper - lower).mean(1) / interocular_distance(mesh)


def eye_aspect(mesh: Tensor) -> Tensor:
    """Opening over width of each eye, ``[B, 2]`` (left, right in the image).

    Soukupová and Čech, "Real-Time Eye Blink Detection using Facial Landmarks" (2016).
    """
    lids = mesh[:, torch.tensor(_LID_PAIRS, device=mesh.device), :2]  # [B, eye, pair, 2, 2]
    corners = _corners(mesh)
    gaps = _length(lids[..., 0, :] - lids[..., 1, :]).mean(2)
    return gaps / _length(corners[:, :, 1] - corners[:, :, 0])


def gaze(mesh: Tensor, iris: Tensor) -> Tensor:
    """Iris centres in the frame of the eye corners, ``[B, 2, 2]``.

    x along the line from the left to the right corner, y square to it and down, from the middle
    of the corners, in widths of the eye: x = -0.5 is the left corner.
    """
    left, right = _corners(mesh).unbind(2)
    axis = right - left
    offset = iris[:, :, 0] - 0.5 * (left + right)
    square = axis.square().sum(-1).clamp_min(1e-12)
    x = (offset * axis).sum(-1) / square
    y = (offset[..., 1] * axis[..., 0] - offset[..., 0] * axis[..., 1]) / square
    return torch.stack([x, y], -1)


def expression_vector(mesh: Tensor, canonical: Tensor | None = None) -> Tensor:
    """Landmarks without position, turn and size, ``[B, 468 * 2]`` (x, y in turn).

    Each mesh is brought onto the canonical face by the least-squares similarity (Procrustes) of
    its x and y, centred, and divided by the canonical inter-ocular distance. Distances between
    two such vectors compare expressions of a person at one pose; shape and pose stay in them.

    :param canonical: ``[468, 3]``; the generator's mean face when None.
    """
    reference = canonical_mesh() if canonical is None else canonical
    reference = reference.to(mesh)[:, :2]
    reference = reference - reference.mean(0)
    points = mesh[..., :2] - mesh[..., :2].mean(1, keepdim=True)
    energy = points.square().sum((1, 2)).clamp_min(1e-12)
    # The similarity as a complex factor a + ib.
    a = (points * reference).sum((1, 2)) / energy
    cross = points[..., 0] * reference[:, 1] - points[..., 1] * reference[:, 0]
    b = cross.sum(1) / energy
    x = a[:, None] * points[..., 0] - b[:, None] * points[..., 1]
    y = b[:, None] * points[..., 0] + a[:, None] * points[..., 1]
    unit = interocular_distance(reference[None])
    return torch.stack([x, y], -1).flatten(1) / unit


def head_rotation(mesh: Tensor, canonical: Tensor | None = None) -> Tensor:
    """Rotation ``[B, 3, 3]`` that turns the canonical (frontal) face to each mesh.

    Kabsch fit over points that expressions move little; x right, y down, z away from the camera.
    Differentiable (the singular values of a face's spread are distinct).
    """
    reference = canonical_mesh() if canonical is None else canonical
    index = torch.tensor(RIGID_POINTS, device=mesh.device)
    source = reference.to(mesh)[index]
    source = source - source.mean(0)
    points = mesh[:, index]
    points = points - points.mean(1, keepdim=True)
    # Scale does not change the rotation; dividing it out keeps the SVD well conditioned.
    points = points / points.square().sum((1, 2), keepdim=True).sqrt().clamp_min(1e-9)
    u, _, vh = torch.linalg.svd(torch.einsum("bpi,pj->bij", points, source / source.norm()))
    sign = torch.linalg.det(u @ vh).detach().sign()
    flip = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], -1)
    return (u * flip[:, None]) @ vh


def pose_features(mesh: Tensor, canonical: Tensor | None = None) -> Tensor:
    """The rotation of :func:`head_rotation` as ``[B, 9]``.

    For small angles the L2 distance of two is sqrt(2) times the angle between them in radians.
    """
    return head_rotation(mesh, canonical).flatten(1)


MEASURES = ("yaw", "pitch", "mouth", "smile", "eyes", "gaze_x", "gaze_y", "brow")
"""What :func:`face_measures` measures, in its order."""


def face_measures(mesh: Tensor, iris: Tensor) -> Tensor:
    """The numbers of :data:`MEASURES`, ``[B, 8]``; yaw and pitch in degrees, the rest without unit.

    :param mesh: ``[B, 468, 3]``. :param iris: ``[B, 2, 5, 2]``.
    """
    rotation = head_rotation(mesh)
    centred = mesh - mesh[:, list(_OUTER_CORNERS)].mean(1, keepdim=True)
    # The face turned to the front, so that a nod is no smile and no frown.
    front = (centred @ rotation) / interocular_distance(mesh)[:, None, None]
    corners = front[:, list(MOUTH_CORNERS)]
    smile = _length(corners[:, 1] - corners[:, 0])
    smile = smile + front[:, _UPPER_LIP, 1] - corners[:, :, 1].mean(1)
    brows = front[:, [*LEFT_BROW, *RIGHT_BROW], 1].mean(1)
    sight = gaze(mesh, iris).mean(1)
    columns = (
        torch.rad2deg(torch.atan2(-rotation[:, 0, 2], rotation[:, 2, 2])),
        torch.rad2deg(torch.asin(rotation[:, 1, 2].clamp(-1, 1))),
        mouth_opening(mesh),
        smile,
        eye_aspect(mesh).mean(1),
        sight[:, 0],
        sight[:, 1],
        front[:, list(_ALL_CORNERS), 1].mean(1) - brows,
    )
    return torch.stack(columns, 1)


def kept_shape(mesh: Tensor, iris: Tensor) -> Tensor:
    """What a swap must keep of the target's face and what does not say who it is, ``[B, 18]``: head
    rotation (9), mouth opening, opening of both eyes, gaze of both (4), smile, brows.

    :param mesh: ``[B, 468, 3]``. :param iris: ``[B, 2, 5, 2]``.
    """
    turned, gazes = pose_features(mesh), gaze(mesh, iris).flatten(1)
    smile_and_brow = face_measures(mesh, iris)[:, [MEASURES.index("smile"), MEASURES.index("brow")]]
    opened = mouth_opening(mesh)[:, None]
    return torch.cat((turned, opened, eye_aspect(mesh), gazes, smile_and_brow), 1)


def rotation_angle_degrees(first: Tensor, second: Tensor) -> Tensor:
    """Angle between rotations ``[B, 3, 3]``, ``[B]`` degrees, exact at small angles too."""
    half = (first - second).flatten(1).norm(dim=1) / 8**0.5
    return torch.rad2deg(2 * torch.asin(half.clamp(0.0, 1.0)))


def _length(vector: Tensor) -> Tensor:
    """Norm over the last axis with a finite gradient at zero (closed lips, closed eyes)."""
    return (vector.square().sum(-1) + 1e-12).sqrt()


@functools.cache
def canonical_mesh() -> Tensor:
    """The generator's mean face ``[468, 3]``: symmetric, frontal, centred, in
    units of its inter-ocular distance.

    From ``vidswap/assets``; made by ``tools/make_canonical_mesh.py``.

    :raises WeightsError: when the package's file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(__file__).resolve().parent.parent / "assets" / "canonical-mesh.safetensors"
    try:
        mesh = load_file(path)["mesh"]
    except (OSError, KeyError, SafetensorError) as error:
        raise WeightsError(f"cannot read {path} ({error}); install vidswap again") from error
    return mesh

"""Records that pass between rooms: plain frozen data, validated when made.

Conventions, used everywhere:

* **Display coordinates**: the upright picture as a player shows it, square pixels, in pixels
  of ``Frame.display_size_wh``; x to the right, y down. Pixel ``(i, j)`` covers the square
  ``[j, j+1] x [i, i+1]``, so its centre is ``(j + 0.5, i + 0.5)``: one rule for crop and paste.
* **Images** inside the tool are float32 RGB, ``[H, W, 3]`` in [0, 1] as numpy arrays, or
  ``[B, 3, H, W]`` in [-1, 1] as torch tensors at the networks. 8-bit RGB is ``uint8 [H, W, 3]``.
* **Time** is an integer ``pts`` with a rational ``time_base``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _there(array: FloatArray | None, name: str) -> FloatArray:
    if array is None:
        raise ValueError(f"{name}: expected an array, got None")
    return array


@dataclass(frozen=True)
class PixelLayout:
    """How the samples of a decoded picture are stored."""

    name: str
    """FFmpeg name of the pixel format, ``yuv420p10le`` for example."""
    bit_depth: int
    """Significant bits a sample."""
    chroma_shift_wh: tuple[int, int]
    """log2 of the chroma subsampling across and down: (1, 1) for 4:2:0, (0, 0) for 4:4:4."""
    is_rgb: bool
    has_alpha: bool
    color_range: str
    """``tv`` (limited) or ``pc`` (full)."""
    matrix: str
    """YCbCr matrix: ``bt601``, ``bt709``, ``bt2020`` or ``rgb``."""
    transfer: str = "unknown"
    primaries: str = "unknown"
    chroma_location: str = "left"
    """Where chroma samples of 4:2:0 and 4:2:2 sit: ``left`` (MPEG, H.264) or ``center`` (JPEG)."""

    def __post_init__(self) -> None:
        _require(8 <= self.bit_depth <= 16, f"bit_depth: expected 8..16, got {self.bit_depth}")
        _require(
            self.color_range in ("tv", "pc"),
            f"color_range: expected 'tv' or 'pc', got {self.color_range!r}",
        )


@dataclass(frozen=True)
class Frame:
    """One decoded picture with its time. ``planes`` are as the decoder gave them."""

    index: int
    """Number of the frame in decoding order of display, from 0 at the first one read."""
    pts: int
    time_base: Fraction
    layout: PixelLayout
    planes: tuple[NDArray[Any], ...] = field(repr=False)
    """One array ``[h, w]`` (packed formats: ``[h, w, c]``) a plane, no padding, uint8 or uint16."""
    size_wh: tuple[int, int]
    """Stored size, before rotation and pixel aspect ratio."""
    rotation: int = 0
    """Degrees clockwise that the stored picture is turned by to be shown upright: 0, 90, 180, 270."""
    sample_aspect_ratio: Fraction = Fraction(1)
    duration: int | None = None
    is_corrupt: bool = False
    native: Any = field(default=None, repr=False, compare=False)
    """The decoder's own object, for the writer only; ``None`` once planes were replaced."""

    def __post_init__(self) -> None:
        _require(self.rotation in (0, 90, 180, 270), f"rotation: got {self.rotation}")
        _require(self.time_base > 0, f"time_base: expected > 0, got {self.time_base}")
        _require(min(self.size_wh) > 0, f"size_wh: expected > 0, got {self.size_wh}")

    @property
    def pts_seconds(self) -> float:
        return float(self.pts * self.time_base)

    @property
    def display_size_wh(self) -> tuple[int, int]:
        """Size of the upright picture with square pixels."""
        width, height = self.size_wh
        sar = self.sample_aspect_ratio or Fraction(1)
        if sar > 1:
            width = round(width * sar)
        elif sar < 1:
            height = round(height / sar)
        return (height, width) if self.rotation in (90, 270) else (width, height)

    @property
    def upright_size_wh(self) -> tuple[int, int]:
        """Size in stored pixels after the rotation; boxes of pixels are given in these."""
        width, height = self.size_wh
        return (height, width) if self.rotation in (90, 270) else (width, height)

    @property
    def display_scale_xy(self) -> tuple[float, float]:
        """Factors from upright stored coordinates to display coordinates."""
        upright, display = self.upright_size_wh, self.display_size_wh
        return display[0] / upright[0], display[1] / upright[1]


@dataclass(frozen=True)
class Face:
    """A face in one frame, in display coordinates."""

    box_xyxy: FloatArray
    """``[4]`` left, top, right, bottom."""
    score: float
    """Confidence of the detector (or of the mesh when tracked without detection), 0..1."""
    keypoints_xy: FloatArray
    """``[5, 2]`` eye on the image's left, eye on its right, nose tip, mouth corner left, right."""
    mesh_xyz: FloatArray | None = None
    """``[468, 3]`` MediaPipe face mesh, z in pixels towards the camera negative; None if absent."""
    iris_xy: FloatArray | None = None
    """``[2, 5, 2]`` centre and four contour points of the iris left / right in the image."""
    embedding: FloatArray | None = None
    """``[128]`` identity embedding of dlib's network."""
    track_id: int = -1
    """Number that one person keeps through the clip; -1 when not tracked."""

    def __post_init__(self) -> None:
        _require(self.box_xyxy.shape == (4,), f"box_xyxy: expected [4], got {self.box_xyxy.shape}")
        _require(
            self.keypoints_xy.shape == (5, 2),
            f"keypoints_xy: expected [5, 2], got {self.keypoints_xy.shape}",
        )
        if self.mesh_xyz is not None:
            _require(
                self.mesh_xyz.shape == (468, 3),
                f"mesh_xyz: expected [468, 3], got {self.mesh_xyz.shape}",
            )

    @property
    def mesh(self) -> FloatArray:
        """:attr:`mesh_xyz` of a face that was fitted.

        :raises ValueError: it has none.
        """
        return _there(self.mesh_xyz, "mesh_xyz")

    @property
    def size_px(self) -> float:
        """Longer side of the box, in display pixels."""
        left, top, right, bottom = self.box_xyxy
        return float(max(right - left, bottom - top))


@dataclass(frozen=True)
class AlignedCrop:
    """A face brought into the generator's frame (FFHQ alignment)."""

    image: FloatArray = field(repr=False)
    """``[S, S, 3]`` RGB in [0, 1]."""
    quad_xy: FloatArray
    """``[4, 2]`` corners TL, BL, BR, TR of the crop's area in display coordinates."""
    mesh_xyz: FloatArray | None = field(default=None, repr=False)
    """``[468, 3]`` mesh in crop coordinates scaled to [0, 1] (z in the same scale)."""
    iris_xy: FloatArray | None = field(default=None, repr=False)
    """``[2, 5, 2]`` irises in crop coordinates scaled to [0, 1]."""
    inside: FloatArray | None = field(default=None, repr=False)
    """``[S, S]`` 1 where the crop shows the frame, 0 where it lies outside; None: all inside."""

    def __post_init__(self) -> None:
        _require(
            self.image.ndim == 3 and self.image.shape[2] == 3,
            f"image: expected [S, S, 3], got {self.image.shape}",
        )
        _require(self.quad_xy.shape == (4, 2), f"quad_xy: expected [4, 2], got {self.quad_xy.shape}")

    @property
    def mesh(self) -> FloatArray:
        """:attr:`mesh_xyz` of the crop of a face that was fitted.

        :raises ValueError: it has none.
        """
        return _there(self.mesh_xyz, "mesh_xyz")

    @property
    def size(self) -> int:
        return int(self.image.shape[0])


@dataclass(frozen=True)
class Pivot:
    """The latent that an inversion settled on."""

    latent: FloatArray = field(repr=False)
    """``[n_styles, 512]`` W+ latent."""
    generator: str
    """Name and weights hash of the generator that it belongs to."""
    error: float = float("nan")
    """Mean squared error of the inversion in the face, images in [0, 1], at the fitting size."""
    steps: int = 0
    """Optimisation steps spent."""
    started_from: str = "mean"
    """``mean``, ``encoder``, ``previous`` or ``cache``."""

    def __post_init__(self) -> None:
        _require(
            self.latent.ndim == 2 and self.latent.shape[1] == 512,
            f"latent: expected [n_styles, 512], got {self.latent.shape}",
        )


@dataclass(frozen=True)
class Swap:
    """A regenerated face, ready for paste-back."""

    image: FloatArray = field(repr=False)
    """``[S, S, 3]`` RGB in [0, 1]."""
    mask: FloatArray = field(repr=False)
    """``[M, M]`` opacity in [0, 1] over the same quad; M may differ from S."""
    quad_xy: FloatArray
    """``[4, 2]`` in display coordinates."""
    track_id: int = -1

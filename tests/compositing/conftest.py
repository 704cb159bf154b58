"""Small synthetic faces for the tests of this room: a mesh and shaded pictures."""

from __future__ import annotations

import numpy as np
import pytest

from vidswap import landmarks


def _ring(indices: tuple[int, ...], center: tuple[float, float], radii: tuple[float, float],
          start_degrees: float, mesh: np.ndarray, *, clockwise: bool) -> None:
    step = 2 * np.pi / len(indices) * (1 if clockwise else -1)
    angle = np.deg2rad(start_degrees) + step * np.arange(len(indices))
    mesh[list(indices), 0] = center[0] + radii[0] * np.cos(angle)
    mesh[list(indices), 1] = center[1] + radii[1] * np.sin(angle)


@pytest.fixture
def mesh() -> np.ndarray:
    """A frontal face drawn by hand, ``[468, 3]`` in the unit crop, as FFHQ alignment puts it."""
    rng = np.random.default_rng(1)
    radius, angle = np.sqrt(rng.random(468)) * 0.2, rng.random(468) * 2 * np.pi
    points = np.stack([0.5 + radius * np.cos(angle), 0.56 + 1.2 * radius * np.sin(angle)], axis=1)
    points = np.concatenate([points, np.zeros((468, 1))], axis=1)
    middle = (151, 9, 8, 168, 6, 197, 195, 5, 4, 1, 2, 164, 0, 17, 18, 200, 199, 175)
    points[list(middle), 0] = 0.5
    points[list(middle), 1] = np.linspace(0.33, 0.80, len(middle))
    _ring(landmarks.FACE_OVAL, (0.5, 0.57), (0.24, 0.29), -90, points, clockwise=True)
    _ring(landmarks.LEFT_EYE, (0.385, 0.47), (0.05, 0.02), 180, points, clockwise=True)
    _ring(landmarks.RIGHT_EYE, (0.615, 0.47), (0.05, 0.02), 180, points, clockwise=True)
    _ring(landmarks.LEFT_BROW, (0.385, 0.41), (0.07, 0.012), 180, points, clockwise=True)
    _ring(landmarks.RIGHT_BROW, (0.615, 0.41), (0.07, 0.012), 180, points, clockwise=True)
    _ring(landmarks.MOUTH, (0.5, 0.72), (0.09, 0.04), 180, points, clockwise=True)
    _ring(landmarks.INNER_MOUTH, (0.5, 0.72), (0.07, 0.02), 180, points, clockwise=True)
    # Depth falls off towards the sides, as on a head.
    points[:, 2] = 0.9 * ((points[:, 0] - 0.5) ** 2 + 0.3 * (points[:, 1] - 0.57) ** 2) / 0.24
    return points.astype(np.float32)


@pytest.fixture
def cheeked(mesh: np.ndarray) -> np.ndarray:
    """That mesh with the points of its cheeks on skin."""
    out = mesh.copy()
    for point, x in ((50, 0.36), (280, 0.64), (101, 0.38), (330, 0.62), (118, 0.36), (347, 0.64)):
        out[point, :2] = x, 0.58
    return out


@pytest.fixture
def skin() -> np.ndarray:
    """A face-like picture ``[256, 256, 3]``: skin with soft texture, dark eyes, red mouth."""
    return paint_face((0.80, 0.60, 0.50))


def paint_face(
    tone: tuple[float, float, float], *, size: int = 256, light: float = 0.0, seed: int = 3
) -> np.ndarray:
    """A picture whose left side is darker by ``light`` than its right."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    texture = rng.normal(0, 1, (16, 16))
    grow = np.kron(texture, np.ones((size // 16, size // 16)))
    shade = 1.0 + 0.02 * grow + light * (x - 0.5)
    shade = shade * (1 - 0.25 * (np.hypot(x - 0.5, (y - 0.57) * 0.8) / 0.4) ** 2)
    picture = np.array(tone) * shade[..., None]
    for eye_x in (0.385, 0.615):
        eye = np.hypot((x - eye_x) / 0.045, (y - 0.47) / 0.018) < 1
        picture[eye] = (0.12, 0.08, 0.07)
    picture[np.hypot((x - 0.5) / 0.08, (y - 0.72) / 0.03) < 1] = (0.62, 0.25, 0.25)
    return np.clip(picture, 0, 1).astype(np.float32)


@pytest.fixture
def painter():
    return paint_face

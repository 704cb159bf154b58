"""Faces with something in front of them, and what that covers: the samples of the occlusion network.

A third of the scenes has nothing in front of the face, and most have what only looks like it: shadows, light,
stubble, turned heads, hands beside the face.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from vidswap.landmarks import FACE_OVAL, LEFT_EYE, MOUTH, RIGHT_EYE
from vidswap.training.layers import SIZE, Layer, Random, Setting, blur, noise, upward_of
from vidswap.training.occluders import MAKERS, Makers, draw_occluder
from vidswap.training.pictures import Pictures

_FOREHEAD = 0.13
"""By this part of the face's height the outline is lifted above the mesh, which ends below the hairline."""
_CLEAN_SHARE = 0.35
_NOSE = 4
_BROW_TOPS, _CHEEKS = (105, 334), (50, 280, 205, 425)
"""Mesh points: the tip of the nose, over the brows, and on the cheeks."""
_OVER_BROWS, _CHEEK_SIZE = 0.05, 0.04
"""Part of the face's height over the brows from which on a forehead is looked at; radius of a spot of cheek,
in the same unit."""
_OTHER_COLOR, _HAIRY = 0.45, 0.06
"""Logarithm by which hair differs from the cheeks, and the share of such pixels that a bare forehead may
have."""
_STRANDS, _LEAST_FINE = 2.5, 0.004
"""Fine structure of a bare forehead over that of the cheeks, which have this much at least."""
_BESIDE = 0.28
"""Part of the way from the rim of a face to the middle of its nose where people have hair that nobody
labelled."""
_DOUBTED = 0.1
"""Weight of what may be such hair."""
_UNSURE = 0.25
"""Weight of what nobody labelled: the generator's own hair over the forehead, ears and jaw line."""


@dataclass(frozen=True)
class Scene:
    """One sample."""

    image: np.ndarray
    """``[S, S, 3]`` RGB in [0, 1]."""
    truth: np.ndarray
    """``[S, S]`` 1 where something covers the face."""
    weight: np.ndarray
    """``[S, S]`` how much a pixel counts: 1 in the face, 0 away from it."""


class DrawScene(Protocol):
    """A maker of scenes, as :func:`draw_scene` is one."""

    def __call__(self, pictures: Pictures, random: Random, *, size: int) -> Scene: ...


class Scenes(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Endless samples by number; number and seed fix each.

    Each scene is filmed twice in a row, the second time mirrored: to draw it costs more than that.
    """

    def __init__(
        self, pictures: Pictures, *, seed: int, size: int = SIZE, draw: DrawScene | None = None
    ) -> None:
        self.pictures, self.seed, self.size = pictures, seed, size
        self.draw = draw_scene if draw is None else draw
        self._last: tuple[int, Scene] | None = None

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Image ``[3, S, S]`` in [-1, 1], truth and weight ``[1, S, S]``."""
        torch.set_num_threads(1)
        drawn = number // 2
        if self._last is None or self._last[0] != drawn:
            random = np.random.default_rng((self.seed, drawn))
            self._last = drawn, self.draw(self.pictures, random, size=self.size)
        scene = self._last[1]
        if number % 2:
            parts = (scene.image, scene.truth, scene.weight)
            scene = Scene(*(np.ascontiguousarray(part[:, ::-1]) for part in parts))
        scene = replace(scene, image=film(scene.image, np.random.default_rng((self.seed, number, 1))))
        image = torch.from_numpy(np.ascontiguousarray(scene.image.transpose(2, 0, 1))) * 2 - 1
        return image, torch.from_numpy(scene.truth)[None], torch.from_numpy(scene.weight)[None]


def draw_scene(
    pictures: Pictures, random: Random, *, size: int = SIZE, makers: Makers = MAKERS
) -> Scene:
    """A random scene as it is, before :func:`film`.

    :param size: side of the sample, at most 256. :param makers: of what is in front of the face.
    """
    setting = random_setting(pictures, random)
    doubt = own_hair(setting)
    image = lit(setting, random)
    truth = np.zeros((SIZE, SIZE), np.float32)
    setting = replace(setting, face=image)
    if random.random() > _CLEAN_SHARE:
        for _ in range(1 + int(random.random() < 0.3)):
            layer = softened(draw_occluder(setting, random, makers), random)
            image = covered(image, layer, random)
            truth = 1 - (1 - truth) * (1 - layer.alpha)
    return finished(image, truth, setting.mesh_xy, size, doubt)


def finished(
    image: np.ndarray, truth: np.ndarray, mesh_xy: np.ndarray, size: int, doubt: np.ndarray | None = None
) -> Scene:
    """A scene of this size, with how much its pixels count.

    :param image: ``[256, 256, 3]``; ``truth`` ``[256, 256]``; ``mesh_xy`` ``[468, 2]`` pixels.
    :param doubt: where the picture that was covered may be something else than face (:func:`own_hair`).
    """
    inner, outer = face_areas(mesh_xy)
    # Where the mesh does not reach, what is not covered may still be hair.
    weight = inner + (outer - inner) * np.where(truth > 0.5, 0.7, _UNSURE)
    if doubt is not None:
        weight = weight * np.where(doubt & (truth < 0.5), _DOUBTED, 1)
    return Scene(*(_resized(part, size) for part in (image, truth, weight)))


def face_areas(mesh_xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Face inside the mesh's oval, and with forehead and a rim around it, ``[256, 256]`` in [0, 1]."""
    oval = mesh_xy[list(FACE_OVAL)]
    upward, height = upward_of(mesh_xy)
    level = (mesh_xy[10] - oval) @ upward / height
    lift = np.clip(1 - level / 0.36, 0, 1) ** 0.7
    lifted = oval + _FOREHEAD * height * lift[:, None] * upward
    inner = _polygon(oval)
    return inner, np.clip(4 * blur(np.maximum(_polygon(lifted), inner), 4.0), 0, 1)


def _polygon(points: np.ndarray) -> np.ndarray:
    picture = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(picture).polygon([tuple(p) for p in points.tolist()], fill=255)
    return np.asarray(picture, np.float32) / 255


def bare_browed(pictures: Pictures) -> Pictures:
    """The people whose foreheads are bare.

    Nobody labelled the generator's own fringes: trained on them as faces, a network takes every fringe for a
    face.
    """
    return pictures.that(_bare_forehead)


def _bare_forehead(image: np.ndarray, mesh: np.ndarray) -> bool:
    """Whether a forehead has the colour of the cheeks, and no strands; ``[256, 256, 3]`` of 8 bits."""
    points = mesh * SIZE
    upward, height = upward_of(points)
    y, x = np.mgrid[:SIZE, :SIZE]
    lowest = points[list(_BROW_TOPS)].mean(0) + _OVER_BROWS * height * upward
    above = (np.stack([x, y], -1) - lowest) @ upward > 0
    forehead = (_polygon(points[list(FACE_OVAL)]) > 0.5) & above
    cheeks = _cheeks(points)
    if not forehead.any() or not cheeks.any():
        return False
    other, fine = _unlike_cheeks(image.astype(np.float32) / 255, cheeks)
    return float((other > _OTHER_COLOR)[forehead].mean()) < _HAIRY and float(fine[forehead].mean()) < _STRANDS


def own_hair(setting: Setting) -> np.ndarray:
    """Where, near the rim of a face, the picture is not of the colour of its cheeks, or has strands.

    The generator's people wear their hair over temples and cheeks, and nobody labelled it: what is trained on
    it as on a face does not see such hair in front of other faces.

    :returns: ``[256, 256]`` bool.
    """
    points = setting.mesh_xy
    cheeks = _cheeks(points)
    if not cheeks.any():
        return np.zeros((SIZE, SIZE), bool)
    oval, across = points[list(FACE_OVAL)], points[454] - points[234]
    right = (oval - oval.mean(0)) @ across > 0
    # The far half of a turned head is narrow, and behind its rim is no hair, but the room.
    inwards = points[_NOSE] - np.where(right[:, None], points[454], points[234])
    along = across / np.linalg.norm(across)
    shrunk = oval + _BESIDE * (inwards @ along)[:, None] * along
    other, fine = _unlike_cheeks(setting.face, cheeks)
    unlike = np.maximum(blur(other, 1.5) / _OTHER_COLOR, blur(fine, 3.0) / _STRANDS)
    return (_polygon(shrunk) < 0.5) & (unlike > 1)


def _cheeks(points: np.ndarray) -> np.ndarray:
    """Spots of a face's skin, ``[256, 256]`` bool."""
    _, height = upward_of(points)
    y, x = np.mgrid[:SIZE, :SIZE]
    found = np.zeros((SIZE, SIZE), bool)
    for spot in points[list(_CHEEKS)]:
        found |= np.hypot(x - spot[0], y - spot[1]) < _CHEEK_SIZE * height
    return found


def _unlike_cheeks(image: np.ndarray, cheeks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logarithm of colours over those of the cheeks, its largest channel, and fine structure over theirs."""
    color = image + 0.05
    other = np.abs(np.log(color / np.median(color[cheeks], 0))).max(2)
    light = color @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    fine = np.abs(light - blur(light, 2.0))
    return other, fine / max(float(fine[cheeks].mean()), _LEAST_FINE)


def random_setting(pictures: Pictures, random: Random) -> Setting:
    """Two of the pictures, the first of them to be covered."""
    one, two = (int(i) for i in random.integers(len(pictures), size=2))
    face, mesh = _moved(pictures.images[one], pictures.meshes[one], random)
    other, other_mesh = _moved(pictures.images[two], pictures.meshes[two], random)
    return Setting(face, mesh, other, other_mesh)


def _moved(image: np.ndarray, mesh: np.ndarray, random: Random) -> tuple[np.ndarray, np.ndarray]:
    """Mirrored by chance, and aligned as badly as real faces are."""
    angle, scale = random.normal(0, 0.07), random.uniform(0.85, 1.15)
    shift = random.normal(0, 0.025, 2)
    flip = -1.0 if random.random() < 0.5 else 1.0
    c, s = math.cos(angle) / scale, math.sin(angle) / scale
    # From the new picture to the old one, around the middle.
    matrix = np.array([[c * flip, -s * flip], [s, c]])
    theta = torch.tensor(np.concatenate([matrix, (-matrix @ (2 * shift))[:, None]], 1), dtype=torch.float32)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    grid = functional.affine_grid(theta[None], [1, 3, SIZE, SIZE], align_corners=False)
    made = functional.grid_sample(tensor, grid, padding_mode="reflection", align_corners=False)
    points = (mesh - 0.5) @ np.linalg.inv(matrix).T + shift + 0.5
    return made[0].permute(1, 2, 0).numpy(), points * SIZE


# --- what is no occluder -------------------------------------------------------------------


def lit(setting: Setting, random: Random) -> np.ndarray:
    """The face under shadows and coloured light, with stubble, freckles or darker skin by chance."""
    image = setting.face
    if random.random() < 0.2:  # skin of any tone around eyes and teeth that stay bright
        image = image * (1 - random.uniform(0.2, 0.7) * _bare_skin(setting.mesh_xy))[..., None]
    if random.random() < 0.35:
        image = image * (1 - random.uniform(0.1, 0.65) * _shadow(random))[..., None]
    if random.random() < 0.25:
        image = image + random.uniform(0.02, 0.3) * _shadow(random)[..., None] * random.uniform(0.3, 1, 3)
    if random.random() < 0.2:
        image = image * (1 - _stubble(setting.mesh_xy, random))[..., None]
    if random.random() < 0.15:  # lips and lids of other colours
        lips = blur(_polygon(setting.mesh_xy[list(MOUTH)]), 1.5) * random.uniform(0.2, 0.6)
        image = image + lips[..., None] * (random.uniform(0, 1, 3) * [1, 0.5, 0.6] - image) * 0.6
    return np.clip(image, 0, 1)


def _shadow(random: Random) -> np.ndarray:
    """A soft or hard patch: half planes, bars, leaves."""
    angle = random.uniform(0, 2 * math.pi)
    y, x = np.mgrid[:SIZE, :SIZE]
    away = (x - random.uniform(60, 196)) * math.cos(angle) + (y - random.uniform(80, 220)) * math.sin(angle)
    if random.random() < 0.4:
        away = random.uniform(5, 40) - np.abs(away)
    away = away + random.uniform(0, 20) * noise(random, random.uniform(25, 90))
    return np.clip(away / random.uniform(1.5, 30) + 0.5, 0, 1).astype(np.float32)


def _bare_skin(mesh_xy: np.ndarray) -> np.ndarray:
    bare = _polygon(mesh_xy[list(FACE_OVAL)])
    for outline in (LEFT_EYE, RIGHT_EYE, MOUTH):
        bare = np.minimum(bare, 1 - _polygon(mesh_xy[list(outline)]))
    return blur(bare, 2.0)


def _stubble(mesh_xy: np.ndarray, random: Random) -> np.ndarray:
    """Darkness of a beard, moustache or many freckles."""
    lower = _polygon(mesh_xy[[234, 50, 2, 280, 454, 365, 152, 136]])
    lips = _polygon(mesh_xy[list(MOUTH)])
    area = blur(np.clip(lower - lips, 0, 1), random.uniform(3, 10))
    grain = np.clip(0.6 + random.uniform(0.1, 0.4) * blur(noise(random, 1.3), random.uniform(0.3, 1.5)), 0, 1)
    return area * grain * random.uniform(0.15, 0.75)


# --- putting together, and what a camera does -------------------------------------------


def softened(layer: Layer, random: Random) -> Layer:
    """Out of focus or moving, by chance."""
    sigma = random.uniform(0.3, 1.0) if random.random() < 0.75 else random.uniform(1.0, 3.5)
    alpha = blur(layer.alpha, sigma)
    color = layer.color
    if random.random() < 0.2:
        length, angle = random.uniform(3, 26), random.uniform(0, 2 * math.pi)
        alpha, color = _streaked(alpha, color, length, angle)
    elif sigma > 1:
        color = blur(color, sigma * 0.8)
    return replace(layer, color=color, alpha=alpha)


def _streaked(
    alpha: np.ndarray, color: np.ndarray, length: float, angle: float
) -> tuple[np.ndarray, np.ndarray]:
    both = np.concatenate([color * alpha[..., None], alpha[..., None]], 2)
    steps = max(2, int(length / 2))
    total = np.zeros_like(both)
    for part in np.linspace(-0.5, 0.5, steps) * length:
        shift = (round(part * math.sin(angle)), round(part * math.cos(angle)))
        total += np.roll(both, shift, (0, 1)) / steps
    return total[..., 3], total[..., :3] / np.maximum(total[..., 3:], 0.02)


def covered(image: np.ndarray, layer: Layer, random: Random) -> np.ndarray:
    """The layer over the picture, with the shadow that it throws."""
    if layer.casts > 0.05:
        shift = tuple(int(v) for v in random.normal(0, 5, 2))
        cast = blur(np.roll(layer.alpha, shift, (0, 1)), random.uniform(1, 8))
        image = image * (1 - layer.casts * cast)[..., None]
    return image + layer.alpha[..., None] * (layer.color - image)


def _resized(values: np.ndarray, size: int) -> np.ndarray:
    if size == SIZE:
        return np.ascontiguousarray(values, np.float32)
    tensor = torch.from_numpy(np.ascontiguousarray(np.atleast_3d(values), np.float32)).permute(2, 0, 1)
    made = functional.interpolate(tensor[None], (size, size), mode="bilinear", antialias=True)[0].clamp_(0, 1)
    return made[0].numpy() if values.ndim == 2 else made.permute(1, 2, 0).numpy()


def film(image: np.ndarray, random: Random) -> np.ndarray:
    """What a camera makes of ``[S, S, 3]``: exposure, colour, blur, noise and compression."""
    if random.random() < 0.7:
        image = np.clip(image, 0, 1) ** random.uniform(0.6, 1.6)
        image = image * (1 + random.normal(0, 0.1, 3)) * random.uniform(0.7, 1.2) + random.normal(0, 0.03)
    if random.random() < 0.35:  # paler or stronger colours
        grey = (image @ np.full(3, 1 / 3, np.float32))[..., None]
        image = grey + random.uniform(0, 1.4) * (image - grey)
    if random.random() < 0.5:
        image = blur(image, random.uniform(0.3, 2.2))
    if random.random() < 0.5:
        image = image + random.uniform(0.005, 0.06) * random.standard_normal(image.shape)
    image = np.clip(image, 0, 1).astype(np.float32)
    if random.random() < 0.5:
        buffer = io.BytesIO()
        eight_bit = Image.fromarray((image * 255 + 0.5).astype(np.uint8))
        eight_bit.save(buffer, "JPEG", quality=int(random.integers(20, 92)))
        image = np.asarray(Image.open(buffer).convert("RGB"), np.float32) / 255
    return image

"""Faces with drawn glasses, and where their frames are: the samples of the network that sees glasses.

The occlusion network cannot learn them: the generator's own people wear glasses that nobody labelled, and it
was taught to take those for a part of the face. Here such people are left out (:func:`bare_eyed`), and what
is asked for is frames alone, so that hands, hair and dark make-up are what only looks like them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from vidswap.landmarks import EYE_CORNERS, LEFT_EYE, RIGHT_EYE
from vidswap.training.hair import hair
from vidswap.training.layers import SIZE, Layer, Random, blur, noise
from vidswap.training.occluders import draw_occluder
from vidswap.training.occlusion_scenes import Scene, covered, finished, lit, random_setting, softened
from vidswap.training.pictures import Pictures

_WEARS = 0.62
"""Share of the scenes with glasses."""
_FINE = 3
"""Frames are drawn this many times larger and reduced."""
_TEMPLES = ((127, 234), (356, 454))
"""Mesh points between which the ears begin, left and right."""
_DARK_LENS = 0.4
"""Opacity from which a lens covers the eye behind it."""

# Of pictures of 256 px: standard deviations of the band in which rims lie, and the contrast in it of a line
# over the bridge of the nose and under the eyes from which on a wearer is left out.
_FINE_SIGMA, _BROAD_SIGMA = 1.0, 4.0
_BRIDGE, _UNDER = 0.05, 0.04


@dataclass(frozen=True)
class _Lens:
    """The outline of a lens, in pixels."""

    inner: np.ndarray
    """``[n, 2]``, from the nose upwards around."""
    outer: np.ndarray
    """``[n, 2]`` of its rim."""


def draw_glasses_scene(pictures: Pictures, random: Random, *, size: int = SIZE) -> Scene:
    """A random scene before :func:`.film`; its truth is where frames and dark lenses are.

    :param size: side of the sample, at most 256.
    """
    setting = random_setting(pictures, random)
    image = lit(setting, random)
    if random.random() < 0.4:
        image = _made_up(image, setting.mesh_xy, random)
    truth = np.zeros((SIZE, SIZE), np.float32)
    if random.random() < _WEARS:
        image, truth = wear_glasses(image, setting.mesh_xy, random)
    if random.random() < 0.35:  # in front of the glasses, or of a face without any
        worn = replace(setting, face=image)
        strands = random.random() < 0.5
        layer = hair(worn, random) if strands else draw_occluder(worn, random)
        layer = softened(layer, random)
        image, truth = covered(image, layer, random), truth * (1 - layer.alpha)
    return finished(image, truth, setting.mesh_xy, size)


def wear_glasses(image: np.ndarray, mesh_xy: np.ndarray, random: Random) -> tuple[np.ndarray, np.ndarray]:
    """A face with glasses on, and where their frame and dark lenses cover it, ``[256, 256]``.

    :param image: ``[256, 256, 3]``. :param mesh_xy: ``[468, 2]`` pixels.
    """
    lenses, frame = _frame(mesh_xy, random)
    glass = _filled([lens.inner for lens in lenses])
    color = _frame_color(frame, random)
    image = _through_lenses(image, glass, random)
    dark = 0.0
    if random.random() < 0.25:  # sunglasses
        dark = random.uniform(0.25, 0.98)
        tint = random.uniform(0.0, 0.25) * (1 + random.uniform(-0.3, 0.3, 3))
        slope = np.clip(1 - random.uniform(0, 0.8) * (np.mgrid[:SIZE, :SIZE][0] - 100) / 50, 0.3, 1)
        image = image + (dark * slope * glass)[..., None] * (np.clip(tint, 0, 1) - image)
    if random.random() < 0.5:
        image = image + (random.uniform(0.02, 0.35) * glass * _glint(random))[..., None]
    drop = (int(random.integers(1, 7)), int(random.integers(-4, 5)))
    cast = blur(np.roll(frame, drop, (0, 1)), random.uniform(0.5, 3))
    image = image * (1 - random.uniform(0, 0.4) * cast)[..., None]
    layer = softened(Layer(color, frame), random) if random.random() < 0.2 else Layer(color, blur(frame, 0.4))
    image = image + layer.alpha[..., None] * (layer.color - image)
    truth = np.maximum(layer.alpha, glass if dark > _DARK_LENS else 0)
    return np.clip(image, 0, 1).astype(np.float32), truth.astype(np.float32)


def _frame(mesh_xy: np.ndarray, random: Random) -> tuple[list[_Lens], np.ndarray]:
    """Lenses, and the opacity of rims, bridge and temples."""
    eyes = [mesh_xy[list(eye)].mean(0) for eye in (LEFT_EYE, RIGHT_EYE)]
    apart = float(np.hypot(*(eyes[1] - eyes[0]))) + 1e-6
    axis = (eyes[1] - eyes[0]) / apart
    down = np.array([-axis[1], axis[0]])
    widths = [float(np.hypot(*(mesh_xy[b] - mesh_xy[a]))) for a, b in EYE_CORNERS]
    size = random.uniform(0.72, 1.25)
    tall = apart * random.uniform(0.17, 0.4)
    drop = apart * random.uniform(-0.03, 0.11)
    shape = _outline(random)
    thick = random.uniform(0.5, 5.5) if random.random() < 0.7 else random.uniform(0.4, 1.5)
    top, bottom = random.uniform(1, 2.3), 1.0 if random.random() < 0.85 else 0.0
    lenses = []
    for side, centre, width in zip((-1.0, 1.0), eyes, widths, strict=True):
        # A far eye is narrow, and so is its lens; but a narrowed look is not.
        half = size * (0.7 * width + 0.3 * sum(widths) / 2)
        middle = centre + axis * side * 0.06 * half + down * drop
        across, along = shape[:, 0] * half * side, shape[:, 1] * tall
        inner = middle + across[:, None] * axis + along[:, None] * down
        normal = np.stack([shape[:, 0] * side / half, shape[:, 1] / tall], 1)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
        share = np.where(shape[:, 1] < 0, 1 + (top - 1) * np.clip(-shape[:, 1] * 1.5, 0, 1), 1.0)
        share = np.where(shape[:, 1] > 0.3, bottom * share, share) * thick
        outer = inner + share[:, None] * (normal[:, :1] * axis + normal[:, 1:] * down)
        lenses.append(_Lens(inner, outer))
    rims = _filled([lens.outer for lens in lenses]) - _filled([lens.inner for lens in lenses])
    bars = _bridge(lenses, axis, down, apart, thick, random)
    bars += _temples(lenses, mesh_xy, axis, thick, random)
    return lenses, np.clip(np.maximum(rims, _bars(bars)), 0, 1)


def _outline(random: Random) -> np.ndarray:
    """A lens ``[n, 2]`` in [-1, 1] from its nose side (-1) to its temple's (1), top first."""
    turn = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    c, s = -np.cos(turn), -np.sin(turn)
    power = random.uniform(1.9, 5)
    points = np.stack([np.sign(c) * np.abs(c) ** (2 / power), np.sign(s) * np.abs(s) ** (2 / power)], 1)
    points[:, 1] -= random.normal(0, 0.12) * points[:, 0]  # cat's eyes, or drooping ones
    taper = random.uniform(-0.05, 0.35)
    points[:, 0] *= 1 - taper * np.clip(points[:, 1], 0, 1)
    return points


def _bridge(
    lenses: list[_Lens], axis: np.ndarray, down: np.ndarray, apart: float, thick: float, random: Random
) -> list[tuple[np.ndarray, float]]:
    start, end = (
        lens.inner[np.argmin(side * (lens.inner @ axis))] for side, lens in zip((-1, 1), lenses, strict=True)
    )
    tops = [lens.inner[np.argmin(lens.inner @ down)] for lens in lenses]
    heights = [float((point - top) @ down) for point, top in zip((start, end), tops, strict=True)]
    rise = random.uniform(0, 0.75) * float(np.mean(heights))
    start, end = start - rise * down, end - rise * down
    bend = -random.uniform(0, 0.08) * apart * down
    t = np.linspace(-0.15, 1.15, 12)[:, None]
    line = start + t * (end - start) + bend * (1 - (2 * t - 1) ** 2)
    made = [(line, max(0.6, thick * random.uniform(0.8, 1.8)))]
    if random.random() < 0.12:  # a second one, as aviators have it
        made.append((line - 0.12 * apart * down, max(0.6, 0.7 * thick)))
    return made


def _temples(
    lenses: list[_Lens], mesh_xy: np.ndarray, axis: np.ndarray, thick: float, random: Random
) -> list[tuple[np.ndarray, float]]:
    made, reach = [], random.uniform(0.3, 1.15)  # hair covers the rest
    width = max(0.7, thick * random.uniform(0.7, 2.2))
    level, height = random.uniform(0, 1), random.uniform(0.2, 0.8)
    for side, lens, (upper, lower) in zip((-1, 1), lenses, _TEMPLES, strict=True):
        hinge = lens.inner[np.argmax(side * (lens.inner @ axis))]
        top = lens.inner[np.argmin(lens.inner[:, 1])]
        hinge = hinge + [0, height * (top[1] - hinge[1])]
        ear = mesh_xy[upper] + 0.5 * level * (mesh_xy[lower] - mesh_xy[upper])
        if side * ((ear - hinge) @ axis) < 1:  # the far side of a turned head
            continue
        made.append((np.stack([hinge, hinge + reach * (ear - hinge)]), width))
    return made


def _filled(outlines: list[np.ndarray]) -> np.ndarray:
    picture = Image.new("L", (SIZE * _FINE, SIZE * _FINE))
    for outline in outlines:
        ImageDraw.Draw(picture).polygon([tuple(p) for p in (outline * _FINE).tolist()], fill=255)
    return np.asarray(picture.reduce(_FINE), np.float32) / 255


def _bars(bars: list[tuple[np.ndarray, float]]) -> np.ndarray:
    picture = Image.new("L", (SIZE * _FINE, SIZE * _FINE))
    for line, width in bars:
        points = [tuple(p) for p in (line * _FINE).tolist()]
        ImageDraw.Draw(picture).line(points, fill=255, width=max(1, round(width * _FINE)), joint="curve")
    return np.asarray(picture.reduce(_FINE), np.float32) / 255


def _frame_color(frame: np.ndarray, random: Random) -> np.ndarray:
    """Plastic, horn or metal, with the light that runs along it."""
    kind = random.random()
    if kind < 0.5:
        base = random.uniform(0, 0.16) * np.ones(3) + random.uniform(0, 0.06, 3)
    elif kind < 0.68:  # horn
        base = np.array([0.35, 0.2, 0.1]) * random.uniform(0.3, 1.5)
        base = base * (1 + 0.5 * noise(random, random.uniform(5, 20)))[..., None]
    elif kind < 0.85:  # metal
        base = random.uniform(0.3, 0.8) * np.array([1, random.uniform(0.8, 1), random.uniform(0.5, 1)])
        base = base * (1 + 0.5 * noise(random, random.uniform(6, 30)))[..., None]
    else:
        base = random.uniform(0, 1, 3)
    slope_y, slope_x = np.gradient(blur(frame, 1.2))
    angle = random.uniform(0, 2 * math.pi)
    edge = np.clip(4 * (slope_x * math.cos(angle) + slope_y * math.sin(angle)), -1, 1)
    light = 1 + random.uniform(0, 0.5) * edge + 0.1 * noise(random, 60)
    shine = random.uniform(0, 0.4) * np.clip(edge, 0, 1) * np.clip(noise(random, 25), 0, 1)
    return np.clip(base * light[..., None] + shine[..., None], 0, 1) * np.ones((SIZE, SIZE, 3))


def _through_lenses(image: np.ndarray, glass: np.ndarray, random: Random) -> np.ndarray:
    tint = 1 - random.uniform(0, 0.12, 3) * (random.random() < 0.5)
    return image * (1 + glass[..., None] * (tint - 1))


def _glint(random: Random) -> np.ndarray:
    """Light on the glass: a soft band, or the shapes of windows."""
    angle, wide = random.uniform(0, math.pi), random.uniform(6, 30)
    y, x = np.mgrid[:SIZE, :SIZE]
    way = (x * math.cos(angle) + y * math.sin(angle)) / wide + random.uniform(0, 9)
    band = np.clip(np.sin(way) * random.uniform(1, 6), 0, 1)
    return (band * np.clip(0.5 + noise(random, 40), 0, 1)).astype(np.float32)


def _made_up(image: np.ndarray, mesh_xy: np.ndarray, random: Random) -> np.ndarray:
    """Dark lids, closed eyes and eyes in the shade of their brows, which are no frames."""
    picture = Image.new("L", (SIZE, SIZE))
    for eye in (LEFT_EYE, RIGHT_EYE):
        points = mesh_xy[list(eye)]
        grown = points.mean(0) + (points - points.mean(0)) * random.uniform((0.9, 0.5), (2.0, 3.5))
        ImageDraw.Draw(picture).polygon([tuple(p) for p in grown.tolist()], fill=255)
    shade = blur(np.asarray(picture, np.float32) / 255, random.uniform(0.8, 5)) * random.uniform(0.3, 0.95)
    tone = random.uniform(0, 0.3) * random.uniform(0.6, 1, 3)
    return image + shade[..., None] * (tone - image)


def bare_eyed(pictures: Pictures) -> Pictures:
    """The people without glasses, as far as a line over the bridge of the nose and under the eyes tells."""
    return pictures.that(lambda image, mesh: _lined(image, mesh) < 1)


def _lined(image: np.ndarray, mesh: np.ndarray) -> float:
    """How much there is of such lines in a picture ``[n, n, 3]`` of 8 bits; glasses from about 1 on."""
    light = image @ np.array([0.2126, 0.7152, 0.0722], np.float32) / np.float32(255)
    band = blur(light, _FINE_SIGMA) - blur(light, _BROAD_SIGMA)
    points = mesh * len(image)
    eyes = [points[list(eye)].mean(0) for eye in (LEFT_EYE, RIGHT_EYE)]
    across = eyes[1] - eyes[0]
    down = np.array([-across[1], across[0]])

    def contrast(middle: np.ndarray, reach: float, levels: np.ndarray) -> float:
        along = np.linspace(-reach, reach, 9)
        at = middle + along[None, :, None] * across + levels[:, None, None] * down
        x, y = np.clip(at.round().astype(int), 0, len(image) - 1).transpose(2, 0, 1)
        line = band[y, x].mean(1)
        return float(line.max() - line.min())

    bridge = contrast((eyes[0] + eyes[1]) / 2, 0.07, np.linspace(-0.22, 0.22, 25))
    under = min(contrast(eye, 0.12, np.linspace(0.12, 0.40, 20)) for eye in eyes)
    return min(bridge / _BRIDGE, under / _UNDER)

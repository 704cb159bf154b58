"""Hair in front of faces, drawn strand by strand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from vidswap.landmarks import FACE_OVAL
from vidswap.training.layers import (
    FINE,
    SIZE,
    Layer,
    Random,
    Setting,
    canvas,
    drawn,
    noise,
    skin_color,
    upward_of,
)


def hair(setting: Setting, random: Random) -> Layer:
    """Strands over the face, from one to a curtain."""
    top = setting.mesh_xy[10]
    wide = SIZE * 0.27
    curtain = random.random() < 0.5
    count = int(random.integers(60, 220)) if curtain else int(random.integers(3, 40))
    x, y = np.clip((top - [random.normal(0, 40), random.uniform(25, 60)]).astype(int), 0, SIZE - 1)
    picture = setting.face if random.random() < 0.7 else setting.other
    base = picture[y, x] if random.random() < 0.75 else random.uniform(0.02, 0.9) * np.array([1, 0.8, 0.6])
    layer, cover = canvas(3), canvas(1)
    root = top + [random.uniform(-wide, wide), random.uniform(-70, -10)]
    end = np.array([root[0] + random.normal(0, 70), root[1] + random.uniform(60, 260)])
    bow = random.normal(0, 45)
    loose, width = random.uniform(3, 30), random.uniform(0.5, 2.2)
    for _ in range(count):
        a, b = root + random.normal(0, loose, 2), end + random.normal(0, loose * random.uniform(0.5, 1.5), 2)
        middle = 0.5 * (a + b) + [bow + random.normal(0, loose * 0.6), random.normal(0, 12)]
        tone = base * random.lognormal(0, 0.25) + random.normal(0, 0.015, 3)
        _strand(layer, cover, _bow(a, middle, b, 14), tone, width * random.uniform(0.5, 1.6))
    return drawn(layer, cover, random, casts=random.uniform(0, 0.35))


def fringe(setting: Setting, random: Random) -> Layer:
    """Hair that falls over the forehead, straight, parted or to a side, mostly of the wearer's own colour."""
    mesh = setting.mesh_xy
    upward, height = upward_of(mesh)
    along = mesh[454] - mesh[234]
    # It grows above the hairline, and ends about the brows.
    t = np.linspace(-0.05, 1.05, int(random.integers(40, 130)))[:, None]
    brow = float(((mesh[105] + mesh[334]) / 2 - (mesh[234] + mesh[454]) / 2) @ upward)
    rise = height * random.uniform(0.55, 0.8) * np.clip(1 - (2 * t - 1) ** 2, 0.05, 1) ** 0.4
    roots = mesh[234] + t * along + rise * upward + random.normal(0, 3, (len(t), 2))
    level = brow + height * random.uniform(-0.04, 0.2)
    parting, lift = random.uniform(-0.2, 1.2), random.uniform(0, 0.25) * height
    ends = mesh[234] + t * along + (level + lift * np.exp(-((t - parting) ** 2) / 0.03)) * upward
    sweep = random.normal(0, 0.12) if random.random() < 0.7 else random.uniform(-0.5, 0.5)
    ends = ends + sweep * along + np.sign(t - parting) * random.uniform(0, 0.08) * along
    gaps = noise(random, random.uniform(8, 40))[0, np.linspace(0, SIZE - 1, len(t)).astype(int)]
    kept = np.flatnonzero(gaps > random.uniform(-2.5, 0.6))
    base = _hair_color(setting, random)
    layer, cover = canvas(3), canvas(1)
    width, uneven = random.uniform(0.8, 2.6), random.uniform(1, 14)
    for strand in np.repeat(kept, int(random.integers(1, 5))):
        a, b = roots[strand] + random.normal(0, 2, 2), ends[strand] + random.normal(0, uneven, 2)
        middle = 0.5 * (a + b) + random.normal(0, 4, 2) + 0.15 * (b - a)[::-1] * [1, -1] * sweep
        tone = base * random.lognormal(0, 0.22) + random.normal(0, 0.012, 3)
        _strand(layer, cover, _bow(a, middle, b, 10), tone, width * random.uniform(0.5, 1.6))
    return drawn(layer, cover, random, casts=random.uniform(0, 0.4))


def locks(setting: Setting, random: Random) -> Layer:
    """Hair beside the face and over its rim, straight to curly, mostly of the wearer's own colour."""
    mesh = setting.mesh_xy
    upward, height = upward_of(mesh)
    middle, along = mesh[[234, 454]].mean(0), mesh[454] - mesh[234]
    base = _hair_color(setting, random)
    layer, cover = canvas(3), canvas(1)
    sides = (0, 1) if random.random() < 0.45 else (int(random.integers(2)),)
    wave, period = random.uniform(0, 0.05) ** 1.2 * height, random.uniform(0.2, 0.7) * height
    for side in sides:
        half = [FACE_OVAL[-i] if side else FACE_OVAL[i] for i in range(len(FACE_OVAL) // 2)]
        rim = mesh[half[int(random.integers(2, 6)) : int(random.integers(9, 18))]]
        for _ in range(int(random.integers(1, 4))):
            inset = np.linspace(random.uniform(-0.15, 0.25), random.normal(0.03, 0.13), len(rim))
            guide = rim + inset[:, None] * (middle - rim)
            root = guide[0] + upward * height * random.uniform(0.15, 0.45) + along * random.normal(0, 0.12)
            guide = np.concatenate([[root], guide])
            _lock(layer, cover, guide, base, wave, period, random)
    strands = drawn(layer, cover, random, casts=random.uniform(0, 0.4))
    shine = 1 + random.uniform(0, 0.25) * noise(random, random.uniform(12, 50))[..., None]
    return replace(strands, color=np.clip(strands.color * shine, 0, 1))


def _lock(
    layer: Image.Image, cover: Image.Image, guide: np.ndarray, base: np.ndarray, wave: float, period: float,
    random: Random,
) -> None:  # fmt: skip
    """Strands side by side along ``guide`` ``[n, 2]``, that bend with it from side to side."""
    steps = np.hypot(*np.diff(guide, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    at = np.linspace(0, along[-1], 28)
    path = np.stack([np.interp(at, along, guide[:, axis]) for axis in (0, 1)], 1)
    ahead = np.gradient(path, axis=0)
    across = np.stack([-ahead[:, 1], ahead[:, 0]], 1) / (np.hypot(*ahead.T)[:, None] + 1e-6)
    wide, loose, width = random.uniform(2, 11), random.uniform(0.2, 1.2), random.uniform(0.6, 2.4)
    phase, waist = random.uniform(0, 2 * math.pi), random.uniform(0.1, 1.3)
    narrowing = 1 + (waist - 1) * np.linspace(0, 1, len(at)) ** 2
    for _ in range(int(random.integers(15, 110))):
        place = random.normal(0, wide)
        swing = wave * random.uniform(0.7, 1.3)
        bend = swing * np.sin(2 * math.pi * at / period + phase + loose * random.normal(0, 0.6))
        strand = path + (place * narrowing + bend)[:, None] * across
        last = max(4, round(len(at) * (1 - random.uniform(0, 0.3) ** 1.5)))
        tone = base * random.lognormal(0, 0.22) + random.normal(0, 0.012, 3)
        _strand(layer, cover, strand[:last], tone, width * random.uniform(0.5, 1.5))


def _bow(start: np.ndarray, middle: np.ndarray, end: np.ndarray, count: int) -> np.ndarray:
    """``[count, 2]`` along the quadratic Bezier curve of three points ``[2]``."""
    t = np.linspace(0, 1, count)[:, None]
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end


def _hair_color(setting: Setting, random: Random) -> np.ndarray:
    """Colour ``[3]`` of the wearer's own hair, of fair hair that is nearly that of the skin, or of any."""
    mesh, kind = setting.mesh_xy, random.random()
    if kind < 0.6:
        x, y = np.clip((mesh[10] + upward_of(mesh)[0] * random.uniform(18, 50)).astype(int), 0, SIZE - 1)
        return setting.face[y, x]
    if kind < 0.8:
        fair = skin_color(setting.face, mesh, random) * random.uniform(0.65, 1.3)
        return np.clip(fair * [1, random.uniform(0.8, 1), random.uniform(0.55, 0.95)], 0, 1)
    return random.uniform(0.02, 0.9) * np.array([1, random.uniform(0.7, 0.95), random.uniform(0.45, 0.9)])


def _strand(
    layer: Image.Image, cover: Image.Image, path: np.ndarray, tone: np.ndarray, width: float
) -> None:
    """Draw a hair along ``path`` ``[n, 2]`` into a picture and into what it covers."""
    points = [tuple(p) for p in (path * FINE).tolist()]
    thick = max(1, round(width * FINE))
    fill = tuple((np.clip(tone, 0, 1) * 255).astype(int).tolist())
    ImageDraw.Draw(layer).line(points, fill=fill, width=thick)
    ImageDraw.Draw(cover).line(points, fill=255, width=thick)

"""Things that get in front of faces, drawn from random numbers: no data set, no pictures of hands.

Every maker gives a :class:`.Layer` of the picture's size: colours, and how far they cover. Lengths are in
pixels of a 256 px aligned crop, in which a face is about 130 px wide and a finger about 16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional

from vidswap.training.hair import fringe, hair, locks
from vidswap.training.layers import (
    FINE,
    SIZE,
    Layer,
    Random,
    Setting,
    blur,
    canvas,
    drawn,
    noise,
    reduced,
    skin_color,
)

# --- textures ------------------------------------------------------------------------------


def texture(setting: Setting, random: Random) -> np.ndarray:
    """Something natural or man-made to fill a shape with, ``[256, 256, 3]``."""
    kind = int(random.integers(6))
    if kind == 0:  # a piece of somebody else's picture, turned and enlarged
        return _patch(setting.other, random)
    if kind == 1:
        return _patch(setting.face, random)
    base = random.uniform(0, 1, 3) if random.random() < 0.6 else np.full(3, random.uniform(0, 1))
    second = np.clip(base + random.normal(0, 0.3, 3), 0, 1)
    if kind == 2:  # stripes, bent a little
        angle, period = random.uniform(0, math.pi), random.uniform(4, 30)
        y, x = np.mgrid[:SIZE, :SIZE]
        phase = (x * math.cos(angle) + y * math.sin(angle)) / period + 0.3 * noise(random, 80)
        share = np.clip(0.5 + random.uniform(0.6, 4) * np.sin(2 * math.pi * phase), 0, 1)
    elif kind == 3:  # nearly flat
        share = 0.1 * noise(random, random.uniform(30, 120))
    else:  # cloth, fur, walls: noise at several scales
        share = sum(
            0.5 * 0.6**i * noise(random, cell) for i, cell in enumerate(random.uniform(2, 60, 3))
        )
    color = base + np.clip(share, 0, 1)[..., None] * (second - base)
    return np.clip(color * (1 + 0.12 * noise(random, 70))[..., None], 0, 1)


def _patch(picture: np.ndarray, random: Random) -> np.ndarray:
    side = int(random.uniform(50, 160))
    left, top = random.integers(0, SIZE - side, 2)
    patch = np.rot90(picture[top : top + side, left : left + side], int(random.integers(4)))
    tensor = torch.from_numpy(np.ascontiguousarray(patch)).permute(2, 0, 1)[None]
    full = functional.interpolate(tensor, (SIZE, SIZE), mode="bilinear", align_corners=False)
    return full[0].permute(1, 2, 0).numpy()


# --- shapes --------------------------------------------------------------------------------


@dataclass
class _Relief:
    """Rounded bodies as a height map, from which both outline and shading follow."""

    height: np.ndarray
    cover: np.ndarray

    @classmethod
    def empty(cls) -> _Relief:
        return cls(np.zeros((SIZE, SIZE), np.float32), np.zeros((SIZE, SIZE), np.float32))

    def capsule(
        self, start: np.ndarray, end: np.ndarray, r0: float, r1: float, *,
        lift: float = 0.0, flat: float = 1.0,
    ) -> None:  # fmt: skip
        """A limb between two points with two radii; ``flat`` squeezes its height."""
        reach = max(r0, r1) + 2
        low = np.floor(np.minimum(start, end) - reach).astype(int).clip(0, SIZE)
        high = np.ceil(np.maximum(start, end) + reach).astype(int).clip(0, SIZE)
        if (high <= low).any():
            return
        y, x = np.mgrid[low[1] : high[1], low[0] : high[0]].astype(np.float32)
        along = end - start
        length = float(along @ along) + 1e-6
        t = np.clip(((x - start[0]) * along[0] + (y - start[1]) * along[1]) / length, 0, 1)
        radius = r0 + (r1 - r0) * t
        away = np.hypot(x - start[0] - t * along[0], y - start[1] - t * along[1])
        cover = np.clip(radius - away + 0.5, 0, 1)
        dome = np.sqrt(np.clip(1 - (away / radius) ** 2, 0, 1)) * radius * flat
        box = np.s_[low[1] : high[1], low[0] : high[0]]
        self.height[box] = np.maximum(self.height[box], (dome + lift) * (cover > 0))
        self.cover[box] = np.maximum(self.cover[box], cover)

    def shade(self, random: Random) -> np.ndarray:
        """Light ``[256, 256]`` around 1 from a random direction, darker in the folds."""
        height = blur(self.height, 1.0)
        slope_y, slope_x = np.gradient(height)
        z = 1 / np.sqrt(1 + slope_x**2 + slope_y**2)
        angle, tilt = random.uniform(0, 2 * math.pi), random.uniform(0.2, 1.0)
        toward = (math.cos(angle) * math.sin(tilt), math.sin(angle) * math.sin(tilt), math.cos(tilt))
        lit = np.clip((-slope_x * toward[0] - slope_y * toward[1] + toward[2]) * z, 0, 1)
        ambient = random.uniform(0.35, 0.95)
        folds = np.clip((blur(height, 4.0) - height) / 6, 0, 1) * (self.cover > 0.5)
        light = ambient + (1 - ambient) * lit / math.cos(tilt)
        return np.clip(light, 0, 1.25) * (1 - random.uniform(0.2, 0.7) * folds)


def hand(setting: Setting, random: Random) -> Layer:
    """A hand, or some fingers of one, that reaches a point of the face."""
    radius = random.uniform(4.8, 11.0)
    tip = setting.mesh_xy[int(random.integers(468))] + random.normal(0, 12, 2)
    # Hands come from below far more often than from above.
    angle = -math.pi / 2 + random.normal(0, 0.95)
    if random.random() < 0.2:
        angle = random.uniform(0, 2 * math.pi)
    relief, marks = _Relief.empty(), _Marks()
    length = radius * random.uniform(7.5, 10)
    fist = random.random() < 0.5
    curl = random.uniform(0.12, 0.6) if fist else random.uniform(0.75, 1.0)
    forward = np.array([math.cos(angle), math.sin(angle)])
    side = np.array([-forward[1], forward[0]])
    knuckles_at = tip - forward * length * curl
    spread = random.uniform(-0.02, 0.16) if random.random() < 0.6 else 0.0
    gap = radius * random.uniform(1.75, 2.15)
    hidden = random.integers(0, 4) if random.random() < 0.4 else 0
    wrist = knuckles_at - forward * radius * random.uniform(8, 11)
    for finger in range(4):
        place = finger - 1.5
        knuckle = knuckles_at + side * place * gap - forward * abs(place - 0.3) * radius * 0.5
        own_curl = curl * random.uniform(0.85, 1.05) * (0.82, 0.97, 1.0, 0.9)[finger]
        if finger < hidden:
            own_curl = random.uniform(0.12, 0.35)
        heading = angle + place * spread + random.normal(0, 0.04)
        bend = random.normal(0, 0.1)
        _finger(relief, marks, knuckle, heading, bend, length * own_curl, radius, random)
        relief.capsule(wrist + side * place * gap * 0.55, knuckle, radius * 1.25, radius * 1.12, flat=0.55)
    if random.random() < 0.75:
        which = 1 if random.random() < 0.5 else -1
        root = wrist + (knuckles_at - wrist) * 0.3 + side * which * gap * 1.2
        heading = angle + which * random.uniform(0.25, 1.1)
        _finger(relief, marks, root, heading, -which * 0.2, length * 0.85, radius * 1.1, random)
    relief.capsule(wrist - forward * 200, wrist, radius * 4.2, radius * 3.2, flat=0.5)
    return _flesh(setting, relief, marks, random)


@dataclass
class _Marks:
    """Nails and creases, drawn after the shading."""

    nails: list[tuple[np.ndarray, float, float]]
    creases: list[tuple[np.ndarray, float, float]]

    def __init__(self) -> None:
        self.nails, self.creases = [], []


def _finger(
    relief: _Relief, marks: _Marks, root: np.ndarray, heading: float, bend: float, length: float,
    radius: float, random: Random,
) -> None:  # fmt: skip
    at, thick = root, radius * random.uniform(0.98, 1.1)
    lift = random.uniform(0, 3)
    for joint, share in enumerate((0.42, 0.31, 0.27)):
        toward = at + length * share * np.array([math.cos(heading), math.sin(heading)])
        relief.capsule(at, toward, thick, thick * 0.92, lift=lift)
        if joint and length > 4 * radius:
            marks.creases.append((at, heading + math.pi / 2, thick * 0.8))
        at, thick, heading = toward, thick * 0.92, heading + bend
    back = radius * 0.15 * np.array([math.cos(heading), math.sin(heading)])
    marks.nails.append((at - back, heading, thick))


def _flesh(setting: Setting, relief: _Relief, marks: _Marks, random: Random) -> Layer:
    own = random.random() < 0.75
    picture, mesh = (setting.face, setting.mesh_xy) if own else (setting.other, setting.other_mesh_xy)
    gain = random.uniform(0.7, 1.3) if random.random() < 0.4 else random.uniform(0.9, 1.1)
    base = skin_color(picture, mesh, random) * gain + random.normal(0, 0.02, 3)
    if random.random() < 0.06:  # a glove
        base = random.uniform(0.02, 0.95, 3)
    light = relief.shade(random)
    light = light * random.uniform(0.9, 1.1) / max(0.3, float(light[relief.cover > 0.5].mean()))
    reddish = np.array([0.03, -0.025, -0.02]) * random.uniform(0, 2)
    color = base + reddish * noise(random, random.uniform(12, 40))[..., None]
    color = color * (1 + random.uniform(0.01, 0.05) * noise(random, random.uniform(2, 8)))[..., None]
    color = color * light[..., None]
    color = color - (1 - light[..., None]) * np.array([-0.02, 0.03, 0.03]) * random.uniform(0, 1.5)
    if random.random() < 0.7:
        color = _with_nails(color, marks, base, random)
    if random.random() < 0.8:
        color = color * (1 - random.uniform(0.1, 0.4) * _crease_map(marks))[..., None]
    return Layer(np.clip(color, 0, 1), relief.cover, casts=random.uniform(0, 0.6))


def _with_nails(color: np.ndarray, marks: _Marks, base: np.ndarray, random: Random) -> np.ndarray:
    picture = Image.new("L", (SIZE * FINE, SIZE * FINE))
    draw = ImageDraw.Draw(picture)
    turn = np.linspace(0, 2 * math.pi, 16)
    for centre, heading, radius in marks.nails:
        c, s = math.cos(heading), math.sin(heading)
        u, v = radius * 0.75 * np.cos(turn), radius * 0.6 * np.sin(turn)
        points = np.stack([centre[0] + c * u - s * v, centre[1] + s * u + c * v], 1) * FINE
        draw.polygon([tuple(p) for p in points.tolist()], fill=255)
    share = random.uniform(0.5, 0.95) * reduced(picture)
    tint = np.clip(base * random.uniform(1.0, 1.25) + [0.04, 0.0, 0.02], 0, 1)
    if random.random() < 0.25:
        tint = random.uniform(0, 1, 3)
    return color + share[..., None] * (tint - color)


def _crease_map(marks: _Marks) -> np.ndarray:
    picture = Image.new("L", (SIZE * FINE, SIZE * FINE))
    draw = ImageDraw.Draw(picture)
    for centre, heading, half in marks.creases:
        across = half * np.array([math.cos(heading), math.sin(heading)])
        along = np.array([-across[1], across[0]]) * 0.12
        for shift in (-1, 0, 1):
            a, b = (centre - across + shift * along) * FINE, (centre + across + shift * along) * FINE
            draw.line([tuple(a.tolist()), tuple(b.tolist())], fill=200, width=1)
    return blur(reduced(picture), 0.6)


def microphone(setting: Setting, random: Random) -> Layer:
    """A round or long head on a stick, dark or of coloured foam."""
    relief = _Relief.empty()
    at = setting.mesh_xy[int(random.choice([13, 14, 17, 152, 61, 291, 205, 425]))] + random.normal(0, 22, 2)
    angle = random.uniform(0.1, math.pi - 0.1)
    toward = np.array([math.cos(angle), math.sin(angle)])
    radius = random.uniform(10, 34)
    end = at + toward * radius * random.uniform(0, 1.5)
    relief.capsule(at, end, radius, radius * random.uniform(0.8, 1.1))
    relief.capsule(at, at + toward * 300, radius * random.uniform(0.25, 0.7), radius * 0.6)
    base = random.uniform(0.02, 0.35) * np.ones(3) if random.random() < 0.6 else random.uniform(0, 1, 3)
    y, x = np.mgrid[:SIZE, :SIZE]
    pitch = random.uniform(2.5, 6)
    mesh = 1 + random.uniform(0, 0.3) * np.sin(2 * math.pi * x / pitch) * np.sin(2 * math.pi * y / pitch)
    light = relief.shade(random) * mesh * (1 + 0.1 * noise(random, 3))
    return Layer(np.clip(base * light[..., None], 0, 1), relief.cover, casts=random.uniform(0, 0.5))


def cup(setting: Setting, random: Random) -> Layer:
    """A cup, glass, telephone or book in front of the lower face: a turned, rounded quadrangle."""
    at = setting.mesh_xy[int(random.choice([0, 13, 17, 152, 4, 205, 425]))] + random.normal(0, 15, 2)
    half = random.uniform(18, 55, 2)
    taper, angle = random.uniform(0.7, 1.1), random.normal(0, 0.4)
    corners = np.array([[-1, -1], [1, -1], [taper, 1], [-taper, 1]]) * half
    corners = corners + [0, half[1] * random.uniform(0.2, 1)]
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    picture = canvas(1)
    ImageDraw.Draw(picture).polygon([tuple(p) for p in ((corners @ turn + at) * FINE).tolist()], fill=255)
    alpha = np.clip((blur(reduced(picture), random.uniform(0.5, 4)) - 0.5) * 4 + 0.5, 0, 1)
    color = texture(setting, random)
    x = np.mgrid[:SIZE, :SIZE][1]
    across = np.clip((x - at[0]) / half[0], -1, 1)
    color = color * (1 - random.uniform(0, 0.6) * across**2 + random.uniform(-0.3, 0.3) * across)[..., None]
    return Layer(np.clip(color, 0, 1), alpha, casts=random.uniform(0, 0.5))


def cloth(setting: Setting, random: Random) -> Layer:
    """A mask or scarf over the lower face, or a brim, band or fringe of cloth over the forehead."""
    mesh = setting.mesh_xy
    if random.random() < 0.65:
        upper = mesh[[234, 117, int(random.choice([6, 195, 4, 2, 0])), 346, 454]]
        lower = [[SIZE + 30, SIZE + 30], [-30, SIZE + 30]] if random.random() < 0.5 else mesh[[365, 152, 136]]
        outline = np.concatenate([upper, lower]) + random.normal(0, 5, (len(upper) + len(lower), 2))
    else:
        edge = mesh[[127, 70, 9, 300, 356]] - [0, random.uniform(0, 35)]
        outline = np.concatenate([edge, [[SIZE + 30, -30], [-30, -30]]]) + random.normal(0, 4, (7, 2))
    picture = canvas(1)
    ImageDraw.Draw(picture).polygon([tuple(p) for p in (outline * FINE).tolist()], fill=255)
    alpha = np.clip((blur(reduced(picture), random.uniform(2, 6)) - 0.5) * 5 + 0.5, 0, 1)
    angle = random.uniform(0, math.pi)
    y, x = np.mgrid[:SIZE, :SIZE]
    way = (x * math.cos(angle) + y * math.sin(angle)) / random.uniform(12, 50)
    folds = 1 + random.uniform(0, 0.3) * np.sin(2 * math.pi * (way + 0.4 * noise(random, 60)))
    return Layer(np.clip(texture(setting, random) * folds[..., None], 0, 1), alpha, random.uniform(0, 0.4))


def lettering(setting: Setting, random: Random) -> Layer:
    """A line of text or a plate over the picture, as broadcasts have them."""
    letters = "".join(chr(int(c)) for c in random.integers(33, 123, int(random.integers(1, 14))))
    layer, cover = canvas(3), canvas(1)
    font = ImageFont.load_default(size=float(random.uniform(12, 70)) * FINE)
    at = tuple((np.array([random.uniform(-0.1, 0.6), random.uniform(0.3, 0.85)]) * SIZE * FINE).tolist())
    tone = tuple(int(v) for v in (random.integers(0, 256, 3) if random.random() < 0.6 else [255] * 3))
    if random.random() < 0.3:
        box = ImageDraw.Draw(layer).textbbox(at, letters, font=font)
        plate = tuple(int(v) for v in random.integers(0, 256, 3))
        ImageDraw.Draw(layer).rectangle(box, fill=plate)
        ImageDraw.Draw(cover).rectangle(box, fill=255)
    ImageDraw.Draw(layer).text(at, letters, font=font, fill=tone)
    ImageDraw.Draw(cover).text(at, letters, font=font, fill=255)
    return drawn(layer, cover, random, casts=0.0)


def blob(setting: Setting, random: Random) -> Layer:
    """Any shape with any texture, lit from somewhere."""
    at = setting.mesh_xy[int(random.integers(468))] + random.normal(0, 20, 2)
    y, x = np.mgrid[:SIZE, :SIZE]
    angle, half = random.uniform(0, math.pi), random.uniform(8, 70, 2)
    u = ((x - at[0]) * math.cos(angle) + (y - at[1]) * math.sin(angle)) / half[0]
    v = (-(x - at[0]) * math.sin(angle) + (y - at[1]) * math.cos(angle)) / half[1]
    power = random.choice([1.0, 2.0, 4.0])
    away = (np.abs(u) ** power + np.abs(v) ** power) ** (1 / power)
    away = away + random.uniform(0, 0.5) * noise(random, random.uniform(15, 60))
    alpha = np.clip((1 - away) * half.min() / random.uniform(1, 3) + 0.5, 0, 1)
    color = texture(setting, random)
    if random.random() < 0.35:  # of the skin's own colour
        color = skin_color(setting.face, setting.mesh_xy, random) * (1 + 0.06 * noise(random, 25))[..., None]
        color = color * random.uniform(0.7, 1.2)
    dome = np.sqrt(np.clip(1 - np.clip(away, 0, 1) ** 2, 0, 1))
    color = color * (1 + random.uniform(0, 0.6) * (dome - 0.7))[..., None]
    return Layer(np.clip(color, 0, 1), alpha.astype(np.float32), casts=random.uniform(0, 0.5))


def other_face(setting: Setting, random: Random) -> Layer:
    """A part of somebody else's head in front of this one."""
    shift = random.normal(0, 70, 2)
    moved = np.roll(setting.other, tuple(shift[::-1].astype(int)), (0, 1))
    edge, angle = random.uniform(20, 70), random.uniform(0, 2 * math.pi)
    y, x = np.mgrid[:SIZE, :SIZE]
    away = (x - SIZE / 2) * math.cos(angle) + (y - SIZE * 0.58) * math.sin(angle)
    alpha = np.clip((away - edge + 8 * noise(random, 50)) / random.uniform(1, 3) + 0.5, 0, 1)
    return Layer(moved, alpha.astype(np.float32), casts=random.uniform(0, 0.4))


Maker = Callable[[Setting, Random], Layer]
Makers = Sequence[tuple[Maker, float]]
"""What is drawn, and how often."""
MAKERS: Makers = (
    (hand, 0.33), (fringe, 0.15), (locks, 0.16), (hair, 0.10), (blob, 0.10), (microphone, 0.06), (cup, 0.05),
    (cloth, 0.05), (lettering, 0.02), (other_face, 0.02),
)  # fmt: skip


def draw_occluder(setting: Setting, random: Random, makers: Makers = MAKERS) -> Layer:
    """One occluder of a random kind."""
    shares = np.array([share for _, share in makers])
    maker, _ = makers[int(random.choice(len(makers), p=shares / shares.sum()))]
    return maker(setting, random)

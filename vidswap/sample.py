"""A clip of a person who does not exist, talking and turning (composer level).

What to try the tool on without footage of anyone: a generated face moved along latent directions in
time with a made-up voice, before a moving background, seen by a camera that drifts.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vidswap import __version__, weights
from vidswap.cache import digest_of, temporary_beside
from vidswap.compositing import composite
from vidswap.config import RunConfig
from vidswap.errors import UsageError
from vidswap.identities import to_image
from vidswap.landmarks import EYE_CORNERS, FACE_OVAL
from vidswap.mixing.directions import Directions, edit, load_directions
from vidswap.models.aligned_mesh import eye_aspect, gaze, head_rotation, mouth_opening
from vidswap.provenance import MarkInfo, container_tags, mark_output
from vidswap.records import FloatArray, Swap
from vidswap.reports import Log, Pace, Progress, quiet
from vidswap.session import Session
from vidswap.speech import SOUND_RATE_HZ, Speech
from vidswap.video import check_output
from vidswap.video.sample_writer import SampleWriter

FPS = 25
_PSI = 0.6
_MASK_SIDE = 256
_BLINK_SECONDS = 0.24
_MOUTH_STEPS = 1.5
_BLINK_STEPS = -1.9


@dataclass(frozen=True)
class Acting:
    """What the person and the camera do at each moment, by seed."""

    seed: int
    seconds: float

    @cached_property
    def speech(self) -> Speech:
        return Speech(self.seed, self.seconds)

    @cached_property
    def _phases(self) -> NDArray[np.float64]:
        return np.random.default_rng([self.seed, 1]).uniform(0, 2 * np.pi, 16)

    @cached_property
    def _blinks(self) -> NDArray[np.float64]:
        random = np.random.default_rng([self.seed, 2])
        gaps = random.uniform(1.2, 2.6, int(self.seconds) + 2)
        return 0.9 * gaps[0] * 0.5 + np.cumsum(gaps) - gaps[0]

    def _wave(self, t: float, hertz: float, index: int) -> float:
        return float(np.sin(2 * np.pi * hertz * t + self._phases[index]))

    def amounts(self, t: float) -> dict[str, float]:
        """Steps along the directions at ``t`` seconds."""
        yaw = 0.95 * self._wave(t, 0.31, 0) + 0.3 * self._wave(t, 0.73, 1)
        loud = self.speech.opening(t)
        return {
            "yaw": yaw,
            "pitch": 0.3 * self._wave(t, 0.43, 2) + 0.15 * self._wave(t, 1.1, 3) - 0.12 * loud,
            "mouth": _MOUTH_STEPS * loud,
            "smile": 0.35 * self._wave(t, 0.21, 4),
            "eyes": _BLINK_STEPS * self.blink(t),
            # The eyes stay on the camera while the head turns.
            "gaze_x": -0.3 * yaw,
            "brow": 0.5 * max(0.0, self._wave(t, 0.6, 5)) * loud,
        }

    def blink(self, t: float) -> float:
        """0 open, 1 closed; down faster than up."""
        since = t - self._blinks
        since = since[(since >= 0) & (since < _BLINK_SECONDS)]
        if not len(since):
            return 0.0
        return float(np.sin(np.pi * (since[0] / _BLINK_SECONDS) ** 0.8))

    def camera(self, t: float) -> tuple[float, float, float, float]:
        """Shift right and down (in sides of the crop), zoom, and tilt in degrees."""
        return (
            0.05 * self._wave(t, 0.17, 6) + 0.012 * self._wave(t, 0.31, 0),
            0.015 * self._wave(t, 0.23, 7) + 0.004 * self._wave(t, 0.43, 2),
            1.0 + 0.035 * self._wave(t, 0.12, 8),
            1.6 * self._wave(t, 0.27, 9),
        )


def head_and_shoulders(mesh: FloatArray, size: int = _MASK_SIDE) -> FloatArray:
    """Soft matte ``[size, size]`` of a person in an aligned crop, from the mesh ``[468, 3]``.

    The oval of the face grown by the room that hair takes, and shoulders that widen downwards;
    all of it fades out before the edges of the crop, except below, where the picture ends.
    """
    oval = mesh[list(FACE_OVAL), :2]
    low, high = oval.min(0), oval.max(0)
    centre, half = (low + high) / 2, (high - low) / 2
    axis = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(axis, axis)
    head = np.hypot(
        (x - centre[0]) / (1.42 * half[0]), (y - (centre[1] - 0.22 * half[1])) / (1.42 * half[1])
    )
    # Shoulders: a bell that opens from the jaw to the lower edge.
    down = np.clip((y - centre[1]) / (1 - centre[1]), 0, 1)
    width = half[0] * (1.05 + 0.55 * down**1.5)
    body = np.where(y > centre[1], np.abs(x - centre[0]) / width, 9.0)
    distance = np.minimum(head, body)
    matte = np.clip((1.24 - distance) / 0.34, 0, 1)
    rim = np.minimum(np.minimum(x, 1 - x), y)
    return _smooth(matte * _smooth(np.clip(rim / 0.07, 0, 1))).astype(np.float32)


def around_eyes(mesh: FloatArray, size: int = _MASK_SIDE) -> FloatArray:
    """Soft ovals ``[size, size]`` around both eyes, which every aligned crop has at one place."""
    axis = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(axis, axis)
    nearest = np.full((size, size), np.inf)
    for first, second in EYE_CORNERS:
        centre = (mesh[first, :2] + mesh[second, :2]) / 2
        width = np.linalg.norm(mesh[second, :2] - mesh[first, :2])
        far = np.hypot((x - centre[0]) / (1.05 * width), (y - centre[1]) / (0.72 * width))
        nearest = np.minimum(nearest, far)
    return _smooth(np.clip((1.15 - nearest) / 0.4, 0, 1)).astype(np.float32)


def _smooth(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x * x * (3 - 2 * x)


class Backdrop:
    """Soft lights that drift over a wall whose colours continue those around the person."""

    def __init__(
        self, picture: FloatArray, matte: FloatArray, size_wh: tuple[int, int], seed: int
    ) -> None:
        """:param picture: ``[S, S, 3]`` a crop, whose colours outside of the matte are taken up."""
        random = np.random.default_rng([seed, 3])
        self.size_wh = size_wh
        self._wall = _wall(picture, matte, size_wh)
        count = 16
        self._place = random.uniform(-0.1, 1.1, (count, 2))
        self._drift = random.uniform(-0.05, 0.05, (count, 2)) + (0.045, 0.0)
        self._radius = random.uniform(0.035, 0.13, count)
        mean = self._wall.mean((0, 1))
        tint = random.uniform(0.25, 1.0, (count, 3)) * random.choice([0.5, 1.0], (count, 1))
        self._light = (0.16 * tint + 0.10 * mean).astype(np.float32)
        width, height = size_wh
        self._x = (np.arange(width, dtype=np.float32) + 0.5) / max(size_wh)
        self._y = (np.arange(height, dtype=np.float32) + 0.5) / max(size_wh)

    def at(self, t: float, shift_xy: tuple[float, float]) -> FloatArray:
        """The backdrop ``[H, W, 3]`` in [0, 1].

        :param shift_xy: the camera's, in sides of the picture.
        """
        picture = self._wall.copy()
        for place, drift, radius, light in zip(
            self._place, self._drift, self._radius, self._light, strict=True
        ):
            x, y = (place + drift * t + np.array(shift_xy) + 0.15) % 1.3 - 0.15
            columns = np.abs(self._x - x) < 1.25 * radius
            rows = np.abs(self._y - y) < 1.25 * radius
            if not columns.any() or not rows.any():
                continue
            inner = np.ix_(rows, columns)
            far = np.hypot(self._x[columns] - x, self._y[rows][:, None] - y) / radius
            picture[inner] += np.clip((1.2 - far) / 0.4, 0, 1)[..., None] ** 1.5 * light
        return np.clip(picture, 0, 1)


def _wall(picture: FloatArray, matte: FloatArray, size_wh: tuple[int, int]) -> FloatArray:
    """Colours outside of the matte, spread over everything and made smooth, ``[H, W, 3]``."""
    seen = torch.from_numpy(1 - matte)[None, None]
    colors = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None]
    colors = functional.interpolate(colors, (matte.shape[0],) * 2, mode="area")
    # The strip at the bottom is clothes, not wall.
    seen[:, :, int(0.75 * matte.shape[0]) :] = 0
    grid = functional.adaptive_avg_pool2d(torch.cat((colors * seen, seen), 1), 8)
    kernel = torch.exp(-0.5 * ((torch.arange(15) - 7) / 2.2) ** 2)
    kernel = (kernel[:, None] * kernel).expand(4, 1, 15, 15)
    spread = functional.conv2d(grid, kernel, padding=7, groups=4)
    wall = spread[:, :3] / spread[:, 3:].clamp_min(1e-4)
    width, height = size_wh
    wall = functional.interpolate(wall, (height, width), mode="bicubic", align_corners=False)
    shade = 1.0 - 0.18 * torch.linspace(0, 1, height)[:, None]
    return (wall[0] * shade).clamp(0, 0.92).permute(1, 2, 0).numpy()


@dataclass
class _Stage:
    """The person, ready to act."""

    session: Session
    directions: Directions
    code: Tensor
    eyes: FloatArray
    """``[M, M]`` opacity of the area around the eyes, the same on every picture of the crop."""
    side: float
    """Side of the crop in the picture, pixels, before the camera's zoom."""

    @cached_property
    def drawn_side(self) -> int:
        """Cheapest size of the generator that is not blurred at this size in the picture."""
        generator = self.session.generator
        cheap = sorted(int(size) for size in getattr(generator, "heads", {}))
        return next((size for size in cheap if size >= 1.05 * self.side), generator.resolution)

    def draw(self, amounts: dict[str, float]) -> FloatArray:
        """The person ``[S, S, 3]``. A blink is taken from a picture of its own, around the eyes
        only: the direction for it changes skin and background a little too."""
        picture = self._drawn({**amounts, "eyes": 0.0})
        if not amounts.get("eyes"):
            return picture
        size = (self.drawn_side, self.drawn_side)
        share = functional.interpolate(
            torch.from_numpy(self.eyes)[None, None], size, mode="bilinear", align_corners=False
        )[0, 0].numpy()[..., None]
        return picture + share * (self._drawn(amounts) - picture)

    @torch.no_grad()
    def _drawn(self, amounts: dict[str, float]) -> FloatArray:
        code = edit(self.code, amounts, self.directions)
        return to_image(self.session.generator.synthesize(code, size=self.drawn_side))


@torch.no_grad()
def _settled(session: Session, directions: Directions, seed: int) -> tuple[Tensor, FloatArray]:
    """The code of a person who faces the camera, mouth shut and eyes open, and the mesh."""
    generator = session.generator
    code = generator.sample(seed, psi=_PSI)[:, None].repeat(1, generator.n_styles, 1)
    size = 128 if "128" in getattr(generator, "heads", {}) else generator.resolution
    for _ in range(2):
        mesh, _, iris = session.meshes(generator.synthesize(code, size=size))
        rotation = head_rotation(mesh)[0]
        off = {
            "yaw": float(torch.rad2deg(torch.atan2(-rotation[0, 2], rotation[2, 2]))),
            "pitch": float(torch.rad2deg(torch.asin(rotation[1, 2].clamp(-1, 1)))),
            "mouth": float(mouth_opening(mesh)) - 0.015,
            "gaze_x": float(gaze(mesh, iris)[..., 0].mean()),
            "eyes": float(eye_aspect(mesh).mean()) - 0.31,
        }
        steps = {name: -0.9 * value / directions.units[name][0] for name, value in off.items()}
        code = edit(
            code, {name: float(np.clip(step, -2, 2)) for name, step in steps.items()}, directions
        )
    return code, mesh[0].cpu().numpy()


def _quad(
    size_wh: tuple[int, int], side: float, camera: tuple[float, float, float, float]
) -> FloatArray:
    """Where the crop lies in the picture: TL, BL, BR, TR."""
    width, height = size_wh
    right, down, zoom, degrees = camera
    side = side * zoom
    angle = np.deg2rad(degrees)
    across = side * np.array([np.cos(angle), np.sin(angle)])
    below = side * np.array([-np.sin(angle), np.cos(angle)])
    # The lower edge stays below the picture, so that nobody floats.
    middle = np.array([width / 2 + right * side, height - 0.5 * side + (0.03 + down) * side])
    corners = ((-0.5, -0.5), (-0.5, 0.5), (0.5, 0.5), (0.5, -0.5))
    return np.array([middle + u * across + v * below for u, v in corners], np.float32)


def make_sample(
    output: str | Path,
    *,
    seed: int = 7,
    seconds: float = 4.0,
    size_wh: tuple[int, int] = (640, 640),
    config: RunConfig | None = None,
    force: bool = False,
    progress: Callable[[Progress], None] | None = None,
    log: Log = quiet,
) -> Path:
    """Make a clip with sound of a generated person, 25 pictures a second, marked as synthetic.

    :param output: ``.mp4``, ``.mov`` or ``.mkv``.
    :param seed: which person, and what they do; the same seed gives the same pictures.
    :param size_wh: even numbers, at least 64.
    :param progress: called after each frame. :param log: called with lines for the log.
    :raises UsageError: a size or length that cannot be, or the output exists without ``force``.
    :raises OutputError: it cannot be written. :raises WeightsError: weights are missing.
    """
    output = Path(output)
    if min(size_wh) < 64 or max(size_wh) > 4096:
        raise UsageError(f"--size: expected 64 to 4096 pixels, got {size_wh[0]}x{size_wh[1]}")
    if not 1 / FPS <= seconds <= 600:
        raise UsageError(f"--seconds: expected {1 / FPS} to 600, got {seconds}")
    check_output(output, None, force=force)
    config = config or RunConfig()
    session = Session(config)
    log(f"sample: person {seed}, {seconds:g} s, on {session.device}")
    made = temporary_beside(output).with_suffix(output.suffix)
    try:
        _film(made, session, seed, seconds, size_wh, progress)
        claim = MarkInfo(
            tool_version=__version__,
            generator=session.generator.name,
            weights={"generator": session.generator.identifier},
            settings_digest=digest_of({"sample": [seed, seconds, *size_wh]}),
        )
        mark_output(made, output, claim=claim)
    finally:
        with suppress(OSError):
            made.unlink(missing_ok=True)
    return output


def _film(
    path: Path,
    session: Session,
    seed: int,
    seconds: float,
    size_wh: tuple[int, int],
    progress: Callable[[Progress], None] | None,
) -> None:
    """Draw all pictures and write them with the sound."""
    directions = load_directions(weights.locate("directions"), session.device)
    code, mesh = _settled(session, directions, seed)
    acting = Acting(seed, seconds)
    stage = _Stage(session, directions, code, around_eyes(mesh), 0.92 * min(size_wh))
    matte = head_and_shoulders(mesh)
    backdrop = Backdrop(stage.draw({}), matte, size_wh, seed)
    total = max(1, round(seconds * FPS))
    pace = Pace(total)
    with SampleWriter(
        path, size_wh=size_wh, fps=FPS, sound=acting.speech.sound(), sound_rate_hz=SOUND_RATE_HZ,
        metadata=container_tags(),
    ) as writer:  # fmt: skip
        for index in range(total):
            t = (index + 0.5) / FPS  # the middle of the time that the picture is shown
            camera = acting.camera(t)
            behind = backdrop.at(t, (0.4 * camera[0], 0.4 * camera[1]))
            swap = Swap(stage.draw(acting.amounts(t)), matte, _quad(size_wh, stage.side, camera))
            rgb, alpha = composite(behind, (0, 0, *size_wh), swap)
            picture = behind + alpha[..., None] * (rgb - behind)
            writer.write((picture * 255 + 0.5).clip(0, 255).astype(np.uint8))
            if progress is not None:
                progress(pace(index + 1))

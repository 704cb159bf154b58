"""Inputs that a video tool must survive, made on the spot and the same at every call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Pictures = Callable[[int, int, int], NDArray[np.uint8]]
"""(frame number, width, height) to ``[height, width, 3]`` RGB."""


@dataclass(frozen=True)
class Case:
    """One file (or folder), and what must happen with it."""

    number: int
    """Number of the case in the list of inputs and faults."""
    file: str
    what: str
    must: str
    exits: tuple[int, ...]
    """Exit codes that are right."""
    make: Callable[[Path, Pictures], None]


CASES: list[Case] = []


def case(
    number: int, file: str, what: str, must: str, *exits: int
) -> Callable[[Callable[[Path, Pictures], None]], Callable[[Path, Pictures], None]]:
    """Enters a maker of a file under its number."""

    def enter(make: Callable[[Path, Pictures], None]) -> Callable[[Path, Pictures], None]:
        CASES.append(Case(number, file, what, must, exits or (0,), make))
        return make

    return enter


def moving_pattern(face: NDArray[np.uint8] | None = None) -> Pictures:
    """A colour field with a moving square, and a face drifting over it where one is given."""

    def picture(number: int, width: int, height: int) -> NDArray[np.uint8]:
        y, x = np.ogrid[:height, :width]
        red = (x * 255 // max(width - 1, 1) + number * 3) % 256
        green = (y * 255 // max(height - 1, 1) + number * 2) % 256
        image = np.empty((height, width, 3), np.uint8)
        image[..., 0], image[..., 1], image[..., 2] = red, green, 96
        side = max(min(width, height) // 8, 1)
        left = (number * 4) % max(width - side, 1)
        image[:side, left : left + side] = 255
        if face is not None:
            _paste(image, face, number)
        return image

    return picture


def _paste(image: NDArray[np.uint8], face: NDArray[np.uint8], number: int) -> None:
    height, width = image.shape[:2]
    side = int(min(width, height) * 0.7)
    if side < 8:
        return
    rows = np.arange(side) * face.shape[0] // side
    columns = np.arange(side) * face.shape[1] // side
    left = (width - side) // 2 + round(np.sin(number / 10) * (width - side) / 4)
    top = (height - side) // 2
    image[top : top + side, left : left + side] = face[rows][:, columns]

"""Latents of an export, read back (composer level). :mod:`vidswap.exporting` describes the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from vidswap.errors import InputError
from vidswap.records import FloatArray

FORMAT_VERSION = 1
"""Of an export and all its files."""


@dataclass(frozen=True)
class Latents:
    """``latents.safetensors``, read back."""

    codes: FloatArray = field(repr=False)
    """``[N, n_styles, 512]`` W+."""
    pts: NDArray[np.int64]
    frame: NDArray[np.int64]
    track: NDArray[np.int64]
    error: FloatArray
    time_base: Fraction
    generator: str
    """Name and weights hash of the generator that the codes belong to."""
    target: str
    """Content key of the clip."""
    format_version: int


def read_latents(path: str | Path) -> Latents:
    """Read ``latents.safetensors`` of this format version or an older one.

    :raises InputError: missing, damaged, not latents of vidswap, or of a newer version.
    """
    path = Path(path)
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            version = _version_of(metadata, path)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        time_base = Fraction(metadata["time_base"])
        generator, target = metadata["generator"], metadata["target"]
    except (SafetensorError, OSError, KeyError, ValueError, ZeroDivisionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read as latents ({reason}): export them again") from error
    codes = arrays.get("codes", np.zeros(0, np.float32))
    count = len(codes)
    expected = {"pts": "int64", "frame": "int64", "track": "int64", "error": "float32"}
    fits = codes.ndim == 3 and codes.shape[2] == 512 and codes.dtype == np.float32
    for name, dtype in expected.items():
        array = arrays.get(name)
        fits = fits and array is not None and array.shape == (count,) and array.dtype == dtype
    if not fits or not np.isfinite(codes).all() or time_base <= 0:
        raise InputError(f"{path} does not hold what latents should: export them again")
    return Latents(
        codes, arrays["pts"], arrays["frame"], arrays["track"], arrays["error"], time_base,
        generator, target, version,
    )  # fmt: skip


class LatentRows:
    """``latents.safetensors`` whose codes are read a row at a time: a long clip's need not fit in memory.

    :raises InputError: missing, damaged, not latents of vidswap, or of a newer version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._file = safe_open(self.path, "np").__enter__()
            metadata = self._file.metadata() or {}
            self.format_version = _version_of(metadata, self.path)
            self._codes = self._file.get_slice("codes")
            shape, kind = self._codes.get_shape(), self._codes.get_dtype()
            self.pts, self.track, self.error = (self._file.get_tensor(n) for n in ("pts", "track", "error"))
            self.time_base = Fraction(metadata["time_base"])
            self.generator, self.target = metadata["generator"], metadata["target"]
        except (SafetensorError, OSError, KeyError, ValueError, ZeroDivisionError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{path} cannot be read as latents ({reason}): export them again") from error
        columns = ((self.pts, "int64"), (self.track, "int64"), (self.error, "float32"))
        fits = len(shape) == 3 and shape[2] == 512 and kind == "F32" and self.time_base > 0
        if not fits or any(c.shape != (shape[0],) or c.dtype != dtype for c, dtype in columns):
            raise InputError(f"{self.path} does not hold what latents should: export them again")
        self.n_styles = int(shape[1])

    def code(self, row: int) -> FloatArray:
        """``[n_styles, 512]`` W+ of a face.

        :raises InputError: it holds no numbers.
        """
        code = np.ascontiguousarray(self._codes[row])
        if not np.isfinite(code).all():
            raise InputError(f"{self.path} does not hold what latents should (row {row}): export them again")
        return code


def _version_of(metadata: dict[str, str], path: Path) -> int:
    if metadata.get("format") != "vidswap-latents":
        raise InputError(f"{path} holds no latents of vidswap: name a latents.safetensors of an export")
    text = metadata.get("format_version", "")
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"{path} has the format version {text!r}: export it again")
    if int(text) > FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {text}, this vidswap reads up to {FORMAT_VERSION}: update vidswap"
        )
    return int(text)

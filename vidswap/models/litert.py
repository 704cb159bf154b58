"""Runs a ``.tflite`` network on the CPU through LiteRT."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidswap.errors import WeightsError

_redirect = threading.Lock()


@contextmanager
def _quiet_native_code() -> Iterator[None]:
    """Keeps what native code writes to stderr (a line a network) off the user's screen.

    Errors of the runtime reach us as exceptions. Where there is no stderr to redirect (a service),
    nothing is done.
    """
    with _redirect:
        try:
            kept = os.dup(2)
        except OSError:
            yield
            return
        try:
            with open(os.devnull, "wb") as nothing:
                os.dup2(nothing.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


class LiteRTModel:
    """A network of one input and named outputs.

    Each instance owns one interpreter and a lock, so calls from several threads are safe; for
    work in parallel make an instance a thread.

    :param path: the ``.tflite`` file.
    :param threads: CPU threads; these networks are so small that more than one seldom pays.
    :raises WeightsError: when the file is missing or is no usable network.
    """

    def __init__(self, path: Path | str, *, threads: int = 1) -> None:
        path = Path(path)
        if not path.is_file():
            raise WeightsError(f"No network at {path}; run `vidswap weights fetch`.")
        if threads < 1:
            raise ValueError(f"threads: expected >= 1, got {threads}")
        from ai_edge_litert.interpreter import Interpreter

        try:
            with _quiet_native_code():
                interpreter = Interpreter(model_path=str(path), num_threads=threads)
                interpreter.allocate_tensors()
            inputs = interpreter.get_input_details()
        except (ValueError, RuntimeError) as error:
            raise WeightsError(
                f"{path} is not a usable .tflite network; run `vidswap weights verify`."
            ) from error
        if len(inputs) != 1 or inputs[0]["dtype"] is not np.float32:
            raise WeightsError(f"{path}: expected one float32 input, got {len(inputs)} inputs.")
        self._interpreter: Any = interpreter
        self._lock = threading.Lock()
        self._input: int = inputs[0]["index"]
        self.input_shape: tuple[int, ...] = tuple(int(n) for n in inputs[0]["shape"])
        """Shape of the input, ``(1, H, W, C)`` for pictures."""
        self._outputs: dict[str, int] = {
            detail["name"]: detail["index"] for detail in interpreter.get_output_details()
        }
        self.output_shapes: dict[str, tuple[int, ...]] = {
            detail["name"]: tuple(int(n) for n in detail["shape"])
            for detail in interpreter.get_output_details()
        }
        """Shape of each output, by its name in the file."""

    def __call__(self, array: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Run the network once.

        :param array: float32, of ``input_shape`` (a missing leading 1 is added).
        :return: a copy of each output, by name.
        :raises ValueError: when the shape is wrong.
        """
        value = np.ascontiguousarray(array, dtype=np.float32)
        if value.shape == self.input_shape[1:]:
            value = value[None]
        if value.shape != self.input_shape:
            raise ValueError(f"input: expected {self.input_shape}, got {array.shape}")
        with self._lock:
            self._interpreter.set_tensor(self._input, value)
            self._interpreter.invoke()
            return {
                name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()
            }

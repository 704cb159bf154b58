"""The LiteRT runner: shapes, threads, files that are none."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from vidswap import weights
from vidswap.errors import WeightsError
from vidswap.models.litert import LiteRTModel


def test_missing_and_damaged_files_are_weights_errors(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="weights fetch"):
        LiteRTModel(tmp_path / "none.tflite")
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"TFL3" * 100)
    with pytest.raises(WeightsError, match="not a usable"):
        LiteRTModel(broken)


def test_one_instance_serves_many_threads(weights_home: Path) -> None:
    model = LiteRTModel(weights.locate("iris"))
    rng = np.random.default_rng(0)
    inputs = [rng.random(model.input_shape, dtype=np.float32) for _ in range(6)]
    alone = [model(value) for value in inputs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(model, inputs * 5))
    for index, outputs in enumerate(together):
        for name, value in outputs.items():
            np.testing.assert_array_equal(value, alone[index % 6][name])
            assert value.shape == model.output_shapes[name]


def test_wrong_input_shape_is_named(weights_home: Path) -> None:
    model = LiteRTModel(weights.locate("iris"))
    with pytest.raises(ValueError, match="expected"):
        model(np.zeros((32, 32, 3), np.float32))

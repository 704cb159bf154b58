"""What all tests share: seeds, no network, and the fetched weights."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vidswap import weights
from vidswap.errors import WeightsError


def _offline() -> bool:
    return os.environ.get("VIDSWAP_TEST_OFFLINE", "") not in ("", "0")


def _cuda_here() -> bool:
    import torch

    return torch.cuda.is_available()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests for a GPU skip, and say so, where there is none."""
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if wanting and not _cuda_here():
        for item in wanting:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
    if _offline():
        for item in items:
            if item.get_closest_marker("network"):
                item.add_marker(pytest.mark.skip(reason="VIDSWAP_TEST_OFFLINE is set"))


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Every test starts from the same random state, alone or in company."""
    random.seed(0)
    np.random.seed(0)
    import torch

    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that opens a connection off this machine fails, unless it is marked ``network``."""
    if request.node.get_closest_marker("network"):
        return
    monkeypatch.setenv("VIDSWAP_OFFLINE", "1")
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def refuse_remote(sock: socket.socket, address: object) -> None:
        local = sock.family == getattr(socket, "AF_UNIX", None) or (
            isinstance(address, tuple) and str(address[0]) in ("127.0.0.1", "::1", "localhost")
        )
        if not local:
            raise AssertionError(f"a test without the mark 'network' connects to {address!r}")

    def guarded(sock: socket.socket, address: object) -> None:
        refuse_remote(sock, address)
        return connect(sock, address)  # type: ignore[arg-type]

    def guarded_ex(sock: socket.socket, address: object) -> int:
        refuse_remote(sock, address)
        return connect_ex(sock, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_ex)


@pytest.fixture(scope="session")
def weights_home() -> Path:
    """The cache folder with all fetched weights ready.

    Fetches what is missing. Where that cannot be: skips when ``VIDSWAP_TEST_OFFLINE`` is set,
    fails otherwise, so that a run does not look complete without them.
    """
    try:
        weights.ensure(weights.CATALOGUE, progress=False, offline=_offline())
    except WeightsError as error:
        if _offline():
            pytest.skip(f"weights are not here: {error}")
        raise
    return weights.home()


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of this test's own, with nothing in it."""
    folder = tmp_path / "home"
    monkeypatch.setenv("VIDSWAP_HOME", str(folder))
    yield folder


@pytest.fixture(scope="session")
def portrait(weights_home: Path) -> np.ndarray:
    """A person who does not exist, ``[120, 160, 3]`` uint8."""
    import torch

    from vidswap.models.mobile_stylegan import MobileStyleGAN

    generator = MobileStyleGAN.load(weights.locate("mobilestylegan"))
    with torch.no_grad():
        code = generator.sample(1, psi=0.6).reshape(1, 1, 512).expand(1, generator.n_styles, 512)
        drawn = torch.nn.functional.adaptive_avg_pool2d(generator.synthesize(code), 120)
    face = ((drawn[0].clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).numpy()
    return np.pad(face, ((0, 0), (20, 20), (0, 0)), mode="edge")


@pytest.fixture(scope="module")
def own_home(weights_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """``VIDSWAP_HOME`` of a module's own: the real weights, and a cache that no other test has filled."""
    folder = tmp_path_factory.mktemp("home")
    for entry in weights_home.iterdir():
        if entry.name != "cache":
            (folder / entry.name).symlink_to(entry)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDSWAP_HOME", str(folder))
        yield folder

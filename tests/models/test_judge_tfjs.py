"""The TensorFlow.js identity networks: equal to their own runtime, and they tell people apart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from vidswap import weights
from vidswap.errors import WeightsError
from vidswap.models import load_generator
from vidswap.models.judge_tfjs import RECIPES, TfjsAges, TfjsIdentity

GOLDEN = Path(__file__).with_name("golden_tfjs.json")


def _pattern(size: int) -> np.ndarray:
    """A picture ``[size, size, 3]`` in [0, 255] from sines: the same on every machine."""
    row, column, channel = np.meshgrid(*(np.arange(n) for n in (size, size, 3)), indexing="ij")
    waves = np.sin(row / 9 + channel) + np.cos(column / 7 - channel) + np.sin((row * column) / 900)
    return ((waves + 3) / 6 * 255).astype(np.float32)


@pytest.fixture(scope="module", params=sorted(RECIPES))
def network(request: pytest.FixtureRequest) -> Iterator[TfjsIdentity]:
    if not weights.available(request.param):
        pytest.skip(f"weights {request.param!r} are optional and not here")
    yield TfjsIdentity.load(request.param, weights.locate(request.param))


def test_equals_tensorflow_js(network: TfjsIdentity) -> None:
    # Computed by TensorFlow.js 4 (CPU backend) from the package's own files and the same pattern.
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))[network.key]
    picture = torch.from_numpy(_pattern(network.chip_size)).permute(2, 0, 1)[None]
    with torch.no_grad():
        found = network.graph(picture)[0][0].numpy()
    assert found.shape == (golden["numbers"],)
    assert np.linalg.norm(found) == pytest.approx(golden["length"], rel=1e-4)
    np.testing.assert_allclose(found[:: golden["every"]], golden["values"], atol=1e-4 * golden["length"])


def test_ages_equal_tensorflow_js() -> None:
    if not weights.available("faceres-ages"):
        pytest.skip("weights 'faceres-ages' are optional and not here")
    ages = TfjsAges.load(weights.locate("faceres-ages"))
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))["faceres-ages"]
    picture = torch.from_numpy(_pattern(ages.chip_size)).permute(2, 0, 1)[None]
    with torch.no_grad():
        found = ages.graph(picture)[0][0].numpy()
        years = found - found.max()
        years = np.exp(years) / np.exp(years).sum() @ np.arange(len(found))
        twice = ages(torch.rand(2, 3, 64, 64))
    assert found.shape == (golden["numbers"],)
    np.testing.assert_allclose(found[:: golden["every"]], golden["values"], atol=1e-4 * golden["length"])
    assert years == pytest.approx(golden["years"], abs=0.01)
    assert twice.shape == (2,) and bool(((twice >= 0) & (twice <= 99)).all())


def test_people_of_the_generator_are_told_apart(network: TfjsIdentity, weights_home: Path) -> None:
    generator = load_generator("mobilestylegan", weights.locate)
    rows = []
    with torch.no_grad():
        for seed in range(6):
            code = generator.sample(40 + seed)[:, None].repeat(1, generator.n_styles, 1)
            picture = (generator.synthesize(code, size=128).clamp(-1, 1) + 1) / 2
            darker = torch.nn.functional.avg_pool2d(picture * 0.8, 3, 1, 1).roll(2, -1)
            rows.append((network.embed_aligned(picture)[0], network.embed_aligned(darker)[0]))
    same = min(float(a @ b) for a, b in rows)
    others = [float(rows[i][0] @ rows[j][1]) for i in range(6) for j in range(6) if i != j]
    assert same > max(others)


def test_embeddings_have_length_one_and_gradients(network: TfjsIdentity) -> None:
    images = torch.rand(2, 3, 256, 256, requires_grad=True)
    found = network.embed_aligned(images)
    assert found.norm(dim=1).tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
    (found[0] @ found[1]).backward()
    assert images.grad is not None and torch.isfinite(images.grad).all()
    left, top, right, bottom = (round(side * 256) for side in network.recipe.box)
    assert float(images.grad[:, :, top + 4 : bottom - 4, left + 4 : right - 4].abs().sum()) > 0
    assert float(images.grad[:, :, : top - 2].abs().max()) == 0  # nothing outside the box counts


def test_sizes_of_the_picture_agree(network: TfjsIdentity) -> None:
    small = torch.nn.functional.avg_pool2d(torch.rand(1, 3, 64, 64), 5, 1, 2)
    sides = (256, 512, 1024)
    pictures = [torch.nn.functional.interpolate(small, size=(s, s), mode="bilinear") for s in sides]
    with torch.no_grad():
        first, *others = (network.embed_aligned(picture)[0] for picture in pictures)
        assert min(float(first @ other) for other in others) > 0.99
        array = pictures[0][0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(network.embed_picture(array), first.numpy(), atol=1e-5)


def test_a_picture_of_another_shape_is_refused(network: TfjsIdentity) -> None:
    with pytest.raises(ValueError, match="expected"):
        network.embed_aligned(torch.rand(1, 3, 100, 120))


def test_other_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="cannot read"):
        TfjsIdentity.load("faceres", path)

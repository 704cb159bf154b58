"""Mixers: strength, layers, names, and the trained forms."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vidswap.config import MixConfig
from vidswap.errors import UsageError, WeightsError
from vidswap.mixing import LayerMixer, blend_sources, make_mixer, parse_layers
from vidswap.models.mixer import GatedMixer, ResidualMixer, load_mixer, mixer_metadata

CPU = torch.device("cpu")


def codes(seed: int, styles: int = 23) -> torch.Tensor:
    return torch.randn(1, styles, 512, generator=torch.Generator().manual_seed(seed))


def moved_gated() -> GatedMixer:
    """A gated mixer with weights as after some training: nothing in it is zero."""
    mixer = GatedMixer(hidden=16)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        mixer.center.copy_(torch.randn(512) * 0.1)
        mixer.scale.fill_(0.3)
    return mixer


@pytest.mark.parametrize("mixer", [LayerMixer(range(5, 14), 23), moved_gated()])
def test_strength_0_is_the_target_exactly(mixer) -> None:
    assert torch.equal(mixer(codes(1), codes(2), 0.0), codes(2))


def test_the_gated_form_leaves_a_face_mixed_with_itself_unchanged() -> None:
    mixer = moved_gated()
    with torch.no_grad():
        torch.testing.assert_close(mixer(codes(3), codes(3), 1.0), codes(3))


def test_strength_moves_along_one_line() -> None:
    mixer = moved_gated()
    with torch.no_grad():
        full = mixer(codes(1), codes(2), 1.0) - codes(2)
        half = mixer(codes(1), codes(2), 0.5) - codes(2)
    torch.testing.assert_close(half, 0.5 * full, rtol=1e-4, atol=1e-5)
    assert float(full.abs().mean()) > 0.01


def test_layers_copies_those_styles_and_no_other() -> None:
    mixed = LayerMixer([5, 6], 23)(codes(1), codes(2))
    assert torch.allclose(mixed[:, [5, 6]], codes(1)[:, [5, 6]], atol=1e-6)
    others = [style for style in range(23) if style not in (5, 6)]
    assert torch.equal(mixed[:, others], codes(2)[:, others])


@pytest.mark.parametrize(
    ("text", "styles"), [("5-13", list(range(5, 14))), ("0", [0]), ("0, 3-5,9", [0, 3, 4, 5, 9])]
)
def test_layers_are_read(text: str, styles: list[int]) -> None:
    assert parse_layers(text) == styles


@pytest.mark.parametrize("text", ["", "a", "1-", "5-b"])
def test_wrong_layers_are_named(text: str) -> None:
    with pytest.raises(UsageError, match="layers"):
        make = parse_layers(text)
        LayerMixer(make or [-1], 23)


def test_styles_beyond_the_generator_are_refused() -> None:
    with pytest.raises(UsageError, match="0 to 22"):
        LayerMixer([23], 23)


def test_an_unknown_mixer_names_its_neighbour(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'layers'"):
        make_mixer(
            MixConfig(mixer="layer"), 23,
            locate=lambda name: tmp_path / name, available=lambda name: False, device=CPU,
        )  # fmt: skip


def test_auto_is_the_trained_one_only_when_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "mixer-gated"
    mixer = moved_gated()
    save_file(mixer.state_dict(), path, mixer_metadata(mixer))
    for there, name in ((False, "layers"), (True, "gated")):
        made = make_mixer(
            MixConfig(), 23,
            locate=lambda _name: path, available=lambda _name, there=there: there, device=CPU,
        )  # fmt: skip
        assert made.name == name
    torch.testing.assert_close(made(codes(1), codes(2)), mixer(codes(1), codes(2)).detach())


def test_the_papers_checkpoint_layout_is_read(tmp_path: Path) -> None:
    original = ResidualMixer(n_styles=3, hidden=512)
    path = tmp_path / "latentswap.safetensors"
    save_file({f"identity_mixer.{k}": v for k, v in original.state_dict().items()}, path)
    loaded = load_mixer(path)
    a, b = codes(1, 3), codes(2, 3)
    torch.testing.assert_close(loaded(a, b), original(a, b).detach())


def test_other_weights_are_no_mixer(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="not a mixer"):
        load_mixer(tmp_path / "x.safetensors")


def test_sources_are_blended_by_their_shares() -> None:
    a, b = codes(1), codes(2)
    torch.testing.assert_close(blend_sources([a, b]), 0.5 * (a + b))
    torch.testing.assert_close(blend_sources([a, b], [3, 1]), 0.75 * a + 0.25 * b)
    for shares in ([1.0], [0.0, 0.0], [-1.0, 2.0]):
        with pytest.raises(ValueError, match="weights"):
            blend_sources([a, b], shares)

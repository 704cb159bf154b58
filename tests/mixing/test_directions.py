"""Steps along latent directions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vidswap import weights
from vidswap.errors import UsageError, WeightsError
from vidswap.mixing.directions import Directions, edit, load_directions


@pytest.fixture
def directions() -> Directions:
    changes = {"yaw": torch.randn(23, 512), "mouth": torch.randn(23, 512)}
    return Directions(changes, {"yaw": (10.0, "degrees"), "mouth": (0.1, "gap")})


def test_steps_add_up_and_zero_steps_change_nothing(directions: Directions) -> None:
    code = torch.randn(2, 23, 512)
    assert torch.equal(edit(code, {"yaw": 0.0}, directions), code)
    assert torch.equal(edit(code, {}, directions), code)
    there = edit(code, {"yaw": 1.5, "mouth": -0.5}, directions)
    expected = code + 1.5 * directions.changes["yaw"] - 0.5 * directions.changes["mouth"]
    torch.testing.assert_close(there, expected)
    back = edit(there, {"yaw": -1.5, "mouth": 0.5}, directions)
    torch.testing.assert_close(back, code, atol=1e-5, rtol=0)


def test_an_unknown_name_is_told_with_the_nearest(directions: Directions) -> None:
    with pytest.raises(UsageError, match="did you mean 'mouth'"):
        edit(torch.zeros(1, 23, 512), {"mouht": 1.0}, directions)


def test_codes_of_another_generator_are_refused(directions: Directions) -> None:
    with pytest.raises(ValueError, match=r"expected \[B, 23, 512\]"):
        edit(torch.zeros(1, 18, 512), {"yaw": 1.0}, directions)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"yaw": torch.zeros(23, 512)}, path, {"kind": "mixer"})
    with pytest.raises(WeightsError, match="not a file of directions"):
        load_directions(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match="cannot read"):
        load_directions(path)


def test_a_file_gives_back_steps_and_units(tmp_path: Path) -> None:
    path = tmp_path / "directions.safetensors"
    units = {"yaw": {"step": 10.0, "measure": "degrees"}}
    change = torch.randn(23, 512).half()
    save_file({"yaw": change}, path, {"kind": "directions", "units": json.dumps(units)})
    found = load_directions(path)
    assert found.names == ("yaw",)
    assert found.units["yaw"] == (10.0, "degrees")
    assert torch.equal(found.changes["yaw"], change.float())


def test_the_packaged_directions_move_what_they_say(weights_home: Path) -> None:
    """On four faces that no fit and no calibration saw, each step moves its own measure most."""
    from vidswap.models.aligned_mesh import AlignedMesh, eye_aspect, head_rotation, mouth_opening
    from vidswap.models.mobile_stylegan import MobileStyleGAN

    generator = MobileStyleGAN.load(
        weights.locate("mobilestylegan"), heads=weights.locate("rgb-heads")
    )
    meshes = AlignedMesh.load(weights.locate)
    directions = load_directions(weights.locate("directions"))

    @torch.no_grad()
    def measured(code: torch.Tensor) -> dict[str, float]:
        mesh = meshes(generator.synthesize(code, size=128))[0]
        rotation = head_rotation(mesh)[0]
        return {
            "yaw": float(torch.rad2deg(torch.atan2(-rotation[0, 2], rotation[2, 2]))) / 10,
            "mouth": float(mouth_opening(mesh)) / 0.1,
            "eyes": float(eye_aspect(mesh).mean()) / 0.1,
        }

    def moved(code: torch.Tensor, name: str) -> dict[str, float]:
        high = measured(edit(code, {name: 1.0}, directions))
        low = measured(edit(code, {name: -1.0}, directions))
        return {key: (high[key] - low[key]) / 2 for key in high}

    codes = [generator.sample(seed, psi=0.6)[:, None].repeat(1, 23, 1) for seed in range(500, 504)]
    for name in ("yaw", "mouth", "eyes"):
        found = [moved(code, name) for code in codes]
        mean = {key: sum(item[key] for item in found) / len(found) for key in found[0]}
        # Every face moves the right way. Lips and lids stop at closed, where half of the way of a
        # face whose mouth is shut already is lost; so the size is asked of the mean only.
        assert min(item[name] for item in found) > 0.15, found
        assert mean[name] > (0.7 if name == "yaw" else 0.4), mean
        assert all(abs(mean[key]) < 0.6 * mean[name] for key in mean if key != name), mean

"""Steering: the controller's arithmetic, and that it takes a source's expression out of a real swap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vidswap import weights
from vidswap.landmarks import interocular
from vidswap.mixing import Steering
from vidswap.mixing.directions import Directions, edit, load_directions
from vidswap.models import load_generator
from vidswap.models.aligned_mesh import AlignedMesh, canonical_mesh, face_measures


@pytest.fixture()
def small() -> Steering:
    one = torch.ones(2, 4)
    changes = {"mouth": one, "yaw": 2 * one, "smile": 0 * one, "gaze_x": one}
    units = {"mouth": (0.1, ""), "yaw": (10.0, ""), "smile": (0.1, ""), "gaze_x": (0.1, "")}
    return Steering.along(Directions(changes, units))


def test_directions_come_in_the_order_of_the_measures(small: Steering) -> None:
    assert small.names == ("yaw", "mouth", "smile")
    assert small.units.tolist() == [10.0, 0.1, 0.1]
    moved = small.apply(torch.zeros(1, 2, 4), np.array([1.0, -0.5, 3.0]), 0.5)
    assert torch.allclose(moved, torch.full((1, 2, 4), 0.75))


def test_it_follows_slowly_within_limits_and_holds_what_is_hidden(small: Steering) -> None:
    assert small.quick == []  # without both, mouth and eyes are steered like the rest
    amounts = small.follow(small.rest(), np.array([9.0, -0.1, 9.0]), np.array([False, False, True]))
    assert amounts.tolist() == pytest.approx([0.08, -0.035, 0.0])
    for _ in range(60):
        amounts = small.follow(amounts, np.array([9.0, -9.0, 0.0]))
    assert amounts.tolist() == pytest.approx([0.2 / 2**0.5, -0.2 / 2**0.5, 0.0], abs=0.03)


def test_measures_differ_in_what_differs(small: Steering) -> None:
    mesh = canonical_mesh().numpy()
    angle = np.deg2rad(12.0)
    turn = np.array([[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]])
    yaw, mouth, smile = small.measures(mesh @ turn.T) - small.measures(mesh)
    assert abs(yaw) == pytest.approx(1.2, abs=0.02) and abs(mouth) < 0.05 and abs(smile) < 0.05


@pytest.mark.parametrize(("gap", "wanted"), [(0.0, 0.0), (0.012, 0.002), (0.05, 0.05), (0.2, 0.2)])
def test_lips_that_are_all_but_closed_are_meant_to_be(small: Steering, gap: float, wanted: float) -> None:
    mesh = canonical_mesh().numpy().copy()
    for upper, lower in ((81, 178), (82, 87), (13, 14), (312, 317), (311, 402)):
        mesh[lower] = mesh[upper] + np.array([0.0, gap * interocular(mesh), 0.0])
    mouth = small.names.index("mouth")
    assert small.measures(mesh)[mouth] * small.units[mouth] == pytest.approx(gap, abs=1e-4)
    assert small.wanted(mesh)[mouth] * small.units[mouth] == pytest.approx(wanted, abs=1e-3)
    rest = np.delete(np.arange(len(small.names)), mouth)
    np.testing.assert_array_equal(small.wanted(mesh)[rest], small.measures(mesh)[rest])


@pytest.fixture()
def quick() -> Steering:
    """One that foresees: yaw, mouth, smile, eyes and brow."""
    names = ("yaw", "mouth", "smile", "eyes", "brow")
    return Steering.along(
        Directions({name: torch.ones(2, 4) for name in names}, dict.fromkeys(names, (0.1, "")))
    )


def test_a_mouth_that_snapped_is_drawn_again(quick: Steering) -> None:
    mouth = quick.names.index("mouth")

    def only_mouth(value: float) -> np.ndarray:
        out = np.full(len(quick.names), 0.3)
        out[mouth] = value
        return out

    wanted, shut, wide = only_mouth(0.6), only_mouth(0.2), only_mouth(0.9)
    first = (only_mouth(-0.2), shut)
    assert quick.mouth_miss(wanted, shut) == pytest.approx(0.4)
    again = quick.redraw([first], wanted)
    assert again is not None and again.tolist() == pytest.approx(only_mouth(0.2).tolist())
    between = quick.redraw([first, (again, wide)], wanted)
    assert between is not None and between[mouth] == pytest.approx(-0.2 + 0.4 * 0.4 / 0.7)
    near = [(only_mouth(0.0), only_mouth(0.5))]
    assert quick.redraw([first, *near], wanted) is None
    assert quick.redraw([(only_mouth(1.0), shut)], wanted) is None, "no step is left within the limits"
    hidden = np.array([name == "mouth" for name in quick.names])
    assert quick.redraw([first], wanted, hidden) is None


def test_a_steering_that_foresees_nothing_draws_nothing_again(small: Steering) -> None:
    assert small.quick == [] and small.mouth_miss(np.ones(3), np.zeros(3)) == 0.0
    assert small.redraw([(np.zeros(3), np.zeros(3))], np.ones(3)) is None


def test_it_brings_an_edited_face_back(weights_home: Path) -> None:
    generator = load_generator("mobilestylegan", weights.locate)
    meshes = AlignedMesh.load(weights.locate)
    directions = load_directions(weights.locate("directions"))
    steering = Steering.along(directions)

    def measured(code: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            mesh, _, iris = meshes(generator.synthesize(code, size=128))
        return face_measures(mesh, iris)[0]

    target = generator.sample(12)[:, None].repeat(1, generator.n_styles, 1)
    leaked = edit(target, {"smile": 0.5, "eyes": -0.3}, directions)
    amounts, response = steering.begin(leaked, target, measured)
    with torch.no_grad():
        mesh = meshes(generator.synthesize(target, size=128))[0][0].numpy()
    seen = steering.measures(mesh)
    amounts = steering.with_quick(amounts, response, seen)
    quiet = np.ones(len(steering.names), bool)
    assert not steering.with_quick(0 * amounts, response, seen, quiet).any()
    columns, units = list(steering.columns), torch.as_tensor(steering.units)
    wanted = measured(target)
    before = ((measured(leaked) - wanted)[columns] / units).abs().sum()
    after = ((measured(steering.apply(leaked, amounts)) - wanted)[columns] / units).abs().sum()
    assert before > 0.5
    assert after < 0.55 * before


def test_calming_takes_a_smile_out_and_adds_none() -> None:
    steering = Steering(torch.eye(3, 8)[:, None].repeat(1, 2, 1), np.array([0.1, 0.1, 10.0]), (2, 3, 0))
    assert steering.names[:2] == ("mouth", "smile")

    def measured(code: torch.Tensor) -> torch.Tensor:
        found = torch.zeros(8)
        found[[2, 3, 0]] = code[0, 0, :3] * torch.tensor([0.1, 0.1, 10.0])
        return found

    rest = torch.zeros(1, 2, 8)
    smiling = torch.tensor([0.3, 0.5, 1.0, 0, 0, 0, 0, 0]).expand(1, 2, 8)
    amounts = steering.calming(smiling, rest, measured)
    assert np.allclose(amounts, [-0.3, -0.5, 0.0], atol=0.03)
    assert not steering.calming(-smiling, rest, measured).any()
    assert steering.calming(4 * smiling, rest, measured).min() == -0.6

"""ArcFace as second judge: where its chip lies, and what is said without its weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vidswap.errors import WeightsError
from vidswap.models import judge_arcface
from vidswap.models.judge_arcface import ArcFaceJudge, chip_quad


def turned(
    points: np.ndarray, degrees: float, scale: float, shift: tuple[float, float]
) -> np.ndarray:
    a = np.radians(degrees)
    rotation = scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    return points @ rotation.T + shift


def test_keypoints_at_the_template_give_the_chip_itself() -> None:
    quad = chip_quad(judge_arcface._TEMPLATE_XY)
    assert quad == pytest.approx(np.array([[0, 0], [0, 112], [112, 112], [112, 0]]), abs=1e-9)


@pytest.mark.parametrize("degrees", [-30.0, 0.0, 75.0, 180.0])
def test_chip_follows_turn_size_and_place(degrees: float) -> None:
    corners = np.array([[0.0, 0], [0, 112], [112, 112], [112, 0]])
    keypoints = turned(judge_arcface._TEMPLATE_XY, degrees, 2.5, (40, -7))
    assert chip_quad(keypoints) == pytest.approx(turned(corners, degrees, 2.5, (40, -7)), abs=1e-6)


def test_chip_is_the_least_squares_fit() -> None:
    rng = np.random.default_rng(0)
    keypoints = judge_arcface._TEMPLATE_XY * 1.7 + 20 + rng.normal(0, 2, (5, 2))

    def misfit(quad: np.ndarray) -> float:
        x, y = (quad[3] - quad[0]) / 112, (quad[1] - quad[0]) / 112
        placed = judge_arcface._TEMPLATE_XY @ np.stack([x, y]) + quad[0]
        return float(np.square(placed - keypoints).sum())

    best = chip_quad(keypoints)
    for degrees, scale, shift in ((0.5, 1, (0, 0)), (0, 1.01, (0, 0)), (0, 1, (0.3, 0.3))):
        middle = best.mean(axis=0)
        other = turned(best - middle, degrees, scale, (0, 0)) + middle + shift
        assert misfit(best) < misfit(other)


def test_keypoints_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="5, 2"):
        chip_quad(np.zeros((68, 2)))


def test_missing_and_damaged_networks_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="w600k_r50.onnx"):
        ArcFaceJudge(tmp_path / "absent.onnx")
    (tmp_path / "w600k_r50.onnx").write_bytes(b"no network")
    with pytest.raises(WeightsError, match="w600k_r50.onnx is damaged"):
        ArcFaceJudge(tmp_path)


def tiny_recognition_network(path: Path) -> None:
    """A graph with the face of ArcFace's: ``[N, 3, 112, 112]`` to ``[N, 3]`` channel means."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    shapes = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("input.1", ["N", 3, 112, 112]), ("out", ["N", 3]))
    ]
    nodes = [
        helper.make_node("GlobalAveragePool", ["input.1"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["out"]),
    ]
    graph = helper.make_graph(nodes, "tiny", shapes[:1], shapes[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, path)


def test_chips_reach_the_network_as_rgb_between_minus_one_and_one(tmp_path: Path) -> None:
    tiny_recognition_network(tmp_path / "w600k_tiny.onnx")
    judge = ArcFaceJudge(tmp_path)
    chip = np.broadcast_to(np.float32([1.0, 0.5, 0.0]), (112, 112, 3))
    assert judge.embed(chip) == pytest.approx([1.0, 0.0, -1.0], abs=1e-5)
    assert judge.name == "ArcFace (w600k_tiny.onnx)"
    with pytest.raises(ValueError, match="112, 112"):
        judge.embed(chip[:50])

"""insightface and face-alignment: their real loading code, on networks made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vidswap import weights
from vidswap.errors import UsageError, WeightsError
from vidswap.faces import FaceAlignmentDetector, InsightFaceDetector, make_detector
from vidswap.faces.backends import keypoints_from_68

CELL = 1234  # the anchor that answers: stride 8, second of its cell


def write_scrfd(path: Path) -> None:
    """An SCRFD-shaped network that sees one face, the surer the redder the picture is."""
    onnx = pytest.importorskip("onnx")
    h, nh = onnx.helper, onnx.numpy_helper
    nodes = [
        h.make_node("ReduceMean", ["input.1"], ["mean"], axes=[0, 2, 3], keepdims=0),
        h.make_node("MatMul", ["mean", "red"], ["redness"]),
        h.make_node("Sigmoid", ["redness"], ["sure"]),
    ]
    tensors = [nh.from_array(np.array([6.0, -3, -3], "f4"), "red")]
    names: dict[str, list[str]] = {"score": [], "box": [], "points": []}
    for stride in (8, 16, 32):
        count = (640 // stride) ** 2 * 2
        score = np.zeros((count, 1), "f4")
        box = np.ones((count, 4), "f4")
        points = np.zeros((count, 10), "f4")
        if stride == 8:
            score[CELL] = 1
            box[CELL] = (2, 3, 4, 5)  # distances left, up, right, down in strides
            points[CELL] = np.arange(10)
        for kind, value in (("score", score), ("box", box), ("points", points)):
            tensors.append(nh.from_array(value, f"{kind}_{stride}_base"))
            name = f"{kind}_{stride}"
            operator = "Mul" if kind == "score" else "Add"
            other = "sure" if kind == "score" else "nothing"
            nodes.append(h.make_node(operator, [f"{name}_base", other], [name]))
            names[kind].append(name)
    tensors.append(nh.from_array(np.zeros(1, "f4"), "nothing"))
    outputs = [
        h.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, width])
        for kind, width in (("score", 1), ("box", 4), ("points", 10))
        for name in names[kind]
    ]
    picture = h.make_tensor_value_info("input.1", onnx.TensorProto.FLOAT, [1, 3, None, None])
    graph = h.make_graph(nodes, "scrfd", [picture], outputs, tensors)
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 11)], ir_version=7)
    onnx.save(model, path)


def test_insightface_loads_its_files_and_speaks_our_coordinates(tmp_path: Path) -> None:
    write_scrfd(tmp_path / "det_test.onnx")
    detector = InsightFaceDetector(tmp_path)
    red = np.zeros((320, 320, 3), np.uint8)
    red[..., 0] = 255
    faces = detector.detect(red)
    assert len(faces) == 1
    cell = CELL // 2
    # The picture is shown at twice its size, so 8 px strides are 4 px of it.
    x, y = (cell % 80) * 4, (cell // 80) * 4
    np.testing.assert_allclose(faces[0].box_xyxy, [x - 8, y - 12, x + 16, y + 20], atol=1e-3)
    expected = np.arange(10).reshape(5, 2) * 4 + (x, y)
    np.testing.assert_allclose(faces[0].keypoints_xy, expected, atol=1e-3)
    assert detector.detect(np.ascontiguousarray(red[..., ::-1])) == []  # blue: the order counts


def test_insightface_without_networks_says_where_they_belong(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="faces.detector=mediapipe") as caught:
        InsightFaceDetector(tmp_path / "nowhere")
    assert str(tmp_path) in str(caught.value)
    (tmp_path / "det_broken.onnx").write_bytes(b"no network")
    with pytest.raises(WeightsError, match="damaged"):
        InsightFaceDetector(tmp_path)


def test_face_alignment_without_checkpoints_names_them(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="s3fd"):
        FaceAlignmentDetector(tmp_path / "checkpoints")


def test_face_alignment_damaged_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in FaceAlignmentDetector.FILES.values():
        (folder / name).write_bytes(b"broken")
    with pytest.raises(WeightsError, match="cannot be read"):
        FaceAlignmentDetector(folder)


@pytest.mark.slow
def test_face_alignment_loads_its_files(tmp_path: Path) -> None:
    import torch
    from face_alignment.detection.sfd.net_s3fd import s3fd
    from face_alignment.models import FAN

    folder = tmp_path / "checkpoints"
    folder.mkdir()
    before = torch.hub.get_dir()
    # An untrained detector whose only certain cell is the one of its coarsest map.
    found = s3fd().state_dict()
    for name, value in found.items():
        if "mbox" in name:
            value.zero_()
        if name.endswith("mbox_conf.bias"):
            value[0], value[-1] = (-9, 9) if name.startswith("conv7_2") else (9, -9)
    torch.save(found, folder / FaceAlignmentDetector.FILES["detector"])
    torch.save(FAN(4).state_dict(), folder / FaceAlignmentDetector.FILES["landmarks"])
    detector = FaceAlignmentDetector(folder)
    assert torch.hub.get_dir() == before
    (face,) = detector.detect(np.zeros((96, 96, 3), np.uint8))
    assert face.score > 0.99
    # Its prior: four strides of 128 px, around the middle of the map's last cell.
    np.testing.assert_allclose(face.box_xyxy, [-64, -64, 448, 448], atol=1)
    # FAN looks at 200 px for each 195 px of the box's mean side, 12 % higher: 1050 px here.
    middle = np.array([192, 192 - 0.12 * 512])
    assert np.abs(face.keypoints_xy - middle).max() <= 1050 / 2 + 9


def test_68_points_to_five() -> None:
    points = np.zeros((68, 2), np.float32)
    points[36:42], points[42:48] = (10, 20), (30, 20)
    points[30], points[48], points[54] = (20, 30), (12, 40), (28, 40)
    expected = [[10, 20], [30, 20], [20, 30], [12, 40], [28, 40]]
    np.testing.assert_allclose(keypoints_from_68(points), expected)


def test_unknown_detector_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'mediapipe'"):
        make_detector("mediapip", weights.locate)


def test_missing_weights_are_named(empty_home: Path) -> None:
    with pytest.raises(WeightsError, match="blazeface-full"):
        make_detector("mediapipe", weights.locate)

"""Drawn occluders and glasses, the scenes made of them, and the training on those."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from vidswap import weights
from vidswap.cli.train import train_group
from vidswap.errors import UsageError, WeightsError
from vidswap.glasses import places_of_bridge
from vidswap.landmarks import LEFT_EYE, RIGHT_EYE
from vidswap.mixing.directions import edit, load_directions
from vidswap.models.aligned_mesh import canonical_mesh
from vidswap.models.occlusion_net import OcclusionNet, load_occlusion_net
from vidswap.training import occluders, occlusion_scenes, runs
from vidswap.training import pictures as drawn
from vidswap.training.glasses_scenes import bare_eyed, draw_glasses_scene, wear_glasses
from vidswap.training.hair import fringe, locks
from vidswap.training.layers import Setting, noise
from vidswap.training.occlusion import (
    OcclusionOptions,
    occlusion_loss,
    overlap_counts,
    overlap_figures,
    resume_published,
    train_occlusion,
)
from vidswap.training.occlusion_scenes import bare_browed, draw_scene, face_areas, own_hair, random_setting
from vidswap.training.pictures import Pictures, load_pictures

CPU = torch.device("cpu")


def pictures(count: int = 3) -> Pictures:
    """Skin-coloured ovals on noise, with the canonical mesh in them."""
    random = np.random.default_rng(5)
    mesh = canonical_mesh()[:, :2].numpy()
    mesh = mesh / np.ptp(mesh, axis=0).max() * 0.6 + [0.5, 0.55]
    y, x = np.mgrid[:256, :256] / 256
    inside = np.hypot((x - 0.5) / 0.36, (y - 0.55) / 0.42) < 1
    images = random.integers(0, 255, (count, 256, 256, 3), dtype=np.uint8)
    images[:, inside] = np.array([200, 150, 130], np.uint8)
    return Pictures(images, np.repeat(mesh[None].astype(np.float32), count, 0))


def setting() -> Setting:
    few = pictures(2)
    face, other = few.images.astype(np.float32) / 255
    return Setting(face, few.meshes[0] * 256.0, other, few.meshes[1] * 256.0)


@pytest.mark.parametrize("maker", [maker for maker, _ in occluders.MAKERS], ids=lambda m: m.__name__)
def test_occluders_are_pictures_with_a_cover(maker: occluders.Maker) -> None:
    covered = []
    for seed in range(6):
        layer = maker(setting(), np.random.default_rng(seed))
        assert layer.color.shape == (256, 256, 3)
        assert layer.alpha.shape == (256, 256)
        for values in (layer.color, layer.alpha):
            assert np.isfinite(values).all()
            assert values.min() >= 0 and values.max() <= 1
        covered.append(layer.alpha.mean())
    assert 0.002 < np.mean(covered) < 0.8


def test_blur_keeps_the_sum_in_the_middle_and_is_as_wide_as_asked() -> None:
    for sigma in (1.0, 2.5, 5.0):  # the last at half of the size
        dot = np.zeros((256, 256), np.float32)
        dot[127:129, 127:129] = 0.25
        wide = occluders.blur(dot, sigma)
        assert wide.sum() == pytest.approx(1, abs=0.01)
        spread = np.sqrt((wide.sum(0) * (np.arange(256) - 127.5) ** 2).sum())
        assert spread == pytest.approx(sigma, rel=0.25)


def test_scenes_are_fixed_by_seed_and_number() -> None:
    one, two = (occlusion_scenes.Scenes(pictures(), seed=3, size=96) for _ in range(2))
    order = [[part.clone() for part in one[number]] for number in (0, 1, 2)]
    for number in (2, 1, 0):  # in any order
        for left, right in zip(two[number], order[number], strict=True):
            assert torch.equal(left, right)
    other = occlusion_scenes.Scenes(pictures(), seed=4, size=96)[0]
    assert not torch.equal(other[0], order[0][0])
    # The second of a pair is the same scene mirrored.
    assert torch.equal(order[1][1], order[0][1].flip(2))
    assert order[0][0].shape == (3, 96, 96)


def test_shadows_and_light_are_no_occluders_and_some_scenes_are_bare() -> None:
    scenes = occlusion_scenes.Scenes(pictures(), seed=1, size=64)
    cover = np.array([float((scenes[number][1] * scenes[number][2]).sum()) for number in range(0, 80, 2)])
    assert 0.2 < (cover == 0).mean() < 0.65
    for number in range(8):
        _, truth, weight = scenes[number]
        assert 0 <= float(truth.min()) <= float(truth.max()) <= 1
        assert float(weight[:, :8].max()) < 0.5 < float(weight.max())  # nothing is asked far above the face


def test_figures_of_an_overlap() -> None:
    truth = torch.tensor([[1, 1, 0, 0]], dtype=torch.bool)
    said = torch.tensor([[1, 0, 1, 0]], dtype=torch.bool)
    weight = torch.tensor([[1.0, 1.0, 0.5, 1.0]])
    figures = overlap_figures(overlap_counts(said, truth, weight))
    assert figures["iou"] == pytest.approx(1 / 2.5)
    assert figures["recall"] == pytest.approx(0.5)
    assert figures["precision"] == pytest.approx(1 / 1.5)
    assert figures["false alarms"] == pytest.approx(0.5 / 1.5)


def test_the_loss_asks_for_the_truth_and_only_where_it_counts() -> None:
    truth = torch.zeros(1, 1, 16, 16)
    truth[..., :8] = 1
    weight = torch.ones_like(truth)
    right, wrong = 8 * (2 * truth - 1), -8 * (2 * truth - 1)
    assert occlusion_loss(right, truth, weight) < 0.05 < 1 < occlusion_loss(wrong, truth, weight)
    weight[..., 8:] = 0
    half = torch.where(weight > 0, right, wrong)
    assert occlusion_loss(half, truth, weight) < 0.05


def _run(folder: Path, steps: int) -> Path:
    options = OcclusionOptions(steps=steps, batch=2, size=32, save_every=2, learning_rate=1e-3)
    return _trained(folder, options)


def _trained(folder: Path, options: OcclusionOptions) -> Path:
    torch.manual_seed(0)
    net = OcclusionNet((8, 8, 8, 8, 8))
    output = folder / "occlusion.safetensors"
    train_occlusion(
        pictures(), net, output, options, device=CPU, log=lambda _line: None, workers=0, evaluate_on=2
    )
    return output


def test_a_stopped_training_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    monkeypatch.setattr("vidswap.training.occlusion._schedule", lambda step, steps: 1.0)
    whole = load_occlusion_net(_run(tmp_path / "whole", 4)).state_dict()
    _run(tmp_path / "parts", 2)
    parts = load_occlusion_net(_run(tmp_path / "parts", 4)).state_dict()
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=1e-4, rtol=1e-3)
    short = load_occlusion_net(_run(tmp_path / "parts", 4)).state_dict()  # nothing left to do
    assert all(torch.equal(short[name], parts[name]) for name in parts)


def test_it_goes_on_from_published_weights_and_says_when_they_are_none(tmp_path: Path) -> None:
    first = _run(tmp_path, 2)
    net = OcclusionNet((8, 8, 8, 8, 8))
    assert resume_published(net, first) == 2
    stored = load_file(first)
    own = {key: value.half() for key, value in net.state_dict().items() if key in stored}
    assert own.keys() == stored.keys()
    assert all(torch.equal(own[key], stored[key]) for key in stored)
    (tmp_path / "on").mkdir()
    steps: list[str] = []
    options = OcclusionOptions(steps=3, batch=2, size=32, save_every=1)
    train_occlusion(
        pictures(), net, tmp_path / "on" / "occlusion.safetensors", options, device=CPU, log=steps.append,
        workers=0, evaluate_on=2, begin=first,
    )  # fmt: skip
    saved = torch.load(tmp_path / "on" / "occlusion.ckpt.pt", weights_only=True)
    assert saved["step"] == 3 and len(saved["state"]["optimizer"]["state"]) > 0
    with pytest.raises(WeightsError, match="occlusion network"):
        resume_published(OcclusionNet((8, 8, 8, 8, 16)), first)
    with pytest.raises(WeightsError, match="occlusion network"):
        resume_published(net, Path(__file__))


def test_what_is_written_lies_between_what_was_begun_with_and_what_was_learnt(tmp_path: Path) -> None:
    first = _run(tmp_path, 2)
    (tmp_path / "on").mkdir()
    output, written = tmp_path / "on" / "occlusion.safetensors", {}

    def train(learnt: float, begin: Path | None = first) -> None:
        options = OcclusionOptions(steps=4, batch=2, size=32, save_every=1, learnt=learnt)
        train_occlusion(
            pictures(), OcclusionNet((8, 8, 8, 8, 8)), output, options, device=CPU,
            log=lambda _line: None, workers=0, evaluate_on=2, begin=begin,
        )  # fmt: skip

    for learnt in (1.0, 0.25):  # the second has nothing left to train
        train(learnt)
        written[learnt] = load_file(output)
    begun = load_file(first)
    for name, value in written[0.25].items():
        expected = torch.lerp(begun[name].float(), written[1.0][name].float(), 0.25)
        torch.testing.assert_close(value.float(), expected, atol=2e-3, rtol=2e-3)
    assert any(not torch.equal(written[1.0][name], begun[name]) for name in begun)
    for learnt, begin in ((0.0, first), (1.5, first), (0.5, None)):
        with pytest.raises(UsageError, match="learnt"):
            train(learnt, begin)


def test_a_run_with_faces_on_disk_keeps_curves_and_pictures(tmp_path: Path) -> None:
    few = pictures(4)
    faces = tmp_path / "occlusion-faces"
    faces.mkdir()
    with (faces / "faces-31-0000.npz").open("wb") as file:
        np.savez(file, images=few.images, meshes=few.meshes)
    assert len(load_pictures(faces, seed=31, count=3)) == 3
    options = OcclusionOptions(steps=25, batch=2, size=32)
    lines: list[str] = []
    made = runs.run_occlusion(
        tmp_path, options, device=CPU, log=lines.append, faces=4, workers=0, evaluate_on=2
    )
    assert load_occlusion_net(made).widths
    with (tmp_path / "occlusion.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["25"]
    assert (tmp_path / "occlusion-curves.png").exists()
    assert (tmp_path / "occlusion-sheet.png").exists()
    assert lines[-1].startswith("unseen scenes: iou")
    with pytest.raises(UsageError, match="turned: .*pose"):
        runs.run_occlusion(tmp_path, options, device=CPU, log=lines.append, faces=4, turned=2)


def test_the_command_lists_its_options() -> None:
    shown = CliRunner().invoke(train_group, ["occlusion", "--help"])
    assert shown.exit_code == 0
    for option in ("--steps", "--faces", "--turned", "--workers", "--batch", "--output"):
        assert option in shown.output


@pytest.mark.parametrize("seed", range(8))
def test_a_frame_surrounds_the_eyes_and_crosses_the_nose(seed: int) -> None:
    few = pictures(1)
    mesh, face = few.meshes[0] * 256, few.images[0].astype(np.float32) / 255
    image, truth = wear_glasses(face, mesh, np.random.default_rng(seed))
    assert image.shape == face.shape and image.dtype == truth.dtype == np.float32
    assert 0 <= min(image.min(), truth.min()) and max(image.max(), truth.max()) <= 1
    assert truth[places_of_bridge(few.meshes[0], 256)].max(1).mean() > 0.25  # half-rim ones are thin there
    for eye in (LEFT_EYE, RIGHT_EYE):
        x, y = mesh[list(eye)].mean(0).astype(int)
        assert truth[y - 45 : y, x].max() > 0.1  # a rim, or a dark lens, above it
    assert truth[int(mesh[152, 1]) :].max() == 0  # none at the chin
    untouched = (truth == 0) & (np.abs(image - face).max(2) < 1e-6)
    assert untouched[int(mesh[0, 1]) :].mean() > 0.9


def test_scenes_are_fixed_by_their_numbers_and_some_are_bare() -> None:
    few, bare = pictures(), 0
    for seed in range(24):
        one, two = (draw_glasses_scene(few, np.random.default_rng(seed), size=96) for _ in range(2))
        np.testing.assert_array_equal(one.image, two.image)
        assert one.image.shape == (96, 96, 3) and one.truth.shape == one.weight.shape == (96, 96)
        assert 0 <= one.truth.min() <= one.truth.max() <= 1
        bare += float(one.truth.max()) == 0
    assert 4 <= bare <= 16


def plain(count: int) -> Pictures:
    """The faces of :func:`pictures` before a calm wall."""
    few = pictures(count)
    images = np.where((few.images == few.images[0]).all(0)[None], few.images, np.uint8(90))
    return Pictures(images.astype(np.uint8), few.meshes)


def test_wearers_are_left_out() -> None:
    faces = plain(6)
    assert len(bare_eyed(faces)) == 6
    images = faces.images.copy()
    for number in (1, 4):
        mesh = faces.meshes[number] * 256
        for eye in (LEFT_EYE, RIGHT_EYE):
            x, y = mesh[list(eye)].mean(0).astype(int)
            images[number, y + 16 : y + 20, x - 22 : x + 22] = 20
        left, right = (int(mesh[list(eye), 0].mean()) for eye in (LEFT_EYE, RIGHT_EYE))
        images[number, y - 2 : y + 2, left + 10 : right - 10] = 20
    kept = bare_eyed(Pictures(images, faces.meshes))
    np.testing.assert_array_equal(kept.images, images[[0, 2, 3, 5]])


def test_fringes_are_left_out() -> None:
    faces = plain(6)
    assert len(bare_browed(faces)) == 6
    images = faces.images.copy()
    for number in (0, 3):
        random = np.random.default_rng(number)
        mesh = faces.meshes[number] * 256
        top, brow = int(mesh[10, 1]), int(mesh[105, 1])
        strands = np.clip(40 + 10 * noise(random, 2.0), 0, 255)[top - 10 : brow]
        images[number, top - 10 : brow] = strands[..., None]
    kept = bare_browed(Pictures(images, faces.meshes))
    np.testing.assert_array_equal(kept.images, images[[1, 2, 4, 5]])


def test_a_fringe_hangs_from_above_the_forehead() -> None:
    few = pictures(2)
    reached = []
    for seed in range(12):
        random = np.random.default_rng(seed)
        setting = random_setting(few, random)
        layer = fringe(setting, random)
        low = setting.mesh_xy[17, 1]  # nothing of it below the lips
        assert layer.alpha[int(min(low, 255)) :].mean() < 0.02
        x, y = setting.mesh_xy[10].astype(int)
        reached.append(layer.alpha[max(y - 4, 0) : y + 12, x - 20 : x + 20].mean())
    assert np.median(reached) > 0.15


def test_locks_hang_over_the_rim_of_the_face() -> None:
    few = pictures(2)
    rim, middle = [], []
    for seed in range(24):
        random = np.random.default_rng(seed)
        setting = random_setting(few, random)
        layer = locks(setting, random)
        inner, _ = face_areas(setting.mesh_xy)
        y, x = np.mgrid[:256, :256]
        nose = setting.mesh_xy[4]
        width = np.hypot(*(setting.mesh_xy[454] - setting.mesh_xy[234]))
        near = np.hypot(x - nose[0], y - nose[1]) < 0.2 * width
        rim.append(layer.alpha[(inner > 0.5) & ~near].mean())
        middle.append(layer.alpha[near].mean())
    assert np.mean(rim) > 0.05
    assert np.mean(middle) < 0.25 * np.mean(rim)


def test_hair_of_the_faces_own_is_no_example_of_a_face() -> None:
    few = plain(2)
    mesh = few.meshes[0] * 256
    x, y = mesh[127].astype(int)
    temple = np.s_[y - 12 : y + 12, x + 2 : x + 9]
    images = few.images.copy()
    images[0][temple] = 50
    whole = few.images[0].astype(np.float32) / 255
    bare = Setting(whole, mesh, whole, mesh)
    haired = Setting(images[0].astype(np.float32) / 255, mesh, whole, mesh)
    assert not own_hair(bare)[temple].any()
    assert own_hair(haired)[temple].mean() > 0.9
    assert not own_hair(haired)[int(mesh[4, 1]), int(mesh[4, 0])]
    people = Pictures(images[:1], few.meshes[:1])
    for number in range(4):
        doubt = own_hair(random_setting(people, np.random.default_rng(number)))
        scene = draw_scene(people, np.random.default_rng(number))
        assert scene.weight[doubt & (scene.truth < 0.5)].max() <= 0.11
        assert doubt.any() and scene.weight.max() == 1


def test_behind_the_far_rim_of_a_turned_head_is_the_room() -> None:
    """What differs from the cheeks is taken for hair that nobody labelled as far in as the half is wide."""
    bare = setting()
    turned = bare.mesh_xy.copy()
    turned[:, 0] += 0.45 * (turned[:, 0] - turned[:, 0].mean())
    turned[[4, 1, 5], 0] += 0.6 * (turned[454, 0] - turned[4, 0])
    for mesh, share in ((bare.mesh_xy, 1.0), (turned, 0.25)):
        strange = bare.face.copy()
        row = int(mesh[4, 1])
        strange[row - 4 : row + 4] = 0.0  # the whole row, cheeks, nose and all
        hair = own_hair(Setting(strange, mesh, strange, mesh))[row]
        left, nose, right = (int(mesh[point, 0]) for point in (234, 4, 454))
        widths = hair[left:nose].sum(), hair[nose:right].sum()
        assert widths[0] == pytest.approx(0.28 * (nose - left), abs=3)
        assert widths[1] == pytest.approx(0.28 * (right - nose), abs=3)
        assert widths[1] / widths[0] == pytest.approx(share, abs=0.08)


def test_heads_are_turned_when_faces_are_drawn(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawn, "_SHARD", 2)
    monkeypatch.setattr(drawn, "_POSES", {"yaw": (2.4, 2.5)})
    nets = runs.load_networks(CPU)
    directions = load_directions(weights.locate("directions"))
    yaws = {}
    for pose in (None, partial(edit, directions=directions)):
        made = runs.build_pictures(
            tmp_path, generator=nets.generator, meshes=nets.meshes, count=2, seed=7,
            log=lambda _line: None, pose=pose,
        )  # fmt: skip
        across = made.meshes[:, 454, 0] - made.meshes[:, 234, 0]
        yaws[pose is None] = (made.meshes[:, 4, 0] - made.meshes[:, 234, 0]) / across
    assert (yaws[False] > yaws[True] + 0.1).all(), "noses to the right, of the same people"
    kept = {turned: load_pictures(tmp_path, seed=7, count=2, turned=turned) for turned in (False, True)}
    assert len(kept[False]) == len(kept[True]) == 2
    assert not np.array_equal(kept[False].images, kept[True].images)
    assert len(kept[False] + kept[True]) == 4

"""The occlusion network: shapes, folding, weights files, and what the packaged one sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vidswap import weights
from vidswap.errors import WeightsError
from vidswap.models.aligned_mesh import AlignedMesh
from vidswap.models.mobile_stylegan import MobileStyleGAN
from vidswap.models.occlusion_net import INPUT_SIZE, OcclusionNet, load_occlusion_net
from vidswap.training.glasses_scenes import wear_glasses
from vidswap.training.occlusion import OcclusionOptions, publish
from vidswap.training.occlusion_scenes import face_areas


def _settled(widths: tuple[int, ...] = (8, 8, 16, 16, 16)) -> OcclusionNet:
    """A network whose normalisations have seen something."""
    net = OcclusionNet(widths)
    for _ in range(3):
        net(torch.rand(2, 3, 64, 64) * 2 - 1)
    return net.eval()


def test_a_published_network_says_the_same_when_it_is_loaded_and_folded(tmp_path: Path) -> None:
    net = _settled()
    publish(net, tmp_path / "net.safetensors", 3, OcclusionOptions())
    loaded = load_occlusion_net(tmp_path / "net.safetensors")
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in loaded.modules())
    images = torch.rand(2, 3, 96, 64) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), net(images), atol=2e-2, rtol=2e-2)  # kept in fp16
    assert loaded(images).shape == (2, 1, 96, 64)


def test_any_size_is_brought_to_that_of_the_network() -> None:
    seen = _settled().occluded(torch.rand(1, 3, 300, 300) * 2 - 1)
    assert seen.shape == (1, 1, INPUT_SIZE, INPUT_SIZE)
    assert 0 <= float(seen.min()) <= float(seen.max()) <= 1


def test_sides_must_divide() -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        OcclusionNet((8, 8, 8, 8, 8))(torch.zeros(1, 3, 100, 100))


def test_other_files_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors", {"kind": "mixer"})
    with pytest.raises(WeightsError, match="other.safetensors"):
        load_occlusion_net(tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="none.safetensors"):
        load_occlusion_net(tmp_path / "none.safetensors")


def test_the_packaged_network_sees_a_microphone_and_leaves_bare_faces_alone(weights_home: Path) -> None:
    path = weights.locate("occlusion")
    assert path.stat().st_size < 4e6
    net = load_occlusion_net(path)
    generator = MobileStyleGAN.load(weights.locate("mobilestylegan"), heads=weights.locate("rgb-heads"))
    y, x = np.mgrid[:128, :128]
    disc = torch.from_numpy((np.hypot(x - 64, y - 92) < 14).astype(np.float32))
    face = torch.from_numpy(((np.hypot((x - 64) / 26, (y - 76) / 36) < 1)).astype(np.float32))
    bare, recall = [], []
    for seed in range(4):
        code = generator.sample(4_000 + seed, psi=0.5)[:, None].expand(1, generator.n_styles, -1)
        with torch.no_grad():
            image = generator.synthesize(code, size=128)
        covered = torch.lerp(image, torch.full_like(image, -0.8), disc)
        maps = [
            torch.nn.functional.interpolate(net.occluded(one), 128, mode="bilinear")[0, 0]
            for one in (image, covered)
        ]
        bare.append(float((maps[0] * face).sum() / face.sum()))
        recall.append(float((maps[1] * disc).sum() / disc.sum()))
    assert np.mean(recall) > 0.7
    assert np.mean(bare) < 0.06


def test_the_packaged_network_sees_glasses_and_none_on_bare_faces(weights_home: Path) -> None:
    path = weights.locate("glasses")
    assert path.stat().st_size < 2e6
    net = load_occlusion_net(path)
    generator = MobileStyleGAN.load(weights.locate("mobilestylegan"))
    meshes = AlignedMesh.load(weights.locate, refined=False)
    recall, alarms = [], []
    for seed in range(4):
        code = generator.sample(4_000 + seed, psi=0.5)[:, None].expand(1, generator.n_styles, -1)
        with torch.no_grad():
            image = torch.nn.functional.avg_pool2d(generator.synthesize(code, size=512), 2)
            mesh = meshes(image)[0][0, :, :2].numpy() * 256
        bare = ((image[0].permute(1, 2, 0).numpy() + 1) / 2).clip(0, 1)
        worn, truth = wear_glasses(bare, mesh, np.random.default_rng(seed))
        inner, _ = face_areas(mesh)
        seen = [
            net.occluded(torch.from_numpy(one.transpose(2, 0, 1))[None] * 2 - 1, 256)[0, 0].numpy()
            for one in (bare.astype(np.float32), worn)
        ]
        alarms.append(float((seen[0] * inner).sum() / inner.sum()))
        recall.append(float((seen[1] * truth * inner).sum() / (truth * inner).sum()))
    assert np.mean(recall) > 0.6
    assert np.mean(alarms) < 0.01

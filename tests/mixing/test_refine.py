"""Refining a source through a mixer: closer to the photo, and the target keeps its pose."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vidswap import weights
from vidswap.compositing import forehead_mask
from vidswap.mixing import refine_source
from vidswap.mixing.mixers import LayerMixer
from vidswap.mixing.refine import _BRIGHTER, _CHEEKS, _EYE_BAND, _LINE, _asked, _colours, _glow, _relief
from vidswap.models import load_generator
from vidswap.models.aligned_mesh import AlignedMesh, kept_shape
from vidswap.models.identity import DlibIdentity
from vidswap.models.rgb_head import area_downsample

STEPS = 4


@pytest.fixture(scope="module")
def networks(weights_home: Path):
    meshes = AlignedMesh.load(weights.locate)
    identity = DlibIdentity.load(weights.locate("dlib-resnet"))
    return load_generator("mobilestylegan", weights.locate), identity, meshes


@pytest.fixture
def pair(networks) -> tuple:
    """What is refined: all that :func:`refine_source` takes by place."""
    generator, identity, _ = networks
    source, target = (
        generator.sample(seed, psi=0.8)[:, None].repeat(1, generator.n_styles, 1) for seed in (21, 34)
    )
    with torch.no_grad():
        embedding = identity.embed_aligned(generator.synthesize(source, size=128))
    mixer = LayerMixer(range(3, 14), generator.n_styles)
    return generator, identity, mixer, source, embedding, [target]


def test_refining_comes_closer_and_the_shape_term_holds_the_targets_pose(networks, pair) -> None:
    meshes = networks[2]
    generator, _, mixer, source, _, (target,) = pair

    shape = meshes.kept_shape

    @torch.no_grad()
    def moved(code: torch.Tensor) -> float:
        drawn = shape(generator.synthesize(mixer(code, target), size=128))
        return float((drawn - shape(generator.synthesize(target, size=128))).abs().mean())

    free = refine_source(*pair, steps=STEPS)
    held = refine_source(*pair, steps=STEPS, shape=shape, shape_weight=30.0)
    assert free.distance_after < free.distance_before
    assert moved(held.code) < 0.9 * min(moved(source), moved(free.code))


def test_what_lies_between_the_lips_comes_nearer_to_the_targets(networks, pair) -> None:
    """A laughing photo bared its teeth where the target's mouth was dark."""
    generator, _, mixer, source, _, (target,) = pair
    within = torch.zeros(1, 1, 128, 128)
    within[..., 88:96, 54:74] = 1.0
    wanted = generator.synthesize(target, size=128)

    @torch.no_grad()
    def off(code: torch.Tensor) -> float:
        return float(((generator.synthesize(mixer(code, target), size=128) - wanted).abs() * within).sum())

    free = refine_source(*pair, steps=STEPS)
    held = refine_source(*pair, steps=STEPS, lips=lambda _image: within)
    assert off(held.code) < 0.9 * min(off(source), off(free.code))
    shut = refine_source(*pair, steps=STEPS, lips=lambda _image: 0 * within)
    assert torch.equal(shut.code, free.code)


def test_a_second_network_has_its_say(pair) -> None:
    """Here one that wants the upper half of the face dark."""
    generator, _, mixer, _, _, (target,) = pair

    def unlike(images: torch.Tensor) -> torch.Tensor:
        return images[:, :, : images.shape[-1] // 2].mean((1, 2, 3)) + 1

    @torch.no_grad()
    def said(code: torch.Tensor) -> float:
        return float(unlike(generator.synthesize(mixer(code, target), size=128)))

    free = refine_source(*pair, steps=STEPS)
    heard = refine_source(*pair, steps=STEPS, unlike=unlike, unlike_weight=5.0)
    assert said(heard.code) < said(free.code) - 0.01


def test_a_face_that_is_near_enough_is_left_alone(pair) -> None:
    source = pair[3]
    found = refine_source(*pair, steps=2, near=2.0)
    assert torch.equal(found.code, source) and 0 < found.distance_after < 2
    assert not torch.equal(refine_source(*pair, steps=2, near=0.0).code, source)


def test_refining_needs_targets(networks) -> None:
    generator, identity, _ = networks
    code = generator.w_avg.expand(1, generator.n_styles, -1)
    with pytest.raises(ValueError, match="at least one"):
        refine_source(generator, identity, LayerMixer(range(3), 23), code, torch.zeros(1, 128), [], steps=1)


def test_the_kept_shape_is_eighteen_numbers_that_ignore_a_shift() -> None:
    mesh = torch.rand(2, 468, 3, generator=torch.Generator().manual_seed(3))
    iris = torch.rand(2, 2, 5, 2, generator=torch.Generator().manual_seed(4))
    found = kept_shape(mesh, iris)
    assert found.shape == (2, 18)
    shift = torch.tensor([0.1, -0.2, 0.0])
    assert torch.allclose(kept_shape(mesh + shift, iris + shift[:2]), found, atol=1e-4)


class _BrightEyes:
    """Sees nothing of a face but how bright the band of its eyes is, in every colour."""

    def embed_aligned(self, images: torch.Tensor) -> torch.Tensor:
        return 2 * _colours(area_downsample(images, 128), _EYE_BAND).flatten(1).mean(1, keepdim=True)


def test_a_fringe_of_the_source_is_taken_off_a_bare_forehead(networks, pair) -> None:
    """A photo with a fringe drew strands on foreheads, one with glasses made brows meet."""
    meshes = networks[2]
    generator, identity, mixer, _, _, (target,) = pair
    source = generator.sample(49, psi=0.8)[:, None].repeat(1, generator.n_styles, 1)  # wears a fringe

    def forehead(image: torch.Tensor) -> torch.Tensor:
        mesh = meshes(image)[0][0].numpy()
        return torch.from_numpy(forehead_mask(mesh, 256))[None, None]

    with torch.no_grad():
        embedding = identity.embed_aligned(generator.synthesize(source, size=128))
        asked = _asked(generator, mixer, source, target, forehead=forehead)

    @torch.no_grad()
    def drawn_on(code: torch.Tensor) -> float:
        where, least = asked.forehead
        relief = _relief(generator.synthesize(mixer(code, target), size=128), where)
        return float(((least - relief).clamp_min(0) * where).sum() / where.sum())

    arguments = (generator, identity, mixer, source, embedding, [target])
    free, bare = (
        drawn_on(refine_source(*arguments, steps=2 * STEPS, forehead=told).code) for told in (None, forehead)
    )
    assert drawn_on(source) > 0.02
    assert bare < 0.6 * free


def test_a_line_on_a_forehead_is_seen_in_any_light() -> None:
    face, forehead = torch.full((1, 3, 256, 256), 0.2), torch.zeros(1, 1, 256, 256)
    forehead[..., 60:120, 60:200] = 1.0
    face[..., :60, :] = -0.9  # hair around it is nothing to compare with
    assert _relief(face, forehead)[forehead > 0].abs().max() < 1e-5
    assert _relief(face - 0.5, forehead)[forehead > 0].abs().max() < 1e-5
    face[..., 60:110, 100:103] -= 3 * _LINE
    relief = _relief(face, forehead)
    assert relief[0, 0, 62:108, 101].max() < -2 * _LINE
    assert relief[0, 0, 62:118, 110:190].min() > -_LINE


def test_lids_may_become_as_bright_as_skin_and_irises_not(networks, pair) -> None:
    """A brown-eyed man came out with irises of a pale blue, as bright as his cheeks."""
    generator, _, mixer, source, _, targets = pair
    centres = torch.tensor([[0.39, 0.485], [0.61, 0.485]])
    around = 0.02 * torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, -1.0], [-1.0, 0.0], [0.0, 1.0]])
    irises = (centres[:, None] + around)[None]
    found = [
        _asked(generator, mixer, source, targets[0], irises=told).eyes[:, 0]
        for told in (None, lambda _image: irises)
    ]
    mixed = generator.synthesize(mixer(source, targets[0]), size=128)
    light = _glow(_colours(mixed, _EYE_BAND))[:, 0]
    (top, _), (left, _) = _EYE_BAND
    for x, y in centres.tolist():
        row, column = int((y - round(top * 128) / 128) * 128), int((x - round(left * 128) / 128) * 128)
        assert float(found[1][0, row, column]) == pytest.approx(float(light[0, row, column]) + _BRIGHTER)
        assert found[0][0, row, column] > found[1][0, row, column] + 0.1
    elsewhere = found[0] == found[1]
    assert 10 < int((~elsewhere).sum()) < 60
    skin = _glow(_colours(mixed, _CHEEKS))[:, 0].mean()
    assert bool((found[1][elsewhere] >= skin - 1e-5).all())


@pytest.mark.parametrize(("wanted", "channel"), [(4.0, 0), (-4.0, 2)], ids=["glow", "be ringed with black"])
def test_eyes_may_not_begin_to(
    wanted: float, channel: int, networks, pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator, _, mixer, source, _, targets = pair

    allowed = _asked(generator, mixer, source, targets[0]).eyes

    @torch.no_grad()
    def beyond(code: torch.Tensor) -> float:
        eyes = _glow(_colours(generator.synthesize(mixer(code, targets[0]), size=128), _EYE_BAND))
        return float((eyes - allowed).clamp_min(0)[:, channel].mean())

    asked = (generator, _BrightEyes(), mixer, source, torch.full((1, 1), wanted), targets)
    kept = refine_source(*asked, steps=2 * STEPS, learning_rate=0.2)
    monkeypatch.setattr("vidswap.mixing.refine._EYES_WEIGHT", 0.0)
    free = refine_source(*asked, steps=2 * STEPS, learning_rate=0.2)
    assert beyond(free.code) > 0.01
    assert beyond(kept.code) < 0.7 * beyond(free.code)

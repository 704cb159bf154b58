"""Inversion on the generator's own samples: it finds them, follows them, and tuning stays local."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vidswap import weights
from vidswap.config import InversionConfig
from vidswap.inversion import Inverter, fit_pivot, tune_generator
from vidswap.inversion.losses import edges, ellipse, face_psnr, fit_target, w_pull
from vidswap.models import load_generator
from vidswap.models.identity import DlibIdentity

CONFIG = InversionConfig(first_steps=12, next_steps=3, encoder=False)


@pytest.fixture(scope="module")
def networks(weights_home: Path):
    return load_generator("mobilestylegan", weights.locate), DlibIdentity.load(weights.locate("dlib-resnet"))


def code(generator, seed: int) -> torch.Tensor:
    return generator.sample(seed, psi=0.6)[:, None].repeat(1, generator.n_styles, 1)


def picture(generator, w_plus: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return generator.synthesize(w_plus, size=128)


def test_a_fit_comes_closer_and_gives_its_best(networks) -> None:
    generator, identity = networks
    image = picture(generator, code(generator, 1))
    start = generator.w_avg.expand(1, generator.n_styles, -1)
    target = fit_target(image, identity)
    before = face_psnr(picture(generator, start), target, target.weight)
    result = fit_pivot(generator, identity, image, start, config=CONFIG, steps=12)
    assert result.steps == 12
    assert result.psnr > before + 3
    reached = face_psnr(picture(generator, result.w_plus), target, target.weight)
    assert reached == pytest.approx(result.psnr, abs=0.05)


def test_a_fit_by_the_256_px_path_takes_a_smaller_mask(networks) -> None:
    generator, identity = networks
    with torch.no_grad():
        image = generator.synthesize(code(generator, 1), size=512)
    config = replace(CONFIG, fast_size=256)
    start = generator.w_avg.expand(1, generator.n_styles, -1)
    face = torch.ones(1, 1, 128, 128)
    begun, fitted = (
        fit_pivot(generator, identity, image, start, config=config, steps=steps, face=face)
        for steps in (1, 8)
    )
    assert fitted.psnr > begun.psnr + 1


def test_a_fit_never_leaves_a_perfect_start(networks) -> None:
    generator, identity = networks
    w_plus = code(generator, 2)
    config = replace(CONFIG, w_pull=0.0)
    result = fit_pivot(generator, identity, picture(generator, w_plus), w_plus, config=config, steps=2)
    assert torch.equal(result.w_plus, w_plus)


def test_a_fit_stops_at_the_quality_that_is_asked(networks) -> None:
    generator, identity = networks
    w_plus = code(generator, 2)
    near = w_plus + 0.01 * torch.randn_like(w_plus)
    result = fit_pivot(
        generator, identity, picture(generator, w_plus), near, config=CONFIG, steps=10, target_psnr=20.0
    )
    assert result.steps <= 1 and result.psnr >= 20.0


def test_the_next_frame_starts_from_the_one_before(networks) -> None:
    generator, identity = networks
    inverter = Inverter(generator, identity, CONFIG)
    first, second = code(generator, 3), torch.lerp(code(generator, 3), code(generator, 4), 0.08)
    pivot, state = inverter.step(picture(generator, first), None)
    assert (pivot.started_from, pivot.steps) == ("mean", 12)
    following, _ = inverter.step(picture(generator, second), state)
    assert following.started_from == "previous" and following.steps <= 3
    cold = inverter.first(picture(generator, second), steps=3)
    assert following.error < 0.7 * cold.error


def test_each_frame_can_be_inverted_on_its_own(networks) -> None:
    generator, identity = networks
    cold = Inverter(generator, identity, replace(CONFIG, warm=False))
    before, image = (picture(generator, code(generator, seed)) for seed in (3, 4))
    _, state = cold.step(before, None)
    (alone, _), (after, _) = (cold.step(image, each) for each in (None, state))
    assert after.started_from == "mean" and after.steps == CONFIG.first_steps
    assert (after.latent == alone.latent).all()


def test_an_encoder_is_used_where_it_is_better(networks) -> None:
    generator, identity = networks
    wanted = code(generator, 6)

    class Perfect(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return wanted

    inverter = Inverter(generator, identity, replace(CONFIG, encoder=True, first_steps=1), Perfect())
    pivot, _ = inverter.step(picture(generator, wanted), None)
    assert pivot.started_from == "encoder"
    assert pivot.error < 1e-3


def test_a_frame_rests_at_its_prediction_only_after_a_fitted_one(networks) -> None:
    generator, identity = networks
    inverter = Inverter(generator, identity, replace(CONFIG, rest_db=30.0))
    first, second = code(generator, 3), torch.lerp(code(generator, 3), code(generator, 4), 0.25)
    _, state = inverter.step(picture(generator, first), None)
    resting, state = inverter.step(picture(generator, second), state)
    assert resting.steps == 0 and state.rested
    assert torch.equal(state.code, torch.from_numpy(resting.latent)[None])
    fitted, after = inverter.step(picture(generator, second), state)
    assert fitted.steps > 0 and not after.rested
    assert fitted.error < resting.error


def test_a_face_that_jumps_starts_from_the_encoder_and_takes_more_steps(networks) -> None:
    generator, identity = networks
    seen = {"now": code(generator, 3)}

    class Perfect(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return seen["now"]

    inverter = Inverter(generator, identity, replace(CONFIG, encoder=True, first_steps=4), Perfect())
    _, state = inverter.step(picture(generator, seen["now"]), None)
    state = replace(state, encoded=None)  # so that the encoder cannot carry the start over
    seen["now"] = code(generator, 9)
    pivot, _ = inverter.step(picture(generator, seen["now"]), state)
    assert pivot.started_from == "encoder"
    assert pivot.error < 1e-3

    lost = Inverter(generator, identity, CONFIG)
    _, state = lost.step(picture(generator, code(generator, 3)), None)
    pivot, _ = lost.step(picture(generator, code(generator, 9)), state)
    assert CONFIG.next_steps < pivot.steps <= 3 * CONFIG.next_steps


@pytest.mark.slow
def test_tuning_gains_on_its_pivot_and_keeps_other_people(networks) -> None:
    """Holds off what a plain tuning does: other latents drift by 0.5 and swaps are undone."""
    generator, identity = networks
    wanted = picture(generator, code(generator, 8) + 0.1 * torch.randn(1, 23, 512))
    pivot = fit_pivot(generator, identity, wanted, code(generator, 8), config=CONFIG, steps=4)
    state = {key: value.clone() for key, value in generator.state_dict().items()}
    config = replace(CONFIG, tune_steps=8)
    tuned, report = tune_generator(generator, identity, [wanted], [pivot.w_plus], config=config)
    assert report.psnr_after > report.psnr_before + 0.3
    assert report.drift < 0.15
    assert tuned.identifier != generator.identifier
    for key, value in generator.state_dict().items():
        assert torch.equal(value, state[key]), f"{key} of the given generator changed"


def test_tuning_needs_keyframes(networks) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        tune_generator(*networks, [], [], config=CONFIG)


def test_edges_of_a_flat_picture_are_zero_and_of_a_ramp_constant() -> None:
    assert float(edges(torch.ones(1, 3, 8, 8)).abs().max()) == 0
    ramp = torch.arange(8.0).expand(1, 3, 8, 8)
    found = edges(ramp)
    assert torch.equal(found[:, :3], torch.ones(1, 3, 7, 7))
    assert torch.equal(found[:, 3:], torch.zeros(1, 3, 7, 7))


def test_the_pull_is_zero_at_the_mean_and_grows_with_spread() -> None:
    mean, std = torch.zeros(4), torch.ones(())
    assert float(w_pull(torch.zeros(1, 3, 4), mean, std)) == 0
    spread = torch.tensor([[[1.0] * 4, [-1.0] * 4, [0.0] * 4]])
    assert float(w_pull(spread, mean, std)) == pytest.approx(2 / 3)
    assert float(w_pull(2 * spread, mean, std)) == pytest.approx(8 / 3)


def test_the_ellipse_covers_the_face_and_not_the_corners() -> None:
    face = ellipse(64)[0, 0]
    assert face[38, 32] == 1 and face[0, 0] == 0 and face[63, 63] == 0
    assert 0.3 < float(face.mean()) < 0.5


def test_styles_that_the_cheap_path_hardly_feels_stay_where_they_are(networks) -> None:
    """Else they wander along a clip, and the full picture falls apart after some hundred frames."""
    generator, identity = networks
    inverter = Inverter(generator, identity, replace(CONFIG, rest_db=0.0, w_pull=0.0))
    first, last = code(generator, 3), code(generator, 4)
    _, state = inverter.step(picture(generator, first), None)
    begun = state.code
    for share in (0.04, 0.08, 0.12, 0.16):
        _, state = inverter.step(picture(generator, torch.lerp(first, last, share)), state)
    moved = (state.code - begun)[0].square().mean(1).sqrt()
    late = generator.own_styles(128)
    assert float(moved[late:].mean()) < 0.25 * float(moved[3:12].mean())
    assert float(moved[late:].mean()) > 0  # a scene may darken


def test_the_cheap_path_is_set_right_again_where_the_code_moves_fast(networks) -> None:
    """A correction eight frames old turned a face yellow that had begun to cry."""
    generator, identity = networks
    inverter = Inverter(generator, identity, replace(CONFIG, rest_db=0.0))
    begun = code(generator, 3)
    _, state = inverter.step(picture(generator, begun), None)
    _, state = inverter.step(picture(generator, begun), state)
    measured = state.correction.code
    _, still = inverter.step(picture(generator, begun), state)
    assert torch.equal(still.correction.code, measured) and still.correction.age == state.correction.age + 1
    far = replace(state, code=torch.lerp(state.code, code(generator, 4), 0.5))
    _, moved = inverter.step(picture(generator, begun), far)
    assert torch.equal(moved.correction.code, far.code) and moved.correction.age == 0


def test_what_covers_a_face_is_not_explained(networks) -> None:
    """A fit that explains a hand bends the face behind it, and the hand counts as face afterwards."""
    generator, identity = networks
    wanted = code(generator, 12)
    covered = torch.zeros(1, 1, 128, 128)
    covered[:, :, 70:110, 30:80] = 1
    blue = torch.tensor([-0.8, -0.6, 0.9])[None, :, None, None]
    image = torch.where(covered > 0, blue, picture(generator, wanted))
    face = ellipse(128) * (1 - covered)
    start = torch.lerp(generator.w_avg.expand_as(wanted), wanted, 0.7)
    bare, told = (
        fit_pivot(generator, identity, image, start, config=CONFIG, steps=12, face=face, covered=each)
        for each in (None, covered)
    )
    away = [(picture(generator, each.w_plus) - blue).abs().mul(covered).sum() for each in (bare, told)]
    assert away[1] > away[0]
    hidden = picture(generator, wanted)
    errors = [(picture(generator, each.w_plus) - hidden).square().mean() for each in (bare, told)]
    assert errors[1] < 0.8 * errors[0]


def test_a_face_that_comes_to_light_is_inverted_afresh(networks) -> None:
    """Behind a hand the generator draws what it likes; few steps kept a mouth shut that had opened."""
    generator, identity = networks
    behind, after = code(generator, 3), code(generator, 5)

    class Encoder(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return after

    inverter = Inverter(generator, identity, replace(CONFIG, encoder=True), Encoder())
    hand = torch.zeros(1, 1, 128, 128)
    hand[:, :, 64:] = 1.0
    _, state = inverter.step(picture(generator, behind), None, covered=hand)
    for _ in range(4):
        still, state = inverter.step(picture(generator, behind), state, covered=hand)
        assert still.started_from == "previous"
    # What only trembles does not count.
    still, state = inverter.step(picture(generator, behind), state, covered=hand.roll(2, 2))
    assert still.started_from == "previous"
    anchor = state.anchor
    seen, state = inverter.step(picture(generator, after), state, covered=1 - hand)
    assert (seen.started_from, seen.steps) == ("encoder", CONFIG.first_steps)
    assert state.anchor is anchor  # the track goes on
    assert torch.equal(state.hidden.covered, 1 - hand)
    # A hand that waves is followed.
    following, _ = inverter.step(picture(generator, after), state, covered=0 * hand)
    assert following.steps <= CONFIG.next_steps

    alone = Inverter(generator, identity, CONFIG)
    _, state = alone.step(picture(generator, behind), None, covered=hand)
    begun, _ = alone.step(picture(generator, after), state, covered=0 * hand)
    assert begun.started_from == "previous" and begun.steps < CONFIG.first_steps  # it has only just begun
    state = replace(state, hidden=replace(state.hidden, since=5))
    begun, _ = alone.step(picture(generator, after), state, covered=0 * hand)
    assert (begun.started_from, begun.steps) == ("previous", CONFIG.first_steps)


def test_a_picture_that_has_fallen_apart_is_fitted_afresh(networks) -> None:
    """The cheap path no longer tells what the full picture looks like: nothing of it is to be followed."""
    generator, identity = networks
    inverter = Inverter(generator, identity, CONFIG)
    wanted = code(generator, 3)
    hand = torch.zeros(1, 1, 128, 128)
    _, state = inverter.step(picture(generator, wanted), None, covered=hand)
    wild = torch.randn(state.code.shape, generator=torch.Generator().manual_seed(2))
    broken = replace(
        state, code=state.code + 3 * generator.w_std * wild, hidden=replace(state.hidden, since=4)
    )
    seen, after = inverter.step(picture(generator, wanted), broken, covered=hand)
    assert seen.steps == CONFIG.first_steps
    assert after.correction.size < inverter._measured(broken.code).size
    assert after.anchor is state.anchor and after.first_correction == state.first_correction
    assert after.hidden.since == 0
    again, _ = inverter.step(picture(generator, wanted), after, covered=hand)
    assert again.steps <= CONFIG.next_steps  # once is enough

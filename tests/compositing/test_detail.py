"""Sharpness and grain: softened to the footage, never sharpened, the same grain every run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidswap.compositing import detail, match_detail
from vidswap.compositing.arrays import gaussian_blur, to_array, to_tensor
from vidswap.compositing.detail import matching_blur, noise_level
from vidswap.errors import UsageError


def textured(size: int = 256, seed: int = 0) -> np.ndarray:
    """A picture with detail at every scale (amplitude falls as 1 / frequency), as faces have."""
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    spectrum = np.fft.rfft2(rng.normal(size=(size, size))) / np.maximum(np.hypot(fx, fy), 0.01)
    grey = np.fft.irfft2(spectrum, s=(size, size))
    grey = 0.5 + 0.08 * grey / grey.std()
    return np.repeat(grey[..., None], 3, axis=2).clip(0, 1).astype(np.float32)


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return to_array(gaussian_blur(to_tensor(image), sigma))


FACE = np.ones((64, 64), np.float32)


@pytest.mark.parametrize("sigma", [0.0, 0.7, 1.0, 1.5])
def test_blur_of_the_footage_is_found(sigma):
    sharp, footage = textured(seed=1)[..., 0], blurred(textured(seed=2), sigma)[..., 0]
    found = matching_blur(sharp, footage, np.ones((256, 256), bool))
    assert found == pytest.approx(sigma, abs=0.15)


def test_softer_swap_is_never_sharpened():
    soft, footage = blurred(textured(seed=1), 1.5), blurred(textured(seed=2), 0.5)
    out = match_detail(soft, footage, FACE, footage_scale=1.0)
    added = out - soft
    # Nothing, or grain: never a multiple of the picture's own detail.
    detail = soft - blurred(soft, 1.5)
    assert abs(np.corrcoef(added[..., 1].ravel() + 1e-9, detail[..., 1].ravel())[0, 1]) < 0.05


def test_sharp_swap_gets_as_soft_as_the_footage():
    sharp, footage = textured(seed=1), blurred(textured(seed=2), 1.2)
    out = match_detail(sharp, footage, FACE, footage_scale=1.0)

    def fine(image: np.ndarray) -> float:
        return float((image - blurred(image, 0.8)).std())

    assert fine(out) == pytest.approx(fine(footage), rel=0.25)
    assert fine(sharp) > 2 * fine(footage)
    half = match_detail(sharp, footage, FACE, footage_scale=1.0, strength=0.5)
    assert fine(out) < fine(half) < fine(sharp)


@pytest.mark.parametrize("level", [0.01, 0.03])
def test_noise_level_is_read(level):
    rng = np.random.default_rng(4)
    ramp = np.linspace(0.3, 0.7, 256)[None] * np.ones((256, 1))
    noisy = (ramp + rng.normal(0, level, ramp.shape)).astype(np.float32)
    assert noise_level(noisy, np.ones_like(noisy)) == pytest.approx(level, rel=0.1)
    assert noise_level(ramp.astype(np.float32), np.ones_like(noisy)) < 1e-4


def test_grain_is_added_and_repeats_by_seed():
    rng = np.random.default_rng(4)
    clean = np.full((256, 256, 3), 0.5, np.float32)
    noisy = (clean + rng.normal(0, 0.02, (256, 256, 1))).astype(np.float32)
    first = match_detail(clean, noisy, FACE, footage_scale=1.0, seed=1001)
    again = match_detail(clean, noisy, FACE, footage_scale=1.0, seed=1001)
    other = match_detail(clean, noisy, FACE, footage_scale=1.0, seed=1002)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    luma = first @ np.array([0.2126, 0.7152, 0.0722])
    assert luma.std() == pytest.approx(0.02, rel=0.2)
    assert (first - luma[..., None]).std() < 0.3 * luma.std(), "grain is mostly of lightness"
    assert np.abs(match_detail(clean, clean, FACE, footage_scale=1.0) - clean).max() == 0


def test_grain_survives_the_paste_at_the_footage_level():
    """Grain is made for the frame's pixels: after paste-back it has the level of the footage."""
    from vidswap.warp import crop, paste_sample

    rng = np.random.default_rng(4)
    frame = (0.5 + rng.normal(0, 0.02, (240, 240, 1)) * np.ones((1, 1, 3))).astype(np.float32)
    quad = np.array([[20.3, 20.6], [20.3, 220.6], [220.3, 220.6], [220.3, 20.6]])
    target, _ = crop(frame, quad, 480)
    clean = np.full((480, 480, 3), 0.5, np.float32)
    out = match_detail(clean, target, FACE, footage_scale=200 / 480, seed=7)
    pasted, _ = paste_sample(out, quad, (0, 0, 240, 240))
    level = noise_level((pasted @ np.array([0.2126, 0.7152, 0.0722]))[40:200, 40:200],
                        np.ones((160, 160)))
    assert level == pytest.approx(0.02, rel=0.3)


def _light(image: np.ndarray) -> np.ndarray:
    return image @ np.array([0.2126, 0.7152, 0.0722])


def _pores(level: float = 0.02, size: int = 512) -> np.ndarray:
    """Even skin with pores of a pixel or two."""
    noise = np.random.default_rng(8).normal(size=(size, size, 1)).astype(np.float32)
    pores = blurred(np.repeat(noise, 3, axis=2), 0.8)
    return (0.5 + level * pores / pores.std()).astype(np.float32)


def test_smooth_skin_gets_the_pores_of_the_footage_where_it_is_bare():
    skin = np.zeros((64, 64), np.float32)
    skin[:, :32] = 1.0
    smooth, footage = np.full((512, 512, 3), 0.45, np.float32), _pores()
    bare, lent = (
        match_detail(smooth, footage, FACE, footage_scale=1.0, texture=where) for where in (None, skin)
    )
    wanted = _light(footage - blurred(footage, 1.3))
    got = {name: _light(out - blurred(out, 1.3)) for name, out in (("bare", bare), ("lent", lent))}

    def alike(name: str, columns: slice) -> float:
        return float(np.corrcoef(got[name][16:-16, columns].ravel(), wanted[16:-16, columns].ravel())[0, 1])

    left, right = slice(16, 240), slice(272, 496)
    assert alike("lent", left) > 0.6 and abs(alike("bare", left)) < 0.1 and abs(alike("lent", right)) < 0.1
    # Not more than the footage has, grain and all.
    assert got["lent"][16:-16, left].std() == pytest.approx(wanted[16:-16, left].std(), rel=0.25)


def test_skin_with_pores_of_its_own_does_not_get_them_twice():
    footage = _pores()
    own = np.ascontiguousarray(footage[::-1, ::-1])
    lent = match_detail(own, footage, FACE, footage_scale=1.0, texture=FACE)
    fine = [_light(image - blurred(image, 1.3))[16:-16, 16:-16].ravel() for image in (lent, own, footage)]
    like = np.corrcoef(fine)[0]
    assert like[1] > 0.6 and like[2] < like[1]
    assert fine[0].std() == pytest.approx(fine[2].std(), rel=0.2)


def test_pores_that_the_footage_has_not_are_taken_off_and_lines_stay():
    rng = np.random.default_rng(3)
    footage, own = _pores(0.006), _pores(0.024)[::-1, ::-1].copy()
    own[250:253, 100:400] -= 0.2  # a wrinkle
    # Elsewhere both are as sharp as each other, so that a blur of the whole face is no answer.
    edges = np.kron(rng.random((8, 16, 1)), np.ones((32, 32, 3)))
    for image in (footage, own):
        image[300:] = edges.astype(np.float32)[44:]
    skin = FACE.copy()
    skin[int(290 / 512 * len(FACE)) :] = 0
    plain, calmed = (
        match_detail(own, footage, FACE, footage_scale=1.0, texture=where) for where in (None, skin)
    )
    wanted, before, after = (
        _light(image - blurred(image, 1.3))[40:230, 40:472].std() for image in (footage, plain, calmed)
    )
    assert before > 2 * wanted and after < 1.6 * wanted
    lines = [_light(image)[:, 150:350].mean(1) for image in (plain, calmed)]
    depth = [line[240:246].mean() - line[251] for line in lines]
    assert depth[1] > 0.7 * depth[0]


def test_a_mole_of_the_footage_stays_behind():
    footage = _pores()
    footage[120:124, 120:124] = 0.05
    smooth = np.full((512, 512, 3), 0.45, np.float32)
    lent = match_detail(smooth, footage, FACE, footage_scale=1.0, texture=FACE)
    assert np.abs(lent[116:128, 116:128] - 0.45).max() < 0.08
    stubble = _pores()
    stubble[:, 400:] = _pores(0.12)[:, 400:]
    lent = match_detail(smooth, stubble, FACE, footage_scale=1.0, texture=FACE)
    assert lent[20:-20, 440:490].std() < 1.2 * lent[20:-20, 20:360].std()


def test_off_and_wrong_use():
    image = textured()
    assert match_detail(image, image * 0, FACE, footage_scale=1.0, strength=0.0) is image
    assert match_detail(image, image, FACE, footage_scale=0.05) is image, "12 px: nothing to read"
    assert match_detail(image, image, FACE * 0, footage_scale=1.0) is image
    with pytest.raises(UsageError, match="1.5"):
        match_detail(image, image, FACE, footage_scale=1.0, strength=1.5)


def test_torch_random_state_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    noisy = np.clip(textured() + np.random.default_rng(0).normal(0, 0.03, (256, 256, 1)), 0, 1)
    match_detail(textured(), noisy.astype(np.float32), FACE, footage_scale=1.0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("sigma", [0.4, 0.9, 1.9])
def test_the_blur_found_does_not_hang_on_where_it_is_looked_for_first(
    sigma: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharp, footage = textured(seed=1)[..., 0], blurred(textured(seed=2), sigma)[..., 0]
    found = []
    for drops in (detail._USUAL_DROPS, np.full(10, -1.0), np.full(10, 9.0)):
        monkeypatch.setattr(detail, "_USUAL_DROPS", drops)
        found.append(matching_blur(sharp, footage, np.ones((256, 256), bool)))
    assert found == [found[0]] * 3

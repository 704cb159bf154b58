"""The rim of a beard joins the mask; collars, long hair, hands and kept beards do not."""

from __future__ import annotations

import numpy as np
import pytest

from vidswap.compositing import above_beard, beard_beyond, carry_skin_on, face_mask, own_head, wears_beard
from vidswap.compositing.arrays import resize_map

HAIR = (0.20, 0.15, 0.12)


def _beyond(*arguments, **options) -> np.ndarray | None:
    return beard_beyond(*arguments, **options)[0]


def _level(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """x and y of every pixel in [0, 1]."""
    size = shape[0]
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    return x, y


def _oval(shape: tuple[int, ...], grow: float) -> np.ndarray:
    """Inside of the mesh's oval, ``grow`` larger all around."""
    x, y = _level(shape)
    return np.hypot((x - 0.5) / (0.24 + grow), (y - 0.57) / (0.29 + grow)) < 1


@pytest.fixture
def bearded(skin) -> np.ndarray:
    """Hair from the cheeks down to a little beyond the outline."""
    x, y = _level(skin.shape)
    out = skin.copy()
    out[_oval(skin.shape, 0.03) & ~_oval(skin.shape, -0.10) & (y > 0.66)] = HAIR
    return out


def _rim(shape: tuple[int, ...], inner: float, outer: float) -> np.ndarray:
    _, y = _level(shape)
    return _oval(shape, outer) & ~_oval(shape, inner) & (y > 0.76)


def test_a_beard_is_followed_beyond_the_outline(skin, bearded, mesh) -> None:
    mask = face_mask(mesh, 128)
    beyond = _beyond(skin, bearded, mask, mesh)
    assert beyond is not None and beyond.shape == (128, 128) and beyond.dtype == np.float32
    assert beyond.min() >= 0 and beyond.max() <= 1
    hair = _rim(beyond.shape, 0.0, 0.026)
    assert mask[hair].mean() < 0.3  # what is told here is not in the mask
    assert beyond[hair].min() > 0.8
    _, y = _level(beyond.shape)
    assert beyond[y < 0.57].max() == 0  # nothing above the nose
    assert beyond[~_oval(beyond.shape, 0.09)].max() < 0.05  # nor far below the beard
    joined = np.maximum(mask, beyond)
    assert np.abs(np.diff(joined[:, 64], axis=0)).max() < 0.35  # no hard edge under the chin


def test_nothing_is_added_without_a_beard(skin, mesh) -> None:
    mask = face_mask(mesh, 128)
    assert _beyond(skin, skin, mask, mesh) is None
    assert _beyond(skin, 0.7 * skin, mask, mesh) is None  # only darker light
    x, _ = _level(skin.shape)
    side = skin * (0.6 + 0.4 * x[..., None]).astype(np.float32)
    assert _beyond(skin, side, mask, mesh) is None  # light from the side


def test_a_collar_and_the_shadow_of_a_chin_stay(skin, mesh) -> None:
    mask = face_mask(mesh, 128)
    for grow in (0.02, -0.012):  # a shadow may begin a little inside of where the mesh puts the jaw
        target = skin.copy()
        _, y = _level(skin.shape)
        target[~_oval(skin.shape, grow) & (y > 0.7)] = HAIR
        assert _beyond(skin, target, mask, mesh) is None


def test_long_hair_stays(skin, mesh) -> None:
    mask = face_mask(mesh, 128)
    target = skin.copy()
    x, _ = _level(skin.shape)
    target[(x < 0.34) | (x > 0.70)] = HAIR  # wedges of it lie on the cheeks
    assert _beyond(skin, target, mask, mesh) is None


def test_a_beard_that_the_new_face_has_too_stays(bearded, mesh) -> None:
    assert _beyond(bearded, bearded, face_mask(mesh, 128), mesh) is None


def test_a_beard_is_not_replaced_by_what_is_no_skin(skin, bearded, mesh) -> None:
    drawn = skin.copy()
    x, _ = _level(skin.shape)
    drawn[~_oval(skin.shape, 0.0) & (x < 0.5)] = (0.45, 0.65, 0.40)  # the drawn jaw ends at a lawn
    beyond = _beyond(drawn, bearded, face_mask(mesh, 128), mesh)
    rim = _rim(beyond.shape, 0.012, 0.03)
    left = _level(beyond.shape)[0] < 0.48
    assert beyond[rim & left].max() < 0.3
    assert beyond[rim & (_level(beyond.shape)[0] > 0.55)].mean() > 0.7


def test_a_beard_is_replaced_by_white_stubble_too(skin, bearded, mesh) -> None:
    drawn = skin.copy()
    x, y = _level(skin.shape)
    drawn[np.hypot((x - 0.56) / 0.06, (y - 0.85) / 0.03) < 1] = (0.76, 0.66, 0.59)  # of an old man's chin
    drawn[(x < 0.15) | (x > 0.85)] = (0.76, 0.66, 0.59)  # and what he stands before
    beyond = _beyond(drawn, bearded, face_mask(mesh, 128), mesh)
    assert beyond[_rim(beyond.shape, 0.0, 0.026)].min() > 0.7


def test_a_hand_in_front_of_a_beard_stays(skin, bearded, mesh) -> None:
    x, y = _level((192, 192))
    occluded = ((x > 0.55) & (y > 0.7)).astype(np.float32)
    beyond = _beyond(skin, bearded, face_mask(mesh, 128), mesh, occluded=occluded)
    x, y = _level(beyond.shape)
    assert beyond[(x > 0.59) & (y > 0.7)].max() < 0.1
    assert beyond[_rim(beyond.shape, 0.0, 0.026) & (x < 0.5)].mean() > 0.8
    speckled = np.zeros((192, 192), np.float32)
    speckled[::9, ::9] = 1  # which a network sees in hair
    mask = face_mask(mesh, 128)
    free = _beyond(skin, bearded, mask, mesh)
    assert np.abs(_beyond(skin, bearded, mask, mesh, occluded=speckled) - free).max() < 0.05


def test_it_changes_steadily_with_its_pictures(skin, bearded, mesh) -> None:
    mask = face_mask(mesh, 128)
    noise = np.random.default_rng(5).normal(0, 0.02, bearded.shape).astype(np.float32)
    one, two = _beyond(skin, bearded, mask, mesh), _beyond(skin, bearded + noise, mask, mesh)
    assert np.abs(one - two).max() < 0.25 and np.abs(one - two).mean() < 0.005


def test_whether_there_is_a_beard_does_not_flicker(skin, bearded, mesh) -> None:
    mask = face_mask(mesh, 128)
    _, much = beard_beyond(skin, bearded, mask, mesh)
    beyond, share = beard_beyond(skin, skin, mask, mesh, share=much)  # one frame that shows none
    assert much > 0.9 and 0.7 < share < much
    hidden = np.ones((192, 192), np.float32)
    assert beard_beyond(skin, bearded, mask, mesh, occluded=hidden, share=much)[1] == much
    for _ in range(20):  # nor do some in which the new face's chin is drawn as dark
        beyond, share = beard_beyond(skin, skin, mask, mesh, share=share)
    assert share > 0.7 and wears_beard(share)
    for _ in range(400):
        beyond, share = beard_beyond(skin, skin, mask, mesh, share=share)
    assert beyond is None and share < 0.1
    for _ in range(20):
        beyond, share = beard_beyond(skin, bearded, mask, mesh, share=share)
    assert beyond is not None and share > 0.85  # but one is seen at once


def test_colour_is_measured_above_the_beard(mesh) -> None:
    mask = face_mask(mesh, 128)
    skin = above_beard(mask, mesh)
    nose = int(mesh[2, 1] * 128)
    np.testing.assert_array_equal(skin[: nose - 4], mask[: nose - 4])
    assert skin[nose + 7 :].max() == 0 and mask[nose + 7 :].max() == 1


def test_dense_hair_is_followed_farther_than_what_is_only_a_little_darker(skin, mesh) -> None:
    """In a head thrown back the mesh ends above the chin."""
    mask = face_mask(mesh, 128)
    x, y = _level(skin.shape)
    beard = _oval(skin.shape, 0.075) & ~_oval(skin.shape, -0.10) & (y > 0.66)
    far = _rim(mask.shape, 0.058, 0.07)
    for hair, least, most in ((HAIR, 0.8, 1.0), ((0.70, 0.52, 0.43), 0.0, 0.55)):
        target = skin.copy()
        target[beard] = hair
        target[beard & _oval(skin.shape, 0.03)] = HAIR
        beyond = _beyond(skin, target, mask, mesh)
        assert least <= beyond[far].mean() <= most


def test_a_bright_wall_behind_the_head_is_not_pasted_over(skin, bearded, mesh) -> None:
    mask = face_mask(mesh, 128)
    wall, close = ~_oval(skin.shape, 0.03), _rim(mask.shape, 0.045, 0.06)
    white = bearded.copy()
    white[wall] = (0.86, 0.86, 0.80)
    beyond = _beyond(skin, white, mask, mesh)
    assert beyond[_rim(mask.shape, 0.0, 0.024)].min() > 0.8
    assert beyond[close].mean() < 0.5 * _beyond(skin, bearded, mask, mesh)[close].mean()


def test_a_beard_is_replaced_by_skin_in_full_light(skin, bearded, mesh) -> None:
    mask = face_mask(mesh, 128)
    x, y = _level(skin.shape)
    lit = skin.copy()
    there = (x > 0.55) & (y > 0.7)
    lit[there] = 0.25 * skin[there] + 0.75 * np.float32((0.97, 0.84, 0.68))
    lit[~_oval(skin.shape, 0.09)] = (0.80, 0.85, 0.65)
    beyond = _beyond(lit, bearded, mask, mesh)
    assert beyond[_rim(beyond.shape, 0.0, 0.02)].min() > 0.8


def test_a_dark_thing_on_a_bright_wall_is_not_taken_for_beard(skin, bearded, mesh) -> None:
    mask = face_mask(mesh, 128)
    x, y = _level(skin.shape)
    wall = bearded.copy()
    wall[~_oval(skin.shape, 0.03)] = (0.86, 0.86, 0.80)
    handle = wall.copy()
    handle[~_oval(skin.shape, 0.03) & (x > 0.5) & (np.abs(y - 0.72) < 0.02)] = HAIR
    plain, with_handle = (_beyond(skin, target, mask, mesh) for target in (wall, handle))
    side = ~_oval(mask.shape, 0.075)
    assert with_handle[side].max() < plain[side].max() + 0.2


def test_a_beard_is_replaced_where_the_new_jaw_is_narrower(skin, bearded, mesh) -> None:
    wall = np.float32((0.80, 0.85, 0.65))
    mask = face_mask(mesh, 128)
    target = np.where(_oval(skin.shape, 0.03)[..., None], bearded, wall).astype(np.float32)
    drawn = np.where(_oval(skin.shape, -0.02)[..., None], skin, wall).astype(np.float32)
    occluded = (~_oval(mask.shape, 0.03)).astype(np.float32)
    head = own_head(target, mask, mesh, occluded)
    assert head is not None and head.shape == (128, 128)
    assert head[_oval(mask.shape, 0.015)].min() > 0.9 and head[~_oval(mask.shape, 0.05)].max() < 0.1
    beard, errors = _rim(skin.shape, -0.005, 0.022), []
    for known in (None, head):
        mended = carry_skin_on(drawn, mask, mesh, head=known)
        beyond = _beyond(mended, target, mask, mesh, occluded=occluded)
        assert beyond is not None
        alpha = resize_map(np.maximum(resize_map(mask, 128), beyond), len(skin))[..., None]
        errors.append(np.abs(target + alpha * (mended - target) - skin)[beard].mean())
    assert errors[1] < 0.1 < errors[0]


def test_a_head_is_told_from_what_is_behind_it_by_the_occlusion_network(skin, mesh) -> None:
    mask = face_mask(mesh, 128)
    assert own_head(skin, mask, mesh, None) is None  # a dark wall looks like a beard
    assert own_head(skin, np.zeros_like(mask), mesh, np.zeros_like(mask)) is None
    assert wears_beard(None) and wears_beard(0.9) and not wears_beard(0.1)

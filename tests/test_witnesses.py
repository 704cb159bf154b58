"""What is in front of a face, asked once: its precision, what is there already, what other masks ask."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from vidswap.compositing import HeldOcclusion
from vidswap.compositing.arrays import resize_map
from vidswap.config import CompositeConfig, InversionConfig, RunConfig
from vidswap.glasses import in_one_piece, places_of_bridge, see_glasses
from vidswap.identities import to_image
from vidswap.landmarks import EYE_CORNERS
from vidswap.models.aligned_mesh import canonical_mesh
from vidswap.records import AlignedCrop, Face, Frame, Pivot, PixelLayout
from vidswap.session import Session
from vidswap.witnesses import (
    SeeOccluders,
    WatchOccluders,
    asks_redrawn,
    draw_mask,
    from_bytes,
    in_bytes,
)
from vidswap.works import SMALL_SIZE, FaceWork, Work

SQUARE = np.array([[0.0, 0.0], [0.0, 512.0], [512.0, 512.0], [512.0, 0.0]], np.float32)
CONFIG = RunConfig(device="cpu", threads=1, inversion=InversionConfig(encoder=False))


def test_what_was_rounded_once_is_kept_exactly() -> None:
    every = np.arange(256, dtype=np.uint8)
    values = from_bytes(every)
    assert values.dtype == np.float32 and values[0] == 0 and values[-1] == 1
    assert np.array_equal(in_bytes(values), every)
    assert np.array_equal(from_bytes(in_bytes(values)), values)


@pytest.fixture(scope="module")
def session(weights_home: Path) -> Session:
    return Session(CONFIG)


@pytest.fixture(scope="module")
def work(session: Session) -> Work:
    """A drawn face over whose middle lies a bar of another colour."""
    generator = session.generator
    code = generator.sample(11)[:, None].repeat(1, generator.n_styles, 1)
    with torch.no_grad():
        picture = to_image(generator.synthesize(code, size=512))
    picture[230:330, 120:400] = (0.1, 0.7, 0.2)
    mesh = canonical_mesh().numpy().astype(np.float32)
    mesh = (mesh - mesh.min(0)) / np.ptp(mesh, 0) * (0.5, 0.6, 0.3) + (0.25, 0.25, 0.0)
    crop = AlignedCrop(picture, SQUARE, mesh.astype(np.float32))
    face = Face(np.array([128, 128, 384, 448], np.float32), 1.0, np.zeros((5, 2), np.float32), track_id=0)
    made = FaceWork(
        face, SQUARE, None, crop=crop, small=resize_map(picture, SMALL_SIZE),
        solid=draw_mask(crop, CompositeConfig()), visible=np.ones((128, 128), np.float32),
        pivot=Pivot(code[0].numpy(), generator.identifier),
    )  # fmt: skip
    layout = PixelLayout("gray", 8, (0, 0), False, False, "tv", "bt709")
    frame = Frame(0, 0, Fraction(1, 25), layout, (np.zeros((512, 512), np.uint8),), (512, 512))
    return Work(frame, 0, (made,))


def test_witnesses_that_are_there_are_not_asked_again_and_say_the_same(
    session: Session, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    see = SeeOccluders(session)
    witnessed = see.witnessed(work)
    (face,) = witnessed.faces
    assert face.occluded[100, 96] > 0.8 and face.occluded[140, 96] < 0.2
    assert face.inversion.shape == (128, 128, 3)
    whole = see(work)
    for name in ("occluded", "inversion"):
        values = getattr(face, name)
        assert np.array_equal(from_bytes(in_bytes(values)), values), name

    def never(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("asked although it is kept")

    monkeypatch.setattr("vidswap.witnesses.with_occluders", never)
    monkeypatch.setattr("vidswap.witnesses._in_front", never)
    monkeypatch.setattr("vidswap.witnesses.redraw_target", never)
    again = see(witnessed)
    assert np.array_equal(again.faces[0].occluded, whole.faces[0].occluded)
    assert np.array_equal(again.faces[0].inversion, whole.faces[0].inversion)


def test_a_picture_that_another_mask_does_not_ask_is_not_heard(session: Session, work: Work) -> None:
    """Kept by a run that swapped the whole face: one that swaps what is not covered goes its own way."""
    see = SeeOccluders(session)
    kept = see.witnessed(work)
    low = np.zeros_like(work.faces[0].solid)
    low[400:420, 200:300] = 1.0
    bare = work.with_faces(replace(face, solid=low) for face in work.faces)
    fresh = see(bare)
    assert fresh.faces[0].inversion is None
    replayed = see(kept.with_faces(replace(face, solid=low) for face in kept.faces))
    assert replayed.faces[0].inversion is None
    assert np.array_equal(replayed.faces[0].occluded, fresh.faces[0].occluded)


def test_what_is_left_of_something_is_not_held_when_it_is_an_island(
    session: Session, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A background that touched a far cheek left a hole in it for a second."""
    (face,) = work.faces
    nothing = np.zeros((192, 192), np.float32)
    monkeypatch.setattr("vidswap.witnesses.see_things", lambda *_: nothing)
    monkeypatch.setattr("vidswap.witnesses.see_glasses", lambda *_: None)
    for side, stays in ((20, False), (60, True)):
        watch, evidence = WatchOccluders(session), nothing.copy()
        evidence[80 : 80 + side, 60 : 60 + side] = 1
        watch.held[0] = work.shot, HeldOcclusion(evidence, face.small, face.small)
        (held,) = watch(work).faces
        assert watch.held[0][1].evidence[88:92, 68:72].min() > 0.6
        assert bool(held.occluded[88:92, 68:72].min() > 0.95) is stays
        assert stays or held.occluded.max() < 0.05


def test_who_asks_for_the_target_redrawn(session: Session, work: Work) -> None:
    (face,) = SeeOccluders(session).witnessed(work).faces
    clear = replace(face, occluded=np.zeros_like(face.occluded))
    for options, covered, bare in (
        (CompositeConfig(), True, False),
        (CompositeConfig(occlusion_by="residual"), True, True),
        (CompositeConfig(occlusion_by="both"), True, True),
        (CompositeConfig(occlusion=False), False, False),
    ):
        other = Session(replace(CONFIG, composite=options))
        assert asks_redrawn(face, other) is covered, options
        assert asks_redrawn(clear, other) is bare, options


def drawn_frame(mesh: np.ndarray, *, tall: float = 0.06) -> np.ndarray:
    """Rims around the eyes of a mesh, joined over the nose, ``[192, 192]``."""
    y, x = (np.mgrid[:192, :192] + 0.5) / 192
    frames = np.zeros((192, 192), np.float32)
    for corners in EYE_CORNERS:
        cx, cy = mesh[list(corners), :2].mean(0)
        wide = 0.8 * np.ptp(mesh[list(corners), 0])
        ring = np.hypot((x - cx) / wide, (y - cy) / tall)
        frames[np.abs(ring - 1) < 0.12] = 1
    left, right = (mesh[list(corners), :2].mean(0) for corners in EYE_CORNERS)
    frames[(np.abs(y - left[1]) < 0.01) & (x > left[0] + wide) & (x < right[0] - wide)] = 1
    return frames


def test_frames_hang_together_with_their_bridge(work: Work) -> None:
    mesh = work.faces[0].crop.mesh
    frames = drawn_frame(mesh)
    places = places_of_bridge(mesh, 192)
    assert frames[places].max(1).mean() > 0.7
    strewn = frames.copy()
    strewn[8:12, 20:170] = 1  # hair
    np.testing.assert_array_equal(in_one_piece(strewn, places), frames)
    no_bridge = frames.copy()
    no_bridge[:, 88:104] = 0
    assert in_one_piece(no_bridge, (places[0][4:5], places[1][4:5])).max() == 0


def test_glasses_are_seen_whole_and_held_before_the_face(
    session: Session, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    (face,) = work.faces
    mesh = face.crop.mesh
    bare = face.crop.image.copy()
    bare[230:330, 120:400] = bare[200, 256]
    frames = drawn_frame(mesh)
    drawn = bare * (1 - 0.95 * resize_map(frames, 512))[..., None]
    seen, ones = {}, {}
    for name, picture in (("bare", bare), ("worn", drawn)):
        picture = picture.astype(np.float32)
        crop = replace(face.crop, image=picture)
        one = ones[name] = replace(face, crop=crop, small=resize_map(picture, SMALL_SIZE))
        seen[name] = see_glasses(crop, session)
        if name == "worn":
            watch = WatchOccluders(session)
            for _ in range(8):
                (watched,) = watch(work.with_faces([one])).faces
            assert watched.occluded[frames > 0].mean() > 0.6
            # The generator draws glasses too: that it explains them is no reason to drop them.
            explained = replace(watched, inversion=resize_map(picture, 128))
            (doubted,) = SeeOccluders(session).doubted(work.with_faces([explained])).faces
            assert doubted.occluded[frames > 0].mean() > 0.6
            # A frame in which none are seen does not take them off.
            monkeypatch.setattr("vidswap.witnesses.see_glasses", lambda *_: None)
            (unseen,) = watch(work.with_faces([one])).faces
            assert unseen.glasses[frames > 0].mean() > 0.5
            monkeypatch.undo()
    # A finger across the nose of a bare face looks like a bridge for some frames; then somebody put them on.
    watch = WatchOccluders(session)
    for name, frames_of_it, wears in (("bare", 6, False), ("worn", 4, False), ("worn", 8, True)):
        for _ in range(frames_of_it):
            (watched,) = watch(work.with_faces([ones[name]])).faces
        assert (watched.glasses is not None) == wears
    assert seen["bare"] is None
    assert seen["worn"].shape == (192, 192) and seen["worn"][frames > 0].mean() > 0.6
    for corners in EYE_CORNERS:  # the eyes behind clear lenses are not covered
        x, y = (mesh[list(corners), :2].mean(0) * 192).astype(int)
        assert seen["worn"][y - 3 : y + 3, x - 6 : x + 6].mean() < 0.2

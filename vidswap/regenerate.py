"""Stage: the new face, mixed, steered and drawn (composer level)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch

from vidswap.cache import JSON
from vidswap.compositing import (
    Glance,
    MotionState,
    Placement,
    bare_forehead,
    beard_beyond,
    carry_jaw_on,
    carry_skin_on,
    face_mask,
    follow,
    forehead_mask,
    own_head,
    steady_mask,
    wears_beard,
)
from vidswap.config import RunConfig
from vidswap.geometry import quad_size_px
from vidswap.identities import network_keys, to_image
from vidswap.landmarks import LEFT_EYE, MOUTH, RIGHT_EYE, keypoints_from_mesh
from vidswap.mixing import Response, Steering, refine_source
from vidswap.mixing.directions import edit
from vidswap.models import TILES
from vidswap.models.aligned_mesh import AlignedMesh
from vidswap.records import Face, Swap
from vidswap.reports import Log, quiet
from vidswap.session import Session
from vidswap.witnesses import CROP_SIZE, uncovered
from vidswap.works import FaceWork, Work, of_shot

_ROOM = 3
"""Tiles around the mask that are drawn as well."""
_NECK_ROOM = 11
"""Tiles drawn below it: a beard of the target is replaced as far as it hangs."""
_STEP = 4
"""Windows begin and end at multiples of so many tiles. Of pictures of ever new sizes the heap keeps pieces
that fit nothing: drawing 140 windows took 760 MB more, with this 130."""
_SURE_FACE = 0.8
"""Presence from which the mesh of a drawn face is believed."""
_SLACK = 10.0
"""Pixels of a 1024 crop by which the drawn face's mask may be larger than its outline."""
_HALVE_BELOW = 0.6
"""Quads smaller than this share of the generator's size are worked on at half of it."""
_REDRAWN = 2
"""Times that a face is drawn anew, at most, whose mouth came out otherwise than foreseen."""
_LATER = ({"yaw": 1.0, "pitch": -0.6}, {"yaw": -1.0, "pitch": 0.6}, {"mouth": 2.0})
"""Steps along directions from where a track begins, for which a source is refined as well: 10 to 16 degrees,
and a mouth that opens wide. (One that opens while the head turns cost 0.05 of identity on some pairs.)"""
_REFINED, _REFINED_VERSION = "refined", 17
_REFINED_BY = (
    "dlib-resnet", "directions", "facemesh-torch", "iris-torch", "lips-features", "lips-points", "rgb-heads",
    "second-identity",
)  # fmt: skip
"""Networks that refining looks through, besides generator and mixer."""
_LIP_EDGE = 12.0
"""Pixels of a 1024 crop inside the lips that count in part only. With what lies around the lips as well, the
target's beard came into the new face."""
_COVERED = 0.3
"""Share of a part's landmarks that may be covered."""


@dataclass(frozen=True)
class _Steered:
    """How one face of a frame is steered; ``[D]`` along the directions."""

    steering: Steering
    wanted: np.ndarray
    """Measures of the target, and what is edited: that is meant to differ from it."""
    hidden: np.ndarray | None
    """Which of them are not to be believed."""
    steps: np.ndarray


@dataclass(frozen=True)
class _Sight:
    """A drawn face."""

    image: np.ndarray
    """``[S, S, 3]``."""
    face: Face | None
    """As found in it; None where it is not to be believed."""
    measures: np.ndarray | None = None
    """``[D]`` along the directions."""


@dataclass
class Regenerate:
    """Stage: mix with the source and draw the new face."""

    session: Session
    doing: Log = quiet
    """Told what takes longer than a frame."""
    refined: dict[tuple[int, str], torch.Tensor] = field(default_factory=dict)
    """Source codes refined for a track, by track and source."""
    steered: dict[int, tuple[int, np.ndarray, Response]] = field(default_factory=dict)
    """Shot, steps along the steering's directions and what was learnt of mouth and eyes, a track."""

    def __post_init__(self) -> None:
        self._mesher = self.session.new_mesher()  # no field: fields are saved with a run

    @property
    def config(self) -> RunConfig:
        return self.session.config

    def __call__(self, work: Work) -> Work:
        for face in work.faces:
            self.refine(face)
            self._begin_steering(face, work.shot)
        with torch.no_grad():
            return self._drawn(work)

    def is_refined(self, face: FaceWork) -> bool:
        """Whether the face's source was refined for its track."""
        return (face.face.track_id, face.source.name) in self.refined

    def refine(self, face: FaceWork) -> None:
        """Refine the source for a face's track by its pivot, unless that was done by one before."""
        if self.is_refined(face):
            return
        key = (face.face.track_id, face.source.name)
        what = f"fitting {face.source.name} to person {key[0]} (once; then it is cached)"
        self.refined[key] = refined_code(
            self.session, face.source.code, face.source.embedding, self._target(face),
            doing=lambda: self.doing(what),
        )  # fmt: skip

    def _begin_steering(self, face: FaceWork, shot: int) -> None:
        """Amounts for the first frame of a track, and after a cut."""
        session, steering, track = self.session, self._steering, face.face.track_id
        if steering is None or self.steered.get(track, (None,))[0] == shot:
            return
        with torch.no_grad():
            mixed = self._mixed(face)
        begun = steering.begin(mixed, self._target(face), _measured_by(session), session.edits)
        self.steered[track] = (shot, *begun)

    def _target(self, face: FaceWork) -> torch.Tensor:
        """The target's pivot ``[1, n_styles, 512]``."""
        return torch.from_numpy(face.pivot.latent)[None].to(self.session.device)

    def _mixed(self, face: FaceWork) -> torch.Tensor:
        """The code ``[1, n_styles, 512]`` of the new face, edited but not steered."""
        session = self.session
        source = self.refined[(face.face.track_id, face.source.name)]
        mixed = session.mixer(source, self._target(face), self.config.mix.strength)
        return mixed if session.directions is None else edit(mixed, session.edits, session.directions)

    def _steering_now(self, face: FaceWork) -> _Steered | None:
        """How this frame is steered."""
        steering = self._steering
        if steering is None:
            return None
        _, amounts, response = self.steered[face.face.track_id]
        wanted, hidden = self._wanted(face, steering)
        wanted = wanted + steering.amounts_of(self.session.edits)
        steps = self._steering_share * steering.with_quick(amounts, response, wanted, hidden)
        return _Steered(steering, wanted, hidden, steps)

    def _wanted(self, face: FaceWork, steering: Steering) -> tuple[np.ndarray, np.ndarray | None]:
        """Measures ``[D]`` of the target, and which of them are not to be believed."""
        wanted, hidden = steering.wanted(face.crop.mesh), covered_measures(face, steering.names)
        if hidden is None or not hidden.any() or face.inversion is None:
            return wanted, hidden
        # The inversion shows what goes with the part that is seen. Neither witness is good: a mouth behind
        # fingers was read as shut that was open, and inverted twice as far open as it was.
        redrawn = self._face_drawn(face.inversion, face)
        if redrawn is None:
            return wanted, hidden
        beneath = steering.wanted(redrawn.mesh / face.inversion.shape[0])
        return np.where(hidden, (wanted + beneath) / 2, wanted), None

    @property
    def _steering(self) -> Steering | None:
        """None where drawn faces are not steered."""
        return self.session.steering if self._steering_share > 0 else None

    @property
    def _steering_share(self) -> float:
        return self.config.mix.steering * self.config.mix.strength

    def _steer_on(self, track: int, sight: _Sight, now: _Steered) -> None:
        """The drawn face says how the next frame's is steered."""
        if sight.measures is None:
            return
        steering, hidden, answered = now.steering, now.hidden, sight.measures
        shot, amounts, response = self.steered[track]
        response = steering.learnt(response, now.wanted, answered, now.steps, hidden)
        amounts = steering.follow(amounts, now.wanted - answered, hidden)
        self.steered[track] = shot, amounts, response

    def _drawn(self, work: Work) -> Work:
        made = []
        for face in work.faces:
            mixed = self._mixed(face)
            steered = self._steering_now(face)
            sight = self._sight(mixed, face, steered)
            if steered is not None:
                sight, steered = self._mouth_mended(mixed, face, sight, steered)
                self._steer_on(face.face.track_id, sight, steered)
            swap = Swap(sight.image, face.solid, face.quad, face.face.track_id)
            made.append(replace(face, swap=swap, drawn=sight.face))
        return work.with_faces(made)

    def _sight(self, code: torch.Tensor, face: FaceWork, steered: _Steered | None) -> _Sight:
        """Draw a code and look at it."""
        if steered is not None:
            code = steered.steering.apply(code, steered.steps)
        image = self._draw(code, face.solid, quad_size_px(face.quad))
        drawn = self._face_drawn(image, face)
        if steered is None or drawn is None:
            return _Sight(image, drawn)
        return _Sight(image, drawn, steered.steering.measures(drawn.mesh / image.shape[0]))

    def _mouth_mended(
        self, code: torch.Tensor, face: FaceWork, sight: _Sight, steered: _Steered
    ) -> tuple[_Sight, _Steered]:
        """A face whose mouth came out otherwise than foreseen is drawn anew; the best one is taken."""
        if sight.measures is None:
            return sight, steered
        steering, wanted = steered.steering, steered.wanted
        sights, known = [sight], [(steered.steps, sight.measures)]
        while len(sights) <= _REDRAWN:
            steps = steering.redraw(known, wanted, steered.hidden)
            if steps is None:
                break
            again = self._sight(code, face, replace(steered, steps=steps))
            if again.measures is None:
                break
            sights.append(again)
            known.append((steps, again.measures))
        best = int(np.argmin([abs(steering.mouth_miss(wanted, measures)) for _, measures in known]))
        return sights[best], replace(steered, steps=known[best][0])

    def _draw(self, code: torch.Tensor, mask: np.ndarray, quad_px: float) -> np.ndarray:
        """The new face ``[S, S, 3]``; what lies far outside the mask repeats the edge.

        S is the generator's size, halved where the frame shows the face smaller than that anyway.
        """
        generator = self.session.generator
        halve = quad_px < _HALVE_BELOW * generator.resolution
        size = generator.resolution // 2 if halve else generator.resolution
        window = drawn_window(mask, self.config)
        if window is None:
            return np.zeros((size, size, 3), np.float32)
        part = to_image(generator.synthesize(code, size=size, window=window))
        left, top, right, bottom = (edge * size // TILES for edge in window)
        # Channel by channel in memory, as all that follows reads it.
        around = ((0, 0), (top, size - bottom), (left, size - right))
        return np.pad(part.transpose(2, 0, 1), around, mode="edge").transpose(1, 2, 0)

    def _face_drawn(self, image: np.ndarray, face: FaceWork) -> Face | None:
        """Mesh of the new face, in pixels of ``image``; None where it is not to be believed."""
        start = face.crop.mesh * image.shape[0]
        found = self._mesher.refine(
            (image * 255 + 0.5).astype(np.uint8, order="C"),
            Face(
                np.array([*start[:, :2].min(0), *start[:, :2].max(0)], np.float32),
                1.0,
                keypoints_from_mesh(start).astype(np.float32),
                start.astype(np.float32),
            ),
        )
        return found if found.score >= _SURE_FACE else None


@dataclass
class SeatFaces:
    """Stage: move the drawn face to where it belongs, and find out which part of it is used."""

    config: RunConfig
    beards: dict[int, tuple[int, float]] = field(default_factory=dict)
    """Shot, and how much of the chin is hair that the new face has not, a track."""
    motion: dict[int, tuple[int, MotionState, int]] = field(default_factory=dict)
    """Shot, where the new face was placed, and in which frame, a track."""

    def __call__(self, work: Work) -> Work:
        with torch.no_grad():
            return work.with_faces([self._seated(face, work) for face in work.faces])

    def _seated(self, face: FaceWork, work: Work) -> FaceWork:
        image, whole_face = face.swap.image, self.config.composite.regions == "face"
        before = self._before(face, work)
        placement = self._follow(image, face.drawn, face, before, work)
        image, drawn = self._placed(image, face.drawn, face, placement)
        solid = np.minimum(face.solid, self._new_face_mask(drawn, image.shape[0], face))
        glances = Glance(image), Glance(face.crop.image)
        if whole_face:
            mesh = face.crop.mesh
            solid = solid * bare_forehead(*glances, solid, mesh)
            bearded = wears_beard(of_shot(self.beards, face.face.track_id, work.shot))
            head = own_head(glances[1], solid, mesh, face.occluded) if bearded else None
            image = carry_skin_on(image, solid, mesh, glance=glances[0], head=head)
            image = carry_jaw_on(
                image, glances[1], solid, mesh, glance=glances[0].again(image), occluded=face.occluded
            )
        solid = self._steady_mask(solid, face, placement, before)
        swap = replace(face.swap, image=image, mask=solid)
        face = replace(face, swap=swap, solid=solid, drawn=drawn)
        return replace(face, beyond=self._beard(face, work.shot, glances)) if whole_face else face

    def _before(self, face: FaceWork, work: Work) -> MotionState | None:
        """What is remembered of the frame before; None where the face was not seen in it."""
        shot, state, index = self.motion.get(face.face.track_id, (None, None, 0))
        return state if shot == work.shot and work.frame.index - index == 1 else None

    def _follow(
        self, image: np.ndarray, drawn: Face | None, face: FaceWork, before: MotionState | None, work: Work
    ) -> Placement | None:
        """How the drawn face is moved to where it belongs on the target's head; None leaves it there."""
        smooth = self.config.smooth
        if smooth.motion <= 0:
            return None
        seen = uncovered(face, torch.device("cpu"))[0, 0].numpy()
        placement, state = follow(
            image, None if drawn is None else drawn.mesh[:, :2] / image.shape[0],
            face.small, face.crop.mesh[:, :2], seen, before,
            frames=smooth.motion, shade=smooth.shade,
        )  # fmt: skip
        self.motion[face.face.track_id] = work.shot, state, work.frame.index
        return placement

    def _placed(
        self, image: np.ndarray, drawn: Face | None, face: FaceWork, placement: Placement | None
    ) -> tuple[np.ndarray, Face | None]:
        """The picture and its mesh, moved."""
        window = drawn_window(face.solid, self.config)
        if placement is None or window is None:
            return image, drawn
        size = image.shape[0]
        left, top, right, bottom = (edge * size // TILES for edge in window)
        image = placement.moved(image, np.s_[top:bottom, left:right])
        if drawn is not None:
            mesh = placement.moved_points(drawn.mesh / size) * size
            drawn = replace(drawn, mesh_xyz=mesh.astype(np.float32))
        return image, drawn

    def _new_face_mask(self, drawn: Face | None, size: int, face: FaceWork) -> np.ndarray:
        """Mask ``[512, 512]`` of the face as drawn: in a turned head its far cheek may end before the
        target's does, and what lies behind it in the generator's picture must not be pasted."""
        options = self.config.composite
        if drawn is None or options.regions != "face":
            return np.ones_like(face.solid)
        return face_mask(
            drawn.mesh / size, CROP_SIZE, erode=options.erode - _SLACK, feather=options.feather
        )

    def _steady_mask(
        self, solid: np.ndarray, face: FaceWork, placement: Placement | None, before: MotionState | None
    ) -> np.ndarray:
        if placement is None:
            return solid
        solid, small = steady_mask(solid, placement, before, frames=self.config.smooth.mask)
        shot, state, index = self.motion[face.face.track_id]
        self.motion[face.face.track_id] = shot, replace(state, mask=small), index
        return solid

    def _beard(self, face: FaceWork, shot: int, glances: tuple[Glance, Glance]) -> np.ndarray | None:
        """Where the target's beard hangs over the mask ``[128, 128]``; a glance of the new face's picture may
        be from before it was mended."""
        crop, track, image = face.crop, face.face.track_id, face.swap.image
        beyond, share = beard_beyond(
            glances[0].again(image), glances[1], face.solid, crop.mesh,
            occluded=face.occluded, share=of_shot(self.beards, track, shot),
        )  # fmt: skip
        self.beards[track] = shot, share
        return beyond


def refined_code(
    session: Session,
    code: torch.Tensor,
    embedding: torch.Tensor,
    target: torch.Tensor,
    *,
    doing: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """A source's code ``[1, n_styles, 512]`` refined for a track, as the settings say; see
    :func:`vidswap.mixing.refine_source`. It takes longer than many frames, so it is kept in the cache.

    :param embedding: ``[1, 128]`` of the source. :param target: ``[1, n_styles, 512]`` pivot of the track.
    :param doing: called before it is begun, unless it was in the cache.
    """
    mix = session.config.mix
    if mix.refine_steps <= 0 or mix.strength <= 0:
        return code
    key = _refined_key(session, code, embedding, target)
    found = session.cache.get(_REFINED, key)
    if found is not None:
        return torch.from_numpy(found["code"]).to(code.device)
    doing()
    with session.alone():  # the stages after this one wait for it, and those before it soon will
        refined = _refined(session, code, embedding, target)
    session.cache.put(_REFINED, key, {"code": refined.cpu().numpy()})
    return refined


def _refined_key(session: Session, *tensors: torch.Tensor) -> dict[str, JSON]:
    """All that a refined code depends on."""
    mix, networks = session.config.mix, (f"mixer-{session.mixer.name}", *_REFINED_BY)
    digests = [hashlib.sha256(each.float().cpu().numpy().tobytes()).hexdigest() for each in tensors]
    return {
        "version": _REFINED_VERSION,
        "codes": digests,
        "generator": session.generator.identifier,
        "networks": network_keys(networks),
        "mixer": [session.mixer.name, mix.layers if session.mixer.name == "layers" else None],
        "steps": [mix.refine_steps, mix.refine_full_steps],
        "likeness": mix.likeness if session.second_identity is not None else 0.0,
        "calm": mix.calm if session.steering is not None else 0.0,
        "steering": session.steering is not None,
        "fast_size": session.config.inversion.fast_size,
        "device": session.device.type,
        "precision": session.precision,
    }


def _refined(
    session: Session, code: torch.Tensor, embedding: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    mix = session.config.mix
    code, embedding = calm_source(session, code, embedding)
    targets = _as_seen_later(session, target)
    refine = partial(
        refine_source, session.generator, session.identity, session.mixer,
        embedding=embedding, targets=targets, shape=session.meshes.kept_shape,
        irises=partial(_irises, session.meshes), lips=partial(_between_lips, session.meshes),
        forehead=partial(_forehead, session.meshes),
        unlike=_unlike(session, code), unlike_weight=mix.likeness,
    )  # fmt: skip
    fast = refine(source=code, steps=2 * mix.refine_steps, size=session.config.inversion.fast_size)
    if mix.refine_full_steps <= 0:
        return fast.code
    return refine(source=fast.code, steps=mix.refine_full_steps, size=session.generator.resolution // 2).code


def _unlike(session: Session, code: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """How unlike a source's code ``[1, n_styles, 512]`` images are, as the second identity network has it."""
    network, generator = session.second_identity, session.generator
    if network is None:
        return None
    with torch.no_grad():
        wanted = network.embed_aligned(generator.synthesize(code, size=generator.resolution // 2))
    return lambda images: 1 - (network.embed_aligned(images) * wanted).sum(1)


def _irises(meshes: AlignedMesh, images: torch.Tensor) -> torch.Tensor:
    return meshes(images)[2]


def _between_lips(meshes: AlignedMesh, image: torch.Tensor) -> torch.Tensor:
    """What lies between the lips, ``[1, 1, 128, 128]`` in [0, 1]."""
    within = partial(face_mask, size=128, regions="inner-mouth", feather=_LIP_EDGE)
    return _seen_in(meshes, image, within)


def _forehead(meshes: AlignedMesh, image: torch.Tensor) -> torch.Tensor:
    """Its forehead, ``[1, 1, 256, 256]`` in [0, 1]."""
    return _seen_in(meshes, image, partial(forehead_mask, size=256))


def _seen_in(
    meshes: AlignedMesh, image: torch.Tensor, part: Callable[[np.ndarray], np.ndarray]
) -> torch.Tensor:
    """A part of the face in an image ``[1, 3, S, S]``, as a mask drawn for its mesh, ``[1, 1, n, n]``."""
    mesh = meshes(image)[0][0].cpu().numpy()
    return torch.from_numpy(part(mesh))[None, None].to(image.device)


@torch.no_grad()
def calm_source(
    session: Session, code: torch.Tensor, embedding: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A source without the smile and the open mouth of its photo: code ``[1, n_styles, 512]``, embedding
    ``[1, 128]``.

    A smile moves the embedding by about a third of what lies between two people. So a face that is refined to
    look like a smiling photo smiles, whatever the target does.
    """
    generator, steering, share = session.generator, session.steering, session.config.mix.calm
    if steering is None or share <= 0:
        return code, embedding
    amounts = steering.calming(code, generator.w_avg.expand_as(code), _measured_by(session))
    calm = steering.apply(code, amounts, share)
    size = generator.resolution // 2
    seen = [session.identity.embed_aligned(generator.synthesize(each, size=size)) for each in (code, calm)]
    moved = embedding + seen[1] - seen[0]
    return calm, moved * (embedding.norm() / moved.norm())


def _measured_by(session: Session) -> Callable[[torch.Tensor], torch.Tensor]:
    """What gives the measures ``[8]`` of a code's face."""
    generator, size = session.generator, session.config.inversion.fast_size
    return lambda code: session.meshes.measures(generator.synthesize(code, size=size))[0]


def _as_seen_later(session: Session, target: torch.Tensor) -> list[torch.Tensor]:
    """Codes that a track may come to: the source must not be refined for its first frame alone."""
    # The same head at rest: not only the expression that the track happens to begin with.
    codes = [target, torch.lerp(target, session.generator.w_avg.expand_as(target), 0.5)]
    if session.directions is not None:
        codes += [edit(target, later, session.directions) for later in _LATER]
    return codes


def drawn_window(mask: np.ndarray, config: RunConfig) -> tuple[int, int, int, int] | None:
    """Tiles of the picture that are drawn for a mask; None when it is empty.

    The neck is drawn where a whole face is swapped: it is needed as far as a beard hangs.
    """
    return mask_window(mask, below=_NECK_ROOM if config.composite.regions == "face" else _ROOM)


def mask_window(mask: np.ndarray, *, below: int = _ROOM) -> tuple[int, int, int, int] | None:
    """Tiles of the picture that a mask needs, with room for blurs; None when it is empty.

    :param below: tiles of room under the mask.
    """
    # Rows and columns at once: numpy is slow at maxima of the few pixels of a tile.
    rows, columns = (np.flatnonzero(mask.max(axis).reshape(TILES, -1).max(1) > 0) for axis in (1, 0))
    if not len(rows):
        return None
    left, top = (max(int(tiles[0]) - _ROOM, 0) // _STEP * _STEP for tiles in (columns, rows))
    right, bottom = (
        min(-(-(int(tiles[-1]) + 1 + room) // _STEP) * _STEP, TILES)
        for tiles, room in ((columns, _ROOM), (rows, below))
    )
    return left, top, right, bottom


_SEEN_BY = {"mouth": MOUTH, "smile": MOUTH, "eyes": (*LEFT_EYE, *RIGHT_EYE)}
"""Landmarks that a measure is read from; the whole face when a measure is not named."""


def covered_measures(face: FaceWork, names: Sequence[str]) -> np.ndarray | None:
    """Which measures ``[D]`` are not to be believed, because something is in front of their landmarks."""
    if face.occluded is None or face.crop.mesh_xyz is None:
        return None
    size = face.occluded.shape[0]
    x, y = np.clip((face.crop.mesh_xyz[:, :2] * size).astype(int), 0, size - 1).T
    cover = face.occluded[y, x]
    parts = [_SEEN_BY.get(name, tuple(range(len(cover)))) for name in names]
    return np.array([cover[list(part)].mean() > _COVERED for part in parts])

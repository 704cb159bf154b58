"""Refining a source for the faces it is put on.

What an inversion of a photo loses of the person, and what the mixer loses of the inversion, can be won
back once a track: the source's code is moved, by a few steps through the frozen mixer and generator, so
that the mixed faces are closer to the photo itself in the identity network, and stay what they were
elsewhere. The mixer still decides what of the source is used, so pose and light remain the target's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from vidswap.mixing.mixers import Mixer
from vidswap.models import Generator
from vidswap.models.identity import DlibIdentity
from vidswap.models.rgb_head import area_downsample

_Part = tuple[tuple[float, float], tuple[float, float]]
_EYE_BAND = ((0.455, 0.515), (0.28, 0.72))
"""Rows and columns of an aligned crop, without the brows."""
_CHEEKS = ((0.54, 0.66), (0.3, 0.7))
_EYES_WEIGHT = 8.0
_BRIGHTER, _ABOVE_SKIN = 0.08, 0.0
"""By how much eyes may become brighter, of 2, and how they may lie to the skin's brightness anyway. Bright
eyes in a dark face are part of whom the network sees, and of a source with narrow eyes it sees little else
than that they are not dark. On another face they would glow."""
_GREENER = 0.04
"""Excess of green over red and blue, of 2, that eyes may have anyway: bound in brightness alone they became
green. (Bound in each colour, the light moved to the lids.)"""
_IRIS = 1.1
"""Radii of an iris within which eyes may not come as near to the skin: dark ones turned into pale blue ones
with broken glints."""
_DARKER = 0.1
"""By how much eyes may become darker: bound in brightness alone, they were ringed with black."""
_MOUTH_WEIGHT = 0.5
"""Of the difference to the target's picture between the lips, where there are teeth or the dark and little
that says who it is. With a laughing photo and a target that forms an O, the swap bared its upper teeth; with
this the mouth's opening was 0.008 off instead of 0.011."""
_SEED = 3
"""Of the views."""
_SHIFT, _NEARER, _TURN = 0.03, 0.05, 4.0
"""By how much a view may be moved, in half sides of the picture, scaled and turned, in degrees."""
_FACE_MIDDLE = (0.006, 0.209)
"""What views turn about, in [-1, 1]: the middle of dlib's chip."""
_VIEW_SIDE = 256
_FOREHEAD_WEIGHT, _FOREHEAD_ROOM = 16.0, 100.0
"""Of what is darker on a forehead than the skin around it and than the target's own. A photo with a fringe,
or with the bridge of glasses, is matched by strands on the forehead and by brows that meet."""
_LINE = 0.04
"""By how much, of 2, the skin may be darker there than around and than the target's: wrinkles."""
_ASIDE = 9
"""Pixels of 256 within which the target's own wrinkles and hair may lie elsewhere."""
_FOREHEAD_SIDE, _COARSER, _AROUND = 256, 4, 15
"""Side of the pictures that are compared, and what is around a pixel, in pixels of a quarter of it. (With the
middle of the whole forehead instead, faces were lit from within where the target's hair lies in the mask.)"""
_MOUTH_ROOM = 100.0
"""Values added to those between the lips: a mouth that is all but shut has little say."""


@dataclass(frozen=True)
class Refined:
    """A refined source."""

    code: Tensor
    """``[1, n_styles, 512]``."""
    distance_before: float
    distance_after: float
    """Mean identity distance (L2) of views of the mixed faces to the photo, in the first and in the last
    round of the targets."""


def refine_source(
    generator: Generator,
    identity: DlibIdentity,
    mixer: Mixer,
    source: Tensor,
    embedding: Tensor,
    targets: Sequence[Tensor],
    *,
    steps: int,
    learning_rate: float = 0.05,
    keep: float = 0.6,
    hold: float = 0.05,
    near: float = 0.16,
    size: int = 128,
    shape: Callable[[Tensor], Tensor] | None = None,
    shape_weight: float = 4.0,
    irises: Callable[[Tensor], Tensor] | None = None,
    lips: Callable[[Tensor], Tensor] | None = None,
    forehead: Callable[[Tensor], Tensor] | None = None,
    unlike: Callable[[Tensor], Tensor] | None = None,
    unlike_weight: float = 0.0,
) -> Refined:
    """Move a source's code closer to the person of the photo, as seen through the mixer.

    :param source: ``[1, n_styles, 512]``. :param embedding: ``[1, 128]`` of the photo.
    :param targets: ``[1, n_styles, 512]`` codes of the track, one or a few; each step looks at the next one.
    :param learning_rate: of the first step, in units of W's mean standard deviation; falls to a fifth.
    :param keep: weight of the difference to the unrefined faces, in the means of 16 x 16 blocks.
    :param size: side of the pictures that are looked at. What the cheap path at 128 px gains is only in part
        there in the full picture: on frames of a talking head, refined for its first one, identity was 0.38
        by the path and 0.44 by full pictures, and 0.33 after 12 further steps by these.
    :param shape: what must stay the target's (pose, expression, ...): images ``[1, 3, size, size]`` to
        ``[1, K]``; compared with the target's own pictures, so it also mends what the mixer got wrong.
    :param shape_weight: weight of the mean difference of those. On four pairs, 8 steps: without it pose
        4.5 degrees and identity 0.33 (dlib, at 1024 px), at weight 10 pose 1.0 and identity 0.39.
    :param irises: images to the irises ``[1, 2, 5, 2]`` in them, which may not become pale; see
        :class:`vidswap.models.aligned_mesh.AlignedMesh`.
    :param lips: images to what lies between the lips in them, ``[1, 1, 128, 128]`` in [0, 1]; there the face
        is to look like the target's.
    :param forehead: images to the forehead in them, ``[1, 1, 256, 256]`` in [0, 1], with what lies between
        the brows; nothing may be drawn on it that is darker than its skin and not on the target's.
    :param unlike: what a second identity network makes of images, ``[1]``: 0 for the source itself, 1 for a
        stranger. What is gained by one network alone is in part there for no other one.
    :param hold: weight of the distance of the code from where it was.
    :param near: identity distance that is near enough; two photos of one person are 0.35 apart, and what is
        gained below that is beards and wrinkles that only the network sees.
    """
    if not targets:
        raise ValueError("targets: expected at least one code, got none")
    code = source.detach().clone().requires_grad_(True)
    scale = float(generator.w_std)
    optimizer = torch.optim.Adam([code], lr=learning_rate * scale, betas=(0.9, 0.95))
    seen = {"shape": shape, "irises": irises, "lips": lips, "forehead": forehead}
    asked = [_asked(generator, mixer, source, target, **seen) for target in targets[:steps]]
    distances = []
    random = torch.Generator().manual_seed(_SEED)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * scale * (1 - 0.8 * step / max(steps - 1, 1))
        target, kept = targets[step % len(targets)], asked[step % len(targets)]
        image = generator.synthesize(mixer(code, target), size=size)
        view = _another_view(image, random)
        away = (identity.embed_aligned(view) - embedding).norm()
        distances.append(float(away.detach()))
        loss = (away - near).clamp_min(0).square() + keep * functional.l1_loss(_blocks(image), kept.blocks)
        if unlike is not None:
            loss = loss + unlike_weight * unlike(view).mean()
        loss = loss + hold * ((code - source) / scale).square().mean()
        beyond = (_glow(_colours(image, _EYE_BAND)) - kept.eyes).clamp_min(0).sum(1)
        loss = loss + _EYES_WEIGHT * beyond.mean()
        if shape is not None and kept.shape is not None:
            loss = loss + shape_weight * functional.smooth_l1_loss(shape(image), kept.shape, beta=0.02)
        if kept.within is not None:
            off = (area_downsample(image, 128) - kept.target).abs() * kept.within
            loss = loss + _MOUTH_WEIGHT * off.sum() / (3 * kept.within.sum() + _MOUTH_ROOM)
        if kept.forehead is not None:
            where, least = kept.forehead
            drawn_on = (least - _relief(image, where)).clamp_min(0) * where
            loss = loss + _FOREHEAD_WEIGHT * drawn_on.sum() / (where.sum() + _FOREHEAD_ROOM)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    ends = distances[: len(targets)], distances[-len(targets) :]
    return Refined(code.detach(), *(sum(end) / max(len(end), 1) for end in ends))


@dataclass(frozen=True)
class _Asked:
    """What is asked of the face on one target, by the cheap path."""

    target: Tensor
    """The target's own picture, ``[1, 3, 128, 128]``."""
    blocks: Tensor
    """The mixed picture before refining, in blocks."""
    eyes: Tensor
    """How bright, green and dark its eyes may be, ``[1, 3, h, w]``; see :func:`_glow`."""
    shape: Tensor | None
    """The target's."""
    within: Tensor | None
    """What lies between the target's lips, ``[1, 1, 128, 128]``."""
    forehead: tuple[Tensor, Tensor] | None
    """The target's, and the least relief of its skin (see :func:`_relief`), ``[1, 1, 256, 256]`` each."""


@torch.no_grad()
def _asked(
    generator: Generator,
    mixer: Mixer,
    source: Tensor,
    target: Tensor,
    shape: Callable[[Tensor], Tensor] | None = None,
    irises: Callable[[Tensor], Tensor] | None = None,
    lips: Callable[[Tensor], Tensor] | None = None,
    forehead: Callable[[Tensor], Tensor] | None = None,
) -> _Asked:
    mixed, own = (generator.synthesize(code, size=128) for code in (mixer(source, target), target))
    bare = None
    if forehead is not None:
        where = forehead(own)
        relief = _relief(generator.synthesize(target, size=_FOREHEAD_SIDE), where)
        bare = where, -functional.max_pool2d(-relief, _ASIDE, 1, _ASIDE // 2) - _LINE
    light, green, dark = _glow(_colours(mixed, _EYE_BAND)).split(1, 1)
    skin = _glow(_colours(mixed, _CHEEKS))[:, :1].mean() + _ABOVE_SKIN
    allowed = light + _BRIGHTER
    anyway = torch.maximum(allowed, skin)
    if irises is not None:
        anyway = torch.where(_within(irises(mixed)), allowed, anyway)
    return _Asked(
        own,
        _blocks(mixed),
        torch.cat((anyway, green.clamp_min(_GREENER), dark + _DARKER), 1),
        None if shape is None else shape(own),
        None if lips is None else lips(own),
        bare,
    )


def _relief(image: Tensor, forehead: Tensor) -> Tensor:
    """By how much a picture is brighter than the forehead around a pixel, ``[1, 1, 256, 256]``."""
    if image.shape[-1] > _FOREHEAD_SIDE:
        image = area_downsample(image, _FOREHEAD_SIDE)
    elif image.shape[-1] < _FOREHEAD_SIDE:
        image = functional.interpolate(image, size=(_FOREHEAD_SIDE,) * 2, mode="bilinear")
    light = image.mean(1, keepdim=True)
    return light - _around(light * forehead) / _around(forehead).clamp_min(1e-3)


def _around(values: Tensor) -> Tensor:
    """Means of what is around each pixel, at a quarter of the size: at the full one they took as long as all
    else of a step."""
    small = functional.avg_pool2d(values, _COARSER)
    wide = functional.avg_pool2d(small, _AROUND, 1, _AROUND // 2)
    return functional.interpolate(wide, scale_factor=_COARSER, mode="bilinear")


def _within(irises: Tensor) -> Tensor:
    """The part of the band of the eyes that irises ``[1, 2, 5, 2]`` take, ``[1, 1, h, w]``."""
    axis = (torch.arange(128, device=irises.device) + 0.5) / 128
    rows, columns = _span(_EYE_BAND)
    places = torch.stack(torch.meshgrid(axis[columns], axis[rows], indexing="xy"), -1)
    centres, edges = irises[0, :, :1], irises[0, :, 1:]
    radii = _IRIS * (edges - centres).norm(dim=-1).mean(1)
    away = (places[None] - centres[:, None]).norm(dim=-1)
    return (away < radii[:, None, None]).any(0)[None, None]


def _another_view(image: Tensor, random: torch.Generator) -> Tensor:
    """The face as another picture might show it: a little moved, nearer, turned, mirrored half of the time.

    A face that is like the source from one place only is so to nobody but the network that looks from there.
    """
    while image.shape[-1] > _VIEW_SIDE:
        image = functional.avg_pool2d(image, 2)
    shift_x, shift_y, nearer, turn, mirror = (2 * torch.rand(5, generator=random) - 1).tolist()
    scale, angle = 1 + _NEARER * nearer, math.radians(_TURN * turn)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    side = math.copysign(1.0, mirror)
    moved = torch.tensor([[side * cos, -sin], [side * sin, cos]])
    middle = torch.tensor(_FACE_MIDDLE)
    offset = middle - moved @ middle + _SHIFT * torch.tensor([shift_x, shift_y])
    where = torch.cat((moved, offset[:, None]), 1)[None].to(image)
    grid = functional.affine_grid(where, list(image.shape), align_corners=False)
    return functional.grid_sample(image, grid, padding_mode="border", align_corners=False)


def _blocks(image: Tensor) -> Tensor:
    return functional.avg_pool2d(image, image.shape[-1] // 16)


def _glow(colours: Tensor) -> Tensor:
    """Brightness, excess of green, and darkness, of colours ``[1, 3, h, w]``: ``[1, 3, h, w]``."""
    red, green, blue = colours.unbind(1)
    light = colours.mean(1)
    return torch.stack((light, green - (red + blue) / 2, -light), 1)


def _span(part: _Part) -> tuple[slice, slice]:
    """Rows and columns of a part of a picture at 128 px."""
    rows, columns = (slice(*(round(edge * 128) for edge in span)) for span in part)
    return rows, columns


def _colours(image: Tensor, part: _Part) -> Tensor:
    """A part of a picture, ``[1, 3, h, w]`` at 128 px."""
    rows, columns = _span(part)
    return area_downsample(image, 128)[..., rows, columns]

"""What an inversion is asked for: pixels, edges, identity features, and to stay where editing works."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from vidswap.models.identity import DlibIdentity

_TAPS = (2, 6, 9)
_LAST_TAP = 12
FEATURE_WEIGHT, IDENTITY_WEIGHT = 0.15, 0.3
"""Of the squared differences of identity features, each, and of embeddings in an inversion's loss."""


@dataclass(frozen=True)
class FitTarget:
    """A face to be explained, with what is computed from it once."""

    image: Tensor
    """``[1, 3, S, S]`` in [-1, 1]."""
    weight: Tensor
    """``[1, 1, S, S]`` importance of each pixel, mean 1."""
    features: tuple[Tensor, ...]
    """Identity features of the face at three depths."""
    embedding: Tensor
    """``[1, 128]``."""
    seen: Tensor | None = None
    """``[1, 1, S, S]`` in [0, 1], what is not covered by something; None: all."""


@torch.no_grad()
def fit_target(
    image: Tensor,
    identity: DlibIdentity,
    *,
    face: Tensor | None = None,
    covered: Tensor | None = None,
) -> FitTarget:
    """Prepare an aligned face.

    :param image: ``[1, 3, S, S]`` in [-1, 1].
    :param face: ``[1, 1, S, S]``, about 1 in the face: its pixels count most, because they are the ones that
        are pasted; more where small things matter, such as mouth and eyes. None: an ellipse.
    :param covered: ``[1, 1, S, S]`` in [0, 1], where something is in front of the face; nothing of it is
        explained. What does not count hardly steers a fit, but a fit in good steps finds it all the same.
    """
    if face is None:
        face = ellipse(image.shape[-1], image.device)
    features, embedding = identity_features(identity, image)
    seen = None if covered is None else 1 - covered
    return FitTarget(image, pixel_weights(face, seen), features, embedding, seen)


def pixel_weights(face: Tensor, seen: Tensor | None = None) -> Tensor:
    """Importance of each pixel, mean 1, of a map of the face ``[1, 1, S, S]`` and one of what is seen."""
    weight = 0.15 + face
    if seen is not None:
        weight = weight * seen
    return weight / weight.mean().clamp_min(1e-3)


def ellipse(size: int, device: torch.device | None = None) -> Tensor:
    """The usual place of the face in an aligned crop, ``[1, 1, size, size]``."""
    axis = (torch.arange(size, device=device) + 0.5) / size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return ((((x - 0.5) / 0.34) ** 2 + ((y - 0.6) / 0.4) ** 2) < 1).float()[None, None]


def identity_features(identity: DlibIdentity, image: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """Unit-length features at three depths, and the embedding, of aligned images."""
    x = (identity.chips(image) - identity.mean) / 256
    *seen, last = identity.tapped(x, (*_TAPS, _LAST_TAP))
    kept = tuple(functional.normalize(block, dim=1, eps=1e-3) for block in seen)
    return kept, identity.fc(identity.trunk_end(last).mean((2, 3)))


def edges(image: Tensor) -> Tensor:
    """Differences to the right and lower neighbour, ``[B, 6, S - 1, S - 1]``."""
    right = image[:, :, :-1, 1:] - image[:, :, :-1, :-1]
    down = image[:, :, 1:, :-1] - image[:, :, :-1, :-1]
    return torch.cat((right, down), 1)


def reconstruction_loss(
    made: Tensor,
    target: FitTarget,
    identity: DlibIdentity | None,
    *,
    identity_weight: float = IDENTITY_WEIGHT,
) -> Tensor:
    """Weighted pixels and edges, and identity features when a network is given; a scalar."""
    difference = made - target.image
    loss = (target.weight * (difference.square() + 0.1 * difference.abs())).mean()
    edge = edges(difference)
    loss = loss + 0.5 * (target.weight[:, :, :-1, :-1] * edge.abs()).mean()
    if identity is not None:
        features, embedding = identity_features(identity, made)
        seen, share = _seen_by(identity, target.seen), 1.0
        for mine, theirs in zip(features, target.features, strict=True):
            apart = (mine - theirs).square().sum(1, keepdim=True)
            if seen is not None:
                height, width = apart.shape[-2:]
                apart = apart * functional.adaptive_avg_pool2d(seen, (height, width))
            loss = loss + FEATURE_WEIGHT * apart.mean()
        if seen is not None:  # a face behind a hand has the embedding of somebody else
            share = float(seen.mean()) ** 2
        loss = loss + identity_weight * share * (embedding - target.embedding).square().sum()
    return loss


def _seen_by(identity: DlibIdentity, seen: Tensor | None) -> Tensor | None:
    """The part of a map of an aligned face that the identity network looks at."""
    if seen is None:
        return None
    left, top, right, bottom = (round(edge * seen.shape[-1]) for edge in identity.chip_box)
    return seen[:, :, top:bottom, left:right]


def w_pull(w_plus: Tensor, w_avg: Tensor, w_std: Tensor) -> Tensor:
    """How far a code lies from where the generator edits well.

    Mean square, in units of W's standard deviation, of the distance of the mean style to ``w_avg`` and of
    the styles to their mean; after e4e's delta regularisation (Tov et al., 2102.02766).
    """
    mean = w_plus.mean(1, keepdim=True)
    spread = (w_plus - mean).square().mean()
    return ((mean - w_avg).square().mean() + spread) / w_std.square()


def face_psnr(made: Tensor, target: FitTarget, face: Tensor | None = None) -> float:
    """PSNR in dB inside the face (ellipse when no map is given)."""
    face = ellipse(made.shape[-1], made.device) if face is None else face
    error = ((made.clamp(-1, 1) - target.image).square().mean(1, keepdim=True) * face).sum() / face.sum()
    return float(-10 * torch.log10(error / 4 + 1e-12))

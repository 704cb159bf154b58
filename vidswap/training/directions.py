"""Latent directions of pose, expression and age, in closed form from a bank of generated faces.

Ridge regression gives, for each measure of the mesh (yaw, mouth opening, ...), the linear
functional of the code that predicts it. In coordinates where W is white, the smallest change of the
code that moves one measure and holds the others, identity (principal components of the embedding)
and the look of the picture (those of a thumbnail) is then one small linear system. Compare
InterFaceGAN (arXiv 2005.09635), which takes normals of classifiers and projects them off one
another.

Age is read by a network that is fetched on request; its direction holds all the others, and glasses, which
grow with age in the pictures that the generator learnt from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from vidswap.models.aligned_mesh import AlignedMesh, face_measures
from vidswap.models.judge_tfjs import TfjsAges
from vidswap.models.mobile_stylegan import MobileStyleGAN
from vidswap.models.occlusion_net import GLASSES_SIZE, OcclusionNet
from vidswap.training.bank import Bank
from vidswap.training.checkpoint import save_weights

UNITS = {
    "yaw": (10.0, "degrees, the nose to the image's right"),
    "pitch": (10.0, "degrees, the nose up"),
    "mouth": (0.1, "gap of the inner lips over the inter-ocular distance"),
    "smile": (0.1, "width of the mouth plus rise of its corners over the inter-ocular distance"),
    "eyes": (0.1, "opening of the eyes over their width"),
    "gaze_x": (0.1, "eye widths, irises to the image's right"),
    "gaze_y": (0.05, "eye widths, irises down"),
    "brow": (0.03, "rise of the brows over the inter-ocular distance"),
}
"""What a step of 1.0 along each direction changes its measure by; in the order of
:data:`vidswap.models.aligned_mesh.MEASURES`."""
AGE = "age"
LOOKS = {AGE: (10.0, "years, as faceres reads them")}
"""The same of what is read from the picture by other networks."""
MEASURED = UNITS | LOOKS
_GLASSES = "glasses"
_BESIDE_EYES = ((0.42, 0.56), (0.2, 0.8))
"""Rows and columns of an aligned crop where glasses sit."""

@dataclass(frozen=True)
class DirectionsOptions:
    """Settings of ``vidswap train directions``."""

    faces: int = 2200
    """Faces of the bank."""
    seed: int = 11
    components: int = 128
    """Principal components of W kept a style; the rest is noise to a regression on few faces."""
    ridge: float = 0.45
    """Ridge, relative to the number of faces."""
    identity_components: int = 32
    """Principal components of the identity embedding that a direction must not move."""
    look_components: int = 16
    """Principal components of the 8 px thumbnail that a direction must not move."""
    nuisance: float = 0.5
    """How strongly those are held, beside the other measures' 1."""
    floor: float = 1.6
    """Styles that hold more than this many times the weight of the emptiest ones may be used."""
    peak: float = 0.4
    """Of those, the ones with at least this share of the fullest one's weight are used."""
    least: float = 0.15
    """A measure that the codes explain less of than this gets no direction."""
    calibrate_on: int = 12
    """Faces on which step sizes are measured."""


@dataclass(frozen=True)
class Looks:
    """Networks that read what a mesh does not show."""

    ages: TfjsAges
    glasses: OcclusionNet

    @torch.no_grad()
    def read(self, images: Tensor) -> Tensor:
        """Age in years, and the share of the place of glasses that is frames: ``[B, 2]``.

        :param images: ``[B, 3, S, S]`` in [-1, 1].
        """
        rows, columns = (slice(*(round(GLASSES_SIZE * edge) for edge in span)) for span in _BESIDE_EYES)
        frames = self.glasses.occluded(images, GLASSES_SIZE)[:, 0, rows, columns].mean((1, 2))
        return torch.stack((self.ages((images.clamp(-1, 1) + 1) / 2), frames), 1)

    def of_bank(self, bank: Bank) -> Tensor:
        """The same of a bank's pictures, ``[N, 2]``."""
        return torch.cat([self.read(bank.image(index)) for index in range(len(bank))])


@torch.no_grad()
def whitening(
    generator: MobileStyleGAN, components: int, samples: int = 8192
) -> tuple[Tensor, Tensor]:
    """Principal axes ``[512, P]`` of W and their standard deviations ``[P]``."""
    random = torch.Generator().manual_seed(5)
    z = torch.randn(samples, generator.w_dim, generator=random).to(generator.device)
    w = generator.map(z) - generator.w_avg
    variance, axes = torch.linalg.eigh(w.T @ w / samples)
    return axes.flip(1)[:, :components].contiguous(), variance.flip(0)[:components].sqrt()


def _nuisances(bank: Bank, options: DirectionsOptions) -> Tensor:
    """Standardised principal components of identity and look, ``[N, K]``."""
    parts = []
    looks = functional.avg_pool2d(bank.images.float(), 16).flatten(1)
    for rows, count in (
        (bank.embeddings, options.identity_components),
        (looks, options.look_components),
    ):
        rows = rows - rows.mean(0)
        _, axes = torch.linalg.eigh(rows.T @ rows)
        part = rows @ axes[:, -count:]
        parts.append(part / part.std(0))
    return torch.cat(parts, 1)


def _functionals(x: Tensor, wanted: Tensor, ridge: float) -> Tensor:
    """Ridge regression in its dual form (more coordinates than faces), ``[D, K]``."""
    gram = x @ x.T
    gram.diagonal().add_(ridge * len(x))
    return x.T @ torch.linalg.solve(gram, wanted)


def _styles_in_use(weight: Tensor, options: DirectionsOptions) -> Tensor:
    """Which styles carry a measure, bool ``[n_styles]``: those above the regression's noise."""
    noise = weight.sort().values[: max(1, len(weight) // 4)].mean()
    return weight > torch.maximum(options.floor * noise, options.peak * weight.max())


@torch.no_grad()
def fit_directions(
    bank: Bank, generator: MobileStyleGAN, options: DirectionsOptions, looks: Tensor | None = None
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Directions ``[n_styles, 512]`` by name, not calibrated yet, and the share of each measure's
    variance that its linear functional explains on faces that it did not see (one in ten).

    :param looks: ``[N, 2]`` of the bank, see :meth:`Looks.of_bank`; None: no direction of age.
    """
    axes, spread = whitening(generator, options.components)
    x = ((bank.codes - generator.w_avg) @ (axes / spread)).flatten(1)
    x = x - x.mean(0)
    measures, names = face_measures(bank.meshes, bank.irises), [*UNITS]
    if looks is not None:
        measures, names = torch.cat((measures, looks.to(measures)), 1), [*names, AGE, _GLASSES]
    mean, deviation = measures.mean(0), measures.std(0)
    measures = ((measures - mean) / deviation).clamp(-3, 3)
    wanted = torch.cat((measures, _nuisances(bank, options)), 1)
    explained = _explained(x, wanted, options)
    functionals = _functionals(x, wanted, options.ridge)
    n_styles = generator.n_styles
    by_style = functionals.view(n_styles, -1, wanted.shape[1])
    weight = by_style.square().sum(1)
    # What cannot be predicted has a functional of noise: holding it would only add noise.
    strength = explained.clamp(0, 1).sqrt()
    strength[len(names) :] *= options.nuisance
    directions = {}
    for index, name in enumerate(names):
        if name not in MEASURED:  # only held
            continue
        styles = _styles_in_use(weight[:, index], options)
        columns = by_style * styles[:, None, None]
        columns = columns.flatten(0, 1)
        held = strength.clone()
        if name in UNITS:  # pose and expression change no age by themselves
            held[len(UNITS) : len(names)] = 0.0
        held[index] = 1.0
        columns = held * columns / columns.norm(dim=0).clamp_min(1e-9)
        gram = columns.T @ columns
        gram.diagonal().add_(0.02)
        change = columns @ torch.linalg.solve(gram, torch.eye(len(gram))[index])
        change = change.view(n_styles, -1) @ (axes * spread).T
        directions[name] = change * MEASURED[name][0] / deviation[index]
    return directions, dict(zip(names, explained.tolist(), strict=False))


def _explained(x: Tensor, wanted: Tensor, options: DirectionsOptions) -> Tensor:
    """Share of the variance of each column that faces which were not fitted show, ``[K]``."""
    held = torch.arange(len(x)) % 10 == 0
    made = x[held] @ _functionals(x[~held], wanted[~held], options.ridge)
    return 1 - (made - wanted[held]).square().sum(0) / wanted[held].square().sum(0)


Measured = Callable[[Tensor], Tensor]
"""A code ``[1, n_styles, 512]`` to its measures, in the order of their names."""


def measured_by(generator: MobileStyleGAN, meshes: AlignedMesh, looks: Looks | None = None) -> Measured:
    """What gives the measures of :data:`UNITS`, and the age after them when ``looks`` are given."""

    def measured(code: Tensor) -> Tensor:
        image = generator.synthesize(code, size=128)
        mesh, _, iris = meshes(image)
        found = face_measures(mesh, iris)[0].cpu()
        return found if looks is None else torch.cat((found, looks.read(image)[0, :1].cpu()))

    return measured


@torch.no_grad()
def effect(measured: Measured, direction: Tensor, codes: Tensor) -> Tensor:
    """What a step along a direction changes each measure by: central differences ``[K]``.

    The median over the faces.

    :param codes: ``[B, n_styles, 512]``.
    """
    direction = direction.to(codes)
    change = [measured(code[None] + direction) - measured(code[None] - direction) for code in codes]
    return torch.stack(change).median(0).values / 2


def _people(generator: MobileStyleGAN, first_seed: int, count: int) -> Tensor:
    """Codes ``[count, n_styles, 512]`` of people of consecutive seeds."""
    codes = torch.cat([generator.sample(first_seed + index) for index in range(count)])
    return codes[:, None].repeat(1, generator.n_styles, 1)


@torch.no_grad()
def calibrate(
    measured: Measured, directions: Mapping[str, Tensor], codes: Tensor, *, rounds: int = 2
) -> dict[str, Tensor]:
    """Scale directions so that a step of 1.0 moves its own measure by one unit.

    :param codes: ``[B, n_styles, 512]`` of the faces that it is measured on.
    """
    scaled = dict(directions)
    for _ in range(rounds):
        for name, direction in scaled.items():
            found = float(effect(measured, direction, codes)[[*MEASURED].index(name)]) / MEASURED[name][0]
            # A direction that hardly acts is not blown up without bound.
            scaled[name] = direction / max(found, 0.25)
    return scaled


def train_directions(
    generator: MobileStyleGAN,
    meshes: AlignedMesh,
    bank: Bank,
    output: Path,
    options: DirectionsOptions,
    looks: Looks | None = None,
    *,
    log: Callable[[str], None],
) -> dict[str, Tensor]:
    """Fit, calibrate and publish the directions as fp16. :param looks: None leaves age out."""
    directions, explained = fit_directions(
        bank, generator, options, None if looks is None else looks.of_bank(bank)
    )
    for name, direction in directions.items():
        styles = direction.abs().amax(1).nonzero().flatten().tolist()
        log(f"{name}: {explained[name]:.2f} of the variance of unseen faces explained; styles {styles}")
    for name in [name for name in directions if explained[name] < options.least]:
        log(f"{name}: left out, the codes explain too little of it")
        del directions[name]
    measured = measured_by(generator, meshes, looks)
    directions = calibrate(measured, directions, _people(generator, 90_000, options.calibrate_on))
    others = _people(generator, 91_000, options.calibrate_on)
    for name, direction in directions.items():
        moved = effect(measured, direction, others).tolist()
        shown = (
            f"{other} {value / unit:.2f}"
            for (other, (unit, _)), value in zip(MEASURED.items(), moved, strict=False)
        )
        log(f"a step of {name}, in steps: " + ", ".join(shown))
    units = {
        name: {"step": unit, "measure": text}
        for name, (unit, text) in MEASURED.items()
        if name in directions
    }
    metadata = {
        "kind": "directions", "n_styles": str(generator.n_styles), "units": json.dumps(units),
        "faces": str(len(bank)), "seed": str(options.seed),
        "explained": json.dumps({name: round(value, 3) for name, value in explained.items()}),
    }  # fmt: skip
    save_weights(output, directions, metadata)
    return directions

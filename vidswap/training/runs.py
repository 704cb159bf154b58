"""Training runs from end to end: fetched weights and options in, a folder with all that came out.

A run's folder holds its weights, its checkpoint (from which the same command goes on), the CSV and
PNG of its curves, and what was computed once (bank, samples).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from vidswap import weights
from vidswap.errors import OutputError, UsageError
from vidswap.machine import multiplies_bfloat16
from vidswap.models.aligned_mesh import AlignedMesh
from vidswap.models.encoder import FaceFeatures, load_encoder
from vidswap.models.identity import DlibIdentity
from vidswap.models.judge_tfjs import TfjsAges, TfjsIdentity
from vidswap.models.mixer import GatedMixer, ResidualMixer, load_mixer
from vidswap.models.mobile_stylegan import MobileStyleGAN
from vidswap.models.occlusion_net import GLASSES_WIDTHS, WIDTHS, OcclusionNet, load_occlusion_net
from vidswap.models.second_identity import SecondIdentity
from vidswap.reports import Log
from vidswap.training.analysis import AnalysisOptions, analyse_styles, write_analysis
from vidswap.training.bank import Bank, build_bank, build_fitted_bank
from vidswap.training.charts import draw_curves, draw_sheet, figures_of
from vidswap.training.curvature import CurvatureOptions, codes_of_inversions
from vidswap.training.directions import DirectionsOptions, Looks, train_directions
from vidswap.training.encoder import EncoderOptions, collect, train_encoder
from vidswap.training.glasses_scenes import bare_eyed, draw_glasses_scene
from vidswap.training.heads import HeadsOptions, train_heads
from vidswap.training.identity import FACES_A_FILE, IdentityOptions, build_taught_faces, train_identity
from vidswap.training.mixer import MixerOptions, Networks, evaluate_mixer, train_mixer
from vidswap.training.occlusion import OcclusionOptions, occlusion_sheet, train_occlusion
from vidswap.training.occlusion_scenes import DrawScene, bare_browed, draw_scene
from vidswap.training.pictures import Pictures, Pose, build_pictures, load_pictures


@dataclass(frozen=True)
class BankOptions:
    """The faces that the mixer learns on."""

    faces: int = 4200
    """Faces of the bank."""
    bank_seed: int = 11
    """Seed of the bank; it is made once and kept in the folder."""
    fitted: int = 1400
    """Further faces, whose codes were fitted to altered pictures of the first ones, as inversions are."""


def open_folder(folder: Path, name: str, options: Any, *, free: Sequence[str] = ()) -> Path:
    """Make the folder; refuse to go on with other options than the run there was started with.

    :param free: options that may change from one call to the next, the number of steps for example.
    :raises OutputError: it cannot be made. :raises UsageError: other options.
    """
    stated = json.loads(json.dumps({name: asdict(options)}))[name]
    path = folder / f"{name}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(json.dumps(stated, indent=2) + "\n", encoding="utf-8")
            return folder
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot use the folder {folder} ({error}); choose another --output") from error
    names = {*stated, *before} - {*free}
    changed = sorted(key for key in names if stated.get(key) != before.get(key))
    if changed:
        shown = ", ".join(f"{key} was {before.get(key)}, now {stated.get(key)}" for key in changed)
        raise UsageError(f"{folder} holds a run with other options ({shown}); choose another --output")
    return folder


def load_networks(device: torch.device, *, heads: Path | None = None) -> Networks:
    """The frozen networks of the losses, from the weights cache.

    :param heads: heads of the cheap paths; the package's own when None.
    :raises WeightsError: something is missing.
    """
    generator = MobileStyleGAN.load(
        weights.locate("mobilestylegan"), heads=heads or weights.locate("rgb-heads")
    )
    identity = DlibIdentity.load(weights.locate("dlib-resnet"))
    meshes = AlignedMesh.load(weights.locate)
    teacher = None
    if weights.available("mobileface"):  # optional: vidswap weights fetch teacher
        teacher = TfjsIdentity.load("mobileface", weights.locate("mobileface")).to(device)
    return Networks(generator.to(device), identity.to(device), meshes.to(device), teacher)


def load_bank(nets: Networks, folder: Path, *, faces: int, seed: int, log: Log) -> Bank:
    """The bank of a folder, made when it is not there, on the generator's device."""
    path = folder / f"bank-{seed}.safetensors"
    bank = build_bank(path, **_drawn_by(nets), count=faces, seed=seed, log=log)
    return bank.to(nets.generator.device)


def load_fitted(
    nets: Networks, folder: Path, fit: FitWith, faces: Bank, *, count: int, seed: int, log: Log
) -> Bank:
    """The bank of fitted codes of a folder, as :func:`load_bank`. :param faces: whom they are fitted to."""
    path = folder / f"fitted-{seed}.safetensors"
    bank = build_fitted_bank(
        path, **_drawn_by(nets), fit=partial(fit, _quick(nets.generator), nets.identity), faces=faces,
        encoder=_encoder(nets.identity, nets.generator.device), count=count, seed=seed, log=log,
    )  # fmt: skip
    return bank.to(nets.generator.device)


def _quick(generator: MobileStyleGAN) -> MobileStyleGAN:
    """In bfloat16 where that pays."""
    pays = generator.device.type == "cpu" and multiplies_bfloat16()
    return generator.in_bfloat16() if pays else generator


def _drawn_by(nets: Networks) -> dict[str, Any]:
    return {"generator": nets.generator, "identity": nets.identity, "meshes": nets.meshes}


@dataclass
class CurveLog:
    """Passes lines on; keeps the figures in them as CSV and draws the curves."""

    folder: Path
    name: str
    log: Log
    writes_csv: bool = True
    """False when the training writes the CSV itself."""
    on_step: Callable[[int], None] | None = None

    def __call__(self, line: str) -> None:
        self.log(line)
        found = figures_of(line)
        if found is None:
            return
        step, figures = found
        path = self.folder / f"{self.name}.csv"
        if self.writes_csv:
            fresh = not path.exists()
            with path.open("a", newline="") as file:
                writer = csv.writer(file)
                if fresh:
                    writer.writerow(["step", *figures])
                writer.writerow([step, *figures.values()])
        if path.exists():
            draw_curves(path, self.folder / f"{self.name}-curves.png")
        if self.on_step is not None:
            self.on_step(step)


@torch.no_grad()
def mixer_sheet(nets: Networks, bank: Bank, mixer: torch.nn.Module, path: Path, *, side: int = 5) -> None:
    """Sources across, targets down, mixed faces in the cells; the first faces of the bank."""
    last = len(bank) - 1
    sources = [min(index, last) for index in range(side)]
    targets = [min(side + index, last) for index in range(side)]

    def mixed(source: int, target: int) -> torch.Tensor:
        code = mixer(bank.codes[source : source + 1], bank.codes[target : target + 1])
        return nets.generator.synthesize(code, size=128)

    cells = [[mixed(source, target) for source in sources] for target in targets]
    draw_sheet([bank.image(i) for i in sources], [bank.image(i) for i in targets], cells, path)


def run_mixer(
    folder: Path,
    options: MixerOptions,
    bank_options: BankOptions,
    *,
    device: torch.device,
    log: Log,
    form: str = "gated",
    sheet_every: int = 250,
    sheet_side: int = 5,
    networks: Networks | None = None,
    fit: FitWith | None = None,
) -> Path:
    """Train a mixer; gives the path of its weights.

    :param fit: how faces are inverted; without it all codes that it learns on are random ones.
    :param sheet_every: steps between sample sheets; 0 makes only the one at the end.
    :param sheet_side: faces across and down a sheet.
    """
    if form not in ("gated", "residual"):
        raise UsageError(f"form: expected gated or residual, got {form!r}")
    counts = {"faces": bank_options.faces}
    if fit is not None and bank_options.fitted > 0:
        counts["fitted"] = bank_options.fitted
    for name, count in counts.items():
        if count <= options.held_out + 1:
            raise UsageError(f"{name}: expected more than held_out + 1 = {options.held_out + 1}, got {count}")
    open_folder(folder, f"mixer-{form}", options)
    nets = networks or load_networks(device)
    seed = bank_options.bank_seed
    banks = {"unseen pairs": load_bank(nets, folder, faces=bank_options.faces, seed=seed, log=log)}
    if fit is not None and "fitted" in counts:
        banks["unseen pairs of fitted codes"] = load_fitted(
            nets, folder, fit, banks["unseen pairs"], count=counts["fitted"], seed=seed, log=log
        )
    split = {what: _split(bank, options.held_out) for what, bank in banks.items()}
    known = [known for known, _ in split.values()]
    fitted = len(known[1]) if len(known) > 1 else 0
    bank = known[0].and_then(known[1]) if fitted else known[0]
    nets = replace(nets, generator=_quick(nets.generator))
    torch.manual_seed(options.seed)
    n_styles = nets.generator.n_styles
    mixer = (GatedMixer(n_styles) if form == "gated" else ResidualMixer(n_styles)).to(device)
    output = folder / f"mixer-{form}.safetensors"

    def draw(path: Path) -> None:
        for number, (_, unseen) in enumerate(split.values()):
            name = f"{path.stem}{'-fitted' if number else ''}{path.suffix}"
            mixer_sheet(nets, unseen if len(unseen) else bank, mixer, path.with_name(name), side=sheet_side)

    def sheet(step: int) -> None:
        if sheet_every and step % sheet_every == 0:
            draw(folder / f"mixer-{form}-{step:06d}.png")

    line = CurveLog(folder, output.stem, log, writes_csv=False, on_step=sheet)
    train_mixer(nets, bank, mixer, output, options, log=line, fitted=fitted)
    draw(folder / f"mixer-{form}-sheet.png")
    for what, (_, unseen) in split.items():
        if len(unseen) >= 2:
            found = evaluate_mixer(nets, unseen, mixer, pairs=min(32, len(unseen)))
            log(f"{what}: " + ", ".join(f"{name} {value:.3f}" for name, value in found.items()))
    return output


def _split(bank: Bank, held_out: int) -> tuple[Bank, Bank]:
    """What is trained on, and what is not."""
    first = len(bank) - held_out
    return bank.rows(slice(first)), bank.rows(slice(first, None))


def run_encoder(
    folder: Path,
    options: EncoderOptions,
    *,
    device: torch.device,
    log: Log,
    networks: Networks | None = None,
) -> Path:
    """Train the encoder; gives the path of its weights."""
    if options.samples % options.shard or options.samples <= options.held_out:
        raise UsageError(
            f"samples: expected a multiple of shard ({options.shard}) above held_out, got {options.samples}"
        )
    open_folder(folder, "encoder", options)
    nets = networks or load_networks(device)
    features = FaceFeatures(nets.identity, nets.meshes)
    generator = _quick(nets.generator)
    rows, codes = collect(generator, features, folder / "encoder-samples", options, log=log)
    output = folder / "encoder.safetensors"
    line = CurveLog(folder, "encoder", log)
    w_avg = nets.generator.w_avg.cpu()
    train_encoder(rows, codes, w_avg, nets.generator.n_styles, output, options, log=line)
    return output


FitWith = Callable[[MobileStyleGAN, DlibIdentity, Tensor, Tensor, int, float], Tensor]
"""Inverts a face with these networks; the rest as in :data:`vidswap.training.fitted.Fit`."""


def run_heads(
    folder: Path, options: HeadsOptions, *, device: torch.device, log: Log, fit: FitWith | None = None
) -> Path:
    """Distil the heads of the cheap paths; gives the path of their weights.

    :param fit: how faces are inverted; without it all codes that they learn from are random ones.
    """
    open_folder(folder, "rgb-heads", options, free=("steps",))
    generator = MobileStyleGAN.load(weights.locate("mobilestylegan")).to(device)
    output = folder / "rgb-heads.safetensors"
    identity = DlibIdentity.load(weights.locate("dlib-resnet")).to(device)
    found = train_heads(
        generator, output, options, log=CurveLog(folder, "rgb-heads", log),
        fit=None if fit is None else partial(fit, generator, identity),
        encoder=_encoder(identity, device),
    )  # fmt: skip
    log("unseen codes: " + ", ".join(f"{size} px {value:.2f} dB" for size, value in found.items()))
    return output


def _encoder(identity: DlibIdentity, device: torch.device) -> torch.nn.Module | None:
    """The encoder that is there already; None when there is none."""
    if not weights.available("encoder"):
        return None
    return load_encoder(weights.locate("encoder"), weights.locate, identity).to(device)


class MeasuresCurvature(Protocol):
    """See :func:`vidswap.inversion.measure_curvature`."""

    def __call__(
        self, generator: MobileStyleGAN, identity: DlibIdentity, codes: Iterable[Tensor],
        *, size: int, rank: int, probes: int, damping: float, seed: int,
    ) -> Any: ...  # fmt: skip


def run_curvature(
    folder: Path,
    options: CurvatureOptions,
    *,
    device: torch.device,
    log: Log,
    measure: MeasuresCurvature,
    networks: Networks | None = None,
) -> Path:
    """Measure the curvature that scales the steps of inversions; gives the path of its file."""
    open_folder(folder, "fit-curvature", options)
    nets = networks or load_networks(device)
    codes = codes_of_inversions(nets.generator, _encoder(nets.identity, device), options, log=log)
    settings = {key: value for key, value in asdict(options).items() if key != "codes"}
    output = folder / "fit-curvature.safetensors"
    measure(nets.generator, nets.identity, codes, **settings).save(output)
    return output


@dataclass(frozen=True)
class _Sight:
    """What a network of the occlusion network's kind is taught to see."""

    draw: DrawScene
    widths: Sequence[int]
    suits: Callable[[Pictures], Pictures]
    """Which of the faces its scenes may be made of."""


_SIGHTS = {
    "occlusion": _Sight(draw_scene, WIDTHS, bare_browed),
    "glasses": _Sight(draw_glasses_scene, GLASSES_WIDTHS, bare_eyed),
}


def run_occlusion(
    folder: Path,
    options: OcclusionOptions,
    *,
    device: torch.device,
    log: Log,
    faces: int = 800,
    faces_seed: int = 31,
    workers: int = 1,
    networks: Networks | None = None,
    evaluate_on: int = 96,
    begin: Path | None = None,
    name: Literal["occlusion", "glasses"] = "occlusion",
    turned: int = 0,
    pose: Pose | None = None,
) -> Path:
    """Train the occlusion network, or the one that sees glasses; gives the path of its weights.

    :param faces: generated faces that the scenes are made of, kept in the folder; more may be asked for when
        a run is gone on with, and more steps.
    :param begin: published weights to go on from where the folder has no checkpoint.
    :param turned: further faces, whose heads are turned by ``pose``.
    """
    if faces < 2:
        raise UsageError(f"faces: expected at least 2, got {faces}")
    if turned and pose is None:
        raise UsageError("turned: heads cannot be turned without 'pose'")
    sight = _SIGHTS[name]
    open_folder(folder, name, options, free=("steps", "learnt"))
    draw_faces = partial(
        _pictures, folder / f"{name}-faces", seed=faces_seed, device=device, log=log, networks=networks
    )
    made = draw_faces(count=faces)
    if turned:
        made += draw_faces(count=turned, pose=pose)
    pictures = sight.suits(made)
    if len(pictures) < 2:
        raise UsageError(f"faces: {len(pictures)} of {faces} suit the scenes; ask for more")
    torch.manual_seed(options.seed)
    net = OcclusionNet(sight.widths)
    output = folder / f"{name}.safetensors"

    def draw(step: int) -> None:
        if step % 500 == 0:
            path = folder / f"{name}-{step:06d}.png"
            occlusion_sheet(pictures, net, path, size=options.size, device=device, draw=sight.draw)

    line = CurveLog(folder, name, log, on_step=draw)
    found = train_occlusion(
        pictures, net, output, options, device=device, log=line, workers=workers,
        evaluate_on=evaluate_on, begin=begin, draw=sight.draw,
    )  # fmt: skip
    sheet = folder / f"{name}-sheet.png"
    occlusion_sheet(pictures, net, sheet, size=options.size, device=device, draw=sight.draw)
    log("unseen scenes: " + ", ".join(f"{name} {value:.3f}" for name, value in found.items()))
    return output


def _pictures(
    folder: Path,
    *,
    count: int,
    seed: int,
    device: torch.device,
    log: Log,
    networks: Networks | None,
    pose: Pose | None = None,
) -> Pictures:
    """The faces of a folder; the generator is only loaded when some are missing."""
    kept = load_pictures(folder, seed=seed, count=count, turned=pose is not None)
    if len(kept) >= count:
        return kept
    nets = networks or load_networks(device)
    return build_pictures(
        folder, generator=nets.generator, meshes=nets.meshes, count=count, seed=seed, log=log, pose=pose
    )


def run_identity(
    folder: Path,
    options: IdentityOptions,
    *,
    device: torch.device,
    log: Log,
    networks: Networks | None = None,
) -> Path:
    """Distil the second identity network; gives the path of its weights.

    :raises UsageError: its teacher is not there.
    """
    files = options.faces // FACES_A_FILE
    if options.faces % FACES_A_FILE or not files:
        raise UsageError(f"faces: expected a multiple of {FACES_A_FILE}, got {options.faces}")
    open_folder(folder, "second-identity", options)
    nets = networks or load_networks(device)
    if nets.teacher is None:
        raise UsageError("the teacher mobileface is not there: run 'vidswap weights fetch teacher'")
    mixer = load_mixer(weights.locate("mixer-gated")).to(device) if weights.available("mixer-gated") else None
    build = partial(
        build_taught_faces, folder / "identity-faces", generator=_quick(nets.generator), teacher=nets.teacher,
        mixer=mixer, seed=options.faces_seed, mixed=options.mixed, log=log,
    )  # fmt: skip
    faces, unseen = build(numbers=range(files)), build(numbers=range(files, files + 1))
    torch.manual_seed(options.seed)
    output = folder / "second-identity.safetensors"
    line = CurveLog(folder, output.stem, log)
    found = train_identity(faces, unseen, SecondIdentity(), output, options, device=device, log=line)
    log("unseen faces: " + ", ".join(f"{name} {value:.3f}" for name, value in found.items()))
    return output


def run_directions(
    folder: Path,
    options: DirectionsOptions,
    *,
    device: torch.device,
    log: Log,
    networks: Networks | None = None,
) -> Path:
    """Fit latent directions; gives the path of their file."""
    open_folder(folder, "directions", options)
    nets = networks or load_networks(device)
    bank = load_bank(nets, folder, faces=options.faces, seed=options.seed, log=log)
    output, looks = folder / "directions.safetensors", None
    if weights.available("faceres-ages"):
        ages, glasses = TfjsAges.load(weights.locate("faceres-ages")), weights.locate("glasses")
        looks = Looks(ages.to(device), load_occlusion_net(glasses).to(device))
    else:
        log("age: left out, no network reads it; 'vidswap weights fetch teacher' brings one")
    train_directions(nets.generator, nets.meshes, bank, output, options, looks, log=log)
    return output


def run_analysis(
    folder: Path,
    options: AnalysisOptions,
    *,
    device: torch.device,
    log: Log,
    networks: Networks | None = None,
) -> Path:
    """Measure what the styles carry; gives the path of the table."""
    open_folder(folder, "analysis", options)
    nets = networks or load_networks(device)
    bank = load_bank(nets, folder, faces=options.faces, seed=options.seed, log=log)
    results = analyse_styles(nets, bank, options, log=log)
    return write_analysis(results, folder)[1]

"""Networks of a run, loaded once and shared by its stages (composer level)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch

from vidswap import weights
from vidswap.cache import ContentCache
from vidswap.config import RunConfig
from vidswap.errors import UsageError
from vidswap.faces import FaceFinder, FaceMesher, Tracker, make_detector
from vidswap.inversion import Curvature, Inverter
from vidswap.machine import multiplies_bfloat16, usable_cores
from vidswap.mixing import Mixer, Steering, make_mixer
from vidswap.mixing.directions import Directions, load_directions, parse_edits
from vidswap.models import Generator, load_generator
from vidswap.models.aligned_mesh import AlignedMesh
from vidswap.models.encoder import FaceEncoder, load_encoder
from vidswap.models.identity import DlibIdentity
from vidswap.models.lips import LipNet
from vidswap.models.occlusion_net import OcclusionNet, load_occlusion_net
from vidswap.models.second_identity import SecondIdentity, load_second_identity

_MOST_THREADS = 8
"""Of one network: pictures this small leave nothing to do for more."""


def choose_device(name: str) -> torch.device:
    """``auto`` is the first CUDA device when there is one.

    :raises UsageError: for an unknown name, or ``cuda`` without a usable GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device: expected auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "device: cuda was asked for, but torch sees no GPU; use --device cpu, or install a CUDA build"
        )
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Session:
    """Everything that is loaded once: networks, device, caches."""

    config: RunConfig

    @cached_property
    def device(self) -> torch.device:
        # Half the cores: inversion and drawing run side by side, each on a thread of its own, and two
        # networks that share all cores wait for each other's threads more than they gain.
        self._use_cores(usable_cores() // 2)
        return choose_device(self.config.device)

    def _use_cores(self, count: int) -> None:
        torch.set_num_threads(self.config.threads or max(1, min(_MOST_THREADS, count)))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While nothing else of the run is at work, its networks may use all cores."""
        self._use_cores(usable_cores())
        try:
            yield
        finally:
            self._use_cores(usable_cores() // 2)

    @cached_property
    def full_generator(self) -> Generator:
        """The generator in float32, for tuning its weights."""
        return load_generator(self.config.generator, weights.locate, self.device)

    @cached_property
    def precision(self) -> str:
        """``full`` or ``bfloat16``, as the settings and the processor have it."""
        wanted = self.config.precision
        if wanted != "auto":
            return wanted
        return "bfloat16" if self.device.type == "cpu" and multiplies_bfloat16() else "full"

    @cached_property
    def generator(self) -> Generator:
        """The generator that inverts and draws."""
        return self.full_generator.in_bfloat16() if self.precision == "bfloat16" else self.full_generator

    @cached_property
    def identity(self) -> DlibIdentity:
        return DlibIdentity.load(weights.locate("dlib-resnet")).to(self.device)

    @cached_property
    def second_identity(self) -> SecondIdentity | None:
        """What sources are refined by besides dlib's network; None when it is not wanted or not there."""
        if self.config.mix.likeness <= 0 or not weights.available("second-identity"):
            return None
        return load_second_identity(weights.locate("second-identity")).to(self.device)

    @cached_property
    def meshes(self) -> AlignedMesh:
        """Reads drawn faces: landmarks, lids, irises and lips of aligned pictures."""
        return AlignedMesh.load(weights.locate).to(self.device)

    @cached_property
    def encoder(self) -> FaceEncoder | None:
        if not self.config.inversion.encoder or not weights.available("encoder"):
            return None
        found = load_encoder(weights.locate("encoder"), weights.locate, self.identity, self.meshes)
        return found.to(self.device)

    @cached_property
    def occlusion_net(self) -> OcclusionNet | None:
        """Sees what is in front of a face; None when it is not wanted or not there."""
        options = self.config.composite
        wanted = options.occlusion and options.occlusion_by != "residual"
        if not wanted or not weights.available("occlusion"):
            return None
        return load_occlusion_net(weights.locate("occlusion")).to(self.device)

    @cached_property
    def glasses_net(self) -> OcclusionNet | None:
        """Sees the frames of glasses; None when they are not wanted or it is not there."""
        if self.occlusion_net is None or not weights.available("glasses"):
            return None
        return load_occlusion_net(weights.locate("glasses")).to(self.device)

    @cached_property
    def mixer(self) -> Mixer:
        return make_mixer(
            self.config.mix,
            self.generator.n_styles,
            locate=weights.locate,
            available=weights.available,
            device=self.device,
        )

    @cached_property
    def steering(self) -> Steering | None:
        """Moves faces along latent directions: calms sources, and takes out what the mixer lets in of their
        expression. None where the generator has no directions."""
        return None if self.directions is None else Steering.along(self.directions)

    @cached_property
    def directions(self) -> Directions | None:
        """Latent directions; None where the generator has none."""
        if not weights.available("directions"):
            return None
        found = load_directions(weights.locate("directions"), self.device)
        fits = next(iter(found.changes.values())).shape[0] == self.generator.n_styles
        return found if fits else None

    @cached_property
    def edits(self) -> dict[str, float]:
        """Steps by direction that the new face is changed by.

        :raises UsageError: a direction that is unknown, or that this generator has not.
        """
        text = self.config.mix.edit
        if text is None:
            return {}
        if self.directions is None:
            raise UsageError(f"edit {text}: there are no directions for {self.generator.identifier}")
        return parse_edits(text, self.directions.names)

    @cached_property
    def inverter(self) -> Inverter:
        return Inverter(
            self.generator, self.identity, self.config.inversion, self.encoder, self.curvature
        )

    @cached_property
    def curvature(self) -> Curvature | None:
        """What scales the steps of inversions; None where it was not measured on this generator."""
        if not weights.available("fit-curvature"):
            return None
        found = Curvature.load(weights.locate("fit-curvature"), self.generator.w_avg.device)
        return found if found.generator == self.generator.identifier else None

    @cached_property
    def cache(self) -> ContentCache:
        return ContentCache(weights.home() / "cache")

    def new_finder(self) -> FaceFinder:
        """A face finder with a fresh tracker: one a clip."""
        faces = self.config.faces
        detector = make_detector(
            faces.detector, weights.locate, min_score=faces.min_score, min_face_px=faces.min_size_px
        )
        mesher = self.new_mesher()
        tracker = Tracker(lost_seconds=faces.lost_seconds)
        return FaceFinder(detector, mesher, tracker, min_size_px=faces.min_size_px)

    @cached_property
    def lips(self) -> LipNet:
        """What tells closed lips from open ones, on the CPU like all that finds faces."""
        return LipNet.load(weights.locate("lips-features"), weights.locate("lips-points"))

    def new_mesher(self) -> FaceMesher:
        """A mesh network: one a stage, they are not shared between threads."""
        paths = weights.locate("facemesh"), weights.locate("iris")
        return FaceMesher(*paths, lips=self.lips)

    def with_generator(self, generator: Generator) -> Session:
        """The same session with another generator (a tuned one, in float32); all else is shared."""
        other = Session(self.config)
        shared = (
            "device", "identity", "second_identity", "meshes", "encoder", "curvature", "mixer", "cache",
            "occlusion_net", "glasses_net", "directions", "steering", "edits", "lips",
        )  # fmt: skip
        other.__dict__.update({name: getattr(self, name) for name in shared})
        other.__dict__["full_generator"] = generator
        return other

    def describe(self) -> str:
        """One line for the log: device, networks, licences."""
        names = ["mobilestylegan", "dlib-resnet", "facemesh"]
        parts = [f"{name} ({weights.CATALOGUE[name].licence})" for name in names]
        device = torch.cuda.get_device_name(0) if self.device.type == "cuda" else "CPU"
        return (
            f"device: {device}, {torch.get_num_threads()} threads, precision: {self.precision}; "
            f"weights: {', '.join(parts)}; "
            f"mixer: {self.mixer.name}; encoder: {'yes' if self.encoder is not None else 'no'}"
        )

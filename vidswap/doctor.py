"""What is installed here, and what a run would use (composer level)."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from vidswap import __version__, weights
from vidswap.config import RunConfig
from vidswap.errors import UsageError, VidswapError, WeightsError
from vidswap.faces import DETECTORS
from vidswap.machine import usable_cores
from vidswap.models import GENERATORS

PACKAGES = (
    "torch",
    "av",
    "decord",
    "numpy",
    "kornia",
    "safetensors",
    "ai-edge-litert",
    "insightface",
    "face-alignment",
    "pillow",
    "PyYAML",
    "tqdm",
    "click",
    "c2pa-python",
    "cryptography",
    "openvino",
    "ray",
)
_OPTIONAL = frozenset({"decord", "openvino", "ray"})
_ENCODERS = ("libx264", "libx265", "libsvtav1", "libvpx-vp9", "prores_ks", "h264_nvenc")
_NEEDED = (
    "mobilestylegan",
    "rgb-heads",
    "dlib-resnet",
    "blazeface-full",
    "blazeface-short",
    "facemesh",
    "iris",
    "lips-features",
    "lips-points",
)
"""Weights without which no swap runs with default settings."""
_LOW_DISK_BYTES = 1 << 30


def collect(config: RunConfig) -> dict[str, Any]:
    """Everything worth knowing when something does not work, as plain JSON values.

    :return: keys ``vidswap``, ``python``, ``platform``, ``cpu``, ``memory_mb``, ``packages``,
        ``ffmpeg``, ``encoders``, ``device``, ``home``, ``weights``, ``would_use`` and
        ``problems``: a list of ``{"message", "exit_code"}``, empty when a swap can run.
    """
    problems: list[dict[str, Any]] = []
    ffmpeg, encoders = _media(config, problems)
    return {
        "vidswap": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": {"model": _cpu_model(), "cores": usable_cores()},
        "memory_mb": _memory_mb(),
        "packages": _packages(problems),
        "ffmpeg": ffmpeg,
        "encoders": encoders,
        "device": _device(config, problems),
        "home": _home(),
        "weights": _weights(problems),
        "would_use": _would_use(config, problems),
        "problems": problems,
    }


def describe(found: Mapping[str, Any]) -> str:
    """The result of :func:`collect` as text."""
    device, home = found["device"], found["home"]
    lines = [
        f"vidswap {found['vidswap']}, Python {found['python']}, {found['platform']}",
        f"processor: {found['cpu']['model']}, {found['cpu']['cores']} cores to use"
        + (f", {found['memory_mb']} MB memory" if found["memory_mb"] else ""),
        f"device: {device['chosen'] or 'none'}, {device['threads']} threads, CUDA "
        + (f"{device['cuda']}: {', '.join(device['gpus'])}" if device["gpus"] else "not usable"),
        f"cache: {home['path']} ({home['free_mb']} MB free)",
        "",
        "packages: " + _pairs(found["packages"], "missing"),
        "libraries: " + _pairs(found["ffmpeg"], "?"),
        "encoders: " + ", ".join(name for name, here in found["encoders"].items() if here),
        "",
        "weights:",
    ]
    for entry in found["weights"]:
        lines.append(
            f"  {entry['name']:<18}{entry['state']:<9}{entry['size_bytes'] / 1e6:7.1f} MB  "
            f"{entry['licence']} ({entry['origin']})"
        )
    lines += ["", "a swap would use: " + _pairs(found["would_use"], "none"), ""]
    for problem in found["problems"]:
        lines.append(f"problem: {problem['message']}")
    if not found["problems"]:
        lines.append("ready: a swap can run")
    return "\n".join(lines)


def _pairs(values: Mapping[str, Any], none: str) -> str:
    return ", ".join(f"{key} {none if value is None else value}" for key, value in values.items())


def _problem(problems: list[dict[str, Any]], error: VidswapError) -> None:
    problems.append({"message": str(error), "exit_code": error.exit_code})


def _packages(problems: list[dict[str, Any]]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
            if name not in _OPTIONAL:
                text = f"the package {name} is not installed: install vidswap again with pip"
                _problem(problems, UsageError(text))
    return found


def _media(
    config: RunConfig, problems: list[dict[str, Any]]
) -> tuple[dict[str, str], dict[str, bool]]:
    from vidswap.video.versions import encoders_here, library_versions

    here = encoders_here(dict.fromkeys([config.video.codec, *_ENCODERS]))
    if not here[config.video.codec]:
        others = ", ".join(name for name, is_here in here.items() if is_here)
        _problem(
            problems,
            UsageError(f"video.codec: no encoder {config.video.codec!r} here: choose {others}"),
        )
    return library_versions(), here


def _device(config: RunConfig, problems: list[dict[str, Any]]) -> dict[str, Any]:
    import torch

    from vidswap.session import Session

    chosen: str | None = None
    try:
        chosen = str(Session(config).device)
    except VidswapError as error:
        _problem(problems, error)
    usable = torch.cuda.is_available()
    return {
        "asked": config.device,
        "chosen": chosen,
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "gpus": [
            torch.cuda.get_device_name(number)
            for number in (range(torch.cuda.device_count()) if usable else ())
        ],
    }


def _home() -> dict[str, Any]:
    path = weights.home()
    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        free = shutil.disk_usage(existing).free
    except OSError:
        free = 0
    return {
        "path": str(path),
        "writable": os.access(existing, os.W_OK),
        "free_mb": free >> 20,
        "low": free < _LOW_DISK_BYTES,
    }


def _weights(problems: list[dict[str, Any]]) -> list[dict[str, Any]]:
    entries = []
    for name in weights.names():
        status = weights.status(name)
        entries.append(
            {
                "name": name,
                "state": status.state,
                "licence": status.licence,
                "origin": status.origin,
                "size_bytes": status.size_bytes,
                "needed": name in _NEEDED,
            }
        )
    states = {entry["name"]: entry["state"] for entry in entries}
    broken = [name for name in _NEEDED if states.get(name) != "ready"]
    for names, remedy in (
        ([name for name in broken if name in weights.CATALOGUE], "run `vidswap weights fetch`"),
        ([name for name in broken if name not in weights.CATALOGUE], "install vidswap again"),
    ):
        if names:
            text = f"weights are missing or altered ({', '.join(names)}): {remedy}"
            _problem(problems, WeightsError(text))
    return entries


def _would_use(config: RunConfig, problems: list[dict[str, Any]]) -> dict[str, str | None]:
    mixer = config.mix.mixer
    if mixer == "auto":
        mixer = "gated" if weights.available("mixer-gated") else "layers"
    elif mixer == "gated" and not weights.available("mixer-gated"):
        text = "mix.mixer: the weights of the gated mixer are not here: use --mixer auto"
        _problem(problems, WeightsError(text))
    encoder = config.inversion.encoder and weights.available("encoder")
    for setting, name, known in (
        ("generator", config.generator, GENERATORS), ("faces.detector", config.faces.detector, DETECTORS),
    ):  # fmt: skip
        if name not in known:
            _problem(problems, UsageError(f"{setting}: {name!r} is unknown; choose {', '.join(known)}"))
    return {
        "generator": config.generator,
        "detector": config.faces.detector,
        "encoder": "encoder" if encoder else None,
        "mixer": mixer,
        "video encoder": config.video.codec,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _memory_mb() -> int | None:
    if sys.platform == "win32":
        return None
    try:
        return (os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) >> 20
    except (ValueError, OSError):
        return None

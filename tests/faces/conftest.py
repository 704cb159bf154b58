"""Faces for the tests: drawn by the generator, since no photograph of anyone is kept here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vidswap import weights
from vidswap.faces import FaceMesher, MediaPipeDetector
from vidswap.models.mobile_stylegan import MobileStyleGAN

SEEDS = (0, 1)


@pytest.fixture(scope="session")
def portraits(weights_home: Path) -> list[NDArray[np.uint8]]:
    """Two aligned faces ``[512, 512, 3]`` uint8, different people."""
    generator = MobileStyleGAN.load(weights.locate("mobilestylegan"))
    pictures = []
    with torch.no_grad():
        for seed in SEEDS:
            w = generator.sample(seed, psi=0.7).reshape(-1, 512)[:1, None]
            image = generator.synthesize(w.expand(1, generator.n_styles, 512))
            half = torch.nn.functional.avg_pool2d(image.clamp(-1, 1), 2)
            pictures.append(((half[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy().copy())
    return pictures


@pytest.fixture(scope="session")
def detector(weights_home: Path) -> MediaPipeDetector:
    return MediaPipeDetector(weights.locate("blazeface-full"), weights.locate("blazeface-short"))


@pytest.fixture(scope="session")
def mesher(weights_home: Path) -> FaceMesher:
    return FaceMesher(weights.locate("facemesh"), weights.locate("iris"))

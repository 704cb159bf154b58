"""Mixing the source's identity into the target's latent."""

from vidswap.mixing.mixers import (
    LayerMixer,
    Mixer,
    NetworkMixer,
    blend_sources,
    make_mixer,
    parse_layers,
)
from vidswap.mixing.refine import Refined, refine_source
from vidswap.mixing.response import Response
from vidswap.mixing.steering import Steering

__all__ = [
    "LayerMixer",
    "Mixer",
    "NetworkMixer",
    "Refined",
    "Response",
    "Steering",
    "blend_sources",
    "make_mixer",
    "parse_layers",
    "refine_source",
]

"""Mixing the source's identity into the target's latent."""

from vidswap.mixing.mixers import LayerMixer, Mixer, NetworkMixer, blend_sources, make_mixer, parse_layers

__all__ = ["LayerMixer", "Mixer", "NetworkMixer", "blend_sources", "make_mixer", "parse_layers"]

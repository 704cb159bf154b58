"""Networks, and the protocols that the rooms see them through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from vidswap.errors import UsageError

TILES = 128
"""Windows of a picture are given in 1/128 of its side."""

_Network = TypeVar("_Network", bound=nn.Module)


class Generator(Protocol):
    """A StyleGAN-type generator.

    Latents of W are ``[B, w_dim]``, of W+ ``[B, n_styles, w_dim]``; pictures ``[B, 3, size, size]`` are
    RGB in about [-1, 1] and differentiable in the latent and in :meth:`named_parameters`.
    """

    name: str
    identifier: str
    """Name and hash of the weights, for cache keys."""
    n_styles: int
    w_dim: int
    resolution: int
    w_avg: Tensor
    w_std: Tensor

    def in_bfloat16(self) -> Generator:
        """A copy whose features are bfloat16, for processors that are fast at it; latents and pictures stay
        float32. A generator that gains nothing gives itself."""
        ...

    def map(self, z: Tensor) -> Tensor: ...
    def sample(self, seed: int, *, psi: float = 0.7) -> Tensor: ...
    def synthesize(
        self,
        w_plus: Tensor,
        *,
        size: int = 1024,
        window: tuple[int, int, int, int] | None = None,
    ) -> Tensor:
        """The picture at a size.

        :param size: ``resolution``; half of it, area-downsampled; or less, as near to that as the generator
            can give cheaply.
        :param window: at ``resolution`` and half of it: only this part (left, top, right, bottom in tiles).
        """
        ...

    def own_styles(self, size: int) -> int:
        """How many styles, of the first ones, pictures of a size are computed with; the others change them
        only by what something cheaper than the generator makes of them."""
        ...

    def to(self, device: str | torch.device) -> Generator: ...
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...


def _mobilestylegan(locate: Callable[[str], Path]) -> Generator:
    from vidswap.models.mobile_stylegan import MobileStyleGAN

    return MobileStyleGAN.load(locate("mobilestylegan"), heads=locate("rgb-heads"))


GENERATORS: dict[str, Callable[[Callable[[str], Path]], Generator]] = {
    "mobilestylegan": _mobilestylegan,
}


def load_generator(name: str, locate: Callable[[str], Path], device: str | torch.device = "cpu") -> Generator:
    """The generator of a name.

    :param locate: gives the path of weights by their catalogue name.
    :raises UsageError: for an unknown name. :raises WeightsError: when its weights are missing.
    """
    if name not in GENERATORS:
        raise UsageError(f"generator: {name!r} is unknown; choose one of {', '.join(sorted(GENERATORS))}")
    return GENERATORS[name](locate).to(device)


def channels_last(network: _Network) -> _Network:
    """A network with its weights in channels-last memory, in which its convolutions are fastest."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # unknown to torch's types

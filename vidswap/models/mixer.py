"""Latent mixers: (source W+, target W+) to the swapped W+.

Two forms, both one small network of fully connected layers a style:

* :class:`GatedMixer`, the default: ``w_t + sigmoid(gate) * (w_s - w_t) + residual``. Copying a range of
  styles carries identity well and everything else badly; a gate an axis, chosen by both codes, keeps
  what identity needs and leaves the rest to the target.
* :class:`ResidualMixer`, the form of LatentSwap (arXiv 2402.18351): five fully connected layers with
  SiLU a style, ``w_t + f(w_s, w_t)``; its parameter names are the paper's layout.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from vidswap.errors import WeightsError


class PerStyleLinear(nn.Module):
    """One linear layer a style: ``[B, n, i]`` to ``[B, n, o]``."""

    def __init__(self, styles: int, entering: int, leaving: int, *, gain: float = 1.0) -> None:
        super().__init__()
        bound = gain * math.sqrt(3.0 / entering)
        self.weight = nn.Parameter(torch.empty(styles, entering, leaving).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(styles, 1, leaving))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x.transpose(0, 1), self.weight).transpose(0, 1)


class GatedMixer(nn.Module):
    """Gate and residual a style and axis, functions of both codes.

    The residual is the difference of a network's value at (source, target) and at (target, target), so
    that a face mixed with itself comes out unchanged, exactly.
    """

    form = "gated"
    center: Tensor
    scale: Tensor

    def __init__(
        self,
        n_styles: int = 23,
        w_dim: int = 512,
        hidden: int = 176,
        *,
        identity_styles: tuple[int, int] = (5, 13),
    ) -> None:
        super().__init__()
        self.n_styles, self.w_dim, self.hidden = n_styles, w_dim, hidden
        self.enter = PerStyleLinear(n_styles, 2 * w_dim, hidden)
        self.middle = PerStyleLinear(n_styles, hidden, hidden, gain=1.4)
        self.leave = PerStyleLinear(n_styles, hidden, 2 * w_dim, gain=0.05)
        self.register_buffer("center", torch.zeros(w_dim))
        self.register_buffer("scale", torch.ones(()))
        first, last = identity_styles
        with torch.no_grad():
            for style in range(n_styles):
                away = max(first - style, style - last, 0)
                self.leave.bias[style, 0, :w_dim] = 0.8 if away == 0 else max(-1.0 - 1.0 * (away - 1), -4.0)

    def _network(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        x = functional.silu(self.enter(torch.cat((source, target), dim=2)))
        x = x + functional.silu(self.middle(x))
        gate, residual = self.leave(x).split(self.w_dim, dim=2)
        return torch.sigmoid(gate), residual

    def forward(self, source: Tensor, target: Tensor, strength: float | Tensor = 1.0) -> Tensor:
        """Mix ``[B, n_styles, 512]`` codes.

        :param strength: 0 gives the target's code back, 1 the full swap; a number or ``[B, 1, 1]``.
        """
        s, t = (source - self.center) / self.scale, (target - self.center) / self.scale
        gate, residual = self._network(s, t)
        _, at_rest = self._network(t, t)
        delta = gate * (s - t) + residual - at_rest
        return target + strength * self.scale * delta


class ResidualMixer(nn.Module):
    """The paper's form: ``mixer.{i}.{0,2,4,6,8}`` are linear layers with SiLU between."""

    form = "residual"

    def __init__(self, n_styles: int = 18, w_dim: int = 512, hidden: int | None = None) -> None:
        super().__init__()
        self.n_styles, self.w_dim = n_styles, w_dim
        width = hidden or w_dim
        self.mixer = nn.ModuleList(
            nn.Sequential(
                nn.Linear(2 * w_dim, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
                nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
                nn.Linear(width, w_dim),
            )
            for _ in range(n_styles)
        )  # fmt: skip

    def forward(self, source: Tensor, target: Tensor, strength: float | Tensor = 1.0) -> Tensor:
        """Mix ``[B, n_styles, 512]`` codes; see :meth:`GatedMixer.forward`."""
        both = torch.cat((source, target), dim=2)
        delta = torch.stack([net(both[:, i]) for i, net in enumerate(self.mixer)], dim=1)
        return target + strength * delta


_FORMS: dict[str, type[GatedMixer] | type[ResidualMixer]] = {"gated": GatedMixer, "residual": ResidualMixer}


def mixer_metadata(mixer: GatedMixer | ResidualMixer, **more: object) -> dict[str, str]:
    """Metadata of a weights file from which :func:`load_mixer` builds the network again."""
    shape = {"form": mixer.form, "n_styles": mixer.n_styles, "hidden": getattr(mixer, "hidden", None)}
    return {"kind": "mixer", "shape": json.dumps(shape), **{k: str(v) for k, v in more.items()}}


def load_mixer(path: Path) -> GatedMixer | ResidualMixer:
    """Read a mixer; the paper's checkpoint layout (``identity_mixer.mixer.…``) is understood too.

    :raises WeightsError: when the file holds no mixer.
    """
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        tensors = {key: file.get_tensor(key).float() for key in file.keys()}
    prefix = "identity_mixer."
    if any(key.startswith(prefix + "mixer.") for key in tensors):
        tensors = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        styles = 1 + max(int(key.split(".")[1]) for key in tensors)
        shape: dict[str, Any] = {"form": "residual", "n_styles": styles, "hidden": None}
    elif metadata.get("kind") == "mixer":
        shape = json.loads(metadata["shape"])
    else:
        raise WeightsError(f"{path.name}: not a mixer's weights; run 'vidswap weights list'")
    hidden = {} if shape["hidden"] is None else {"hidden": shape["hidden"]}
    mixer = _FORMS[shape["form"]](shape["n_styles"], **hidden)
    mixer.load_state_dict(tensors)
    return mixer.eval().requires_grad_(False)

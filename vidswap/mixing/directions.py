"""Edits of pose and expression: steps along latent directions (``vidswap train directions``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vidswap.errors import UsageError, WeightsError


@dataclass(frozen=True)
class Directions:
    """Directions in W+ by name."""

    changes: Mapping[str, Tensor]
    """``[n_styles, 512]`` each; a step of 1.0 changes the measure by its unit."""
    units: Mapping[str, tuple[float, str]]
    """How much a step of 1.0 changes, and of what: ``(10.0, "degrees, ...")``."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.changes)


def load_directions(path: Path, device: str | torch.device = "cpu") -> Directions:
    """Read trained directions. :raises WeightsError: when the file holds something else."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            changes = {key: file.get_tensor(key).float().to(device) for key in file.keys()}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot read {path} ({error}); install vidswap again") from error
    if metadata.get("kind") != "directions":
        raise WeightsError(f"{path.name}: not a file of directions; run 'vidswap weights list'")
    units = json.loads(metadata["units"])
    named = {name: (float(unit["step"]), str(unit["measure"])) for name, unit in units.items()}
    return Directions({name: changes[name] for name in named}, named)


def edit(code: Tensor, amounts: Mapping[str, float], directions: Directions) -> Tensor:
    """Move codes along directions.

    :param code: ``[B, n_styles, 512]`` of W+.
    :param amounts: steps by name, ``{"yaw": 1.0}`` turns the head by 10 degrees; see
        :attr:`Directions.units`. Steps beyond 2 or 3 leave the generator's good region.
    :raises UsageError: for an unknown name.
    :raises ValueError: for codes with another number of styles.
    """
    for name, amount in amounts.items():
        if name not in directions.changes:
            near = get_close_matches(name, directions.names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose {', '.join(directions.names)}"
            raise UsageError(f"direction: {name!r} is unknown; {hint}")
        change = directions.changes[name]
        if code.ndim != 3 or code.shape[1:] != change.shape:
            raise ValueError(
                f"code: expected [B, {change.shape[0]}, {change.shape[1]}], got {list(code.shape)}"
            )
        code = code + amount * change.to(code)
    return code

"""Edits of pose, expression and age: steps along latent directions (``vidswap train directions``)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vidswap.errors import UsageError, WeightsError, did_you_mean

_MOST_STEPS = 2.0
"""Of an edit; looked at on a talking head. Beyond it faces fall apart."""
_FEWER_STEPS = {"eyes": 0.8, "brow": 1.0, "gaze_x": 1.0, "age": 1.0}
"""Directions that go wrong sooner: lids and brows get make-up, a far gaze draws the whole face along, and old
people get glasses and beards."""
_OF_THE_HEAD = ("yaw", "pitch")
"""Directions that a face cannot take in a head that stays."""


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


def parse_edits(text: str, names: Sequence[str]) -> dict[str, float]:
    """Read ``smile=1,age=-0.5``, edits of a face that is put back into its picture.

    :param names: of the directions that there are.
    :raises UsageError: an unknown name, one that turns the head, or too many steps.
    """
    found: dict[str, float] = {}
    known = [name for name in names if name not in _OF_THE_HEAD]
    for part in filter(None, text.split(",")):
        name, _, steps = part.partition("=")
        if name in _OF_THE_HEAD:
            raise UsageError(f"edit {name}: the face would turn out of its head; choose {', '.join(known)}")
        if name not in known:
            raise _unknown("edit", name, known)
        found[name] = found.get(name, 0.0) + float(steps)
        most = _FEWER_STEPS.get(name, _MOST_STEPS)
        if abs(found[name]) > most:
            raise UsageError(f"edit {name}={found[name]:g}: expected {-most:g} to {most:g} steps")
    return found


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
            raise _unknown("direction", name, directions.names)
        change = directions.changes[name]
        if code.ndim != 3 or code.shape[1:] != change.shape:
            raise ValueError(
                f"code: expected [B, {change.shape[0]}, {change.shape[1]}], got {list(code.shape)}"
            )
        code = code + amount * change.to(code)
    return code


def _unknown(word: str, name: str, known: Sequence[str]) -> UsageError:
    hint = did_you_mean(name, known, f"choose {', '.join(known)}")
    return UsageError(f"{word}: {name!r} is unknown; {hint}")

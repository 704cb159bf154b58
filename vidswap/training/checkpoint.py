"""Resumable training state and published weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor


@dataclass(frozen=True)
class Checkpoint:
    """State of a training run in one file, written atomically and read with ``weights_only``."""

    path: Path

    def save(self, step: int, parts: Mapping[str, Any]) -> None:
        """Keep the state of modules and optimisers after ``step`` steps."""
        state = {name: part.state_dict() for name, part in parts.items()}
        temporary = self.path.with_name(self.path.name + ".part")
        torch.save({"step": step, "state": state}, temporary)
        os.replace(temporary, self.path)

    def resume(self, parts: Mapping[str, Any]) -> int:
        """Bring the parts back to the last saved state; gives the steps done (0: none)."""
        if not self.path.exists():
            return 0
        saved = torch.load(self.path, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved["state"][name])
        return int(saved["step"])


def save_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Publish weights as fp16 safetensors, atomically."""
    half = {key: value.detach().cpu().half().contiguous() for key, value in tensors.items()}
    temporary = path.with_name(path.name + ".part")
    save_file(half, temporary, dict(metadata))
    os.replace(temporary, path)

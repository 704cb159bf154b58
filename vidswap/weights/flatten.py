"""Tensors of nested containers under dotted names, within bounds.

A few bytes of pickle can make containers that refer to themselves, or to one another so often
that a walk never ends; real checkpoints stay far below these bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

_MAX_DEPTH = 64
_MAX_ITEMS = 200_000


def container_items(value: Any) -> Iterable[tuple[Any, Any]]:
    """Items of a dictionary, list or tuple; of anything else, none."""
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, (list, tuple)):
        return enumerate(value)
    return ()


def flatten(
    root: Any, *, children: Callable[[Any], Iterable[tuple[Any, Any]]] = container_items
) -> dict[str, torch.Tensor]:
    """Collects tensors; whatever is neither a tensor nor a container is left out.

    Raises:
        ValueError: nested too deeply, or too many items.
    """
    found: dict[str, torch.Tensor] = {}
    pending: list[tuple[str, int, Any]] = [("", 0, root)]
    items = 0
    while pending:
        name, depth, value = pending.pop()
        if isinstance(value, torch.Tensor):
            found[name or "tensor"] = value.detach()
            continue
        if depth > _MAX_DEPTH:
            raise ValueError(f"containers nested more than {_MAX_DEPTH} deep")
        for key, inner in children(value):
            items += 1
            if items > _MAX_ITEMS:
                raise ValueError(f"more than {_MAX_ITEMS} items")
            pending.append((f"{name}.{key}" if name else str(key), depth + 1, inner))
    return dict(sorted(found.items()))

"""Weights: what the networks need, where it comes from, and that it is what it should be.

``ensure()`` fetches and converts once, ``locate(name)`` returns a verified file and never
touches the network. Files of users go through :mod:`vidswap.weights.reading`.
"""

from __future__ import annotations

from vidswap.weights.assets import Asset, read_assets, register_asset
from vidswap.weights.catalogue import CATALOGUE, GROUPS, OPTIONAL, Distribution, Entry
from vidswap.weights.paths import home, weights_folder
from vidswap.weights.store import (
    Status,
    available,
    ensure,
    expand,
    locate,
    names,
    status,
    verify,
)

__all__ = [
    "CATALOGUE",
    "GROUPS",
    "OPTIONAL",
    "Asset",
    "Distribution",
    "Entry",
    "Status",
    "available",
    "ensure",
    "expand",
    "home",
    "locate",
    "names",
    "read_assets",
    "register_asset",
    "status",
    "verify",
    "weights_folder",
]

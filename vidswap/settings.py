"""Where the settings of a run come from: defaults, presets, a file, environment, options.

Later ones win: the defaults of :mod:`vidswap.config`, presets in the order given, a YAML file,
environment variables, then ``--set key=value`` and options of the command line. A setting is
named by its place, ``mix.strength``. In the environment that is ``VIDSWAP_SET_`` and the name in
capitals with two underscores for the dot: ``VIDSWAP_SET_MIX__STRENGTH=0.8``.
"""

from __future__ import annotations

import dataclasses
import os
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidswap.config import RunConfig
from vidswap.errors import UsageError, did_you_mean
from vidswap.setting_types import Value, convert, groups, known, settings

ENVIRONMENT_PREFIX = "VIDSWAP_SET_"
_MAX_FILE_BYTES = 1 << 16

PRESETS: Mapping[str, Mapping[str, Value]] = {
    "default": {},
    "fast": {
        "video.encoder_preset": "veryfast",
        "inversion.first_steps": 20,
        "inversion.next_steps": 2,
        "inversion.rest_db": 1.2,
        "mix.source_steps": 60,
        "mix.refine_full_steps": 0,
        "smooth.lag": 1,
    },
    "quality": {
        "video.crf": 14,
        "video.encoder_preset": "slow",
        "inversion.next_steps": 6,
        "inversion.rest_db": 0.0,
        "mix.refine_full_steps": 24,
    },
    "cpu": {"device": "cpu"},
    "gpu": {"device": "cuda", "inversion.first_steps": 100, "inversion.next_steps": 6},
}
"""Named overrides; ``configs/`` shows the same as files. They can be combined: ``fast,cpu``."""


@dataclass(frozen=True)
class Override:
    """One setting given on the command line, and by what."""

    key: str
    value: Any
    origin: str
    """How the user gave it, ``--strength`` for example."""


# ------------------------------------------------------------------ loading


def load_config(
    *,
    preset: str | Sequence[str] | None = None,
    file: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | Sequence[str | Override] = (),
    environ: Mapping[str, str] | None = None,
) -> tuple[RunConfig, dict[str, str]]:
    """Merge all places that settings come from.

    :param preset: a name of :data:`PRESETS`, several separated by commas, or a sequence.
    :param file: YAML file with groups as mappings; dotted names work as well.
    :param overrides: ``{"mix.strength": 0.5}``, or ``"mix.strength=0.5"`` texts and
        :class:`Override` records; texts are converted to the type of the setting.
    :param environ: environment; None: that of the process.
    :return: the configuration, and for every setting the place that it came from.
    :raises UsageError: unknown preset or setting (the nearest name is shown), a value of the
        wrong type or out of range, one setting given twice, a file that cannot be read.
    """
    values = {key: setting.default for key, setting in settings().items()}
    origins = dict.fromkeys(values, "default")

    def put(key: str, value: Any, origin: str) -> None:
        values[key] = convert(key, value, origin=origin)
        origins[key] = origin

    for name in _preset_names(preset):
        for key, value in PRESETS[name].items():
            put(key, value, f"preset {name}")
    if file is not None:
        for key, value in _read_file(Path(file)).items():
            put(key, value, os.fspath(file))
    for key, value, variable in _from_environment(os.environ if environ is None else environ):
        put(key, value, variable)
    given: dict[str, Override] = {}
    for override in _overrides(overrides):
        key = known(override.key, origin=override.origin)
        before = given.setdefault(key, override)
        put(key, override.value, override.origin)
        if before.origin != override.origin and convert(key, before.value) != values[key]:
            raise UsageError(
                f"{key} is given twice, by {before.origin} ({before.value}) and by "
                f"{override.origin} ({override.value}): leave one out"
            )
    return build(values), origins


def build(values: Mapping[str, Value]) -> RunConfig:
    """Configuration from dotted names and values of the right type; others keep defaults."""
    tree: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        group, dot, name = key.rpartition(".")
        (inner.setdefault(group, {}) if dot else tree)[name] = value
    hints = typing.get_type_hints(RunConfig)
    for group, members in inner.items():
        tree[group] = hints[group](**members)
    return RunConfig(**tree)


def flatten(config: RunConfig) -> dict[str, Value]:
    """All settings by dotted name."""
    flat: dict[str, Value] = {}
    for key in settings():
        value: Any = config
        for name in key.split("."):
            value = getattr(value, name)
        flat[key] = value
    return flat


def check(config: RunConfig) -> RunConfig:
    """The same configuration, for those made in Python, once types and ranges were checked.

    :raises UsageError: names the setting, what it holds and what it may hold.
    """
    for key, value in flatten(config).items():
        convert(key, value)
    return config


def _preset_names(preset: str | Sequence[str] | None) -> list[str]:
    texts = [preset] if isinstance(preset, str) else list(preset or ())
    names = [name.strip() for text in texts for name in text.split(",")]
    for name in names:
        if name not in PRESETS:
            hint = did_you_mean(name, PRESETS, f"there are {', '.join(PRESETS)}")
            raise UsageError(f"unknown preset {name!r}: {hint}")
    return names


def _overrides(given: Mapping[str, Any] | Sequence[str | Override]) -> Iterator[Override]:
    if isinstance(given, Mapping):
        for key, value in given.items():
            yield Override(key, value, "override")
        return
    for item in given:
        if isinstance(item, Override):
            yield item
            continue
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {item}: expected key=value, for example mix.strength=0.8")
        yield Override(key.strip(), text, "--set")


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    for variable in sorted(environ):
        if variable.startswith(ENVIRONMENT_PREFIX):
            key = variable[len(ENVIRONMENT_PREFIX) :].lower().replace("__", ".")
            yield known(key, origin=variable), environ[variable], variable


# ------------------------------------------------------------------ files


def _read_file(path: Path) -> dict[str, Any]:
    """Dotted names and raw values of a YAML file."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise UsageError(f"{path} is larger than 64 kB: it cannot be a settings file")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not text in UTF-8: name a YAML file of settings") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read the settings file {path} ({reason}): check --config") from (
            error
        )
    tree = _parse_yaml(text, path)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UsageError(f"{path}: expected settings such as 'mix: {{strength: 0.8}}'")
    flat: dict[str, Any] = {}
    for key, value in _flatten_file(tree, "", path):
        if key in flat:
            raise UsageError(f"{path}: {key} is given twice; leave one out")
        flat[key] = value
    return flat


def _parse_yaml(text: str, path: Path) -> Any:
    import yaml  # here, so that `vidswap --help` does not pay for it

    class Loader(yaml.SafeLoader):
        """Refuses a key given twice, of which YAML would silently keep the last."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key_node, _ in node.value:
                if isinstance(key_node.value, str) and key_node.value in seen:
                    raise UsageError(
                        f"{path}, line {key_node.start_mark.line + 1}: "
                        f"{key_node.value} is given twice; leave one out"
                    )
                if isinstance(key_node.value, str):
                    seen.add(key_node.value)
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be read"
        raise UsageError(f"{path}{where}: not valid YAML ({problem})") from error


def _flatten_file(tree: dict[Any, Any], prefix: str, path: Path) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if key in groups() and not prefix:
            if isinstance(value, dict):
                yield from _flatten_file(value, f"{key}.", path)
                continue
            if value is None:  # a group with all its lines commented out
                continue
        yield known(key, origin=str(path)), value


# ------------------------------------------------------------------ showing


def as_dict(config: RunConfig) -> dict[str, Any]:
    """Nested dictionary of plain values, for JSON."""
    return dataclasses.asdict(config)


def describe(
    config: RunConfig,
    origins: Mapping[str, str] | None = None,
    *,
    docs: bool = True,
    changed_only: bool = False,
) -> str:
    """The configuration as YAML, each setting with its meaning and the place it came from.

    What it prints is itself a file for ``--config``.

    :param origins: as :func:`load_config` gives them; None leaves them out.
    :param docs: with the docstrings as comments.
    :param changed_only: only settings that did not keep their default.
    """
    lines: list[str] = []
    group_before = ""
    for key, value in flatten(config).items():
        if changed_only and value == settings()[key].default:
            continue
        group, _, name = key.rpartition(".")
        indent = "  " if group else ""
        if group != group_before:
            lines += ["", f"# {groups()[group]}"] if docs else []
            lines.append(f"{group}:")
            group_before = group
        if docs and settings()[key].doc:
            lines.append(f"{indent}# {settings()[key].doc}")
        origin = (origins or {}).get(key, "default")
        comment = "" if origin == "default" else f"  # from {' '.join(origin.split())}"
        lines.append(f"{indent}{name}: {_to_yaml(value)}{comment}")
    return "\n".join(lines).strip("\n") + "\n" if lines else ""


def _to_yaml(value: Value) -> str:
    """A scalar that :func:`load_config` reads back as itself."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        reserved = ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
        plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", value) and value.lower() not in reserved
        return value if plain else _quoted(value)
    return repr(value)


def _quoted(text: str) -> str:
    """A double-quoted YAML scalar. (JSON's surrogate pairs are no YAML.)"""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'


def preset_yaml(name: str) -> str:
    """A preset as the YAML text of its file in ``configs/``."""
    lines = [f"# Same as `--preset {name}`."]
    group_before = ""
    for key, value in PRESETS[name].items():
        group, _, setting = key.rpartition(".")
        if group != group_before:
            lines.append(f"{group}:")
            group_before = group
        lines.append(f"{'  ' if group else ''}{setting}: {_to_yaml(value)}")
    return "\n".join([*lines, ""])

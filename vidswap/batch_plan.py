"""Which clips a batch swaps, with what, and where each result goes (composer level).

A batch is named by folders, globs, clips and lists (:mod:`vidswap.batch_lists`), mixed at will.
Results keep the sub-folders that the clips had below the folder, below the fixed part of the glob, or
in the list. What a list says of a clip wins over the command line.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PureWindowsPath
from typing import Any

from vidswap.batch_lists import LIST_SUFFIXES, inner_path, read_list
from vidswap.config import RunConfig
from vidswap.errors import InputError, UsageError
from vidswap.jobs import Job
from vidswap.setting_types import convert, known
from vidswap.settings import PRESETS, build, flatten
from vidswap.sources import check_reference, parse_source, parse_sources
from vidswap.times import parse_time
from vidswap.video import output_kind

CLIP_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .mts .m2ts .wmv .flv .3gp .ogv .mxf .gif".split()
)
"""What is taken from a folder; other names are left alone."""
DEFAULT_PATTERN = "{stem}.{ext}"

_FIELDS = ("stem", "ext", "name", "source", "number")
_WRITABLE = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".gif")


@dataclass(frozen=True)
class _Clip:
    """A clip that was named, and what a list says of it."""

    target: Path
    below: Path
    """Where it lies below the folder that was given; its name alone where none was."""
    origin: str = ""
    """Where it was named, for messages about lists."""
    words: Mapping[str, Any] = field(default_factory=dict)
    folder: Path = Path()
    """Where relative sources start."""


def plan_batch(
    targets: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    source: str | Sequence[str] = (),
    config: RunConfig | None = None,
    pattern: str = DEFAULT_PATTERN,
    face: Sequence[str] = (),
    reference: str | None = None,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    force: bool = False,
    restart: bool = False,
) -> list[Job]:
    """The jobs of a batch, in a stable order.

    :param targets: folders, globs, clips, lists.
    :param output: folder of the results.
    :param source: of all clips whose list gives none.
    :param pattern: name of a result below its sub-folder: ``{stem}`` and ``{ext}`` of the clip
        (``mkv`` for clips of a kind that is not written), ``{name}`` both, ``{source}``,
        ``{number}`` from 1.
    :param face: values of ``--face``. :param reference: picture of the person to be swapped; of all
        clips whose list gives neither.
    :param start_seconds: where to begin. :param end_seconds: where to stop; of all clips whose list does not
        say.
    :param force: replace results that were made by something else.
    :param restart: begin clips again that were stopped half-way.
    :raises UsageError: a list or pattern that makes no sense, a path with ``..`` in a list, two
        clips with one result, results among the clips, or no source for a clip.
    :raises InputError: no clip at all, an unreadable list, a missing source.
    """
    named = [targets] if isinstance(targets, (str, os.PathLike)) else list(targets)
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"the output {folder} is a file: name a folder with -o")
    texts = (source,) if isinstance(source, (str, os.PathLike)) else tuple(source)
    if texts:
        parse_sources(texts)
    check_reference(reference, face)
    clips = [clip for text in named for clip in _expand(os.fspath(text), folder)]
    if not clips:
        shown = ", ".join(os.fspath(text) for text in named) or "nothing"
        raise InputError(f"no clip found in {shown}: name a folder with videos, a glob or a list")
    shared = Job(
        0, "", Path(), folder, tuple(os.fspath(t) for t in texts), config or RunConfig(),
        start_seconds, end_seconds, tuple(face), reference, force, restart,
    )  # fmt: skip
    jobs = [_job(clip, number, shared, pattern) for number, clip in enumerate(clips)]
    _check_outputs(jobs)
    return jobs


# ------------------------------------------------------------------ finding clips


def _expand(text: str, output: Path) -> Iterator[_Clip]:
    """Clips behind one word of the command line."""
    if not text:
        raise UsageError("an empty target: name a folder, a glob, a clip or a list")
    path = Path(text)
    if path.is_dir():
        if output.exists() and path.samefile(output):
            raise UsageError(
                f"the output folder {output} is the folder of the clips: choose another with -o"
            )
        yield from _in_folder(path, output)
    elif not os.path.lexists(path) and glob.has_magic(text):
        yield from _by_glob(text, output)
    elif path.suffix.lower() in LIST_SUFFIXES:
        yield from _in_list(path)
    elif not os.path.lexists(path):
        raise InputError(f"no such file or folder: {path}; check the path")
    else:
        yield _Clip(path, Path(path.name))


def _in_folder(folder: Path, output: Path) -> Iterator[_Clip]:
    """Clips of a folder and its sub-folders, without hidden ones and without the results."""
    results = os.path.realpath(output)
    for place, inner, names in os.walk(folder, onerror=_unreadable):
        inner[:] = sorted(
            name
            for name in inner
            if not name.startswith(".") and os.path.realpath(os.path.join(place, name)) != results
        )
        for name in sorted(names):
            if _is_clip(name):
                path = Path(place, name)
                yield _Clip(path, path.relative_to(folder))


def _unreadable(error: OSError) -> None:
    raise InputError(
        f"cannot read the folder {error.filename} ({error.strerror}): check its rights"
    ) from error


def _by_glob(text: str, output: Path) -> Iterator[_Clip]:
    """Clips that a glob names; their sub-folders are those below its fixed part."""
    fixed = Path(*_before_magic(Path(text).parts))
    results = os.path.realpath(output)
    for match in sorted(glob.glob(text, recursive=True)):
        path = Path(match)
        inside = os.path.realpath(path).startswith(results + os.sep)
        if path.is_file() and _is_clip(path.name) and not inside:
            yield _Clip(path, path.relative_to(fixed))


def _before_magic(parts: Sequence[str]) -> Iterator[str]:
    for part in parts[:-1]:
        if glob.has_magic(part):
            return
        yield part


def _is_clip(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in CLIP_SUFFIXES


def _in_list(path: Path) -> Iterator[_Clip]:
    """Clips of a list, with what it says of them."""
    for where, words in read_list(path):
        target = inner_path(words.get("target"), "target", where)
        below = Path(target.name) if target.is_absolute() else target
        yield _Clip(path.parent / target, below, where, words, path.parent)


# ------------------------------------------------------------------ jobs


def _job(clip: _Clip, number: int, shared: Job, pattern: str) -> Job:
    words = clip.words
    where = clip.origin or str(clip.target)
    source = shared.source
    if "source" in words:
        source = tuple(_source(text, clip, where) for text in _several(words["source"]))
        parse_sources(source)
    face, reference = _chosen(clip, shared, where)
    if not source and not any("=" in text for text in face):
        raise UsageError(f"{where}: no source: name a photo with -s, or -s synthetic:SEED")
    start = _seconds(words.get("start"), "start", where, shared.start_seconds)
    end = _seconds(words.get("end"), "end", where, shared.end_seconds)
    if start is not None and end is not None and end <= start:
        raise UsageError(f"{where}: end {end:g} is not after start {start:g}: give a later end")
    if "output" in words:
        inner = inner_path(str(words["output"]), "output", where)
        inner = _contained(_filled(str(inner), clip, source, number, where), where)
    else:
        name = _filled(pattern, clip, source, number, "--pattern")
        inner = clip.below.parent / _contained(name, "--pattern")
    output = shared.output / inner
    output_kind(output)
    return replace(
        shared, index=number, name=str(clip.below), target=clip.target, output=output, source=source,
        config=_config(shared.config, words, where), start_seconds=start, end_seconds=end, face=face,
        reference=reference,
    )  # fmt: skip


def _chosen(clip: _Clip, shared: Job, where: str) -> tuple[tuple[str, ...], str | None]:
    """Who is swapped, by number or by picture; a list that says either wins over the command line."""
    words = clip.words
    if "face" not in words and "reference" not in words:
        return shared.face, shared.reference
    face = tuple(_face(text, clip, where) for text in _several(words.get("face", ())))
    if "reference" not in words:
        return face, None
    if face:
        raise UsageError(f"{where}: face and reference both say who is swapped: leave one out")
    reference = str(clip.folder / inner_path(words["reference"], "reference", where))
    check_reference(reference)
    return (), reference


def _several(value: Any) -> list[str]:
    if isinstance(value, (list, tuple)):
        return [str(item) for item in value]
    return [part.strip() for part in str(value).split(";") if part.strip()]


def _source(text: str, clip: _Clip, where: str) -> str:
    if text.startswith("synthetic:"):
        return text
    return str(clip.folder / inner_path(text, "source", where))


def _face(text: str, clip: _Clip, where: str) -> str:
    number, equals, source = text.partition("=")
    if not equals:
        return text
    found = _source(source, clip, where)
    parse_sources(found)
    return f"{number}={found}"


def _seconds(value: Any, word: str, where: str, shared: float | None) -> float | None:
    """Seconds, or ``[HH:]MM:SS[.mmm]``. (YAML itself reads 1:30 as 90.)

    :param shared: what holds where a list is silent.
    """
    if value is None or value == "":
        return shared
    try:
        return parse_time(str(value))
    except ValueError as error:
        raise UsageError(f"{where}: {word} {value!r} is not a time: {error}") from error


def _config(shared: RunConfig, words: Mapping[str, Any], where: str) -> RunConfig:
    """The settings of a clip: those of the command line, then its presets, then its settings."""
    changes: dict[str, Any] = {}
    for name in _several(str(words.get("preset", "")).replace(",", ";")):
        if name not in PRESETS:
            raise UsageError(f"{where}: unknown preset {name!r}: there are {', '.join(PRESETS)}")
        changes.update(PRESETS[name])
    for key, value in (words.get("settings") or {}).items():
        changes[known(key, origin=where)] = value
    if not changes:
        return shared
    typed = {key: convert(key, value, origin=where) for key, value in changes.items()}
    return build({**flatten(shared), **typed})


def _filled(
    pattern: str, clip: _Clip, source: Sequence[str], number: int, where: str
) -> str:
    """A pattern with its fields filled in; their values never make a folder of their own."""
    suffix = clip.target.suffix.lower()
    ext = (suffix if suffix in _WRITABLE else ".mkv").removeprefix(".")
    stem = clip.target.stem if suffix else clip.target.name
    label = parse_source(source[0]).stem if source else "faces"
    values = {
        "stem": stem, "ext": ext, "name": f"{stem}.{ext}", "source": label, "number": str(number + 1),
    }  # fmt: skip

    def value_of(match: re.Match[str]) -> str:
        if match[1] not in values:
            known_fields = ", ".join(f"{{{name}}}" for name in _FIELDS)
            raise UsageError(f"{where}: unknown field {{{match[1]}}}: there are {known_fields}")
        return values[match[1]]

    return re.sub(r"\{([^{}]*)\}", value_of, pattern)


def _contained(text: str, where: str) -> Path:
    """A result's path below the output folder.

    :raises UsageError: it is empty, absolute or climbs out.
    """
    inner, windows = Path(text), PureWindowsPath(text)
    if inner.is_absolute() or windows.is_absolute() or ".." in {*inner.parts, *windows.parts}:
        raise UsageError(f"{where}: the result {text!r} would lie outside of the output folder")
    if not inner.name or inner.name.startswith(".vidswap"):
        raise UsageError(f"{where}: {text!r} cannot be the name of a result")
    return inner


def _check_outputs(jobs: Sequence[Job]) -> None:
    """No two clips may share a result, and no clip may be overwritten."""
    taken: dict[str, Job] = {}
    targets = {os.path.realpath(job.target): job for job in jobs}
    for job in jobs:
        place = os.path.realpath(job.output)
        other = taken.setdefault(place, job)
        if other is not job:
            raise UsageError(
                f"{other.name} and {job.name} would both become {job.output}: tell them apart "
                "with --pattern, for example '{number}-{stem}.{ext}'"
            )
        if place in targets:
            raise UsageError(f"the result {job.output} is itself a clip of the batch: choose another -o")

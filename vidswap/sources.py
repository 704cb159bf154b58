"""What the user may name as a source of identity, read and checked before any work."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from vidswap.cache import content_key
from vidswap.errors import InputError, UsageError

SYNTHETIC_PREFIX = "synthetic:"
MAX_SEED = 2**32 - 1
MAX_SHARE = 1000

_INDEX = re.compile(r"(?P<path>.+)#(?P<index>\d+)")
_SHARE = re.compile(r"(?P<rest>.+)@(?P<share>\d+(?:\.\d*)?|\.\d+)", re.ASCII)


@dataclass(frozen=True)
class SourceSpec:
    """One source: a photo, or a person who does not exist."""

    kind: Literal["photo", "synthetic"]
    path: Path | None = None
    """The photo."""
    face_index: int | None = None
    """Which face of the photo, from the left, from 0; None: it must show one only."""
    seed: int | None = None
    """Seed of the generator's latent for ``synthetic``."""
    share: float | None = None
    """How much of the mixed person is this one, beside the shares of the others; None: it was not said."""

    def __post_init__(self) -> None:
        if (self.kind == "photo") != (self.path is not None and self.seed is None):
            raise ValueError(f"SourceSpec: a photo has a path and no seed, got {self}")
        if (self.kind == "synthetic") != (self.seed is not None and self.path is None):
            raise ValueError(f"SourceSpec: a synthetic source has a seed and no path, got {self}")
        if self.share is not None and not 0 < self.share <= MAX_SHARE:
            raise ValueError(f"SourceSpec: expected a share above 0 and up to {MAX_SHARE}, got {self.share}")

    @property
    def photo(self) -> Path:
        """:attr:`path` of a photo.

        :raises ValueError: the source is a person who does not exist.
        """
        if self.path is None:
            raise ValueError(f"source: expected a photo, got {self}")
        return self.path

    @property
    def stem(self) -> str:
        """A name for files: the photo's without folder and ending, or ``synthetic-7``."""
        return f"synthetic-{self.seed}" if self.path is None else self.path.stem

    def __str__(self) -> str:
        name = f"{SYNTHETIC_PREFIX}{self.seed}" if self.kind == "synthetic" else f"{self.path}"
        index = "" if self.face_index is None else f"#{self.face_index}"
        return name + index + ("" if self.share is None else f"@{self.share:g}")


def face_key(spec: SourceSpec) -> str:
    """Names the face of a photo by what the file holds, whatever it is called."""
    return f"{content_key(spec.photo)}#{'' if spec.face_index is None else spec.face_index}"


def parse_source(spec: str | os.PathLike[str]) -> SourceSpec:
    """Read ``photo.jpg``, ``photo.jpg#1`` (second face from the left) or ``synthetic:SEED``, each with
    ``@0.7`` after it where people are mixed.

    A file whose name really ends in ``#1`` or ``@0.7`` is taken as that file.

    :raises UsageError: the text is empty, the seed is not a whole number in 0..2^32-1, or the share is 0.
    :raises InputError: there is no such file, or it is not one.
    """
    text, share = _shared(os.fspath(spec))
    if text.startswith(SYNTHETIC_PREFIX):
        return SourceSpec("synthetic", seed=_seed(text[len(SYNTHETIC_PREFIX) :]), share=share)
    return replace(_photo(text, "source", "name a photo, or synthetic:SEED"), share=share)


def _shared(text: str) -> tuple[str, float | None]:
    """What is before the ``@``, and the number after it."""
    match = _SHARE.fullmatch(text)
    if match is None or "\0" in text or _exists(Path(text), "source"):
        return text, None
    share = float(match["share"])
    if not 0 < share <= MAX_SHARE:
        raise UsageError(f"{text}: expected a share above 0 and up to {MAX_SHARE}, for example @0.7")
    return match["rest"], share


def parse_reference(spec: str | os.PathLike[str]) -> SourceSpec:
    """Read ``face.png`` or ``people.png#1`` (second face from the left), the value of ``--reference``.

    :raises UsageError: the text is empty, or names a person who does not exist.
    :raises InputError: there is no such file, or it is not one.
    """
    text = os.fspath(spec)
    if text.startswith(SYNTHETIC_PREFIX):
        raise UsageError(f"--reference {text}: expected a picture of a person of the clip")
    return _photo(text, "reference", "name a picture of the person")


def check_reference(reference: str | os.PathLike[str] | None, faces: Sequence[str] = ()) -> None:
    """Refuse a ``--reference`` that is missing or contradicts ``--face``, before networks are loaded.

    :raises UsageError: both were given. :raises InputError: the picture is missing.
    """
    if reference is None:
        return
    if faces:
        raise UsageError(
            "--reference and --face both say who is meant: give the picture or the number, not both"
        )
    parse_reference(reference)


def _photo(text: str, word: str, remedy: str) -> SourceSpec:
    if not text:
        raise UsageError(f"the {word} is empty: {remedy}")
    path, index = Path(text), None
    if "\0" in text:
        raise UsageError(f"the {word} holds a zero byte, which no file name can: name a photo")
    match = _INDEX.fullmatch(text)
    if match and not _exists(path, word):
        path, index = Path(match["path"]), int(match["index"])
    if not _exists(path, word):
        raise InputError(f"no such {word}: {path}: {remedy}")
    if not path.is_file():
        raise InputError(f"the {word} {path} is not a file: {remedy}")
    return SourceSpec("photo", path=path, face_index=index)


def parse_sources(specs: str | os.PathLike[str] | Sequence[str]) -> tuple[SourceSpec, ...]:
    """Several photos of one person, a single source of any kind, or several people and the share of each.

    :raises UsageError: none given; a synthetic person beside others without shares; a share of one alone.
    :raises InputError: as :func:`parse_source`.
    """
    texts = [specs] if isinstance(specs, (str, os.PathLike)) else list(specs)
    if not texts:
        raise UsageError("no source given: name a photo with -s, or -s synthetic:SEED")
    parsed = tuple(parse_source(text) for text in texts)
    mixed = any(source.share is not None for source in parsed)
    if len(parsed) == 1 and mixed:
        raise UsageError(
            f"{parsed[0]}: a share says how much of each of several sources; for less of one use --strength"
        )
    if len(parsed) > 1 and not mixed and any(source.kind == "synthetic" for source in parsed):
        raise UsageError(
            "several sources are taken for photos of one person: give synthetic:SEED alone, or mix people "
            "by saying how much of each, as in -s a.jpg@0.6 -s synthetic:7@0.4"
        )
    return parsed


def _exists(path: Path, word: str) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise InputError(
            f"cannot read the {word} {path} ({error.strerror or error}): check its path and rights"
        ) from error
    return True


def _seed(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > MAX_SEED:
        raise UsageError(
            f"{SYNTHETIC_PREFIX}{text}: the seed must be a whole number from 0 to {MAX_SEED}, "
            f"for example {SYNTHETIC_PREFIX}7"
        )
    return int(text)

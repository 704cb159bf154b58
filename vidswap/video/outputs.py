"""Where an output goes: judged before the work starts, made whole under another name."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import av.error

from vidswap import errors
from vidswap.cache import fsync_folder
from vidswap.errors import OutputError, UsageError, VidswapError
from vidswap.video.container import reason
from vidswap.video.images import has_image_suffix

VIDEO_FORMATS = {
    ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm",
}  # fmt: skip
"""FFmpeg muxer of each video suffix."""
MP4_FAMILY = frozenset({"mp4", "mov"})
_LONGEST_NAME = 250
"""Bytes; with the ``.c2pa`` of a mark that lies beside it, it must stay a name that disks take."""
DISK_ERRORS = errors.DISK_ERRORS | {errno.EIO}


def output_kind(path: str | os.PathLike[str]) -> str:
    """``video``, ``gif``, ``image`` or ``folder`` by an output's name.

    :raises UsageError: a suffix of no kind that can be written.
    """
    text = os.fspath(path)
    suffix = Path(text).suffix.lower()
    if text.endswith(os.sep) or Path(text).is_dir() or not suffix:
        return "folder"
    if suffix in VIDEO_FORMATS:
        return "video"
    if suffix == ".gif":
        return "gif"
    if has_image_suffix(text):
        return "image"
    raise UsageError(
        f"cannot write {suffix} files ({text}); name the output .mp4, .mov, .mkv, .webm, .gif, "
        ".png, .jpg or a folder"
    )


def real_folder(path: str | os.PathLike[str]) -> Path:
    """An output folder that is named by a link is the one that the link leads to: links, too, would be
    replaced when it gets its name."""
    return Path(os.path.realpath(path)) if os.path.isdir(path) and os.path.islink(path) else Path(path)


def check_output(
    output: str | os.PathLike[str], target: str | os.PathLike[str] | None, *, force: bool = False
) -> None:
    """Make sure that an output can be written, before any work is done.

    :param target: the input, which must not be overwritten, by whatever name.
    :param force: allow an existing output to be replaced.
    :raises UsageError: unknown kind of file, it exists, or it is the input.
    :raises OutputError: its folder does not exist or cannot be written.
    """
    if os.fspath(output) == "-":
        raise UsageError("the output cannot be a pipe: it is read back once it is made; name a file")
    kind = output_kind(output)
    path = Path(output)
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise UsageError(f"the output's name {path.name[:40]}... is too long: at most {_LONGEST_NAME} bytes")
    if target is not None and _same_file(path, Path(target)):
        raise UsageError(
            f"the output {path} is the input itself, which is never changed; choose another name"
        )
    if kind == "folder":
        if path.exists() and not path.is_dir():
            raise UsageError(f"the output folder {path} is a file; choose another name")
        if path.is_dir() and (os.path.ismount(path) or _same_file(path, Path.cwd())):
            # It is made under another name first, and neither can be given a new one.
            raise UsageError(
                f"the output folder {path} is the current folder or the root of a disk; name one inside it"
            )
        if path.is_dir() and not force and any(path.iterdir()):
            raise UsageError(
                f"the output folder {path} is not empty; use --force to write into it"
            )
    elif path.exists() or path.is_symlink():
        if path.is_dir():
            raise UsageError(f"the output {path} is a folder; choose another name")
        if not force:
            raise UsageError(f"the output {path} exists; use --force to replace it")
    parent = path.absolute().parent
    if not parent.is_dir():
        raise OutputError(f"no such folder: {parent}; create it or choose another output")
    _require_writable(parent)


def _same_file(first: Path, second: Path) -> bool:
    try:
        return os.path.samefile(first, second)
    except OSError:
        return os.path.realpath(first) == os.path.realpath(second)


def _require_writable(folder: Path) -> None:
    trial = folder / f".vidswap-{uuid.uuid4().hex[:12]}"
    try:
        os.close(os.open(trial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise OutputError(
            f"cannot write into {folder}: {reason(error)}; choose another output folder"
        ) from error
    with suppress(OSError):
        trial.unlink()


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn what the system or the media library says while writing into an OutputError."""
    try:
        yield
    except VidswapError:
        raise
    except (av.error.FFmpegError, OSError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "free some space" if full else "see whether the disk is well"
        raise OutputError(f"cannot write {path}: {reason(error)}; {remedy}") from error


class PartialOutput:
    """A file or folder that gets its name only when it is whole.

    It is written as ``.NAME.part.SUFFIX`` beside the output. Leaving the block normally closes,
    syncs and renames it; leaving it by an exception removes it.
    """

    is_folder = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        suffix = "" if self.is_folder else self.path.suffix
        stem = self.path.name if self.is_folder else self.path.stem
        self.part = self.path.with_name(f".{stem[:200]}.part{suffix}")
        self.frames_written = 0
        self.warnings: list[str] = []

    def _finish(self) -> None:
        """Write what is pending and close."""

    def _abandon(self) -> None:
        """Close after a failure; nothing of the file matters any more."""

    def close(self) -> None:
        """Finish, sync and rename.

        :raises OutputError: the disk is full or broken; nothing is left then.
        """
        try:
            with output_errors(self.path):
                self._finish()
                self._publish()
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Give up: close and remove what was written."""
        with suppress(Exception):
            self._abandon()
        if self.part.is_dir():
            shutil.rmtree(self.part, ignore_errors=True)
        else:
            with suppress(OSError):
                self.part.unlink()

    def _publish(self) -> None:
        with open(self.part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(self.part, self.path)
        fsync_folder(self.path.parent)

    def __enter__(self):  # noqa: ANN204 - the subclass itself
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

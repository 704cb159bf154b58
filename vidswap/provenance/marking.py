"""Marks an output as synthetic: last of all, read back before the file gets its name."""

from __future__ import annotations

import errno
import io
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import c2pa
from PIL import Image

from vidswap.cache import fsync_folder, temporary_beside, write_atomically
from vidswap.errors import OutputError, UsageError
from vidswap.provenance import xmp
from vidswap.provenance.claims import MarkInfo, Parent, sign
from vidswap.provenance.formats import PNG, Format, format_of, sidecar_of
from vidswap.provenance.reading import MarkReading, manifest_fields
from vidswap.provenance.signing import Credentials, SignerFiles, credentials_from
from vidswap.provenance.splice import Part, Piece, opened
from vidswap.provenance.terms import DIGITAL_SOURCE_TYPE

_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif"}


@dataclass(frozen=True)
class MarkReport:
    """What :func:`mark_output` wrote and read back."""

    path: Path
    media_type: str
    sidecar: Path | None
    """The manifest beside the file, for formats that cannot carry one."""
    has_xmp: bool
    tag: str | None
    """The container tag as read back; the video writer wrote it."""
    has_parent: bool
    """Whether earlier manifests, the target's above all, came along as the parent."""
    notes: tuple[str, ...] = ()
    """What could not be done, each with its reason."""


def check_signer(signer: SignerFiles | None = None) -> None:
    """Signs a tiny picture in memory, so that a bad certificate is found before hours of work.

    Raises:
        UsageError: the user's certificate cannot be used.
        OutputError: the local one cannot be made.
    """
    picture, signed = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (1, 1)).save(picture, "PNG")
    credentials = credentials_from(signer)
    try:
        sign(picture, signed, PNG, claim=MarkInfo("0", "none"), credentials=credentials)
        problems = manifest_fields(signed, PNG, None)["problems"]
    except c2pa.C2paError as error:
        problems = (_line(error),)
    if problems and signer is not None:
        raise UsageError(
            f"C2PA refuses the certificate {signer.certificate_chain}: {problems[0]}; it needs "
            "a chain up to an authority and a leaf with the emailProtection or "
            "documentSigning usage"
        )
    if problems:
        raise OutputError(f"the local certificate cannot sign: {problems[0]}; check the clock")


def mark_output(
    path_in: Path,
    path_out: Path,
    *,
    target: Path | None = None,
    claim: MarkInfo,
    signer: SignerFiles | None = None,
) -> MarkReport:
    """Writes ``path_in`` with its marks to ``path_out``, replacing what is there.

    The C2PA manifest goes inside the file, or beside it (``.c2pa``) where the format has no
    place for it; an XMP packet goes into MP4, MOV, PNG, JPEG and GIF. All is read back and
    checked before ``path_out`` gets its name. ``path_in`` stays as it is unless the two are
    the same file. The file is streamed, never loaded.

    Args:
        target: the medium that the output was made from; the marks that it carries are kept
            as the parent, its name is not.
        claim: what is signed.
        signer: the user's certificate; None: the local one.

    Raises:
        OutputError: the mark could not be written or does not read back; ``path_out`` is as
            it was before.
        UsageError: the user's certificate cannot be used.
    """
    path_in, path_out = Path(path_in), Path(path_out)
    credentials = credentials_from(signer)
    temporary = temporary_beside(path_out)
    try:
        kind = format_of(path_in)
        parent = Parent.of(target)
        if kind.embeds:
            notes = _embed(path_in, temporary, kind, claim, credentials, parent)
            manifest = None
        else:
            _link_or_copy(path_in, temporary)
            manifest = _detach(path_in, kind, claim, credentials, parent)
            notes = [f"{kind.mime} cannot carry the manifest: it lies beside the file"]
        reading = _read_back(temporary, kind, manifest)
        _publish(temporary, path_out, manifest)
    except (c2pa.C2paError, OSError) as error:
        raise _failure(path_out, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return MarkReport(
        path=path_out,
        media_type=kind.mime,
        sidecar=None if manifest is None else sidecar_of(path_out),
        has_xmp=reading.xmp_source_type == DIGITAL_SOURCE_TYPE,
        tag=reading.tag,
        has_parent=reading.parents > 0,
        notes=(*notes, *(parent.notes if parent else ())),
    )


def mark_folder(
    folder_in: Path,
    folder_out: Path,
    *,
    target: Path | None = None,
    claim: MarkInfo,
    signer: SignerFiles | None = None,
) -> list[MarkReport]:
    """Marks every image of a folder, each as :func:`mark_output` does.

    Args:
        target: the folder of images that the output was made from, or one file; an image of
            the same name in it is the parent.

    Raises:
        OutputError: one could not be marked, or there is none; images that this call added to
            ``folder_out`` are gone again.
    """
    folder_in, folder_out = Path(folder_in), Path(folder_out)
    images = sorted(p for p in folder_in.iterdir() if p.suffix.lower() in _IMAGE_SUFFIXES)
    if not images:
        raise OutputError(f"{folder_in} holds no images to mark; this is a fault of vidswap")
    in_place = folder_out.exists() and folder_in.samefile(folder_out)
    reports: list[MarkReport] = []
    added: list[Path] = []
    try:
        folder_out.mkdir(parents=True, exist_ok=True)
        for image in images:
            origin = target / image.name if target is not None and target.is_dir() else target
            if origin is not None and not origin.is_file():
                origin = None
            goal = folder_out / image.name
            if not in_place and not goal.exists():
                added.append(goal)
            reports.append(
                mark_output(image, goal, target=origin, claim=claim, signer=signer)
            )
    except OSError as error:
        _remove(added)
        raise _failure(folder_out, error) from error
    except BaseException:
        _remove(added)
        raise
    return reports


def _remove(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
        sidecar_of(path).unlink(missing_ok=True)


# --- writing --------------------------------------------------------------------------------------


def _embed(
    path_in: Path,
    path_out: Path,
    kind: Format,
    claim: MarkInfo,
    credentials: Credentials,
    parent: Parent | None,
) -> list[str]:
    """Writes the file with XMP and manifest; returns notes."""
    notes = []
    with open(path_in, "rb") as source, open(path_out, "x+b") as goal:
        pieces: list[Piece] | None = None
        if kind.with_xmp is not None:
            packet = xmp.make_packet(
                kind.read_xmp(source),
                creator_tool=f"vidswap {claim.tool_version}",
                max_bytes=kind.xmp_room,
            )
            pieces = kind.with_xmp(source, packet)
        if pieces is None:
            notes.append(f"no XMP packet: {kind.mime} of this make has no place for it")
            pieces = [Part(0, source.seek(0, os.SEEK_END))]
        with opened(source, pieces) as spliced:
            sign(spliced, goal, kind, claim=claim, credentials=credentials, parent=parent)
        goal.flush()
        os.fsync(goal.fileno())
    shutil.copymode(path_in, path_out)
    return notes


def _detach(
    path_in: Path,
    kind: Format,
    claim: MarkInfo,
    credentials: Credentials,
    parent: Parent | None,
) -> bytes:
    """The manifest of a file that cannot carry it."""
    with open(path_in, "rb") as source, open(os.devnull, "r+b") as nowhere:
        return sign(
            source,
            nowhere,
            kind,
            claim=claim,
            credentials=credentials,
            parent=parent,
            embed=False,
        )


# --- reading back and publishing ----------------------------------------------------------------


def _read_back(path: Path, kind: Format, manifest: bytes | None) -> MarkReading:
    """The marks of the finished temporary.

    Raises:
        OutputError: the manifest is not there, or does not hold.
    """
    with open(path, "rb") as stream:
        fields = manifest_fields(stream, kind, manifest)
        reading = MarkReading(
            path=path,
            media_type=kind.mime,
            tag=kind.read_tags(stream).get("digital_source_type"),
            xmp_source_type=xmp.source_type_of(kind.read_xmp(stream)),
            **fields,
        )
    if not reading.has_valid_mark or DIGITAL_SOURCE_TYPE not in reading.source_types:
        reason = ", ".join(reading.problems) or f"state {reading.state}"
        raise OutputError(
            f"the mark of the output does not read back ({reason}); nothing was published: "
            "check the disk, the certificate and the clock, then run it again"
        )
    return reading


def _publish(temporary: Path, path_out: Path, manifest: bytes | None) -> None:
    sidecar = sidecar_of(path_out)
    if manifest is not None:
        before = sidecar.read_bytes() if sidecar.exists() else None
        write_atomically(sidecar, manifest)
        try:
            os.replace(temporary, path_out)
        except OSError:
            if before is None:
                sidecar.unlink(missing_ok=True)
            else:
                write_atomically(sidecar, before)
            raise
    else:
        os.replace(temporary, path_out)
        sidecar.unlink(missing_ok=True)  # of an older output of this name
    fsync_folder(path_out.parent)


def _link_or_copy(path_in: Path, path_out: Path) -> None:
    """The same content under another name: no second copy where the disk can share one."""
    try:
        os.link(path_in.resolve(), path_out)  # a link to a symbolic link would end with it
        return
    except OSError:
        pass
    with open(path_in, "rb") as source, open(path_out, "xb") as goal:
        shutil.copyfileobj(source, goal, 1 << 20)
        goal.flush()
        os.fsync(goal.fileno())


def _failure(path: Path, error: Exception) -> OutputError:
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return OutputError(f"no room to mark {path}; free some space and run it again")
        return OutputError(
            f"cannot mark {path}: {error.strerror or error}; check the folder and run it again"
        )
    return OutputError(
        f"cannot mark {path}: {_line(error)}; the unmarked file was not published: try another "
        "container or report it"
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]

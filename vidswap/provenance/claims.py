"""What is signed: the claim about the making, the parent it came from, and the signing itself."""

from __future__ import annotations

import errno
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import c2pa

from vidswap.errors import InputError
from vidswap.provenance.formats import OTHER, Format, find_sidecar, format_of
from vidswap.provenance.interrupts import interrupts_wait
from vidswap.provenance.reading import manifest_report, new_context, read_mark
from vidswap.provenance.signing import Credentials
from vidswap.provenance.terms import ASSERTION_LABEL, DIGITAL_SOURCE_TYPE

_PARENT_MANIFEST = "parent.c2pa"


@dataclass(frozen=True)
class MarkInfo:
    """What is signed about the making. Names of people and files have no place in it."""

    tool_version: str
    generator: str
    """Name of the generator."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 (hex) of each weights file, by its name in the catalogue."""
    settings_digest: str = ""
    """SHA-256 (hex) of the settings of the run."""
    visible_label: bool = False
    """Whether the pictures bear a visible label as well."""


@dataclass
class Parent:
    """The marks that the target carries."""

    path: Path
    kind: Format
    sidecar: Path | None
    has_manifest: bool
    stated: dict[str, str]
    """Unsigned statements: tag and XMP."""
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, target: Path | None) -> Parent | None:
        if target is None:
            return None
        try:
            reading = read_mark(target)
        except InputError as error:
            # The output exists, so the target was readable before; say it and go on.
            return cls(target, OTHER, None, False, {}, (f"marks of the target not kept: {error}",))
        notes: tuple[str, ...] = ()
        if reading.state == "unreadable":
            notes = (f"the target's manifest is damaged and not kept: {reading.problems[0]}",)
        sidecar = find_sidecar(target) if reading.place == "sidecar" else None
        stated = {"tag": reading.tag, "xmp": reading.xmp_source_type}
        return cls(
            target,
            format_of(target),
            sidecar,
            reading.state not in ("absent", "unreadable"),
            {name: value[:200] for name, value in stated.items() if value},
            notes,
        )


class _Watched:
    """A stream for the C2PA library that remembers why a call failed.

    The library only hears that a call failed. Without the cause a full disk would look like a
    fault of the format, and Ctrl-C would be lost.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.error: BaseException | None = None

    def _call(self, name: str, *arguments: Any) -> Any:
        if self.error is not None:
            raise OSError(errno.EIO, "an earlier call failed")
        try:
            return getattr(self._stream, name)(*arguments)
        except BaseException as error:
            self.error = error
            raise OSError(errno.EIO, str(error)) from error

    def read(self, size: int = -1) -> bytes:
        return self._call("read", size)  # type: ignore[no-any-return]

    def write(self, data: bytes) -> int:
        return self._call("write", data)  # type: ignore[no-any-return]

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._call("seek", offset, whence)  # type: ignore[no-any-return]

    def tell(self) -> int:
        return self._call("tell")  # type: ignore[no-any-return]

    def flush(self) -> None:
        self._call("flush")


def sign(
    source: BinaryIO,
    goal: BinaryIO,
    kind: Format,
    *,
    claim: MarkInfo,
    credentials: Credentials,
    parent: Parent | None = None,
    embed: bool = True,
) -> bytes:
    """Writes ``source`` with a signed manifest to ``goal``.

    Args:
        embed: False leaves the manifest out of ``goal``; it belongs beside the file then.

    Returns:
        The manifest.

    Raises:
        c2pa.C2paError: the library refuses.
        OSError: reading or writing failed.
    """
    watched = _Watched(source), _Watched(goal)
    source.seek(0)
    info = c2pa.C2paSignerInfo(
        credentials.algorithm, credentials.chain_pem, credentials.key_pem, None
    )
    try:
        with interrupts_wait(), new_context() as context, c2pa.Signer.from_info(
            info
        ) as signer, c2pa.Builder(_manifest(kind, claim, parent), context) as builder:
            if not embed:
                builder.set_no_embed()
            builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
            if parent is not None and parent.has_manifest:
                _add_parent(builder, parent)
            builder.add_action(
                {
                    "action": "c2pa.edited",
                    "digitalSourceType": DIGITAL_SOURCE_TYPE,
                    "softwareAgent": {"name": "vidswap", "version": claim.tool_version},
                    "parameters": {"description": "A face was replaced by a generated one."},
                }
            )
            return builder.sign(signer, kind.mime, *watched)
    except c2pa.C2paError:
        for stream in watched:
            if stream.error is not None:
                raise stream.error from None
        raise


def _manifest(kind: Format, claim: MarkInfo, parent: Parent | None) -> dict[str, Any]:
    data: dict[str, Any] = {
        "generator": claim.generator,
        "weights_sha256": dict(claim.weights),
        "settings_sha256": claim.settings_digest,
        "visible_label": claim.visible_label,
    }
    if parent is not None and parent.stated:
        data["target_stated"] = parent.stated
    return {
        "claim_generator_info": [{"name": "vidswap", "version": claim.tool_version}],
        "format": kind.mime,
        "assertions": [{"label": ASSERTION_LABEL, "data": data}],
    }


def _add_parent(builder: c2pa.Builder, parent: Parent) -> None:
    # A title of our own: the library would else take the file's name, which may name a person.
    description: dict[str, Any] = {"title": "target", "relationship": "parentOf"}
    with open(parent.path, "rb") as stream:
        if parent.sidecar is not None:
            # The library takes a bare .c2pa file for an archive, or checks it against itself;
            # so it gets the manifest with the verdict on the target that it belongs to.
            manifest = parent.sidecar.read_bytes()
            report = manifest_report(stream, parent.kind, manifest)
            builder.add_resource(_PARENT_MANIFEST, io.BytesIO(manifest))
            description["manifest_data"] = {
                "format": "application/c2pa",
                "identifier": _PARENT_MANIFEST,
            }
            description["active_manifest"] = report["active_manifest"]
            description["validation_results"] = report["validation_results"]
            stream.seek(0)
        builder.add_ingredient(description, parent.kind.mime, stream)

"""What a file says about its origin, and whether that still holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import c2pa

from vidswap.errors import InputError
from vidswap.provenance import xmp
from vidswap.provenance.formats import Format, find_sidecar, format_of
from vidswap.provenance.interrupts import interrupts_wait
from vidswap.provenance.terms import (
    ASSERTION_LABEL,
    COMMENT,
    TAG_NAME,
    is_synthetic_term,
)

State = Literal["absent", "valid", "changed", "invalid", "unreadable"]

_MAX_SIDECAR_BYTES = 1 << 28
_CHANGED = (".mismatch", "assertion.missing", "assertion.undeclared", "hashedURI.missing")
_SETTINGS: dict[str, Any] = {
    # Nothing here may reach for the network: the tool promises to work offline.
    "verify": {
        "remote_manifest_fetch": False,
        "ocsp_fetch": False,
        "verify_after_sign": False,  # the read-back does it, once
    },
    # A thumbnail would carry the face that the user may want to hide.
    "builder": {"thumbnail": {"enabled": False}},
}


@dataclass(frozen=True)
class MarkReading:
    """What :func:`read_mark` found."""

    path: Path
    media_type: str
    state: State
    """Of the C2PA manifest. ``valid``: signed, and the file is as it was signed. ``changed``:
    the file or the manifest was altered afterwards. ``invalid``: fails for another reason
    (an expired certificate, for example). ``unreadable``: there is something, in ruins."""
    place: Literal["embedded", "sidecar"] | None = None
    is_trusted: bool = False
    """Whether the signer is on a public trust list. Local certificates never are."""
    signed_by: str | None = None
    made_by: str | None = None
    """Name and version of the program that made the claim."""
    source_types: tuple[str, ...] = ()
    """IPTC digital source types that the signed actions state."""
    generation: Mapping[str, Any] = field(default_factory=dict)
    """What vidswap signed about the making: generator, weights, settings (empty for others)."""
    parents: int = 0
    """Manifests of earlier steps that came along."""
    tag: str | None = None
    """The container tag ``digital_source_type`` (unsigned)."""
    xmp_source_type: str | None = None
    """The digital source type in the XMP packet (unsigned)."""
    comment: str | None = None
    """vidswap's own comment, where it is there (unsigned)."""
    problems: tuple[str, ...] = ()
    """C2PA's codes for what is wrong, without ``signingCredential.untrusted``."""

    @property
    def has_valid_mark(self) -> bool:
        """A manifest that holds and says that a machine made (part of) this."""
        return self.state == "valid" and any(map(is_synthetic_term, self.source_types))

    @property
    def says_synthetic(self) -> bool:
        """Any mark, signed or not, says so."""
        unsigned = [value for value in (self.tag, self.xmp_source_type) if value]
        return (
            any(map(is_synthetic_term, [*self.source_types, *unsigned])) or self.comment is not None
        )

    def to_dict(self) -> dict[str, Any]:
        """The reading as JSON."""
        return {
            "file": str(self.path),
            "media_type": self.media_type,
            "valid_mark": self.has_valid_mark,
            "says_synthetic": self.says_synthetic,
            "c2pa": {
                "state": self.state,
                "place": self.place,
                "trusted": self.is_trusted,
                "signed_by": self.signed_by,
                "made_by": self.made_by,
                "source_types": list(self.source_types),
                "generation": dict(self.generation),
                "parents": self.parents,
                "problems": list(self.problems),
            },
            "tag": self.tag,
            "xmp": self.xmp_source_type,
            "comment": self.comment,
        }


def read_mark(path: Path) -> MarkReading:
    """Reads every mark of a file and checks the signed one against the file's content.

    Raises:
        InputError: the file cannot be read.
    """
    path = Path(path)
    try:
        kind = format_of(path)
        with open(path, "rb") as stream:
            tags = kind.read_tags(stream)
            source_type = xmp.source_type_of(kind.read_xmp(stream))
        sidecar = find_sidecar(path)
        manifest = None
        if sidecar is not None:
            if sidecar.stat().st_size > _MAX_SIDECAR_BYTES:
                raise InputError(f"{sidecar} is too large for a manifest; remove it and try again")
            manifest = sidecar.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror or error}; check the path"
        ) from error
    comment = tags.get("comment")
    return MarkReading(
        path=path,
        media_type=kind.mime,
        tag=tags.get(TAG_NAME),
        xmp_source_type=source_type,
        comment=comment if comment == COMMENT else None,
        **_read_manifest(path, kind, manifest),
    )


def new_context() -> c2pa.Context:
    """Settings of the C2PA library for this tool: offline, no thumbnails."""
    return c2pa.Context.from_dict(_SETTINGS)


def _read_manifest(path: Path, kind: Format, sidecar: bytes | None) -> dict[str, Any]:
    with open(path, "rb") as stream:
        try:
            return manifest_fields(stream, kind, None)
        except c2pa.C2paError as error:
            absent = not kind.embeds or isinstance(error, c2pa.C2paError.ManifestNotFound)
            if not absent:
                return {"state": "unreadable", "place": "embedded", "problems": (_line(error),)}
        if sidecar is None:
            return {"state": "absent"}
        try:
            return manifest_fields(stream, kind, sidecar)
        except c2pa.C2paError as error:
            return {"state": "unreadable", "place": "sidecar", "problems": (_line(error),)}


def manifest_report(stream: BinaryIO, kind: Format, sidecar: bytes | None) -> dict[str, Any]:
    """The C2PA library's own report on a file.

    Raises:
        c2pa.C2paError: there is no manifest, or it cannot be parsed.
    """
    stream.seek(0)
    with interrupts_wait(), new_context() as context, c2pa.Reader(
        kind.mime, stream, manifest_data=sidecar, context=context
    ) as reader:
        report: dict[str, Any] = json.loads(reader.json())
    return report


def manifest_fields(stream: BinaryIO, kind: Format, sidecar: bytes | None) -> dict[str, Any]:
    """The fields of :class:`MarkReading` that come from the manifest.

    Raises:
        c2pa.C2paError: there is none, or it cannot be parsed.
    """
    report = manifest_report(stream, kind, sidecar)
    active = report.get("manifests", {}).get(report.get("active_manifest"), {})
    results = report.get("validation_results", {})
    failures = results.get("activeManifest", {}).get("failure", [])
    codes = [entry.get("code", "") for entry in failures]
    problems = tuple(dict.fromkeys(code for code in codes if code != "signingCredential.untrusted"))
    trusted = report.get("validation_state") == "Trusted"
    if trusted or report.get("validation_state") == "Valid":
        state: State = "valid"
    else:
        state = "changed" if any(_is_change(code) for code in problems) else "invalid"
    assertions = active.get("assertions", [])
    signature = active.get("signature_info", {})
    names = [signature.get("common_name"), signature.get("issuer")]
    makers = [
        " ".join(filter(None, [info.get("name"), info.get("version")]))
        for info in active.get("claim_generator_info", [])
    ]
    generation = [a.get("data") for a in assertions if a.get("label") == ASSERTION_LABEL]
    return {
        "state": state,
        "place": "embedded" if sidecar is None else "sidecar",
        "is_trusted": trusted,
        "signed_by": ", ".join(filter(None, names)) or None,
        "made_by": ", ".join(makers) or None,
        "source_types": _source_types(assertions),
        "generation": generation[0] if generation and isinstance(generation[0], dict) else {},
        "parents": len(report.get("manifests", {})) - 1,
        "problems": problems,
    }


def _is_change(code: str) -> bool:
    return any(code.endswith(end) for end in _CHANGED)


def _source_types(assertions: list[dict[str, Any]]) -> tuple[str, ...]:
    found = []
    for assertion in assertions:
        if not str(assertion.get("label", "")).startswith("c2pa.actions"):
            continue
        for action in assertion.get("data", {}).get("actions", []):
            if action.get("digitalSourceType"):
                found.append(str(action["digitalSourceType"]))
    return tuple(dict.fromkeys(found))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]

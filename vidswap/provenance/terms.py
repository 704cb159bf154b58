"""The words of the marks, and the tags that the container is to carry."""

from __future__ import annotations

from collections.abc import Mapping

DIGITAL_SOURCE_TYPE = (
    "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
)
"""IPTC's term for a picture composed of recorded parts and parts from a trained network."""

SOURCE_TYPE_PREFIX = "http://cv.iptc.org/newscodes/digitalsourcetype/"

SYNTHETIC_TERMS = frozenset(
    {
        "compositeSynthetic",
        "compositeWithTrainedAlgorithmicMedia",
        "trainedAlgorithmicMedia",
        "algorithmicMedia",
    }
)
"""IPTC terms that say that the medium was, wholly or partly, made by a machine."""

TAG_NAME = "digital_source_type"
"""Name of the container tag (MP4 and MOV need ``movflags=use_metadata_tags`` for it)."""

COMMENT = "AI-generated: a face in this video was made by a computer (vidswap)."

ASSERTION_LABEL = "vidswap.generation"
"""Label of the C2PA assertion that holds :class:`vidswap.provenance.MarkInfo`."""


def container_tags(existing: Mapping[str, str] | None = None) -> dict[str, str]:
    """Tags for the writer of the container.

    ``digital_source_type`` replaces what the target said. The plain ``comment`` survives
    programs that drop unknown tags; it is given only where the target has no comment of its
    own, which is the user's and stays.

    Args:
        existing: tags that the output gets from the target.
    """
    tags = {TAG_NAME: DIGITAL_SOURCE_TYPE}
    if not any(name.lower() == "comment" and value for name, value in (existing or {}).items()):
        tags["comment"] = COMMENT
    return tags


def is_synthetic_term(uri: str) -> bool:
    """Whether an IPTC digital source type says that a machine made (part of) the medium."""
    return uri.removeprefix(SOURCE_TYPE_PREFIX) in SYNTHETIC_TERMS

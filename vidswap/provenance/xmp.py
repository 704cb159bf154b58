"""XMP packets: the statement of origin that many programs keep where they drop others."""

from __future__ import annotations

from xml.etree import ElementTree

from vidswap.provenance.terms import DIGITAL_SOURCE_TYPE

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_META = "adobe:ns:meta/"
_IPTC_EXT = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_XMP = "http://ns.adobe.com/xap/1.0/"
_SOURCE_TYPE = f"{{{_IPTC_EXT}}}DigitalSourceType"
_CREATOR_TOOL = f"{{{_XMP}}}CreatorTool"
_HEADER = b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
_TRAILER = b'\n<?xpacket end="w"?>'
MAX_BYTES = 1 << 24
"""Packets larger than this are neither read nor kept."""

_PREFIXES = {
    "x": _META,
    "rdf": _RDF,
    "Iptc4xmpExt": _IPTC_EXT,
    "xmp": _XMP,
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
}


def make_packet(existing: bytes | None, *, creator_tool: str, max_bytes: int = MAX_BYTES) -> bytes:
    """A packet that states the digital source type.

    Args:
        existing: the packet that the file has; its other statements are kept. An unreadable
            one, or one that would not fit, is replaced.
        creator_tool: name and version, for packets without one.
        max_bytes: room in the container.
    """
    root = _parse(existing)
    if root is not None:
        packet = _with_statement(root, creator_tool)
        if len(packet) <= max_bytes:
            return packet
    root = ElementTree.Element(f"{{{_META}}}xmpmeta")
    ElementTree.SubElement(root, f"{{{_RDF}}}RDF")
    return _with_statement(root, creator_tool)


def source_type_of(packet: bytes | None) -> str | None:
    """The digital source type that a packet states, or None."""
    root = _parse(packet)
    if root is None:
        return None
    for node in root.iter():
        if _SOURCE_TYPE in node.attrib:
            return node.attrib[_SOURCE_TYPE]
        if node.tag == _SOURCE_TYPE:
            return node.attrib.get(f"{{{_RDF}}}resource") or (node.text or "").strip() or None
    return None


def _parse(packet: bytes | None) -> ElementTree.Element | None:
    if packet is None or len(packet) > MAX_BYTES:
        return None
    # XMP has no use for a DTD; entities are how small XML becomes gigabytes.
    if b"<!DOCTYPE" in packet or b"<!ENTITY" in packet:
        return None
    start, end = packet.find(b"<"), packet.rfind(b">")
    try:
        root = ElementTree.fromstring(packet[start : end + 1])
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError):
        return None
    return root if _rdf_of(root) is not None else None


def _rdf_of(root: ElementTree.Element) -> ElementTree.Element | None:
    return root if root.tag == f"{{{_RDF}}}RDF" else root.find(f"{{{_RDF}}}RDF")


def _with_statement(root: ElementTree.Element, creator_tool: str) -> bytes:
    for prefix, uri in _PREFIXES.items():
        ElementTree.register_namespace(prefix, uri)
    nodes = list(root.iter())
    has_tool = any(_CREATOR_TOOL in node.attrib or node.tag == _CREATOR_TOOL for node in nodes)
    for node in nodes:
        node.attrib.pop(_SOURCE_TYPE, None)
        for child in node.findall(_SOURCE_TYPE):
            node.remove(child)
    rdf = _rdf_of(root)
    assert rdf is not None  # _parse and make_packet see to it
    statement = rdf.find(f"{{{_RDF}}}Description")
    if statement is None:
        about = {f"{{{_RDF}}}about": ""}
        statement = ElementTree.SubElement(rdf, f"{{{_RDF}}}Description", about)
    statement.set(_SOURCE_TYPE, DIGITAL_SOURCE_TYPE)
    if not has_tool:
        statement.set(_CREATOR_TOOL, creator_tool)
    return _HEADER + ElementTree.tostring(root, encoding="utf-8") + _TRAILER

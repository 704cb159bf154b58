from __future__ import annotations

import io

import numpy as np
import pytest

from vidswap.provenance import DIGITAL_SOURCE_TYPE, visible_label
from vidswap.provenance.splice import Part, opened
from vidswap.provenance.xmp import make_packet, source_type_of

_OLD = b"""<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/">
<rdf:Description rdf:about="" dc:format="image/png" xmp:CreatorTool="a camera">
%s<dc:subject>kept</dc:subject></rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""
_CAPTURE = b"http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"


@pytest.mark.parametrize(
    "statement",
    [
        b"",
        b"<Iptc4xmpExt:DigitalSourceType>%s</Iptc4xmpExt:DigitalSourceType>" % _CAPTURE,
        b'<Iptc4xmpExt:DigitalSourceType rdf:resource="%s"/>' % _CAPTURE,
    ],
)
def test_the_statement_replaces_an_older_one_and_the_rest_stays(statement):
    old = _OLD % statement
    assert source_type_of(old) == (_CAPTURE.decode() if statement else None)
    packet = make_packet(old, creator_tool="vidswap 1")
    assert source_type_of(packet) == DIGITAL_SOURCE_TYPE
    assert b"kept" in packet and b"a camera" in packet and b"digitalCapture" not in packet
    assert make_packet(packet, creator_tool="vidswap 1") == make_packet(
        make_packet(packet, creator_tool="vidswap 1"), creator_tool="vidswap 1"
    )


def test_hostile_or_broken_packets_are_replaced_not_expanded():
    bomb = b'<!DOCTYPE a [<!ENTITY b "' + b"x" * 1000 + b'">]>' + _OLD % (b"&b;" * 1000)
    for old in (bomb, b"", b"<", b"\xff\xfe\x00<a>", b"<a/>", _OLD[:200]):
        assert source_type_of(old) is None
        packet = make_packet(old, creator_tool="vidswap 1")
        assert source_type_of(packet) == DIGITAL_SOURCE_TYPE and len(packet) < 1000
    assert len(make_packet(_OLD % (b"<!--%s-->" % (b"x" * 70_000)), creator_tool="v")) < 2000
    large = _OLD % (b"<dc:title>%s</dc:title>" % (b"x" * 70_000))
    assert len(make_packet(large, creator_tool="v", max_bytes=65_000)) < 1000


def test_a_splice_reads_like_the_whole_at_any_place_and_length():
    base = bytes(range(256)) * 20
    pieces = [Part(0, 100), b"inserted", Part(100, 100), Part(200, 5000), b"", b"end"]
    whole = base[:100] + b"inserted" + base[200:5000] + b"end"
    random = np.random.default_rng(1)
    with opened(io.BytesIO(base), pieces) as stream:
        assert stream.seek(0, io.SEEK_END) == len(whole)
        for _ in range(300):
            start, length = (int(n) for n in random.integers(0, len(whole) + 50, 2))
            stream.seek(start)
            assert stream.read(length) == whole[start : start + length]


@pytest.mark.parametrize("corner", ["top-left", "top-right", "bottom-left", "bottom-right"])
@pytest.mark.parametrize("size_wh", [(1920, 1080), (1080, 1920), (321, 241), (7680, 4320)])
def test_the_label_lies_in_its_corner_and_can_be_read(size_wh, corner):
    label = visible_label(size_wh, corner=corner)
    left, top, right, bottom = label.box_xyxy
    assert 0 <= left < right <= size_wh[0] and 0 <= top < bottom <= size_wh[1]
    assert (left < size_wh[0] / 2) == ("left" in corner)
    assert (top < size_wh[1] / 2) == ("top" in corner)
    assert label.rgb.shape == (bottom - top, right - left, 3)
    assert label.alpha.shape == label.rgb.shape[:2] and label.rgb.dtype == np.float32
    assert (right - left) * (bottom - top) < 0.05 * size_wh[0] * size_wh[1]
    for grey in (0.0, 0.5, 1.0):  # light ink on a dark field, whatever lies below
        laid = label.over(np.full(label.rgb.shape, grey, np.float32))
        assert 0 <= laid.min() and laid.max() <= 1
        assert laid.max() > 0.85 and np.median(laid) < 0.4
    corners = label.alpha[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.max() < 0.5 and label.alpha.max() > 0.9


def test_a_frame_without_room_has_no_label_and_wrong_corners_are_refused():
    assert visible_label((1, 1)) is None and visible_label((60, 400)) is None
    with pytest.raises(ValueError, match="corner"):
        visible_label((640, 480), corner="middle")
    with pytest.raises(ValueError, match="size_wh"):
        visible_label((0, 480))

"""The reader of the generator's OpenVINO graph: constants, edges, and graphs that are not one."""

from __future__ import annotations

import numpy as np
import pytest

from vidswap.errors import WeightsError
from vidswap.weights.convert_mobilestylegan import _Graph, convert

DATA = '<data element_type="{kind}" shape="{shape}" offset="{offset}" size="{size}"/>'
GRAPH = """<net><layers>
<layer id="0" name="m.scale" type="Const">{data}</layer>
<layer id="1" name="m.input" type="Parameter"/>
<layer id="2" name="m.mul" type="Multiply"/>
</layers><edges>
<edge from-layer="0" to-layer="2" to-port="1"/><edge from-layer="1" to-layer="2" to-port="0"/>
</edges></net>"""


def graph_of(blob: bytes, **data: object) -> _Graph:
    said = {"kind": "f32", "shape": "2,3", "offset": 4, "size": 24, **data}
    return _Graph(GRAPH.format(data=DATA.format(**said)).encode(), blob)


def test_constants_and_edges_are_read() -> None:
    values = np.arange(6, dtype=np.float32)
    graph = graph_of(b"skip" + values.tobytes())
    assert graph.inputs == {"2": ["1", "0"]}  # in the order of the ports
    assert graph.users == {"0": ["2"], "1": ["2"]} and graph.of_kind("Const") == ["0"]
    assert np.array_equal(graph.constant_of("2"), values.reshape(2, 3))
    scalar = graph_of(np.float16(2.5).tobytes(), kind="f16", shape="", offset=0, size=2).constant("0")
    assert (scalar.shape, scalar.item()) == ((), 2.5)
    with pytest.raises(WeightsError, match="do not fit its graph"):
        graph_of(values.tobytes()).constant("0")


@pytest.mark.parametrize(
    ("said", "instead", "message"),
    [
        ("edges", "arrows", "<net> has no edges"),
        ('to-port="1"', "", "<edge> does not say its to-port"),
        (' id="2"', "", "<layer> does not say its id"),
    ],
)
def test_another_graph_is_told_by_name(said: str, instead: str, message: str) -> None:
    xml = GRAPH.format(data="").replace(said, instead).encode()
    names = [f"{net}Network.{end}" for net in ("Mapping", "Synthesis") for end in ("xml", "bin")]
    with pytest.raises(WeightsError, match=message):
        convert({name: xml if name.endswith("xml") else b"" for name in names})

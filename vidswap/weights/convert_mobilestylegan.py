"""Conversion of the packaged MobileStyleGAN (OpenVINO IR v10) to plain tensors.

The IR is an XML graph beside a file of raw constants. Constants keep the names of the
training code (``m.layers.0.conv1.conv.weight`` and so on) or are found through the node that
consumes them. Nothing is executed: the XML is read for names, shapes and offsets.

Network: Belousov, MobileStyleGAN (arXiv 2104.04767).
"""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np

from vidswap.errors import WeightsError

_CODES = {"f32": "f4", "f16": "f2", "i64": "i8", "i32": "i4"}
_STAGES = 7
N_STYLES = 23


class _Graph:
    """Constants and data edges of one IR file."""

    def __init__(self, xml: bytes, blob: bytes) -> None:
        root = ElementTree.fromstring(xml)
        self.layers = {_said(node, "id"): node for node in _part(root, "layers")}
        self.blob = blob
        self.inputs: dict[str, list[str]] = {}
        ports: dict[str, dict[int, str]] = {}
        for edge in _part(root, "edges"):
            target = ports.setdefault(_said(edge, "to-layer"), {})
            target[int(_said(edge, "to-port"))] = _said(edge, "from-layer")
        for layer, found in ports.items():
            self.inputs[layer] = [found[port] for port in sorted(found)]
        self.users: dict[str, list[str]] = {}
        for layer, sources in self.inputs.items():
            for source in sources:
                self.users.setdefault(source, []).append(layer)

    def kind(self, layer: str) -> str:
        return _said(self.layers[layer], "type")

    def constant(self, layer: str) -> np.ndarray:
        data = _part(self.layers[layer], "data")
        dtype = np.dtype(_CODES[_said(data, "element_type")])
        shape = [int(n) for n in data.get("shape", "").split(",") if n]
        start, size = int(_said(data, "offset")), int(_said(data, "size"))
        if start < 0 or start + size > len(self.blob) or size != dtype.itemsize * np.prod(shape):
            raise WeightsError(
                "MobileStyleGAN's constants do not fit its graph; run 'vidswap weights fetch --force'"
            )
        return np.frombuffer(self.blob, dtype, int(np.prod(shape)), start).reshape(shape).copy()

    def constant_of(self, layer: str) -> np.ndarray:
        """The constant operand of a binary node."""
        found = [n for n in self.inputs[layer] if self.kind(n) == "Const"]
        if len(found) != 1:
            raise WeightsError(f"MobileStyleGAN's graph: node {layer} has {len(found)} constants")
        return self.constant(found[0])

    def follow(self, layer: str, kinds: tuple[str, ...]) -> str:
        """The next node of one of these kinds downstream, through single-user data nodes."""
        while True:
            nexts = [n for n in self.users.get(layer, []) if self.kind(n) not in ("ShapeOf", "Result")]
            if len(nexts) != 1:
                raise WeightsError(f"MobileStyleGAN's graph: node {layer} has {len(nexts)} users")
            layer = nexts[0]
            if self.kind(layer) in kinds:
                return layer

    def of_kind(self, kind: str) -> list[str]:
        return [name for name in self.layers if self.kind(name) == kind]


def _part(node: ElementTree.Element, name: str) -> ElementTree.Element:
    found = node.find(name)
    if found is None:
        raise WeightsError(f"MobileStyleGAN's graph: <{node.tag}> has no {name}")
    return found


def _said(node: ElementTree.Element, name: str) -> str:
    value = node.get(name)
    if value is None:
        raise WeightsError(f"MobileStyleGAN's graph: <{node.tag}> does not say its {name}")
    return value


def _mapping(graph: _Graph) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    products = sorted(graph.of_kind("MatMul"), key=int)
    for index, product in enumerate(products):
        tensors[f"mapping.{index}.weight"] = graph.constant_of(product)
        add = graph.follow(product, ("Add",))
        reshape = next(n for n in graph.inputs[add] if n != product)
        bias = graph.constant_of(add) if graph.kind(reshape) == "Const" else None
        if bias is None:
            bias = graph.constant(graph.inputs[reshape][0])
        tensors[f"mapping.{index}.bias"] = bias.reshape(-1)
    return tensors


def _style(graph: _Graph, product: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Affine of one style with its scale folded in, and the node where it meets the features."""
    weight = graph.constant_of(product)
    add = graph.follow(product, ("Add",))
    bias = graph.constant_of(add).reshape(-1)
    reshape = graph.follow(add, ("Reshape",))
    multiply = graph.follow(reshape, ("Multiply",))
    constants = [n for n in graph.inputs[multiply] if graph.kind(n) == "Const"]
    if constants:
        scale = float(graph.constant(constants[0]).reshape(-1)[0])
        weight, bias = weight * scale, bias * scale
        multiply = graph.follow(multiply, ("Multiply",))
    return weight, bias, multiply


def _conv(graph: _Graph, multiply: str, prefix: str) -> dict[str, np.ndarray]:
    """Convolution after a style: optional depthwise, dense, then noise and bias."""
    tensors: dict[str, np.ndarray] = {}
    node = graph.follow(multiply, ("GroupConvolution", "Convolution"))
    if graph.kind(node) == "GroupConvolution":
        depthwise = graph.constant_of(node)
        tensors[prefix + "depthwise"] = depthwise.reshape(depthwise.shape[0], 1, 3, 3)
        node = graph.follow(node, ("Convolution",))
    tensors[prefix + "weight"] = graph.constant_of(node)
    first = graph.follow(node, ("Add",))
    constant = graph.constant_of(first)
    if prefix.startswith("to_img"):
        tensors[prefix + "bias"] = constant.reshape(-1)
        return tensors
    tensors[prefix + "noise"] = constant.reshape(constant.shape[-2:])
    tensors[prefix + "bias"] = graph.constant_of(graph.follow(first, ("Add",))).reshape(-1)
    return tensors


def convert(files: dict[str, bytes]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read the four files of the package.

    :param files: ``MappingNetwork.xml``, ``MappingNetwork.bin``, ``SynthesisNetwork.xml``,
        ``SynthesisNetwork.bin``.
    :return: tensors and metadata. Styles are numbered in the order of use: 0 ``conv1``, then
        for each stage ``up``, ``conv1``, ``conv2``, last ``to_img``.
    :raises WeightsError: when the graph is not the one that is expected.
    """
    tensors = _mapping(_Graph(files["MappingNetwork.xml"], files["MappingNetwork.bin"]))
    graph = _Graph(files["SynthesisNetwork.xml"], files["SynthesisNetwork.bin"])
    products = {}
    for product in graph.of_kind("MatMul"):
        constant = next(n for n in graph.inputs[product] if graph.kind(n) == "Const")
        name = _said(graph.layers[constant], "name")
        products[name.removeprefix("m.").split("modu")[0].rstrip(".")] = product
    order = ["conv1.conv"]
    for stage in range(_STAGES):
        order += [f"layers.{stage}.{part}" for part in ("up", "conv1.conv", "conv2.conv")]
    order.append(f"layers.{_STAGES - 1}.to_img.conv")
    missing = [name for name in order if name not in products]
    if missing or len(products) != N_STYLES:
        raise WeightsError(f"MobileStyleGAN's graph: {len(products)} styles, missing {missing}")
    inputs = [n for n in graph.of_kind("Const") if graph.layers[n].get("name") == "m.input.input"]
    tensors["const"] = graph.constant(inputs[0])
    for index, name in enumerate(order):
        weight, bias, multiply = _style(graph, products[name])
        tensors[f"styles.{index}.weight"], tensors[f"styles.{index}.bias"] = weight, bias
        if not name.endswith(".up"):
            prefix = "to_img." if "to_img" in name else f"convs.{index}."
            tensors.update(_conv(graph, multiply, prefix))
    metadata = {"format": "vidswap.mobilestylegan/1", "source": "random-face 2021.7.21.1"}
    return {k: np.ascontiguousarray(v, np.float32) for k, v in tensors.items()}, metadata

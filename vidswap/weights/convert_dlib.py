"""Conversion of dlib's face recognition network (``.dat``) to plain tensors.

The file is dlib's own serialisation of a network. Only its tensors are wanted; they follow the
text tags ``con_4`` (convolution), ``affine_`` (gain and bias of a folded batch norm) and
``fc_2`` (last layer). Integers are stored as a length byte with a sign bit, then little-endian bytes.
"""

from __future__ import annotations

import re

import numpy as np

from vidswap.errors import WeightsError

_TAG = re.compile(rb"\x01\x05con_4|\x01\x07affine_|\x01\x04fc_2")


def _integer(data: bytes, at: int) -> tuple[int, int]:
    length = data[at] & 0x0F
    value = int.from_bytes(data[at + 1 : at + 1 + length], "little")
    return (-value if data[at] & 0x80 else value), at + 1 + length


def _tensor(data: bytes, at: int) -> tuple[np.ndarray, int] | None:
    """A tensor at ``at``: version 2, four sizes, raw float32; None when there is none."""
    version, at = _integer(data, at)
    if version != 2:
        return None
    shape = []
    for _ in range(4):
        size, at = _integer(data, at)
        shape.append(size)
    count = int(np.prod(shape))
    if count <= 0 or at + 4 * count > len(data):
        return None
    return np.frombuffer(data, "<f4", count, at).reshape(shape), at + 4 * count


def _layout() -> list[tuple[int, int, int]]:
    """Output channels, input channels and kernel size of every convolution, in file order."""
    layout = [(32, 3, 7)]
    channels = 32
    for width, blocks, first_is_down in ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True)):
        for block in range(blocks):
            entering = channels if block == 0 and first_is_down else width
            layout += [(width, entering, 3), (width, width, 3)]
        channels = width
    layout += [(256, 256, 3), (256, 256, 3)]
    return layout


def convert(dat: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read the tensors of ``dlib_face_recognition_resnet_model_v1.dat``.

    :return: ``conv.{i}.weight`` ``[out, in, k, k]``, ``conv.{i}.bias``, ``affine.{i}.gain``,
        ``affine.{i}.bias`` for 29 convolutions in the order of use and ``fc.weight`` ``[128, 256]``.
    :raises WeightsError: when the file does not hold that network.
    """
    found: dict[bytes, list[np.ndarray]] = {b"con_4": [], b"affine_": [], b"fc_2": []}
    for match in _TAG.finditer(dat):
        at = match.end()
        if match.group().endswith(b"fc_2"):  # its tensor comes after the counts of outputs and inputs
            at = _integer(dat, _integer(dat, at)[1])[1]
        read = _tensor(dat, at)
        if read is not None:
            found[match.group()[2:]].append(read[0].reshape(-1))
    layout = _layout()
    counts = [len(found[tag]) for tag in (b"con_4", b"affine_", b"fc_2")]
    if counts != [len(layout), len(layout), 1]:
        raise WeightsError(
            f"dlib's network: expected {len(layout)} convolutions, {len(layout)} affine layers and "
            f"1 output layer, got {counts}; run 'vidswap weights fetch --force'"
        )
    tensors = {"fc.weight": found[b"fc_2"][0].reshape(256, 128).T.copy()}
    for index, (out, entering, size) in enumerate(layout):
        parameters = found[b"con_4"][index]
        filters = out * entering * size * size
        affine = found[b"affine_"][index]
        if parameters.size != filters + out or affine.size != 2 * out:
            raise WeightsError(f"dlib's network: convolution {index} has {parameters.size} parameters")
        tensors[f"conv.{index}.weight"] = parameters[:filters].reshape(out, entering, size, size).copy()
        tensors[f"conv.{index}.bias"] = parameters[filters:].copy()
        tensors[f"affine.{index}.gain"] = affine[:out].copy()
        tensors[f"affine.{index}.bias"] = affine[out:].copy()
    return tensors, {"format": "vidswap.dlib-resnet/1", "source": "face-recognition-models 0.3.0"}

"""Writes small TFLite files with the schema that LiteRT ships, for the converter's tests."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

_TYPES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int8": 9}


class TfliteFile:
    """A graph under construction: tensors by number, operators in order."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        self.tensors: list[Any] = []
        self.buffers = [schema.BufferT()]
        self.codes: list[Any] = []
        self.operators: list[Any] = []
        self.input = self.tensor(input_shape, name="input")

    def tensor(
        self, shape: tuple[int, ...], values: NDArray[Any] | None = None, name: str = ""
    ) -> int:
        """An activation, or a constant when there are values."""
        tensor = schema.TensorT()
        tensor.name = name or f"tensor{len(self.tensors)}"
        tensor.shape = list(shape)
        tensor.type = _TYPES[str(values.dtype)] if values is not None else 0
        tensor.buffer = 0
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            tensor.buffer = len(self.buffers)
            self.buffers.append(buffer)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(self, values: NDArray[Any]) -> int:
        return self.tensor(values.shape, values)

    def add(
        self,
        name: str,
        inputs: list[int],
        shape: tuple[int, ...],
        options: Any = None,
        **fields: Any,
    ) -> int:
        """An operator of the schema's name; the number of its output tensor of this shape."""
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = fields.pop("version", 1)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.codes)
        self.codes.append(code)
        operator.inputs = inputs
        operator.outputs = [self.tensor(shape)]
        if options is not None:
            made = getattr(schema, f"{options}T")()
            for key, value in fields.items():
                setattr(made, key, value)
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            operator.builtinOptions = made
        self.operators.append(operator)
        return operator.outputs[0]

    def finish(self, outputs: list[int]) -> bytes:
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs = [self.input], outputs
        model = schema.ModelT()
        model.version = 3
        model.operatorCodes, model.subgraphs = self.codes, [graph]
        model.buffers = self.buffers
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def run_litert(data: bytes, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """LiteRT's outputs for an NHWC input, in the file's order."""
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return [interpreter.get_tensor(d["index"]).copy() for d in interpreter.get_output_details()]

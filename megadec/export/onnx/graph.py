"""An ONNX graph in the making: operators one after another, small constants in it, weights beside it.

A thin layer over onnx.helper instead of tracing by torch.onnx or a builder library, so that the file holds what
`decoder.py` says, with every version of torch.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from megadec import __version__
from megadec.common.errors import needs_extra
from megadec.export.onnx.int8 import BLOCK_VALUES, SCALES, ZERO, block_sizes

# Opset 18 is the first with all operators that are needed, and so runs in the most runtimes.
OPSET = 18
# The domain of onnxruntime's own operators.
MICROSOFT = "com.microsoft"

Number = Literal["float", "int64"]


def onnx_library() -> Any:
    """The onnx package. Raises MissingExtraError without it."""
    with needs_extra("onnx", "onnx"):
        import onnx
    return onnx


class Graph:
    """Operators in the order in which they are applied; a value is its name. `scope` goes in front of new names.

    sizes: of every weight that there may be, by name. int8: matrices are stored as `int8.py` has it.
    """

    def __init__(self, sizes: Mapping[str, tuple[int, ...]], int8: bool = False) -> None:
        self.onnx = onnx_library()
        self.scope = ""
        self._sizes = sizes
        self._int8 = int8
        self.weights: dict[str, tuple[int, ...]] = {}
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def input(self, name: str, number: Number, *size: int | str) -> str:
        """Declare an input; a size given as a word may differ from call to call."""
        self._inputs.append(self._value(name, number, size))
        return name

    def output(self, name: str, number: Number, *size: int | str) -> str:
        """Declare an output, which `apply(..., to=name)` computes."""
        self._outputs.append(self._value(name, number, size))
        return name

    def weight(self, name: str) -> str:
        """A float32 tensor that lies outside the graph. Asked for twice, it is there once."""
        self.weights[name] = self._sizes[name]
        return name

    def linear(self, name: str, x: str) -> str:
        """x [N, I] times the matrix [O, I] of this name, and the bias beside it where there is one: [N, O]."""
        bias_name = name.removesuffix("weight") + "bias"
        bias = [self.weight(bias_name)] if bias_name in self._sizes else []
        if not self._int8:
            return self.apply("Gemm", x, self.weight(name), *bias, transB=1)
        rows, columns = self._sizes[name]
        # Level 4 rounds what is multiplied with the weights to 8 bits too; without it a product takes 15 times as long.
        blocks: dict[str, Any] = {"K": columns, "N": rows, "bits": 8, "block_size": BLOCK_VALUES, "accuracy_level": 4}
        product = self.apply("MatMulNBits", x, *self._blocks(name), domain=MICROSOFT, **blocks)
        return self.apply("Add", product, *bias) if bias else product

    def rows(self, name: str, ids_N: str) -> str:
        """The rows of a matrix [V, H] of these numbers: [N, H]."""
        if not self._int8:
            return self.apply("Gather", self.weight(name), ids_N)
        numbers, scales = (self.apply("Gather", one, ids_N) for one in self._blocks(name))
        # CastLike, as an attribute of Cast has the name of `to`.
        steps = self.apply("Sub", self.apply("CastLike", numbers, scales), self.number(ZERO))
        values = self.apply("Mul", steps, self.apply("Unsqueeze", scales, self.integers(-1)))
        return self.apply("Reshape", values, self.integers(-1, self._sizes[name][1]))

    def _blocks(self, name: str) -> tuple[str, str]:
        size = block_sizes(self._sizes[name])
        self.weights[name], self.weights[name + SCALES] = size, size[:2]
        return name, name + SCALES

    def constant(self, values: np.ndarray) -> str:
        """A small tensor inside the graph; equal ones are there once."""
        name = f"constant/{values.dtype}{list(values.shape)}/{'_'.join(str(value) for value in values.flat)}"
        self._constants.setdefault(name, self.onnx.numpy_helper.from_array(values, name))
        return name

    def integers(self, *values: int) -> str:
        """An int64 vector."""
        return self.constant(np.array(values, dtype=np.int64))

    def integer(self, value: int) -> str:
        """An int64 scalar."""
        return self.constant(np.array(value, dtype=np.int64))

    def number(self, value: float) -> str:
        """A float32 scalar."""
        return self.constant(np.array(value, dtype=np.float32))

    def apply(self, operator: str, *inputs: str, to: str | None = None, **attributes: Any) -> str:
        """Apply an operator with one output, named `to` where that is given."""
        name = self._new_name(operator)
        output = to or name
        self._nodes.append(self.onnx.helper.make_node(operator, list(inputs), [output], name=name, **attributes))
        return output

    def halves(self, value: str) -> tuple[str, str]:
        """Both halves of the last dimension."""
        name = self._new_name("Split")
        outputs = (f"{name}.0", f"{name}.1")
        node = self.onnx.helper.make_node("Split", [value], list(outputs), name=name, axis=-1, num_outputs=2)
        self._nodes.append(node)
        return outputs

    def model(self, name: str, weights: list[Any], notes: Mapping[str, str]) -> Any:
        """The ModelProto; `weights` are the TensorProtos of `self.weights`, `notes` text that a runtime can ask for."""
        helper = self.onnx.helper
        tensors = [*self._constants.values(), *weights]
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, initializer=tensors)
        opsets = [helper.make_opsetid("", OPSET)]
        oldest = helper.find_min_ir_version_for(opsets)
        if self._int8:
            opsets.append(helper.make_opsetid(MICROSOFT, 1))
        # The oldest version of the file format that has this opset: a runtime refuses one newer than itself.
        model = helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=oldest,
            producer_name="megadec",
            producer_version=__version__,
        )
        helper.set_model_props(model, dict(notes))
        return model

    def _new_name(self, operator: str) -> str:
        return f"{self.scope}/{operator}.{len(self._nodes)}"

    def _value(self, name: str, number: Number, size: tuple[int | str, ...]) -> Any:
        kind = {"float": self.onnx.TensorProto.FLOAT, "int64": self.onnx.TensorProto.INT64}[number]
        return self.onnx.helper.make_tensor_value_info(name, kind, list(size))

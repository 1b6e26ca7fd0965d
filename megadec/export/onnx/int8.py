"""Eight bits a weight, for onnxruntime's MatMulNBits: whole numbers in blocks, a float32 scale for each.

Weights alone are stored so, and onnxruntime rounds what they are multiplied with to eight bits block by block, so the
logits of a token do not depend on what else is in the call, as they do under DynamicQuantizeLinear.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

BLOCK_VALUES = 32
ZERO = 128
LARGEST = 127
SCALES = ".scales"


def block_sizes(size: tuple[int, ...]) -> tuple[int, int, int]:
    """The size of the numbers of a matrix [R, C]: [R, C / BLOCK_VALUES, BLOCK_VALUES]; scales have the first two."""
    rows, columns = size
    assert columns % BLOCK_VALUES == 0, f"rows of {columns} values are not whole blocks"
    return rows, columns // BLOCK_VALUES, BLOCK_VALUES


def quantize(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers, uint8 around ZERO, and the scales, float32, of a matrix [R, C]."""
    blocks = matrix.float().reshape(block_sizes(tuple(matrix.shape)))
    scales = blocks.abs().amax(-1) / LARGEST
    steps = (blocks / scales.clamp_min(torch.finfo(torch.float32).tiny)[..., None]).round()
    return (steps.clamp(-LARGEST, LARGEST) + ZERO).to(torch.uint8), scales


def dequantize(numbers: Tensor, scales: Tensor) -> Tensor:
    """The matrix [R, C] that onnxruntime computes with, float32."""
    return ((numbers.float() - ZERO) * scales[..., None]).flatten(1)


def is_quantized(found: Mapping[str, Tensor], name: str, wanted: Tensor) -> bool:
    """Whether a matrix and its scales in `found` are the wanted one, quantized: equal to `quantize` bit for bit, and,
    counted without it, no value further than half a step away."""
    numbers, scales = found[name], found[name + SCALES]
    equal = all(map(torch.equal, (numbers, scales), quantize(wanted)))
    step = wanted.float().reshape(numbers.shape).abs().amax(-1).repeat_interleave(BLOCK_VALUES, 1) / LARGEST
    return equal and bool(((dequantize(numbers, scales) - wanted.float()).abs() <= 0.501 * step).all())

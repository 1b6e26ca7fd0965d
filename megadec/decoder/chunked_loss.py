"""The language model's loss without ever holding all logits.

A batch of 8 x 4,096 tokens with 32,000 ids is 4 GiB of float32 logits, and as much again for their gradient; here only
a chunk of tokens exists at a time. The gradients are computed during the forward pass (they need nothing that comes
later but one factor), which holds a float32 gradient of the weight until the backward pass.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from megadec.decoder.execution import Kernels
from megadec.decoder.kernels.choose import module_for, pieces
from megadec.decoder.kernels.precision import matmul_dtype, wide_dtype
from megadec.decoder.loss_options import LanguageLoss

# Shapes: N tokens of the batch, C tokens of a chunk, H hidden size, V vocabulary.

# A chunk's logits, in the dtype of their product, are at least so many bytes and so many tokens: every chunk adds its
# product to the gradient of the whole weight, which costs as much as a few hundred tokens of the products themselves.
CHUNK_BYTES = {"cpu": 64 * 2**20, "cuda": 512 * 2**20}
CHUNK_TOKENS = {"cpu": 512, "cuda": 4096}


def chunk_tokens(vocabulary_size: int, h_NH: Tensor) -> int:
    """How many tokens' logits exist at a time on this kind of device."""
    kind = h_NH.device.type if h_NH.device.type in CHUNK_BYTES else "cuda"
    return max(1, CHUNK_TOKENS[kind], CHUNK_BYTES[kind] // (matmul_dtype(h_NH).itemsize * vocabulary_size))


def chunked_cross_entropy(
    h_NH: Tensor, weight_VH: Tensor, targets_N: Tensor, weights_N: Tensor, loss: LanguageLoss, kernels: Kernels
) -> Tensor:
    """The sum over tokens of weight * nats, the nats those of `loss`; a scalar, at least float32.

    targets_N: int64; where the weight is 0 any value is allowed.
    """
    chunk, module = chunk_tokens(weight_VH.shape[0], h_NH), module_for("cross_entropy", kernels, h_NH)
    inputs = (h_NH, weight_VH, targets_N, weights_N)
    total: Tensor = _ChunkedCrossEntropy.apply(*inputs, loss, chunk, module, torch.is_grad_enabled())
    return total


class _ChunkedCrossEntropy(torch.autograd.Function):
    """sum_n weight_n * nats_n, the nats of `kernels/cross_entropy.py`, `chunk` tokens at a time.

    Saves the two gradients and neither the hidden states nor the weight, which ZeRO-3 may have given back by the time
    of the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any, h_NH: Tensor, weight_VH: Tensor, targets_N: Tensor, weights_N: Tensor,
        loss: LanguageLoss, chunk: int, module: ModuleType, gradients: bool,
    ) -> Tensor:  # fmt: skip
        wants_h, wants_weight = (gradients and ctx.needs_input_grad[i] for i in range(2))
        ctx.dtypes = h_NH.dtype, weight_VH.dtype
        h_NH, weight_VH = h_NH.to(matmul_dtype(h_NH)), weight_VH.to(matmul_dtype(weight_VH))
        weights_N = weights_N.to(wide_dtype(h_NH))
        targets_N = targets_N.masked_fill(weights_N == 0, 0)
        h_gradient_NH = torch.empty_like(h_NH) if wants_h else None
        weight_gradient = _WeightGradient(weight_VH, h_NH, chunk) if wants_weight else None
        nats_N = torch.empty_like(weights_N)
        logits_CV = h_NH.new_empty(min(chunk, h_NH.shape[0]), weight_VH.shape[0])
        for start in range(0, h_NH.shape[0], chunk):
            part = slice(start, start + chunk)
            h_CH = h_NH[part]
            chunk_CV = torch.mm(h_CH, weight_VH.T, out=logits_CV[: h_CH.shape[0]])
            given = (chunk_CV, targets_N[part], weights_N[part], loss.label_smoothing, loss.z_loss)
            nats_N[part] = module.losses(*given, wants_h or wants_weight)
            if h_gradient_NH is not None:
                torch.mm(chunk_CV, weight_VH, out=h_gradient_NH[part])
            if weight_gradient is not None:
                weight_gradient.add(chunk_CV, h_CH)
        ctx.save_for_backward(h_gradient_NH, None if weight_gradient is None else weight_gradient.sum_VH)
        return (weights_N * nats_N).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        h_gradient_NH, weight_gradient_VH = ctx.saved_tensors
        # In their own memory: they are made for one backward pass, and autograd refuses a second one.
        if h_gradient_NH is not None:
            h_gradient_NH = h_gradient_NH.mul_(factor).to(ctx.dtypes[0])
        if weight_gradient_VH is not None:
            weight_gradient_VH = weight_gradient_VH.mul_(factor).to(ctx.dtypes[1])
        return h_gradient_NH, weight_gradient_VH, *(None,) * 6


class _WeightGradient:
    """The sum over chunks of (gradient of the logits)^T h: at least float32, unless there is one chunk to sum."""

    def __init__(self, weight_VH: Tensor, h_NH: Tensor, chunk: int) -> None:
        one = h_NH.shape[0] <= chunk
        self.sum_VH = torch.zeros_like(weight_VH, dtype=h_NH.dtype if one else wide_dtype(h_NH))
        # The product that is added to a wider sum, in memory that is taken once.
        self._product_VH = None if self.sum_VH.dtype == h_NH.dtype else torch.empty_like(weight_VH)

    def add(self, gradient_CV: Tensor, h_CH: Tensor) -> None:
        """sum += gradient^T h."""
        if self._product_VH is None:
            self.sum_VH.addmm_(gradient_CV.T, h_CH)
            return
        torch.mm(gradient_CV.T, h_CH, out=self._product_VH)
        # In pieces: torch adds tensors of two dtypes ten times slower than it widens and adds.
        for rows in pieces(self.sum_VH.shape[0], self.sum_VH.shape[1], self.sum_VH.device):
            self.sum_VH[rows] += self._product_VH[rows].to(self.sum_VH.dtype)

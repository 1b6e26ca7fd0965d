"""Each token's loss, and its gradient where the logits stood, in Triton: one program a token.

A token's 65,536 bfloat16 logits are 128 KiB: they are read from memory once and from the second level of cache the
second time.
"""

# Triton has no types: kernels are functions of pointers and numbers.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

import torch
from torch import Tensor

from megadec.decoder.kernels.triton_launch import tl, triton

# Shapes: C tokens of a chunk, V vocabulary.


@triton.jit
def _losses(
    logits_ptr, targets_ptr, weights_ptr, nats_ptr, stride, vocabulary_size, label_smoothing, z_loss,
    SMOOTHED: tl.constexpr, GRADIENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    row = logits_ptr + token * stride
    target = tl.load(targets_ptr + token)
    weight = tl.load(weights_ptr + token).to(tl.float32)
    target_logit = tl.load(row + target).to(tl.float32)
    columns = tl.arange(0, BLOCK)
    # Once over the row with a running largest value and sum (Milakov and Gimelshein, arXiv 1805.02867).
    top = float("-inf")
    total = 0.0
    logits_sum = 0.0
    for start in range(0, vocabulary_size, BLOCK):
        inside = start + columns < vocabulary_size
        values = tl.load(row + start + columns, mask=inside, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(top, tl.max(values, axis=0))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(values - higher), axis=0)
        top = higher
        if SMOOTHED:
            logits_sum += tl.sum(tl.where(inside, values, 0.0), axis=0)
    log_total = tl.log(total) + top
    loss = log_total - target_logit + z_loss * log_total * log_total
    if SMOOTHED:
        loss += label_smoothing * (target_logit - logits_sum / vocabulary_size)
    tl.store(nats_ptr + token, loss)
    if GRADIENT:
        factor = weight * (1.0 + 2.0 * z_loss * log_total) / total
        floor = weight * label_smoothing / vocabulary_size
        at_target = weight * (1.0 - label_smoothing)
        for start in range(0, vocabulary_size, BLOCK):
            inside = start + columns < vocabulary_size
            values = tl.load(row + start + columns, mask=inside, other=float("-inf")).to(tl.float32)
            slope = tl.exp(values - top) * factor - floor
            slope = tl.where(start + columns == target, slope - at_target, slope)
            tl.store(row + start + columns, slope.to(logits_ptr.dtype.element_ty), mask=inside)


def losses(
    logits_CV: Tensor, targets_C: Tensor, weights_C: Tensor, label_smoothing: float, z_loss: float, gradient: bool
) -> Tensor:
    """As `cross_entropy.losses`."""
    tokens, vocabulary_size = logits_CV.shape
    nats_C = torch.empty_like(weights_C)
    assert logits_CV.stride(1) == 1 or tokens == 0, "a token's logits are one piece of memory"
    block = min(16384, max(32, 1 << (vocabulary_size - 1).bit_length()))
    if tokens:
        _losses[(tokens,)](
            logits_CV, targets_C, weights_C, nats_C, logits_CV.stride(0), vocabulary_size, label_smoothing, z_loss,
            SMOOTHED=label_smoothing > 0.0, GRADIENT=gradient, BLOCK=block, num_warps=max(1, min(16, block // 512)),
        )  # fmt: skip
    return nats_C

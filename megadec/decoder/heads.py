"""From the last hidden states to logits, or to the loss without ever holding all logits.

In: hidden states, and for a loss the targets (ids or labels) and loss weights. Out: logits, or one float32 number. A
batch of 8 rows of 4,096 tokens with 32,000 ids is 4 GiB of float32 logits, and as much again for their gradient; here
only a chunk of tokens exists at a time, and a classifier looks at its few targets only. Trade-off: the gradients are
computed during the forward pass (as the loss is the end of the model, they need nothing that comes later but one
factor), which holds a float32 gradient of the weight until the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy, linear

from megadec.decoder.norm import at_least_float32

# Shapes: B batch, S sequence, N tokens of the batch, C tokens of a chunk, H hidden size, V vocabulary, L labels.

CHUNK_BYTES = {"cpu": 32 * 2**20, "cuda": 512 * 2**20}  # of float32 logits


def chunk_tokens(vocabulary_size: int, device: torch.device) -> int:
    """How many tokens' logits exist at a time on this kind of device."""
    return max(1, CHUNK_BYTES.get(device.type, CHUNK_BYTES["cuda"]) // (4 * vocabulary_size))


class LanguageModelHead(nn.Module):
    """logits = h weight^T, where `tied` may be the embedding's own parameter.

    Under ZeRO-3 the weight is whole only inside this module's forward, so the loss is computed here.
    """

    def __init__(self, hidden_size: int, vocabulary_size: int, tied: nn.Parameter | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(vocabulary_size, hidden_size)) if tied is None else tied

    def forward(self, h_BSH: Tensor, targets_BS: Tensor | None = None, weights_BS: Tensor | None = None) -> Tensor:
        """Logits [B, S, V] in h's dtype; with targets, the sum over tokens of weight * nats, a float32 scalar.

        targets_BS: int64; where the weight is 0 any value is allowed. weights_BS: float, 1 for each token when not
        given.
        """
        if targets_BS is None:
            return linear(h_BSH, self.weight)
        weights_N = torch.ones_like(targets_BS, dtype=torch.float32) if weights_BS is None else weights_BS
        chunk = chunk_tokens(self.weight.shape[0], h_BSH.device)
        loss: Tensor = _SumOfNats.apply(
            h_BSH.flatten(0, -2),
            self.weight,
            targets_BS.flatten(),
            weights_N.flatten(),
            chunk,
            torch.is_grad_enabled(),
        )
        return loss


class ClassifierHead(nn.Module):
    """logits = h weight^T, one for each label; the weight is Hugging Face's `score.weight`, without a bias.

    Under ZeRO-3 the weight is whole only inside this module's forward, so the loss is computed here.
    """

    def __init__(self, hidden_size: int, classes: int, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes, hidden_size))
        self.label_smoothing = label_smoothing

    def forward(self, h_BSH: Tensor, targets_BS: Tensor | None = None, weights_BS: Tensor | None = None) -> Tensor:
        """Logits [B, S, L] in h's dtype; with targets, the sum over the weighted tokens of weight * nats, in float32.

        targets_BS: int64 labels; where the weight is 0 any value is allowed and nothing is computed. weights_BS: float,
        1 for each token when not given. With label smoothing e (arXiv 1512.00567, section 7) a token's nats are the
        cross-entropy with (1 - e) * its label + e * the uniform distribution; the weight is the token's, so it scales
        both parts (torch's `cross_entropy(weight=...)` scales the uniform part by each class's own weight).
        """
        if targets_BS is None:
            return linear(h_BSH, self.weight)
        if weights_BS is None:
            weights_BS = torch.ones_like(targets_BS, dtype=torch.float32)
        counted_N = weights_BS.flatten().nonzero().flatten()
        logits_NL = at_least_float32(linear(h_BSH.flatten(0, -2)[counted_N], self.weight))
        targets_N, weights_N = targets_BS.flatten()[counted_N], weights_BS.flatten()[counted_N]
        nats_N = cross_entropy(logits_NL, targets_N, reduction="none", label_smoothing=self.label_smoothing)
        loss: Tensor = (weights_N.to(nats_N.dtype) * nats_N).sum()
        return loss


class _SumOfNats(torch.autograd.Function):
    """sum_n weight_n * (logsumexp(logits_n) - logits_n[target_n]).

    Saves the two gradients and neither the hidden states nor the weight, which ZeRO-3 may have given back by the time
    of the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        h_NH: Tensor,
        weight_VH: Tensor,
        targets_N: Tensor,
        weights_N: Tensor,
        chunk: int,
        want_gradients: bool,
    ) -> Tensor:
        wants_h, wants_weight = (want_gradients and ctx.needs_input_grad[i] for i in range(2))
        wide = torch.promote_types(h_NH.dtype, torch.float32)
        h_gradient_NH = torch.empty_like(h_NH) if wants_h else None
        weight_gradient_VH = torch.zeros_like(weight_VH, dtype=wide) if wants_weight else None
        weights_N = weights_N.to(wide)
        targets_N = targets_N.masked_fill(weights_N == 0, 0)
        loss = torch.zeros((), dtype=wide, device=h_NH.device)
        for start in range(0, h_NH.shape[0], chunk):
            part = slice(start, start + chunk)
            h_CH, targets_C1, weights_C1 = h_NH[part], targets_N[part, None], weights_N[part, None]
            logits_CV = at_least_float32(h_CH @ weight_VH.T)
            # In place and with one exponential: a chunk's logits are read and written as seldom as they can be.
            logits_CV.sub_(logits_CV.amax(-1, keepdim=True))
            target_logits_C1 = logits_CV.gather(1, targets_C1)
            exponentials_CV = logits_CV.exp_()
            totals_C1 = exponentials_CV.sum(-1, keepdim=True)
            loss += (weights_C1 * (totals_C1.log() - target_logits_C1)).sum()
            if not (wants_h or wants_weight):
                continue
            gradient_CV = exponentials_CV.mul_(weights_C1 / totals_C1).scatter_add_(1, targets_C1, -weights_C1)
            gradient_CV = gradient_CV.to(h_NH.dtype)
            if h_gradient_NH is not None:
                torch.mm(gradient_CV, weight_VH, out=h_gradient_NH[part])
            if weight_gradient_VH is not None:
                _add_product(weight_gradient_VH, gradient_CV.T, h_CH)
        ctx.save_for_backward(h_gradient_NH, weight_gradient_VH)
        ctx.weight_dtype = weight_VH.dtype
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        h_gradient_NH, weight_gradient_VH = ctx.saved_tensors
        if h_gradient_NH is not None:
            h_gradient_NH = (h_gradient_NH * factor).to(h_gradient_NH.dtype)
        if weight_gradient_VH is not None:
            weight_gradient_VH = (weight_gradient_VH * factor).to(ctx.weight_dtype)
        return h_gradient_NH, weight_gradient_VH, None, None, None, None


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, where total may be wider than the factors."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right

"""From a chunk of logits to each token's loss, and to the loss's gradient in the logits' own memory.

By a Triton kernel, or by torch a few tokens at a time, so that the steps find them in the processor's cache (half the
time of whole chunks). The logits are lost, which saves a second tensor of their size.
"""

import torch
from torch import Tensor

from megadec.decoder.kernels.choose import pieces
from megadec.decoder.kernels.precision import at_least_float32

# Shapes: C tokens of a chunk, R tokens of a piece of it, V vocabulary.


def losses(
    logits_CV: Tensor, targets_C: Tensor, weights_C: Tensor, label_smoothing: float, z_loss: float, gradient: bool
) -> Tensor:
    """Nats of each token [C], not weighted, float32 (float64 for such logits); the logits are overwritten.

    nats = (1 - e) * -log p[target] + e * mean over the vocabulary of -log p + z * log(sum of exp(logits))^2, with label
    smoothing e (arXiv 1512.00567, section 7) and z-loss z (PaLM, arXiv 2204.02311, section 5). With `gradient` the
    logits become weight * d nats / d logits in their own dtype; without, their values are of no use any more.
    targets_C: int64, in [0, V). weights_C: as wide as the nats.
    """
    nats_C = torch.empty_like(weights_C)
    for part in pieces(logits_CV.shape[0], logits_CV.shape[1], logits_CV.device):
        given = (logits_CV[part], targets_C[part, None], weights_C[part, None])
        nats_C[part, None] = _piece_losses(*given, label_smoothing, z_loss, gradient)
    return nats_C


def _piece_losses(
    logits_RV: Tensor, targets_R1: Tensor, weights_R1: Tensor, label_smoothing: float, z_loss: float, gradient: bool
) -> Tensor:
    """`losses` for a few tokens in torch, with one exponential and few passes over the logits."""
    values_RV = at_least_float32(logits_RV)
    largest_R1 = values_RV.amax(-1, keepdim=True)
    values_RV.sub_(largest_R1)
    target_logits_R1 = values_RV.gather(1, targets_R1)
    mean_R1 = values_RV.mean(-1, keepdim=True) if label_smoothing else target_logits_R1
    totals_R1 = values_RV.exp_().sum(-1, keepdim=True)
    nats_R1 = totals_R1.log() - target_logits_R1
    factors_R1 = weights_R1 / totals_R1
    if z_loss:
        log_totals_R1 = totals_R1.log() + largest_R1
        factors_R1 = factors_R1 * (1.0 + 2.0 * z_loss * log_totals_R1)
        nats_R1 = nats_R1 + z_loss * log_totals_R1.square()
    if label_smoothing:
        nats_R1 = nats_R1 + label_smoothing * (target_logits_R1 - mean_R1)
    if gradient:
        values_RV.mul_(factors_R1)
        if label_smoothing:
            values_RV.sub_(weights_R1 * (label_smoothing / logits_RV.shape[1]))
        values_RV.scatter_add_(1, targets_R1, (label_smoothing - 1.0) * weights_R1)
        if values_RV.dtype != logits_RV.dtype:
            logits_RV.copy_(values_RV)
    return nats_R1

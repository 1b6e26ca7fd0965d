"""From the last hidden states to logits, or to the loss: of the next token, or of labels.

Under ZeRO-3 a head's weight is whole only inside its forward, so the loss is computed there.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from megadec.decoder.chunked_loss import chunked_cross_entropy
from megadec.decoder.execution import Kernels
from megadec.decoder.kernels.precision import at_least_float32
from megadec.decoder.layers import Embedding, linear
from megadec.decoder.loss_options import PLAIN_LOSS, LanguageLoss

# Shapes: B batch, S sequence, N tokens of the batch, H hidden size, V vocabulary, L labels.


class LanguageModelHead(nn.Module):
    """logits = h weight^T; `tied`: the weight is the embedding's own parameter, else another of its size."""

    def __init__(
        self, embedding: Embedding, tied: bool, loss: LanguageLoss = PLAIN_LOSS, kernels: Kernels = "auto"
    ) -> None:
        super().__init__()
        size = embedding.num_embeddings, embedding.embedding_dim
        self.weight = embedding.weight if tied else nn.Parameter(torch.zeros(size))
        self.loss = loss
        self.kernels = kernels

    def forward(self, h_BSH: Tensor, targets_BS: Tensor | None = None, weights_BS: Tensor | None = None) -> Tensor:
        """Logits [B, S, V] in h's dtype; with targets, the sum over tokens of weight * nats, a float32 scalar.

        targets_BS: int64; where the weight is 0 any value is allowed. weights_BS: float, 1 for each token when not
        given. In training the nats are those of the head's `loss`.
        """
        if targets_BS is None:
            return linear(h_BSH, self.weight)
        h_NH = h_BSH.flatten(0, -2)
        weights_N = torch.ones_like(targets_BS, dtype=torch.float32) if weights_BS is None else weights_BS
        loss = self.loss if self.training else PLAIN_LOSS
        return chunked_cross_entropy(h_NH, self.weight, targets_BS.flatten(), weights_N.flatten(), loss, self.kernels)


class ClassifierHead(nn.Module):
    """logits = h weight^T, one for each label; the weight is Hugging Face's `score.weight`, without a bias."""

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
        return (weights_N.to(nats_N.dtype) * nats_N).sum()

"""Linear and embedding layers whose fresh weights are zero.

In: shapes. Out: layers as in torch. Trade-off: torch's own random start costs minutes for billions of parameters and
depends on the order of construction, and is always overwritten here (by `initialise` or by a checkpoint); zeros are
cheap and make a forgotten initialisation visible (uniform logits) instead of plausible.
"""

from __future__ import annotations

from torch import nn


class Linear(nn.Linear):
    """y = x W^T, without a bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)


class Embedding(nn.Embedding):
    """Row `id` of the weight for each id."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)

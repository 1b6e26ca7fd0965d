"""The section `loss` of a run file; chunked_loss.py computes it."""

import math
from dataclasses import dataclass

from megadec.common.errors import check_range


@dataclass(frozen=True)
class LanguageLoss:
    """What a language model's training loss adds to plain nats; evaluation is in plain nats.

    label_smoothing: the share of the target that is spread over the vocabulary (arXiv 1512.00567, section 7).
    z_loss: times the squared logarithm of softmax's denominator, which keeps logits from drifting; 1e-4 is usual (PaLM,
        arXiv 2204.02311, section 5).
    """

    label_smoothing: float = 0.0
    z_loss: float = 0.0

    def __post_init__(self) -> None:
        check_range(self, "loss.", "label_smoothing", least=0, below=1)
        check_range(self, "loss.", "z_loss", least=0, below=math.inf)


PLAIN_LOSS = LanguageLoss()

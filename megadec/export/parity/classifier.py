"""Proof that an export is the classifier: logits of the fixed prompts, each alone and in padded batches.

In come our decoder with its score and another runtime's logits of a batch, out comes how far they are apart, or an
ExportError. The prompts are those of the language models, whatever a classifier was trained for: hard texts of very
different lengths show more than easy ones of its own kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from megadec.decoder.model import Decoder
from megadec.export.parity.compare import LOGIT_TOLERANCE, compare_logits

BATCH_TEXTS = 8

# Shapes: B texts, S tokens, L labels.

Classify = Callable[[Sequence[Sequence[int]]], Tensor]


def compare_classifier(
    prompts: Sequence[Sequence[int]], decoder: Decoder, theirs: Classify, tolerance: float = LOGIT_TOLERANCE
) -> float:
    """The largest difference of logits; `theirs` gives [B, L] for the ids of B texts, which it pads by itself.

    Raises ExportError when it is above the tolerance (in the units of `compare_logits`), or not finite.
    """

    def ours(ids_BS: Tensor) -> Tensor:
        logits_B1L: Tensor = decoder(ids_BS, last_only=True)
        return logits_B1L

    alone = compare_logits(prompts, ours, lambda ids_BS: theirs(ids_BS.tolist()).unsqueeze(1), tolerance)
    batched = _in_batches(prompts, theirs)
    return max(alone, compare_logits(prompts, ours, lambda ids_BS: batched[tuple(ids_BS[0].tolist())], tolerance))


@torch.inference_mode()
def _in_batches(prompts: Sequence[Sequence[int]], theirs: Classify) -> dict[tuple[int, ...], Tensor]:
    """ids of a prompt -> its logits [1, 1, L], computed beside longer and shorter ones."""
    found: dict[tuple[int, ...], Tensor] = {}
    for start in range(0, len(prompts), BATCH_TEXTS):
        rows = prompts[start : start + BATCH_TEXTS]
        for row, logits_L in zip(rows, theirs(rows), strict=True):
            found[tuple(row)] = logits_L[None, None]
    return found

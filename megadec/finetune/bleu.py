"""BLEU by sacrebleu: translations and references in, the score and the signature that makes it comparable out.

One reference a sentence, as files of pairs have; the tokenizer is part of the signature (`zh` splits Chinese into
characters and leaves other words whole, `char` splits everything, `13a` is for languages with blanks).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from megadec.common.errors import MissingExtraError

Tokenize = Literal["zh", "char", "13a"]


def bleu(translations: Sequence[str], references: Sequence[str], tokenize: Tokenize) -> dict[str, Any]:
    """Corpus BLEU, from 0 to 100, of as many translations as references. Raises MissingExtraError."""
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise MissingExtraError("sacrebleu", "translate") from error
    metric = BLEU(tokenize=tokenize)
    result = metric.corpus_score(list(translations), [list(references)])
    return {
        "bleu": round(float(result.score), 2),
        "precisions": [round(float(precision), 1) for precision in result.precisions],
        "brevity_penalty": round(float(result.bp), 3),
        "signature": str(metric.get_signature()),
    }

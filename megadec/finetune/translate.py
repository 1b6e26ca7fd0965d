"""Translate with a trained encoder-decoder, and measure it on pairs by BLEU. The door to sacrebleu.

Texts are sorted by length and searched some at a time, so that little is padding; the answers come back in the order of
the texts.
"""

import time
from collections.abc import Sequence
from typing import Any, Literal

from megadec.common.errors import ConfigError, InputError, check_range, needs_extra
from megadec.data.pairs import PairOptions, Part, choose_pairs
from megadec.decoding.beam import Beam, Found, search
from megadec.export.read.seq2seq import TrainedPairs

SAMPLES = 10

# sacrebleu's tokenizers: `zh` splits Chinese into characters and leaves other words whole, `char` splits everything,
# `13a` is for languages with blanks. It is part of the signature that makes a score comparable.
Tokenize = Literal["zh", "char", "13a"]


class Translator:
    """A model that was trained on pairs, and how it is searched. batch: sources that are searched at a time."""

    def __init__(self, trained: TrainedPairs, how: Beam, batch: int = 32) -> None:
        self.trained, self.how, self.batch = trained, how, batch
        check_range(self, "", "batch", least=1)

    def translate(self, texts: Sequence[str]) -> list[str]:
        """The translation of each text. Raises InputError naming the text that does not fit the model."""
        tokenizer = self.trained.tokenizer
        sources = [[*ids, tokenizer.eos_id] for ids in tokenizer.encode_many(texts)]
        limit = self.trained.model.shape.max_position_embeddings
        for text, ids in zip(texts, sources, strict=True):
            if len(ids) > limit:
                raise InputError(f"{text[:40]!r}... has {len(ids)} tokens; the model's context is {limit}")
        order = sorted(range(len(sources)), key=lambda number: len(sources[number]))
        found: dict[int, Found] = {}
        for first in range(0, len(order), self.batch):
            numbers = order[first : first + self.batch]
            some = [sources[number] for number in numbers]
            best = search(self.trained.model, some, self.how, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id)
            found.update(zip(numbers, best, strict=True))
        return [tokenizer.decode(found[number].ids) for number in range(len(sources))]


def score_pairs(
    translator: Translator, pairs: PairOptions, part: Part, *, most: int | None, tokenize: Tokenize
) -> dict[str, Any]:
    """BLEU on the first `most` pairs of a part that fit the limits (None: all), with samples.

    Raises ConfigError when none is left, InputError and MissingExtraError.
    """
    tokenizer, limit = translator.trained.tokenizer, pairs.max_source_tokens
    chosen = [pair for pair in choose_pairs(pairs, part) if len(tokenizer.encode(pair[0])) < limit][:most]
    if not chosen:
        raise ConfigError(f"pairs={pairs.source}: no pair is left in the part {part!r}")
    sources, references = zip(*chosen, strict=True)
    began = time.perf_counter()
    translations = translator.translate(sources)
    seconds = time.perf_counter() - began
    spread = range(0, len(chosen), max(1, len(chosen) // SAMPLES))[:SAMPLES]
    return {
        "model": str(translator.trained.path),
        "architecture": translator.trained.architecture,
        "step": translator.trained.step,
        "part": part,
        "pairs": len(chosen),
        "beam": translator.how.beam,
        "length_penalty": translator.how.length_penalty,
        **bleu(translations, references, tokenize),
        "seconds": round(seconds, 1),
        "samples": [{"source": sources[n], "translation": translations[n], "reference": references[n]} for n in spread],
    }


def bleu(translations: Sequence[str], references: Sequence[str], tokenize: Tokenize) -> dict[str, Any]:
    """Corpus BLEU, from 0 to 100, of as many translations as references. Raises MissingExtraError."""
    with needs_extra("sacrebleu", "translate"):
        from sacrebleu.metrics.bleu import BLEU
    metric = BLEU(tokenize=tokenize)
    result = metric.corpus_score(list(translations), [list(references)])
    return {
        "bleu": round(float(result.score), 2),
        "precisions": [round(float(precision), 1) for precision in result.precisions],
        "brevity_penalty": round(float(result.bp), 3),
        "signature": str(metric.get_signature()),
    }

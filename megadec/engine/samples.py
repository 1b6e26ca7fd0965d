"""Texts that a language model writes while it trains: the same prompts continued at each evaluation.

Every rank takes part, as under ZeRO-3 each has a part of the weights. All take the same number of passes whatever they
draw, and draw from generators of their own, so nothing that training draws depends on it.
"""

from collections.abc import Sequence
from itertools import takewhile

import torch
from torch import Tensor

from megadec.common.tokenizer import Tokenizer
from megadec.decoder.cache import KeyValueCache
from megadec.decoding.continuation import Continuation
from megadec.decoding.generate import continue_alone
from megadec.decoding.sampling import Sampling
from megadec.engine.evaluate_options import EvaluateOptions
from megadec.engine.health.preemption import Interrupt
from megadec.engine.metrics.reports import Sample
from megadec.engine.task import Writer


def write_samples(
    writer: Writer, tokenizer: Tokenizer, options: EvaluateOptions, seed: int, step: int, interrupt: Interrupt
) -> list[Sample] | None:
    """Each prompt continued by `prompt_tokens` tokens; None as soon as any rank wants to stop. Collective."""
    model, samples = _TrainedModel(writer), []
    with writer.evaluating():
        for number, prompt in enumerate(options.all_prompts()):
            [stops] = writer.ranks.sum_over_ranks([float(interrupt.requested)])
            if stops:
                return None
            sampling = Sampling(options.prompt_tokens, options.temperature, top_p=1.0, seed=seed + number)
            # Without an end: one that a rank alone drew would leave the others waiting for it.
            written = Continuation(tokenizer.prompt_ids(prompt), sampling, (), tokenizer.vocabulary_size)
            ids = list(takewhile(lambda one: one not in tokenizer.end_ids, list(continue_alone(model, written))))
            samples.append(Sample(step, prompt, "".join(map(tokenizer.stream().push, ids))))
    return samples


class _TrainedModel:
    """The model in training as a LanguageModel."""

    def __init__(self, writer: Writer) -> None:
        shape = writer.decoder.shape
        self.vocabulary_size: int = shape.vocabulary_size
        self.max_position_embeddings: int = shape.max_position_embeddings
        self._writer = writer

    def session(self) -> "_Session":
        """A new sequence with a cache of its own."""
        return _Session(self._writer)


class _Session:
    """One sequence in a cache. Not that of decoding/paged.py: in inference mode ZeRO-3 would gather weights that no
    later backward pass may use."""

    def __init__(self, writer: Writer) -> None:
        decoder = writer.decoder
        dtype = decoder.embed_tokens.weight.dtype
        self._writer = writer
        self._cache = KeyValueCache(decoder.shape, 1, device=writer.ranks.device, dtype=dtype)

    def feed(self, ids: Sequence[int]) -> Tensor:
        """Logits [V] behind the last of `ids`, float64 on the CPU. Collective."""
        ids_BS = torch.tensor([list(ids)], device=self._writer.ranks.device)
        return self._writer.next_logits(ids_BS, self._cache)[0, -1].to("cpu", torch.float64)

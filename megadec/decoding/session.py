"""What the service asks of a model, whichever runtime it has: one sequence fed with ids, logits behind the last.

Logits are on the CPU in float64, so any runtime fits and a text is the same with each. Sequences of different lengths
are not computed in one batch.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from megadec.common.errors import InputError
from megadec.decoder.cache import KeyValueCache
from megadec.decoder.model import Decoder


class Session(Protocol):
    """One sequence being generated."""

    def feed(self, ids: Sequence[int]) -> Tensor:
        """Logits [V] behind the last of `ids`, float64 on the CPU; the session remembers all that it was fed."""


class LanguageModel(Protocol):
    """A model that continues a sequence of ids."""

    vocabulary_size: int  # how many logits there are
    max_position_embeddings: int  # the most ids that a session can be fed

    def session(self) -> Session:
        """A new, empty sequence; its memory is freed with the object."""


class TextClassifier(Protocol):
    """A model that gives each text a probability for each label."""

    @property
    def labels(self) -> Sequence[str]:
        """The labels in the model's order."""

    def truncated(self, texts: Sequence[str]) -> Sequence[bool]:
        """Whether a part of each text is left out, as the model does not read so many tokens."""

    def classify(self, texts: Sequence[str]) -> Sequence[Mapping[str, float]]:
        """For each text, label -> probability. Raises InputError for a text that the model cannot take."""


def check_ids(ids: Sequence[int], vocabulary_size: int, context: int, before: int = 0) -> None:
    """Raise InputError for no ids, an id outside the vocabulary, or more than fit behind `before` tokens."""
    if len(ids) == 0:
        raise InputError("there are no tokens to feed; a prompt needs at least one")
    wrong = [i for i in ids if not 0 <= i < vocabulary_size]
    if wrong:
        raise InputError(f"id {wrong[0]} is not one of the model's {vocabulary_size} ids")
    if before + len(ids) > context:
        raise InputError(f"{before + len(ids)} tokens do not fit: the model's context is {context} tokens")


class DecoderModel:
    """Our own decoder as a LanguageModel, on whatever device it is."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.vocabulary_size: int = decoder.shape.vocabulary_size
        self.max_position_embeddings: int = decoder.shape.max_position_embeddings

    def session(self) -> "DecoderSession":
        """A new sequence with a cache of its own."""
        return DecoderSession(self.decoder)


class DecoderSession:
    """One sequence in a decoder's key-value cache."""

    def __init__(self, decoder: Decoder) -> None:
        weight = decoder.embed_tokens.weight
        self._decoder = decoder
        self._cache = KeyValueCache(decoder.shape, 1, device=weight.device, dtype=weight.dtype)

    @torch.inference_mode()
    def feed(self, ids: Sequence[int]) -> Tensor:
        """Logits [V] behind the last of `ids`, float64 on the CPU. Raises InputError beyond the context."""
        ids_BS = torch.tensor([list(ids)], device=self._decoder.embed_tokens.weight.device)
        logits_B1V: Tensor = self._decoder(ids_BS, cache=self._cache, last_only=True)
        return logits_B1V[0, -1].to("cpu", torch.float64)

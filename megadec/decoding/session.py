"""What generation asks of a model, whichever runtime it has.

A `LanguageModel` feeds one sequence with ids and gives the logits behind the last. A `BatchedModel` computes many
sequences of any lengths in one forward pass (paged.py: our own decoder). `batched` makes the second of the first.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from megadec.common.errors import InputError


class Session(Protocol):
    """One sequence being generated."""

    def feed(self, ids: Sequence[int]) -> Tensor:
        """Logits [V] behind the last of `ids`, on the CPU; the session remembers all that it was fed."""


class LanguageModel(Protocol):
    """A model that continues a sequence of ids."""

    vocabulary_size: int  # how many logits there are
    max_position_embeddings: int  # the most ids that a session can be fed

    def session(self) -> Session:
        """A new, empty sequence; its memory is freed with the object."""


class Feed(NamedTuple):
    """What a sequence is fed in a forward pass. wanted: logits are wanted behind so many of its last ids, 0 to all.

    sequence: what `BatchedModel.begin` gave.
    """

    sequence: Any
    ids: Sequence[int]
    wanted: int


class CacheUse(NamedTuple):
    """What a model's cache holds, in blocks of tokens; `bytes` is all of it, full or not."""

    used_blocks: int
    blocks: int
    block_tokens: int
    bytes: int


@runtime_checkable
class BatchedModel(Protocol):
    """A model that continues many sequences at once, with a cache of bounded size."""

    vocabulary_size: int
    max_position_embeddings: int

    def begin(self, ids: Sequence[int], more_tokens: int, share: bool = True) -> Any | None:
        """A new sequence with room for the prompt `ids` and `more_tokens`; None where that room is not free.

        Its `cached_tokens` first ids need not be fed: their keys and values are there from another prompt with the same
        beginning, at most all but one, and none without `share`.
        """

    def reserve(self, sequence: Any, tokens: int) -> bool:
        """Make room for `tokens` more; False where it is not free, and nothing is changed."""

    def end(self, sequence: Any) -> None:
        """Free the sequence's room."""

    def forward(self, feeds: Sequence[Feed]) -> Tensor:
        """Logits [rows, V] behind the wanted ids, feed after feed, float32 on the model's device."""

    def cache_use(self) -> CacheUse:
        """How much of the cache is in use."""


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


def batched(model: LanguageModel | BatchedModel) -> BatchedModel:
    """`model` itself where it computes batches, else its sessions one after another."""
    return model if isinstance(model, BatchedModel) else OneByOne(model)


class _Session:
    """A session with the field that `BatchedModel.begin` promises."""

    cached_tokens = 0

    def __init__(self, session: Session) -> None:
        self.session = session


class OneByOne:
    """A LanguageModel as a BatchedModel: each sequence of a batch is fed by itself."""

    def __init__(self, model: LanguageModel) -> None:
        self.vocabulary_size = model.vocabulary_size
        self.max_position_embeddings = model.max_position_embeddings
        self._model = model
        self._sequences = 0

    def begin(self, ids: Sequence[int], more_tokens: int, share: bool = True) -> _Session:
        """A session; nothing is shared."""
        self._sequences += 1
        return _Session(self._model.session())

    def reserve(self, sequence: _Session, tokens: int) -> bool:
        """A session makes its own room."""
        return True

    def end(self, sequence: _Session) -> None:
        """The session is freed with its object."""
        self._sequences -= 1

    def forward(self, feeds: Sequence[Feed]) -> Tensor:
        """Logits [rows, V] behind the wanted ids; where more than the last are wanted, ids are fed one by one."""
        rows: list[Tensor] = []
        for sequence, ids, wanted in feeds:
            whole, singles = ids[: len(ids) - max(wanted, 1) + 1], ids[len(ids) - max(wanted, 1) + 1 :]
            found = [sequence.session.feed(whole), *(sequence.session.feed([one]) for one in singles)]
            rows += found if wanted else []
        return torch.stack(rows).float() if rows else torch.empty(0, self.vocabulary_size)

    def cache_use(self) -> CacheUse:
        """Counted in sequences: what each of them holds is the runtime's own."""
        return CacheUse(self._sequences, self._sequences, self.max_position_embeddings, 0)

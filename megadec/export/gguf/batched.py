"""Many sequences of a GGUF file in one call of llama.cpp, each at its own place in llama.cpp's cache.

llama.cpp gives each of its sequences room for the whole context. How it computes a batch is its own affair: a text may
differ from the one that it gives alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from megadec.common.errors import ExportError
from megadec.decoding.session import CacheUse, Feed, check_ids
from megadec.export.gguf.llama_cpp import BATCH_TOKENS, LlamaCppModel, open_context


@dataclass(eq=False)
class _Sequence:
    """place: its number in llama.cpp. length: tokens that were fed."""

    place: int
    length: int = 0
    cached_tokens: int = field(default=0, init=False)


class BatchedLlamaCpp:
    """A LlamaCppModel as a BatchedModel.

    sequences: the most at a time, fewer where keys and values of so many contexts take more than cache_bytes. Raises
    ExportError where there is no memory for them.
    """

    def __init__(self, model: LlamaCppModel, sequences: int, cache_bytes: int) -> None:
        self.vocabulary_size = model.vocabulary_size
        self.max_position_embeddings = model.max_position_embeddings
        context_bytes = model.token_bytes * model.max_position_embeddings
        self._count = max(1, min(sequences, cache_bytes // context_bytes))
        self._bytes = self._count * context_bytes
        self._model = model
        self._context = open_context(model, self._count, model.max_position_embeddings)
        self._batch = model.library.LlamaBatch(n_tokens=BATCH_TOKENS, embd=0, n_seq_max=1)
        self._free = list(range(self._count))

    def begin(self, ids: Sequence[int], more_tokens: int, share: bool = True) -> _Sequence | None:
        """A place for a sequence, None where all are taken; nothing is shared. Raises InputError for wrong ids."""
        check_ids(ids, self.vocabulary_size, self.max_position_embeddings)
        return _Sequence(self._free.pop()) if self._free else None

    def reserve(self, sequence: _Sequence, tokens: int) -> bool:
        """Each place has room for the whole context."""
        return True

    def end(self, sequence: _Sequence) -> None:
        """Free the place."""
        self._context.memory_seq_rm(sequence.place, -1, -1)
        self._free.append(sequence.place)

    def forward(self, feeds: Sequence[Feed]) -> Tensor:
        """Logits [rows, V] behind the wanted ids, float32 on the CPU. Raises ExportError."""
        tokens: list[tuple[int, int, int, bool]] = []
        for sequence, ids, wanted in feeds:
            for place, one in enumerate(ids):
                tokens.append((one, sequence.length + place, sequence.place, place >= len(ids) - wanted))
            sequence.length += len(ids)
        rows: list[Tensor] = []
        for start in range(0, len(tokens), BATCH_TOKENS):
            piece = tokens[start : start + BATCH_TOKENS]
            self._batch.clear()
            for one, position, place, is_wanted in piece:
                self._batch.add(int(one), position, [place], is_wanted)
            try:
                self._context.decode(self._batch)
            except (ValueError, RuntimeError) as error:
                raise ExportError(f"{self._model.path}: llama.cpp failed in a batch: {error}") from error
            rows += [
                torch.from_numpy(np.array(self._context.get_logits_ith(number), dtype=np.float32))
                for number, token in enumerate(piece)
                if token[3]
            ]
        return torch.stack(rows) if rows else torch.empty(0, self.vocabulary_size)

    def cache_use(self) -> CacheUse:
        """Counted in places for a sequence."""
        return CacheUse(self._count - len(self._free), self._count, self.max_position_embeddings, self._bytes)

"""Answers that a JSON schema allows: llguidance says which token may come next.

It takes a vocabulary as bytes, so characters that are spelled byte by byte stay whole. The extra is `structured`.
"""

import json
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from megadec.common.errors import InputError, needs_extra
from megadec.common.tokenizer import Tokenizer


class GrammarError(InputError):
    """An answer became too complex to follow."""


class Grammars:
    """Makes the masks of one tokenizer; nothing is imported or built before the first."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def masks(self, schema: dict[str, Any], count: int) -> "list[JsonMask]":
        """So many masks of one schema. Raises InputError for what is no schema, or has keywords that would not be held.

        Raises MissingExtraError without llguidance.
        """
        library, vocabulary = self._built
        # Blanks are where JSON's usual separators have them: a small model can else write blanks for ever.
        grammar = library.LLMatcher.grammar_from_json_schema(json.dumps(schema), {"whitespace_flexible": False})
        is_wrong, messages = library.LLMatcher.validate_grammar_with_warnings(grammar, vocabulary)
        if is_wrong or messages:
            raise InputError(f"response_format: this JSON schema cannot be held: {_first_lines(messages)}")
        matcher = library.LLMatcher(vocabulary, grammar, log_level=0)
        return [JsonMask(matcher.deep_copy(), self._tokenizer.vocabulary_size) for _ in range(count)]

    @cached_property
    def _built(self) -> tuple[Any, Any]:
        with needs_extra("llguidance", "structured"):
            import llguidance
        tokenizer = self._tokenizer
        wrapper = llguidance.TokenizerWrapper(_Pieces(tokenizer))
        ends = list(tokenizer.end_ids)
        return llguidance, llguidance.LLTokenizer(wrapper, n_vocab=tokenizer.vocabulary_size, eos_token=ends)


def _first_lines(messages: list[str]) -> str:
    return "; ".join(messages).replace("\n", " ")[:300]


class _Pieces:
    """A tokenizer as llguidance asks for it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id, self.bos_token_id = tokenizer.eos_id, tokenizer.bos_id
        self.tokens = tokenizer.pieces
        self.special_token_ids = sorted(set(tokenizer.special_ids.values()))

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)


class JsonMask:
    """A TokenMask."""

    def __init__(self, matcher: Any, vocabulary_size: int) -> None:
        self._matcher = matcher
        self._size = vocabulary_size
        self._mask: Tensor | None = None

    def allowed(self) -> Tensor:
        """True for each id that may come next. Raises GrammarError when the answer got too complex to follow."""
        if self._mask is None:
            words = self._matcher.compute_bitmask()
            if self._matcher.is_error():
                why = self._matcher.get_error().partition("\n")[0]
                raise GrammarError(f"response_format: the answer cannot be followed: {why}")
            bits = np.unpackbits(np.frombuffer(words, np.uint8), bitorder="little", count=self._size)
            self._mask = torch.from_numpy(bits.view(bool))
        return self._mask

    def accept(self, token_id: int) -> None:
        """This id has been drawn; `allowed` raises when it was none that may come."""
        self._mask = None
        self._matcher.consume_token(token_id)

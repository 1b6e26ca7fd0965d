"""Tiny tokenizers, with the settings of our real ones."""

from collections.abc import Iterable
from pathlib import Path

import sentencepiece


def train_tokenizer(folder: Path, lines: Iterable[str], pieces: int) -> Path:
    """A sentencepiece BPE model of so many pieces, trained on the lines."""
    sentencepiece.SentencePieceTrainer.train(
        # A model that never saw a blank has no piece for it, and would spell it as the bytes of another character.
        sentence_iterator=iter(["a b", *lines]),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=pieces,
        character_coverage=1.0,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        num_threads=1,
        minloglevel=2,
    )
    return folder / "tokenizer.model"

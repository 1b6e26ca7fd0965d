"""What counting alone achieves: a unigram and a smoothed bigram on shards, as a floor under any decoder's loss.

    python bench/ngram.py --train shards/prose --held-out shards/held-out/prose [--train-tokens 1500000]

In: a data set to count and a held-out one. Out: JSON with nats a token and bits a character of both. The bigram is
interpolated with the unigram by absolute discounting (Ney, Essen and Kneser 1994). Everything is counted in memory, so
`train_tokens` bounds it.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from megadec.common.config import parse
from megadec.common.errors import run_main
from megadec.data.dataset import DataSet

DISCOUNT = 0.75
UNSEEN_COUNT = 0.1


@dataclass(frozen=True)
class NgramOptions:
    """train, held_out: folders of shards. train_tokens, held_out_tokens: so many from the start of each."""

    train: Path
    held_out: Path
    train_tokens: int = 1_500_000
    held_out_tokens: int = 60_000


def nats_of(train_T: np.ndarray, test_T: np.ndarray, vocabulary_size: int, bos_id: int) -> tuple[float, float]:
    """Mean nats of the tokens of `test_T` but `<s>` by the unigram and by the bigram of `train_T`; int64 tokens."""
    counts_V = np.bincount(train_T, minlength=vocabulary_size)
    unigram_V = (counts_V + UNSEEN_COUNT) / (counts_V + UNSEEN_COUNT).sum()
    pairs, pair_counts = np.unique(train_T[:-1] * vocabulary_size + train_T[1:], return_counts=True)
    contexts_V = np.bincount(train_T[:-1], minlength=vocabulary_size)
    kinds_V = np.bincount(pairs // vocabulary_size, minlength=vocabulary_size)
    before, after = test_T[:-1], test_T[1:]
    wanted = before * vocabulary_size + after
    places = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    seen = np.where(pairs[places] == wanted, pair_counts[places], 0)
    total = np.maximum(contexts_V[before], 1)
    left_over = np.where(contexts_V[before] > 0, DISCOUNT * kinds_V[before] / total, 1.0)
    bigram = np.maximum(seen - DISCOUNT, 0) / total + left_over * unigram_V[after]
    counted = after != bos_id
    return float(-np.log(unigram_V[after][counted]).mean()), float(-np.log(bigram[counted]).mean())


def main(argv: Sequence[str]) -> None:
    """Parse, count, print."""
    options = parse(NgramOptions, argv, description="Unigram and bigram loss on shards.")
    train = DataSet.open(options.train)
    held_out = DataSet.open(options.held_out, train.tokenizer_sha256)
    train_T, test_T = (
        np.asarray(data.tokens_at(0, min(data.tokens, most)), dtype=np.int64)
        for data, most in ((train, options.train_tokens), (held_out, options.held_out_tokens))
    )
    unigram, bigram = nats_of(train_T, test_T, train.vocabulary_size, train.bos_id)
    characters_per_token = held_out.index["characters"] / (held_out.tokens - held_out.documents)
    figures = {"train_tokens": len(train_T), "unigram_nats": unigram, "bigram_nats": bigram}
    per_character = 1 / math.log(2) / characters_per_token
    figures |= {
        "unigram_bits_per_character": unigram * per_character,
        "bigram_bits_per_character": bigram * per_character,
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    run_main(main)

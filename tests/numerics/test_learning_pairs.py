"""Recurrent models learn to copy or to reverse, and what they say of sequences they never saw is exact.

That a Transformer does is in tests/e2e/test_translate.py.
"""

import random

import pytest

from megadec.data.pair_stream import PairStream
from megadec.data.pairs import PairCounts, PairSet, Ragged
from megadec.decoder.textbook.registry import architecture
from megadec.decoding.beam import GREEDY, search
from megadec.engine.optimizer import OptimizerOptions
from megadec.engine.schedule import ScheduleOptions
from tests.support.decoders import fresh
from tests.support.plain_training import train_plainly

VOCABULARY, BOS, EOS = 16, 1, 2
SEEN, UNSEEN = 4000, 300

SHAPE = {
    "vocabulary_size": VOCABULARY,
    "hidden_size": 64,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "max_position_embeddings": 10,
}


def sequences() -> list[list[int]]:
    """Different sequences of 2 to 5 ids."""
    chance, found = random.Random(3), dict[tuple[int, ...], None]()
    while len(found) < SEEN + UNSEEN:
        found[tuple(chance.randrange(3, VOCABULARY) for _ in range(chance.randint(2, 5)))] = None
    return [list(ids) for ids in found]


@pytest.mark.parametrize(("cell", "attention", "order"), [("gru", "bahdanau", -1), ("lstm", "luong", 1)])
def test_a_model_learns_an_order_to_99_of_100_unseen_sequences(cell: str, attention: str, order: int) -> None:
    found = architecture("rnn_seq2seq")
    model = fresh(found, found.shape_from({**SHAPE, "cell": cell, "attention": attention}), seed=0)
    everything = sequences()
    seen, unseen = everything[:SEEN], everything[SEEN:]
    sources = Ragged.of([[*ids, EOS] for ids in seen], VOCABULARY)
    targets = Ragged.of([ids[::order] for ids in seen], VOCABULARY)
    stream = PairStream(PairSet(sources, targets, BOS, EOS, PairCounts()), seed=0, global_batch_size=64)
    optimizer = OptimizerOptions(learning_rate=6e-3, weight_decay=0.01, beta2=0.98)
    losses = train_plainly(model, stream, 150, optimizer, ScheduleOptions(warmup_steps=30, final_fraction=0.0))
    answers = search(model.eval(), [[*ids, EOS] for ids in unseen], GREEDY, bos_id=BOS, eos_id=EOS)
    exact = sum(list(answer.ids) == [*ids[::order], EOS] for answer, ids in zip(answers, unseen, strict=True))
    assert exact >= 0.99 * UNSEEN, f"{exact} of {UNSEEN} exact, last loss {losses[-1]:.4f}"

"""Encoder-decoders learn to copy or to reverse, and what they say of sequences they never saw is exact."""

import random
from typing import Any

import pytest

from megadec.data.pair_stream import PairStream
from megadec.data.pairs import PairCounts, PairSet, Ragged
from megadec.decoder.textbook.registry import architecture
from megadec.decoding.beam import GREEDY, search
from megadec.engine.schedule import ScheduleOptions
from megadec.engine.zero.optimizer import OptimizerOptions
from tests.support.decoders import fresh
from tests.support.plain_training import train_plainly

VOCABULARY, BOS, EOS = 16, 1, 2
SEEN, UNSEEN = 4000, 300

SMALL: dict[str, Any] = {"hidden_size": 64, "encoder_layers": 1, "decoder_layers": 1}
HEADS = {"heads": 4, "kv_heads": 2, "head_size": 16, "intermediate_size": 128}
MODELS: dict[str, tuple[str, dict[str, Any], int, float]] = {
    "transformer": ("transformer_seq2seq", {**SMALL, **HEADS}, 400, 4e-3),
    "gru": ("rnn_seq2seq", SMALL, 300, 6e-3),
    "lstm": ("rnn_seq2seq", {**SMALL, "cell": "lstm", "attention": "luong"}, 300, 6e-3),
}


def sequences() -> list[list[int]]:
    """Different sequences of 2 to 7 ids."""
    chance, found = random.Random(3), dict[tuple[int, ...], None]()
    while len(found) < SEEN + UNSEEN:
        found[tuple(chance.randrange(3, VOCABULARY) for _ in range(chance.randint(2, 7)))] = None
    return [list(ids) for ids in found]


@pytest.mark.parametrize(("kind", "task"), [("transformer", "reverse"), ("gru", "reverse"), ("lstm", "copy")])
def test_a_model_learns_a_task_to_99_of_100_unseen_sequences(kind: str, task: str) -> None:
    name, values, steps, rate = MODELS[kind]
    order = {"copy": 1, "reverse": -1}[task]
    found = architecture(name)
    shape = found.shape_from({**values, "vocabulary_size": VOCABULARY, "max_position_embeddings": 10})
    model = fresh(found, shape, seed=0)
    everything = sequences()
    seen, unseen = everything[:SEEN], everything[SEEN:]
    sources = Ragged.of([[*ids, EOS] for ids in seen], VOCABULARY)
    targets = Ragged.of([ids[::order] for ids in seen], VOCABULARY)
    stream = PairStream(PairSet(sources, targets, BOS, EOS, PairCounts()), seed=0, global_batch_size=64)
    optimizer = OptimizerOptions(learning_rate=rate, weight_decay=0.01, beta2=0.98)
    losses = train_plainly(model, stream, steps, optimizer, ScheduleOptions(warmup_steps=30, final_fraction=0.0))
    answers = search(model.eval(), [[*ids, EOS] for ids in unseen], GREEDY, bos_id=BOS, eos_id=EOS)
    exact = sum(list(answer.ids) == [*ids[::order], EOS] for answer, ids in zip(answers, unseen, strict=True))
    assert exact >= 0.99 * UNSEEN, f"{exact} of {UNSEEN} exact, last loss {losses[-1]:.4f}"

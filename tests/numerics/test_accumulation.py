"""N micro-batches of one sequence are one batch of N sequences, because the loss is a sum that is divided once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from megadec.data.index import DataSet
from megadec.data.stream import TrainStream
from tests.support.decoders import decoder_of, tiny_shape

SHAPE = tiny_shape(vocabulary_size=600)


def gradients(stream: TrainStream, micro_batch_size: int) -> tuple[float, dict[str, torch.Tensor]]:
    decoder = decoder_of(SHAPE, seed=3, dtype=torch.float64)
    batches = stream.batch(0, micro_batch_size=micro_batch_size)
    tokens = sum(batch.valid_tokens for batch in batches)
    total = 0.0
    for batch in batches:
        loss = decoder(batch.ids_BS, **batch.model_arguments())
        (loss / tokens).backward()
        total += float(loss.detach()) / tokens
    return total, {name: parameter.grad for name, parameter in decoder.named_parameters() if parameter.grad is not None}


def test_n_micro_batches_of_one_sequence_are_one_batch_of_n(tiny_shards: Path) -> None:
    data = DataSet.open(tiny_shards)
    stream = TrainStream([(data, 1.0)], 64, "cut", seed=1, global_batch_size=8)
    valid = [batch.valid_tokens for batch in stream.batch(0, micro_batch_size=1)]
    assert len(set(valid)) > 1, "sequences that differ in valid tokens are what a mean of means gets wrong"
    loss, whole = gradients(stream, 8)
    for micro_batch_size in (1, 2):
        divided_loss, divided = gradients(stream, micro_batch_size)
        assert divided_loss == pytest.approx(loss, rel=1e-6)
        for name, gradient in whole.items():
            torch.testing.assert_close(divided[name], gradient, rtol=1e-5, atol=1e-9)

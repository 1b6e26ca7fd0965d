"""What a batch counts for a step."""

from __future__ import annotations

from pathlib import Path

from megadec.data.index import DataSet
from megadec.data.stream import TrainStream


def test_the_cost_of_attention_is_the_sum_of_squared_document_lengths(tiny_shards: Path) -> None:
    stream = TrainStream([(DataSet.open(tiny_shards), 1.0)], 64, "cut", seed=0, global_batch_size=16)
    [batch] = stream.batch(0)
    lengths = [int((row == document).sum()) for row in batch.documents_BS for document in row.unique().tolist()]
    assert batch.squared_document_tokens == sum(length**2 for length in lengths)
    assert len(lengths) > 16

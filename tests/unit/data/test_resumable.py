"""Ranks that share rows: who holds which part of which rows."""

import pytest
import torch

from megadec.common.errors import ConfigError
from megadec.data.dataset import DataSet
from megadec.data.resumable import rank_position
from megadec.data.stream import TrainStream

SETTINGS = {"sequence_length": 60, "packing": "cut", "seed": 1, "global_batch_size": 12}


@pytest.mark.parametrize(("world_size", "shared"), [(2, 2), (4, 2), (6, 3), (4, 4)])
@pytest.mark.parametrize("micro", [1, 3])
def test_the_parts_of_all_ranks_are_the_rows_that_the_groups_would_have_alone(
    data: DataSet, world_size: int, shared: int, micro: int
) -> None:
    whole, cut = (
        TrainStream([(data, 1.0)], **SETTINGS),
        TrainStream([(data, 1.0)], **SETTINGS, sequence_parallel_size=shared),
    )
    assert cut.state(3) == whole.state(3), "the sequence does not depend on how rows are cut"
    for group in range(world_size // shared):
        rows = whole.batch(1, group, world_size // shared, micro)
        parts = [cut.batch(1, group * shared + part, world_size, micro) for part in range(shared)]
        for number, batch in enumerate(rows):
            mine = [batches[number] for batches in parts]
            for place, tensor in enumerate(batch.tensors()[:-1]):
                assert torch.equal(torch.cat([part.tensors()[place] for part in mine], dim=1), tensor)
            assert all(torch.equal(part.documents_BS, batch.documents_BS) for part in mine)
            assert sum(part.valid_tokens for part in mine) == batch.valid_tokens
            assert sum(part.squared_document_tokens for part in mine) == batch.squared_document_tokens


def test_a_part_is_a_batch_like_any_other(data: DataSet) -> None:
    [batch] = TrainStream([(data, 1.0)], **SETTINGS, sequence_parallel_size=2).batch(0, rank=1, world_size=2)
    assert all(tensor.is_contiguous() for tensor in batch.tensors())
    assert batch.ids_BS.shape == (12, 30)
    moved = batch.to("meta")
    assert {tensor.device.type for tensor in moved.tensors()} == {"meta"}
    assert moved.documents_BS.shape == (12, 60)


def test_what_does_not_divide_is_refused_with_both_numbers(data: DataSet) -> None:
    with pytest.raises(ConfigError, match=r"train\.sequence_parallel_size=3 does not divide the 4 rank"):
        rank_position(0, 4, 3)
    with pytest.raises(
        ConfigError, match=r"data\.sequence_length=60 is not a multiple of train\.sequence_parallel_size=8"
    ):
        TrainStream([(data, 1.0)], **SETTINGS, sequence_parallel_size=8)

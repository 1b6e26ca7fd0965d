"""A batch says of every place what the documents say."""

import numpy as np
import pytest
import torch

from megadec.data.batch import TokenBatch, assemble
from megadec.data.windows import WindowPlan, plan_windows

ROW = 300


@pytest.fixture(params=["cut", "best_fit"])
def plan(request, data, plan_cache) -> WindowPlan:
    return plan_windows(data, ROW, request.param)


@pytest.fixture
def batch(plan) -> TokenBatch:
    """All windows of the set."""
    return assemble([(plan, window) for window in range(plan.windows)], ROW, plan.data.bos_id)


def by_the_row(plan: WindowPlan) -> list[list[tuple[int, int, float, int, int]]]:
    """(id, target, weight, position, document) of every used place, said the slow way from the documents."""
    spans = plan.data.documents_between(0, plan.data.tokens)
    owner = np.repeat(np.arange(len(spans)), [span.tokens for span in spans])
    tokens = plan.data.tokens_at(0, plan.data.tokens).tolist()
    rows = []
    for window in range(plan.windows):
        row: list[tuple[int, int, float, int, int]] = []
        last, position, number = None, 0, -1
        for first, count in plan.pieces(window):
            for place in range(first, first + count):
                fresh = owner[place] != last or (place == first and row)
                position, number = (0, number + 1) if fresh or last is None else (position + 1, number)
                last = owner[place]
                inside = float(owner[place + 1] == owner[place])
                row.append((tokens[place], tokens[place + 1], inside, position, number))
        rows.append(row)
    return rows


def test_types_and_shapes_are_those_of_the_contract(batch, plan):
    types = [torch.int64, torch.int64, torch.float32, torch.int64, torch.int32]
    assert [tensor.dtype for tensor in batch.tensors()] == types
    assert all(tensor.shape == (plan.windows, ROW) and tensor.is_contiguous() for tensor in batch.tensors())


def test_a_batch_is_what_its_documents_say(batch, plan):
    for row, expected in enumerate(by_the_row(plan)):
        used = [tensor[row, : len(expected)].tolist() for tensor in batch.tensors()]
        assert list(zip(*used, strict=True)) == expected


def test_padding_weighs_nothing_and_is_a_document_of_its_own(batch, plan, data):
    for row in range(plan.windows):
        used = sum(count for _, count in plan.pieces(row))
        assert not batch.weights_BS[row, used:].any()
        assert batch.positions_BS[row, used:].tolist() == list(range(ROW - used))
        assert (batch.documents_BS[row, used:] == batch.documents_BS[row, used - 1] + 1).all()
    assert batch.valid_tokens == data.tokens - data.documents


def test_a_row_without_window_is_all_padding(plan, data):
    batch = assemble([None, (plan, 0), None], ROW, data.bos_id)
    alone = assemble([(plan, 0)], ROW, data.bos_id)
    for row in (0, 2):
        assert batch.weights_BS[row].sum() == 0
        assert batch.documents_BS[row].unique().tolist() == [0]
        assert batch.positions_BS[row].tolist() == list(range(ROW))
    for mixed, single in zip(batch.tensors(), alone.tensors(), strict=True):
        assert torch.equal(mixed[1:2], single)


def test_rows_share_memory_with_their_batch(batch):
    part = batch.sequences(1, 3)
    assert part.ids_BS.data_ptr() == batch.ids_BS[1].data_ptr()
    assert torch.equal(part.weights_BS, batch.weights_BS[1:3])


def test_the_cost_of_attention_is_the_sum_of_squared_document_lengths(batch):
    lengths = [int((row == document).sum()) for row in batch.documents_BS for document in row.unique().tolist()]
    assert batch.squared_document_tokens == sum(length**2 for length in lengths)

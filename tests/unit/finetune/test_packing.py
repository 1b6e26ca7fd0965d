"""The stream of labelled rows: every text once an epoch, whole, the same batch for any number of ranks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from megadec.common.errors import ConfigError, InputError
from megadec.finetune.examples import LabelledSet
from megadec.finetune.packing import ClassifyStream, assemble_texts, pack_texts

ROW_TOKENS = 16


def labelled(texts: int = 57, seed: int = 0) -> LabelledSet:
    """Texts of 2 to 16 tokens, each of its own ids, with one of three labels."""
    chance = np.random.default_rng(seed)
    lengths = chance.integers(2, ROW_TOKENS + 1, texts)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.arange(5, 5 + starts[-1], dtype=np.int32)
    return LabelledSet(Path("titles.txt"), ("a", "b", "c"), tokens, starts, chance.integers(0, 3, texts))


def stream_of(data: LabelledSet, seed: int = 3, prefix_weight: float = 0.0) -> ClassifyStream:
    return ClassifyStream(data, [1.0, 2.0, 0.5], ROW_TOKENS, seed, 4, prefix_weight)


def test_every_text_is_in_exactly_one_row_and_no_row_is_too_long() -> None:
    data = labelled()
    rows = pack_texts(np.arange(data.texts), data.lengths, ROW_TOKENS)
    assert sorted(np.concatenate(rows).tolist()) == list(range(data.texts))
    assert all(data.lengths[row].sum() <= ROW_TOKENS for row in rows)
    assert len(rows) < 1.2 * data.lengths.sum() / ROW_TOKENS + 1


def test_a_batch_holds_its_texts_one_behind_the_other_with_the_label_at_each_last_token() -> None:
    data = labelled()
    rows = [np.asarray([3, 8]), np.asarray([], dtype=np.int64), np.asarray([11])]
    while data.lengths[rows[0]].sum() > ROW_TOKENS:
        rows[0] = rows[0][:-1]
    batch = assemble_texts(data, rows, ROW_TOKENS, [1.0, 2.0, 0.5])
    for row, texts in enumerate(rows):
        at = 0
        for number, text in enumerate(texts.tolist()):
            ids = data.ids(text).tolist()
            part = slice(at, at + len(ids))
            label = int(data.labels[text])
            assert batch.ids_BS[row, part].tolist() == ids
            assert batch.positions_BS[row, part].tolist() == list(range(len(ids)))
            assert set(batch.documents_BS[row, part].tolist()) == {number}
            assert batch.weights_BS[row, part].tolist() == [0.0] * (len(ids) - 1) + [[1.0, 2.0, 0.5][label]]
            assert int(batch.targets_BS[row, at + len(ids) - 1]) == label
            at += len(ids)
        assert not batch.weights_BS[row, at:].any()
        assert set(batch.documents_BS[row, at:].tolist()) <= {len(texts)}
        assert batch.positions_BS[row, at:].tolist() == list(range(ROW_TOKENS - at))
    assert batch.valid_tokens == sum(len(texts) for texts in rows)


def test_an_epoch_shows_every_text_once_and_the_next_one_in_another_order_and_company() -> None:
    stream = stream_of(labelled())
    rows = stream.windows_per_epoch
    epochs = [stream.sequences_at(epoch * rows, rows) for epoch in range(3)]
    for epoch in epochs:
        assert sorted(np.concatenate(epoch).tolist()) == list(range(57))
    company = [{frozenset(row.tolist()) for row in epoch} for epoch in epochs]
    assert company[0] != company[1] != company[2]
    other = stream_of(labelled(), seed=4).sequences_at(0, rows)
    assert [row.tolist() for row in epochs[0]] != [row.tolist() for row in other]


@pytest.mark.parametrize(("ranks", "micro"), [(2, 2), (4, 1), (1, 1), (2, 1)])
def test_a_step_is_the_same_for_any_number_of_ranks_and_micro_batches(ranks: int, micro: int) -> None:
    stream = stream_of(labelled())
    for step in (0, 5, 17):
        [whole] = stream.batch(step)
        parts = [part for rank in range(ranks) for part in stream_of(labelled()).batch(step, rank, ranks, micro)]
        for name in ("ids_BS", "targets_BS", "weights_BS", "positions_BS", "documents_BS"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))


def test_the_state_is_checked_against_texts_and_settings() -> None:
    stream = stream_of(labelled())
    state = stream.state(9)
    assert stream_of(labelled()).check(state) == 9
    assert state["epoch"] == 9 * 4 // stream.windows_per_epoch
    with pytest.raises(InputError, match=r"titles\.txt has 56 labelled texts"):
        stream_of(labelled(56)).check(state)
    with pytest.raises(ConfigError, match="seed is 4"):
        stream_of(labelled(), seed=4).check(state)
    with pytest.raises(ConfigError, match=r"prefix_weight is 0\.4"):
        stream_of(labelled(), prefix_weight=0.4).check(state)


def test_with_a_prefix_weight_the_label_is_asked_at_every_token_but_the_first() -> None:
    data = labelled()
    rows = [np.asarray([text]) for text in np.flatnonzero(data.lengths > 3)[:2]]
    plain, asked = (assemble_texts(data, rows, ROW_TOKENS, [1.0, 2.0, 0.5], weight) for weight in (0.0, 0.4))
    for row, [text] in enumerate(rows):
        length, label = int(data.lengths[text]), int(data.labels[text])
        weight = [1.0, 2.0, 0.5][label]
        assert asked.weights_BS[row, 0] == 0
        assert asked.weights_BS[row, 1 : length - 1].sum().item() == pytest.approx(0.4 * weight)
        assert asked.weights_BS[row, length - 1] == plain.weights_BS[row, length - 1] == weight
        assert set(asked.targets_BS[row, :length].tolist()) == {label}
        assert not asked.weights_BS[row, length:].any()
    assert torch.equal(asked.ids_BS, plain.ids_BS)
    assert torch.equal(asked.documents_BS, plain.documents_BS)

"""The budget of a run is what its stream gives, whatever the packing, the stages and the damage."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from megadec.common.tokenizer import Tokenizer
from megadec.corpus.shards import write_shards
from megadec.data.budget import SetBudget, budget_of, over_epochs
from megadec.data.dataset import DataSet
from megadec.data.shuffle import Shuffle
from megadec.data.stages import StagedStream
from megadec.data.stream import TrainStream

LENGTH, BATCH = 32, 6


@pytest.fixture(scope="module")
def sets(tmp_path_factory, tiny_documents, tiny_tokenizer_path: Path, tiny_shards: Path) -> list[DataSet]:
    folder = tmp_path_factory.mktemp("budget") / "few"
    write_shards(tiny_documents[40:60], Tokenizer.load(tiny_tokenizer_path), folder, block_tokens=4096)
    return [DataSet.open(tiny_shards), DataSet.open(folder)]


def staged(sets: list[DataSet], packing: str) -> StagedStream:
    """A mixture, another one with longer sequences, and a larger batch in the same order."""
    tiny, few = sets
    start = TrainStream([(tiny, 0.5), (few, 3.0)], LENGTH, packing, 5, BATCH)
    weights = [(few, 1.5), (tiny, 0.25)]
    long = start.next_stage("long", 50, weights, sequence_length=64, packing=packing, global_batch_size=BATCH)
    larger = long.next_stage("larger", 70, weights, sequence_length=64, packing=packing, global_batch_size=9)
    return StagedStream(sets, [start, long, larger])


def counted(stream: StagedStream, steps: int) -> dict[str, Counter[str]]:
    """Tokens, sequences, and documents of each set, step by step."""
    found: dict[str, Counter[str]] = {data.folder: Counter() for data in stream.sets}
    documents: dict[str, set[int]] = {data.folder: set() for data in stream.sets}
    for step in range(steps):
        at = stream.at(step)
        [batch] = stream.batch(step)
        real = (batch.weights_BS > 0) | (batch.targets_BS == at.sets[0][0].bos_id)
        for window, tokens in zip(stream.windows_of(step), real.sum(dim=1).tolist(), strict=True):
            folder = at.sets[window.data_set][0].folder
            found[folder]["tokens"] += tokens
            found[folder]["sequences"] += 1
            documents[folder] |= {span.first_token for span in at.documents_of(window)}
    for folder, seen in documents.items():
        found[folder]["documents"] = len(seen)
    return found


@pytest.mark.parametrize("packing", ["cut", "best_fit"])
@pytest.mark.parametrize("steps", [1, 13, 50, 51, 130])
@pytest.mark.usefixtures("plan_cache")
def test_a_budget_is_what_the_stream_gives_in_every_stage(sets: list[DataSet], packing: str, steps: int) -> None:
    stream = staged(sets, packing)
    wanted = counted(stream, steps)
    budgets = dict(zip((data.folder for data in sets), budget_of(stream, steps), strict=True))
    for folder, budget in budgets.items():
        found = {"tokens": budget.tokens, "sequences": budget.sequences, "documents": budget.documents}
        assert found == {name: wanted[folder][name] for name in found}
    places = sum(len(stream.windows_of(step)) * stream.at(step).sequence_length for step in range(steps))
    assert sum(budget.tokens + budget.padding for budget in budgets.values()) == places


def test_what_touches_a_damaged_shard_is_not_in_the_budget(sets: list[DataSet]) -> None:
    tiny = sets[0].without({1: "cut"})
    stream = StagedStream([tiny], [TrainStream([(tiny, 1.0)], LENGTH, "cut", 5, BATCH)])
    steps = 2 * stream.windows_per_epoch // BATCH
    [budget] = budget_of(stream, steps)
    [wanted] = counted(stream, steps).values()
    assert (budget.tokens, budget.documents) == (wanted["tokens"], wanted["documents"])
    assert budget.documents is not None
    assert budget.documents < tiny.documents


@pytest.mark.parametrize(("first", "stop"), [(0, 0), (0, 5), (3, 40), (17, 18), (20, 500), (0, 23 * 7), (23, 46)])
def test_counts_are_those_of_the_places_one_by_one(first: int, stop: int) -> None:
    shuffle = Shuffle([20, 7, 3], [0.5, 1.0, 2.0], seed=3)
    assert shuffle.windows_per_epoch == 23
    sets, windows = shuffle.at(first, stop - first)
    for number, counts in enumerate(shuffle.counts(first, stop)):
        assert np.array_equal(counts, np.bincount(windows[sets == number], minlength=len(counts)))


def test_a_set_seen_more_often_than_allowed_is_named_and_one_seen_just_as_often_is_not() -> None:
    budget = SetBudget(tokens=100, documents=2, epochs=4.0, sequences=1, padding=0)
    assert not list(over_epochs({"a": budget}, {"a": 4.0, "b": 1.0}))
    [sentence] = over_epochs({"a": budget, "b": budget}, {"b": 3.5})
    assert sentence.startswith("b is seen 4.00 times")

"""The largest micro-batch is tried once, leaves nothing behind, and says what to do where memory is too small."""

from types import SimpleNamespace
from typing import Any, Self, cast

import pytest
import torch

from megadec.common.errors import TrainingError
from megadec.data.pairs import PairCounts, PairSet, Ragged
from megadec.engine.dry_run import dry_run
from megadec.engine.ranks import Ranks
from megadec.engine.runs.common import Job
from megadec.engine.runs.seq2seq import longest_pairs


class Batch(str):
    """A batch that is known by its name."""

    ids_BS = torch.zeros(1, 1)

    def to(self, device: torch.device) -> Self:
        return self


class Engine:
    """Draws a number in each forward pass, as dropout would; remembers the batches."""

    def __init__(self, error: Exception | None = None) -> None:
        self.ranks, self.error, self.seen = Ranks(0, 1, torch.device("cpu")), error, list[str]()

    def dry_run(self, batch: Batch) -> None:
        torch.rand(3)
        self.seen.append(batch)
        if self.error is not None:
            raise self.error


def try_out(engine: Engine, kind: str = "language_model", largest: bool = False) -> None:
    stream = SimpleNamespace(batch=lambda *where: [Batch(f"batch {where}"), Batch("the next")])
    largest_batch = (lambda micro: Batch(f"largest {micro}")) if largest else None
    task = SimpleNamespace(stream=stream, largest_batch=largest_batch, kind=kind)
    run = SimpleNamespace(train=SimpleNamespace(micro_batch_size=4))
    dry_run(cast(Any, engine), Job(cast(Any, run), cast(Any, None), cast(Any, None), cast(Any, task)), 5)


def test_it_takes_the_first_micro_batch_of_the_step_or_the_largest_where_they_differ() -> None:
    engine = Engine()
    try_out(engine)
    try_out(engine, largest=True)
    assert engine.seen == ["batch (5, 0, 1, 4)", "largest 4"]


def test_what_is_drawn_afterwards_is_what_would_have_been_drawn() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    try_out(Engine())
    assert torch.equal(torch.rand(4), wanted)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of ..."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("language_model", ("data.sequence_length", "model.execution.recompute.mode")),
        ("seq2seq", ("data.max_source_tokens", "data.max_target_tokens")),
    ],
)
def test_too_little_memory_is_one_error_that_names_the_ways_out(error: Exception, kind: str, keys: Any) -> None:
    with pytest.raises(TrainingError, match="rank 0 ran out of memory") as raised:
        try_out(Engine(error), kind)
    for key in ("train.micro_batch_size=4", *keys):
        assert key in str(raised.value)


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"):
        try_out(Engine(RuntimeError("shapes differ")))


@pytest.mark.parametrize(("micro", "sizes"), [(3, (3, 4, 5)), (1, (1, 2, 5))])
def test_the_largest_micro_batch_of_pairs_has_the_longest_source_and_the_longest_target(micro: int, sizes: Any) -> None:
    sources, targets = Ragged.of([[5, 5, 2], [6, 2], [7, 7, 7, 2]], 600), Ragged.of([[5], [6, 6, 6, 6], [7]], 600)
    batch = longest_pairs(PairSet(sources, targets, bos_id=1, eos_id=2, counts=PairCounts()), micro)
    assert (*batch.source_ids_BT.shape, batch.ids_BS.shape[1]) == sizes
    assert batch.valid_tokens > 0

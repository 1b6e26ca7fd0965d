"""What a run of so many steps sees of each of its sets: counted from the order of windows, without a step being made.

In: a stream and the number of steps. Out: tokens, documents and epochs of each set, equal to what the stream gives.
Only where documents are counted, and only in sets that are not seen whole, are tokens read.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from megadec.data.dataset import DataSet
from megadec.data.shuffle import Shuffle
from megadec.data.stages import StagedStream
from megadec.data.windows import WindowPlan, document_starts

Seen = tuple[WindowPlan, np.ndarray]
"""A plan, and how often each of its windows comes (int64 [windows])."""


@dataclass(frozen=True)
class SetBudget:
    """What a run sees of one set.

    tokens: predictions in its windows, those that begin a document among them, which have no weight in the loss; each
    as often as it is seen. documents: of which a part is seen, each once; None where they were not counted.
    epochs: how often the whole set goes by; padding: places that its windows leave empty.
    """

    tokens: int
    documents: int | None
    epochs: float
    sequences: int
    padding: int


def budget_of(stream: StagedStream, steps: int, *, count_documents: bool = True) -> list[SetBudget]:
    """The budget of each set of `stream.sets` over `steps` steps. Raises ShardError for shards that cannot be read.

    count_documents: without it nothing but indexes is read with packing=cut.
    """
    seen = _windows_seen(stream, steps)
    return [_budget_of(data, seen[id(data)], count_documents) for data in stream.sets]


def over_epochs(budgets: Mapping[str, SetBudget], allowed: Mapping[str, float]) -> Iterator[str]:
    """A sentence for each set, by its name or folder, that is seen more often than `allowed` says."""
    for name, budget in budgets.items():
        most = allowed.get(name)
        if most is not None and budget.epochs > most:
            yield f"{name} is seen {budget.epochs:.2f} times, more than the {most:g} epochs that it may be"


def _windows_seen(stream: StagedStream, steps: int) -> dict[int, list[Seen]]:
    """By the id of a set, its windows in each stage that begins in so many steps."""
    found: dict[int, list[Seen]] = {id(data): [] for data in stream.sets}
    begun = stream.begun(steps)
    ends = [*(stage.first_step for stage in begun[1:]), steps]
    for stage, end in zip(begun, ends, strict=True):
        plans = [stage.plan(number) for number in range(len(stage.sets))]
        order = Shuffle([plan.windows for plan in plans], [weight for _, weight in stage.sets], stage.seed)
        counts = order.counts(stage.first_place, stage.place_of(end))
        for (data, _), plan, times in zip(stage.sets, plans, counts, strict=True):
            found[id(data)].append((plan, times))
    return found


def _budget_of(data: DataSet, seen: list[Seen], count_documents: bool) -> SetBudget:
    tokens = sequences = places = 0
    epochs = 0.0
    for plan, times in seen:
        sizes = plan.window_tokens()
        here = int(times @ sizes)
        tokens += here
        epochs += here / max(int(sizes.sum()), 1)
        sequences += int(times.sum())
        places += int(times.sum()) * plan.sequence_length
    documents = _documents_in(data, seen) if count_documents else None
    return SetBudget(tokens, documents, epochs, sequences, places - tokens)


def _documents_in(data: DataSet, seen: list[Seen]) -> int:
    """How many documents have a part in a window that comes."""
    if not any(times.any() for _, times in seen):
        return 0
    if not data.skipped and any((times > 0).all() for _, times in seen):
        return data.documents
    first, tokens = document_starts(data)
    found = np.zeros(len(first), dtype=bool)
    for plan, times in seen:
        found |= plan.holds(times > 0, first, tokens)
    return int(found.sum())

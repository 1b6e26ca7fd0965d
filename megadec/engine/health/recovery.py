"""What is told of an anomaly of the guard: its words for the log, its line in the metrics, and its documents.

What follows from it (skip, roll back, stop) stands in the loop. A skipped step counts as a step (data and schedule go
on) and changes nothing else. A roll-back loads the newest whole checkpoint and goes on behind the offending step: the
weights are those of the checkpoint, the step number and the data are not, so the batches between are left out, and
every step still has the batch of its number. What was learned since that checkpoint is lost too, as nobody knows since
when the weights were bad.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from megadec.engine.metrics.reports import Anomaly, StepReport
from megadec.engine.ranks import Ranks

SHOWN_DOCUMENTS = 6
ReadDocuments = Callable[[int, int, int], Sequence[str]]
"""A stream's `documents`: (step, rank, world size) -> ids."""
DONE = {
    "report": "the update was made",
    "skip": "no rank updated its weights",
    "roll_back": "no rank updated its weights, and the run rolls back",
    "stop": "the weights were not changed",
}


def documents_read(read: ReadDocuments, ranks: Ranks, anomaly: Anomaly) -> dict[int, list[str]]:
    """The documents of each rank that the anomaly names (of all, if it names none), on rank 0 and on those ranks."""
    if ranks.rank not in (0, *anomaly.ranks):
        return {}
    named = anomaly.ranks or range(ranks.world_size)
    return {rank: list(read(anomaly.step - 1, rank, ranks.world_size)) for rank in named}


def describe(anomaly: Anomaly, documents: Mapping[int, Sequence[str]]) -> str:
    """What was found, what was done about it, and which documents were read."""
    words = f"step {anomaly.step}: {anomaly.words}; {DONE[anomaly.action]}"
    for rank, names in list(documents.items())[:SHOWN_DOCUMENTS]:
        more = f" and {len(names) - SHOWN_DOCUMENTS} more" if len(names) > SHOWN_DOCUMENTS else ""
        words += f"; rank {rank} read {', '.join(names[:SHOWN_DOCUMENTS])}{more}"
    return words + (" (metrics.jsonl has all)" if documents else "")


def line_of(anomaly: Anomaly, report: StepReport, documents: Mapping[int, Sequence[str]]) -> dict[str, Any]:
    """The line of kind "guard"; a number that JSON does not know is null."""
    numbers = {"loss": report.loss, "grad_norm": report.grad_norm}
    return {
        "step": anomaly.step,
        "found": anomaly.kind,
        "action": anomaly.action,
        "ranks": list(anomaly.ranks),
        "parameters": list(anomaly.parameters),
        "words": anomaly.words,
        **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
        "documents": {str(rank): names for rank, names in documents.items()},
    }

"""What is told of a anomaly of the guard: its documents, its line in the metrics, and when a limit makes it the last.

What follows from it (skip, roll back, stop) stands in the loop. A skipped step counts as a step (data and schedule go
on) and changes nothing else. A roll-back loads the newest whole checkpoint and goes on behind the offending step: the
weights are those of the checkpoint, the step number and the data are not, so the batches between are left out, and
every step still has the batch of its number. What was learned since that checkpoint is lost too, as nobody knows since
when the weights were bad.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from megadec.engine.health.guard import GuardOptions, GuardState, limit_reached
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


def within_limits(options: GuardOptions, state: GuardState, anomaly: Anomaly) -> Anomaly:
    """The anomaly, or one that stops the run where its action would go beyond a limit of the guard."""
    limit = limit_reached(options, state, anomaly.action)
    return anomaly if limit is None else replace(anomaly, action="stop", words=f"{anomaly.words}; {limit}")


def documents_read(read: ReadDocuments, ranks: Ranks, anomaly: Anomaly) -> dict[int, list[str]]:
    """The documents of each rank that the anomaly names, on rank 0 and where they are asked for; of all, if it names
    none."""
    if ranks.rank not in (0, *anomaly.ranks):
        return {}
    named = anomaly.ranks or tuple(range(ranks.world_size))
    return {rank: list(read(anomaly.step - 1, rank, ranks.world_size)) for rank in named}


def describe(anomaly: Anomaly, documents: dict[int, list[str]]) -> str:
    """What was found, what was done about it, and which documents were read."""
    return f"step {anomaly.step}: {anomaly.words}; {DONE[anomaly.action]}{_shown(documents)}"


def line_of(anomaly: Anomaly, report: StepReport, documents: dict[int, list[str]]) -> dict[str, Any]:
    """The line of kind "guard"; a number that JSON does not know is null."""
    return {
        "step": anomaly.step,
        "found": anomaly.kind,
        "action": anomaly.action,
        "ranks": list(anomaly.ranks),
        "parameters": list(anomaly.parameters),
        "words": anomaly.words,
        "loss": report.loss if math.isfinite(report.loss) else None,
        "grad_norm": report.grad_norm if math.isfinite(report.grad_norm) else None,
        "documents": {str(rank): names for rank, names in documents.items()},
    }


def _shown(documents: dict[int, list[str]]) -> str:
    shown = []
    for rank, names in documents.items():
        more = f" and {len(names) - SHOWN_DOCUMENTS} more" if len(names) > SHOWN_DOCUMENTS else ""
        shown.append(f"; rank {rank} read {', '.join(names[:SHOWN_DOCUMENTS])}{more}")
    return "".join(shown[:SHOWN_DOCUMENTS]) + (" (metrics.jsonl has all)" if shown else "")

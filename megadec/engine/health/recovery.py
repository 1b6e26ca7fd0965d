"""What follows from a finding of the guard: it is told, and the run skips, rolls back, or stops.

In come the progress before a step and the report of it; out goes the progress after it. A skipped step counts as a step
(data and schedule go on) and changes nothing else. A roll-back loads the newest whole checkpoint and goes on behind the
offending step: the weights are those of the checkpoint, the step number and the data are not, so the batches between
are left out, and every step still has the batch of its number. Trade-off: what was learned since that checkpoint is
lost too, as nobody knows since when the weights were bad.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from megadec.common.errors import MegadecError, TrainingError
from megadec.common.log import logger
from megadec.engine.checkpoint.load import load_checkpoint
from megadec.engine.checkpoint.manifest import Progress, newest_whole
from megadec.engine.health.guard import Finding, after_roll_back, after_skip, limit_reached
from megadec.engine.metrics.logger import Metrics
from megadec.engine.runs.common import Job
from megadec.engine.step import StepReport
from megadec.engine.zero.engine import ZeroEngine

SHOWN_DOCUMENTS = 6
DONE = {
    "report": "the update was made",
    "skip": "no rank updated its weights",
    "roll_back": "no rank updated its weights, and the run rolls back",
    "stop": "the weights were not changed",
}

log = logger(__name__)


def answer(job: Job, engine: ZeroEngine, metrics: Metrics, progress: Progress, report: StepReport) -> Progress:
    """Tell of the finding and do what it asks for. Collective.

    Raises TrainingError when the answer is to stop, when a limit of the guard is reached, and when there is no
    checkpoint to roll back to.
    """
    finding = report.finding
    assert finding is not None
    documents = _documents(job, engine.ranks.rank, finding)
    limit = limit_reached(job.run.guard, progress.guard, finding.answer)
    if limit is not None:
        finding = replace(finding, answer="stop", words=f"{finding.words}; {limit}")
    metrics.record_finding(_line(finding, report, documents))
    words = f"step {finding.step}: {finding.words}; {DONE[finding.answer]}{_shown(documents)}"
    if finding.answer == "stop":
        raise TrainingError(f"{words}; data.skip_documents leaves documents out")
    if engine.ranks.rank == 0:
        log.warning(words)
    if finding.answer == "skip":
        return replace(progress, step=report.step, guard=after_skip(progress.guard, report.step))
    if finding.answer == "roll_back":
        return _roll_back(job, engine, progress, report.step)
    return progress


def _documents(job: Job, own_rank: int, finding: Finding) -> dict[int, list[str]]:
    """The documents of each rank that the finding names, on rank 0 and where they are asked for; of all, if it names
    none."""
    ranks = finding.ranks or tuple(range(job.ranks))
    if own_rank not in (0, *finding.ranks):
        return {}
    return {rank: list(job.task.stream.documents(finding.step - 1, rank, job.ranks)) for rank in ranks}


def _line(finding: Finding, report: StepReport, documents: dict[int, list[str]]) -> dict[str, Any]:
    """The line of kind "guard"; a number that JSON does not know is null."""
    return {
        "step": finding.step,
        "found": finding.kind,
        "answer": finding.answer,
        "ranks": list(finding.ranks),
        "parameters": list(finding.parameters),
        "words": finding.words,
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


def _roll_back(job: Job, engine: ZeroEngine, progress: Progress, step: int) -> Progress:
    """Weights and optimizer of the newest whole checkpoint; rank 0 chooses it, as at a start."""
    found: Any = None
    if engine.ranks.rank == 0:
        try:
            found = newest_whole(job.run.checkpoints)
        except MegadecError as error:
            found = error
    found = engine.ranks.from_first(found)
    if isinstance(found, MegadecError):
        raise found
    if found is None:
        raise TrainingError(
            f"step {step}: guard wants to roll back, and {job.run.checkpoints} holds no checkpoint yet: save more often"
            " (checkpoint.every_steps), or choose skip"
        )
    saved = load_checkpoint(engine, job, *found)
    log.info("rolled back to %s; the batches of steps %d to %d are left out", found[0], saved.step + 1, step)
    guard = after_roll_back(saved.guard, progress.guard, saved.step, step)
    return replace(progress, step=step, tokens=saved.tokens, loss=saved.loss, guard=guard)

"""The proof that a run goes on from what was saved: every bit of the state, and the loss that it gives.

In comes the engine that has loaded a checkpoint, and what the checkpoint says of itself; out comes nothing, or an
error. The bits are compared parameter by parameter as sums over all ranks, which do not depend on how the ranks share
them; the loss is that of the first rows of the step that comes next. A save pays for one forward pass of a row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from megadec.common.errors import CheckpointError
from megadec.common.log import logger
from megadec.data.sharding import rank_position
from megadec.decoder.compiled import is_compiled
from megadec.engine.checkpoint.writer import Sums
from megadec.engine.ranks import Ranks
from megadec.engine.runs.common import Job
from megadec.engine.zero.engine import ZeroEngine
from megadec.engine.zero.state import ZeroState

# How far the loss may be off, relatively: other kernels and other machines add in another order. Fresh weights are off
# by more than this after a step or two; the bits of the state are compared exactly beside it.
TOLERANCE = {"fp32": 1e-4, "bf16": 5e-3}

log = logger(__name__)


@dataclass(frozen=True)
class LossCheck:
    """The mean loss of the first `rows` rows of the next step, in nats a token.

    `tokens`, `sum_of_ids`: of those rows, by which they are known again.
    """

    rows: int
    loss: float
    tokens: int
    sum_of_ids: int


def loss_check(engine: ZeroEngine, job: Job, step: int, rows: int | None = None) -> LossCheck:
    """Measure the weights as they are before step `step` (from 0). Collective.

    The rows are the same for any number of ranks, which all measure them. None: one row, or as many as a micro-batch
    has where the model is compiled, which would be compiled anew for another size.
    """
    if rows is None:
        rows = job.run.train.micro_batch_size if any(map(is_compiled, engine.module.modules())) else 1
    parts = job.run.train.sequence_parallel_size
    part = rank_position(engine.ranks.rank, engine.ranks.world_size, parts).part
    # As if there were so many ranks that each had these few rows: the first of them.
    groups = job.run.train.global_batch_size // rows
    [batch] = job.task.stream.batch(step, part, groups * parts, rows)
    with engine.evaluating():
        nats = float(engine.loss_sum(batch.to(engine.ranks.device)))
    sums = engine.ranks.sum_over_ranks([nats, float(batch.valid_tokens), float(batch.ids_BS.sum())])
    copies = engine.ranks.world_size // parts
    return LossCheck(rows, sums[0] / max(sums[1], 1.0), int(sums[1]) // copies, int(sums[2]) // copies)


def check_loss(engine: ZeroEngine, job: Job, step: int, saved: Mapping[str, Any]) -> None:
    """Measure again what `loss_check` measured. Collective. Raises CheckpointError when it is not the same."""
    again = loss_check(engine, job, step, saved["rows"])
    if (again.tokens, again.sum_of_ids) != (saved["tokens"], saved["sum_of_ids"]):
        log.warning("the rows of step %d are others than when the checkpoint was saved: no loss to compare", step + 1)
        return
    found, wanted = again.loss, saved["loss"]
    tolerance = TOLERANCE[job.settings.precision]
    if saved["precision"] != job.settings.precision:
        tolerance = max(TOLERANCE.values())
    if not math.isclose(found, wanted, rel_tol=tolerance, abs_tol=tolerance):
        raise CheckpointError(
            f"the loss of the first {saved['rows']} rows of step {step + 1} is {found}; when the checkpoint was saved"
            f" it was {wanted}: it does not give the model that was trained (they may differ by {tolerance:g} of it)"
        )
    log.info("the loss of %d rows of step %d is %.6f, as it was saved (%.6f)", saved["rows"], step + 1, found, wanted)


def check_bits(
    live: ZeroState,
    ranks: Ranks,
    sums: Mapping[str, Mapping[str, str]],
    optimizer_step: int | None,
    *,
    same_precision: bool,
) -> None:
    """Compare the state with the sums over its bits in a manifest. Collective.

    same_precision: False leaves out what is frozen, which is kept in the precision of the run and was converted. Raises
    CheckpointError naming the first parameter that differs.
    """
    if live.optimizer_step != optimizer_step:
        raise CheckpointError(
            f"the optimizer has made {live.optimizer_step} updates; the checkpoint was saved after {optimizer_step}"
        )
    found = _over_ranks(live, ranks)
    if not same_precision:
        sums = {name: parts for name, parts in sums.items() if name not in live.frozen}
        found = {name: parts for name, parts in found.items() if name not in live.frozen}
    for name in [*sums, *(name for name in found if name not in sums)]:
        wanted = {part: int(value, 16) for part, value in sums.get(name, {}).items()}
        for part in sorted(wanted.keys() | found.get(name, {}).keys()):
            if wanted.get(part) != found.get(name, {}).get(part):
                raise CheckpointError(f"{part} of {name!r} is not what was saved: the bits differ")
    log.info("every bit of %d weights and their moments is as it was saved", len(found))


def _over_ranks(live: ZeroState, ranks: Ranks) -> Sums:
    """The bit sums of the whole parameters. A rank may hold nothing of one, so the ranks follow one list of names."""
    own = live.bit_sums()
    names = sorted({(name, part) for pairs in ranks.all_gather(_keys(own)) for name, part in pairs})
    # A message holds float64, which is exact for sums of 32-bit halves.
    halves = [half for name, part in names for half in divmod(own.get(name, {}).get(part, 0), 2**32)]
    summed = [int(value) for value in ranks.sum_over_ranks([float(half) for half in halves])]
    total: Sums = {}
    for number, (name, part) in enumerate(names):
        high, low = summed[2 * number : 2 * number + 2]
        total.setdefault(name, {})[part] = (high * 2**32 + low) % 2**64
    return total


def _keys(sums: Sums) -> list[tuple[str, str]]:
    return [(name, part) for name, parts in sums.items() for part in parts]

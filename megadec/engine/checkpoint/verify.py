"""Proof that loaded weights are those that were saved: sums over the bits of the state, and a loss measured again.

Both are the same for any number of ranks. The bits are compared exactly; the loss, of the first sequences of the next
step, proves that the model computes the same with them, and costs each save one forward pass of a sequence.
"""

import math
from collections.abc import Mapping
from typing import Any

from megadec.common.errors import CheckpointError
from megadec.common.log import logger
from megadec.data.resumable import rank_position
from megadec.decoder.compiled import is_compiled
from megadec.engine.ranks import Ranks
from megadec.engine.runs.common import Job
from megadec.engine.zero.engine import ZeroEngine
from megadec.engine.zero.state import ZeroState
from megadec.engine.zero.state_files import Sums, add_sums

# How far the loss may be off, relatively: other kernels and other machines add in another order. Fresh weights are off
# by more than this after a step or two; the bits of the state are compared exactly beside it.
TOLERANCE = {"fp32": 1e-4, "bf16": 5e-3}

log = logger(__name__)


def measure_loss(engine: ZeroEngine, job: Job, step: int, sequences: int | None = None) -> dict[str, Any]:
    """Measure the weights as they are before step `step` (from 0). Collective.

    Returns the mean `loss` of the first `sequences` sequences of that step, in nats a token, and their `tokens` and
    `sum_of_ids`, by which they are known again; they are the same for any number of ranks, which all measure them. At
    the end of a stage they are those that it would go on with: what comes after it may still change.
    sequences: None for one, or as many as a micro-batch has where the model is compiled, which would be compiled anew
    for another size.
    """
    stage = job.stage_of(step).run.train
    if sequences is None:
        sequences = stage.micro_batch_size if any(map(is_compiled, engine.module.modules())) else 1
    parts = job.run.train.sequence_parallel_size
    part = rank_position(engine.ranks.rank, engine.ranks.world_size, parts).part
    # As if there were so many ranks that each had these few sequences: the first of them.
    groups = stage.global_batch_size // sequences
    [batch] = job.task.stream.at(max(step - 1, 0)).batch(step, part, groups * parts, sequences)
    with engine.evaluating():
        nats = float(engine.loss_sum(batch.to(engine.ranks.device)))
    sums = engine.ranks.sum_over_ranks([nats, float(batch.valid_tokens), float(batch.ids_BS.sum())])
    copies = engine.ranks.world_size // parts
    known = {"tokens": int(sums[1]) // copies, "sum_of_ids": int(sums[2]) // copies}
    loss = sums[0] / max(sums[1], 1.0)
    return {"sequences": sequences, "loss": loss, **known, "precision": job.settings.precision}


def verify_loss(engine: ZeroEngine, job: Job, step: int, saved: Mapping[str, Any]) -> None:
    """Measure again what `measure_loss` measured. Collective. Raises CheckpointError when it is not the same."""
    count = saved["sequences"]
    again = measure_loss(engine, job, step, count)
    if (again["tokens"], again["sum_of_ids"]) != (saved["tokens"], saved["sum_of_ids"]):
        log.warning("step %d has other sequences than when the checkpoint was saved: no loss to compare", step + 1)
        return
    found, wanted = again["loss"], saved["loss"]
    tolerance = max(TOLERANCE[saved["precision"]], TOLERANCE[again["precision"]])
    if not math.isclose(found, wanted, rel_tol=tolerance, abs_tol=tolerance):
        raise CheckpointError(
            f"the loss of the first {count} sequence(s) of step {step + 1} is {found}; when the checkpoint was saved"
            f" it was {wanted}: it does not give the model that was trained (they may differ by {tolerance:g} of it)"
        )
    log.info("the loss of %d sequence(s) of step %d is %.6f, as it was saved (%.6f)", count, step + 1, found, wanted)


def verify_bits(live: ZeroState, ranks: Ranks, manifest: Mapping[str, Any], *, same_precision: bool) -> None:
    """Compare the state with the sums over its bits in a manifest. Collective.

    same_precision: False leaves out what is frozen, which is kept in the precision of the run and was converted. Raises
    CheckpointError naming the first parameter that differs.
    """
    made, wanted_step = live.optimizer_step, manifest["optimizer_step"]
    if made != wanted_step:
        raise CheckpointError(f"the optimizer has made {made} updates; the checkpoint was saved after {wanted_step}")
    found: Sums = {}
    for of_rank in ranks.all_gather(live.bit_sums()):
        add_sums(found, of_rank)
    saved = {name: {part: int(value, 16) for part, value in of.items()} for name, of in manifest["bit_sums"].items()}
    ignored = frozenset() if same_precision else live.frozen
    for name in sorted((saved.keys() | found.keys()) - ignored):
        differing = saved.get(name, {}).items() ^ found.get(name, {}).items()
        if differing:
            raise CheckpointError(f"{min(differing)[0]} of {name!r} is not what was saved: the bits differ")
    log.info("every bit of %d weights and their moments is as it was saved", len(found))

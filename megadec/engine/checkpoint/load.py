"""Loads a checkpoint into an engine, at any number of ranks and ZeRO stage, and proves that it is what was saved.

Every rank reads the elements that it holds, whoever wrote them. Then every bit of the state is compared, as sums by
parameter over all ranks, which do not depend on which rank holds what; and the loss of the first sequences of the next
step, which costs each save one forward pass of a sequence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megadec.common.errors import CheckpointError, MegadecError, TrainingError
from megadec.common.log import logger
from megadec.data.sharding import rank_position
from megadec.decoder.compiled import is_compiled
from megadec.engine.checkpoint.manifest import Progress, newest_whole
from megadec.engine.checkpoint.resume import chosen_by_rank_0
from megadec.engine.checkpoint.rng_state import restore_random_state
from megadec.engine.ranks import Ranks
from megadec.engine.runs.common import Job
from megadec.engine.zero.engine import ZeroEngine
from megadec.engine.zero.state import ZeroState
from megadec.engine.zero.state_files import StateFiles, Sums, add_sums

# How far the loss may be off, relatively: other kernels and other machines add in another order. Fresh weights are off
# by more than this after a step or two; the bits of the state are compared exactly beside it.
TOLERANCE = {"fp32": 1e-4, "bf16": 5e-3}

log = logger(__name__)


def load_checkpoint(engine: ZeroEngine, job: Job, path: Path, manifest: dict[str, Any]) -> Progress:
    """Restore weights, optimizer and this rank's random state, and prove it. Collective.

    Raises CheckpointError on every rank when it cannot be read, or when what was loaded is not what was saved.
    """
    live, step = engine.zero_state(), manifest["step"]
    files = _open_on_every_rank(live, engine.ranks, path, step)
    before, now = manifest["precision"], job.settings.precision
    try:
        live.load(files)
        check_bits(live, engine.ranks, manifest, same_precision=before == now)
        check_loss(engine, job, step, manifest["loss_check"])
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    engine.set_step(step)
    restore_random_state(path, engine.ranks.rank)
    log.info("going on from %s", path)
    layouts = manifest["world_size"], manifest["zero_stage"], engine.ranks.world_size, job.settings.stage
    if layouts[:2] != layouts[2:]:
        log.info("it was saved by %d rank(s) at ZeRO stage %d; now there are %d at stage %d", *layouts)
    if before != now:
        log.info("it was trained in %s until here; now it is trained in %s", before, now)
    return Progress.from_manifest(manifest)


def _open_on_every_rank(live: ZeroState, ranks: Ranks, path: Path, step: int) -> StateFiles:
    """The files, once every rank has found what it needs: loading is collective, and a lone failure would hang it."""
    files, reason = None, None
    try:
        files = StateFiles(path)
        live.check(files)
        if step and files.optimizer_step is None and ranks.rank == 0:
            log.warning("%s has no moments: no step before it changed the weights", path)
    except MegadecError as error:
        reason = str(error)
    for rank, found in enumerate(ranks.all_gather(reason)):
        if found is not None:
            raise CheckpointError(f"{path}, on rank {rank}: {found}")
    assert files is not None
    return files


def loss_check(engine: ZeroEngine, job: Job, step: int, sequences: int | None = None) -> dict[str, Any]:
    """Measure the weights as they are before step `step` (from 0). Collective.

    Returns the mean `loss` of the first `sequences` sequences of that step, in nats a token, and their `tokens` and
    `sum_of_ids`, by which they are known again; they are the same for any number of ranks, which all measure them.
    sequences: None for one, or as many as a micro-batch has where the model is compiled, which would be compiled anew
    for another size.
    """
    if sequences is None:
        sequences = job.run.train.micro_batch_size if any(map(is_compiled, engine.module.modules())) else 1
    parts = job.run.train.sequence_parallel_size
    part = rank_position(engine.ranks.rank, engine.ranks.world_size, parts).part
    # As if there were so many ranks that each had these few sequences: the first of them.
    groups = job.run.train.global_batch_size // sequences
    [batch] = job.task.stream.batch(step, part, groups * parts, sequences)
    with engine.evaluating():
        nats = float(engine.loss_sum(batch.to(engine.ranks.device)))
    sums = engine.ranks.sum_over_ranks([nats, float(batch.valid_tokens), float(batch.ids_BS.sum())])
    copies = engine.ranks.world_size // parts
    known = {"tokens": int(sums[1]) // copies, "sum_of_ids": int(sums[2]) // copies}
    loss = sums[0] / max(sums[1], 1.0)
    return {"sequences": sequences, "loss": loss, **known, "precision": job.settings.precision}


def check_loss(engine: ZeroEngine, job: Job, step: int, saved: Mapping[str, Any]) -> None:
    """Measure again what `loss_check` measured. Collective. Raises CheckpointError when it is not the same."""
    count = saved["sequences"]
    again = loss_check(engine, job, step, count)
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


def check_bits(live: ZeroState, ranks: Ranks, manifest: Mapping[str, Any], *, same_precision: bool) -> None:
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


def roll_back(engine: ZeroEngine, job: Job, step: int) -> Progress:
    """Load weights and optimizer of the newest whole checkpoint, which rank 0 chooses, as at a start. Collective.

    step: the one that is skipped, for messages. Raises TrainingError when there is no checkpoint yet.
    """
    found = chosen_by_rank_0(engine.ranks, lambda: newest_whole(job.run.checkpoints))
    if found is None:
        raise TrainingError(
            f"step {step}: guard wants to roll back, and {job.run.checkpoints} holds no checkpoint yet: save more often"
        )
    saved = load_checkpoint(engine, job, *found)
    log.info("rolled back to %s; the batches of steps %d to %d are skipped", found[0], saved.step + 1, step)
    return saved

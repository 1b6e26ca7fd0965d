"""A checkpoint becomes the state of an engine, at whatever number of ranks and ZeRO stage, and is proven to be it.

In come an engine with its first weights and a checkpoint that fits; out comes how far the run was. Every rank reads the
elements that it holds, whoever wrote them. The state is read again, in memory, to compare its bits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from megadec.common.errors import CheckpointError, MegadecError, TrainingError
from megadec.common.log import logger
from megadec.engine.checkpoint.manifest import Progress, newest_whole, open_state
from megadec.engine.checkpoint.rng_state import restore_random_state
from megadec.engine.checkpoint.skipped import starts_from_json
from megadec.engine.checkpoint.verify import check_bits, check_loss
from megadec.engine.early_stopping import Best
from megadec.engine.health.guard import GuardState
from megadec.engine.ranks import Ranks
from megadec.engine.runs.common import Job
from megadec.engine.zero.engine import ZeroEngine
from megadec.engine.zero.state import ZeroState
from megadec.engine.zero.state_files import StateReader

log = logger(__name__)


def load_checkpoint(engine: ZeroEngine, job: Job, path: Path, manifest: dict[str, Any]) -> Progress:
    """Restore weights, optimizer and this rank's random state, and prove it. Collective.

    Raises CheckpointError on every rank when it cannot be read, or when what was loaded is not what was saved.
    """
    live, step = engine.zero_state(), manifest["step"]
    reader = _open_on_every_rank(live, engine.ranks, path, step)
    try:
        live.load(reader)
        if manifest["version"] == 1:
            log.warning("%s is of version 1: it does not say what must be loaded, so nothing is proven", path)
        else:
            same = manifest["loss_check"]["precision"] == job.settings.precision
            check_bits(live, engine.ranks, manifest["bit_sums"], manifest["optimizer_step"], same_precision=same)
            check_loss(engine, job, step, manifest["loss_check"])
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    engine.set_step(step)
    restore_random_state(path, engine.ranks.rank)
    log.info("going on from %s", path)
    if (manifest["world_size"], manifest["zero_stage"]) != (job.ranks, job.settings.stage):
        log.info(
            "it was saved by %d rank(s) at ZeRO stage %d; now there are %d at stage %d",
            *(manifest["world_size"], manifest["zero_stage"], job.ranks, job.settings.stage),
        )
    before, now = manifest["precision"], job.settings.precision
    if before != now:
        log.info("it was trained in %s until here; now it is trained in %s", before, now)
    best, guard = Best(**manifest.get("best", {})), GuardState.from_json(manifest.get("guard", {}))
    starts = starts_from_json(manifest.get("starts", ()))
    return Progress(step, manifest["tokens"], manifest["loss"], manifest["evaluated_step"], best, guard, starts)


def _open_on_every_rank(live: ZeroState, ranks: Ranks, path: Path, step: int) -> StateReader:
    """The files, after every rank has found in them what it needs: what follows are messages among all."""
    reader, reason = None, None
    try:
        reader = open_state(path, live.optimizer_names)
        live.check(reader)
        if step and reader.optimizer_step is None and ranks.rank == 0:
            log.warning("%s has no moments: no step before it changed the weights", path)
    except MegadecError as error:
        reason = str(error)
    for rank, found in enumerate(ranks.all_gather(reason)):
        if found is not None:
            raise CheckpointError(f"{path}, on rank {rank}: {found}")
    assert reader is not None
    return reader


def roll_back(engine: ZeroEngine, job: Job, step: int) -> Progress:
    """Load weights and optimizer of the newest whole checkpoint, which rank 0 chooses, as at a start. Collective.

    step: the one that is left out, for messages. Raises TrainingError when there is no checkpoint yet.
    """
    found: Any = None
    if engine.ranks.rank == 0:
        try:
            found = newest_whole(job.run.checkpoints)
        except MegadecError as error:
            found = error
    found = engine.ranks.broadcast(found)
    if isinstance(found, MegadecError):
        raise found
    if found is None:
        raise TrainingError(
            f"step {step}: guard wants to roll back, and {job.run.checkpoints} holds no checkpoint yet: save more often"
            " (checkpoint.interval_steps), or choose skip"
        )
    saved = load_checkpoint(engine, job, *found)
    log.info("rolled back to %s; the batches of steps %d to %d are left out", found[0], saved.step + 1, step)
    return saved

"""Loads a checkpoint into an engine, at any number of ranks and ZeRO stage, and proves that it is what was saved.

Every rank reads the elements that it holds, whoever wrote them; then `verify.py` compares them with the manifest.
"""

from pathlib import Path
from typing import Any

from megadec.common.errors import CheckpointError, MegadecError, TrainingError
from megadec.common.log import logger
from megadec.engine.checkpoint.manifest import Progress, newest_whole
from megadec.engine.checkpoint.resume import chosen_by_rank_0
from megadec.engine.checkpoint.rng_state import restore_random_state
from megadec.engine.checkpoint.verify import verify_bits, verify_loss
from megadec.engine.course import enter_stage
from megadec.engine.ranks import Ranks
from megadec.engine.runs.common import Job
from megadec.engine.zero.engine import ZeroEngine
from megadec.engine.zero.state import ZeroState
from megadec.engine.zero.state_files import StateFiles

log = logger(__name__)


def load_checkpoint(engine: ZeroEngine, job: Job, path: Path, manifest: dict[str, Any]) -> Progress:
    """Restore weights, optimizer and this rank's random state, and prove it. Collective.

    Raises CheckpointError on every rank when it cannot be read, or when what was loaded is not what was saved.
    """
    live, step = engine.zero_state(), manifest["step"]
    enter_stage(engine, job, step)
    files = _open_on_every_rank(live, engine.ranks, path, step)
    before, now = manifest["precision"], job.settings.precision
    try:
        live.load(files)
        verify_bits(live, engine.ranks, manifest, same_precision=before == now)
        verify_loss(engine, job, step, manifest["loss_check"])
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
    enter_stage(engine, job, step)
    log.info("rolled back to %s; the batches of steps %d to %d are skipped", found[0], saved.step + 1, step)
    return saved

"""What the ranks found of the data, brought together before the first step.

In: the sets as each rank opened them. Out: one stream for all ranks, without the shards that any of them found damaged;
an error when these are more than the run allows, or when ranks opened different data; and `damaged_shards.json` in the
run's folder. A shard that is damaged on one machine is left out on all, for the batch of a step must not depend on who
makes it.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from megadec.common.errors import MegadecError, ShardError
from megadec.common.files import may_fail, read_json, write_json
from megadec.common.log import logger
from megadec.common.ranks import local_rank, local_world_size
from megadec.data.dataset import DataSet
from megadec.data.shard_cache import DamagedShardError
from megadec.data.shard_folders import Verify

if TYPE_CHECKING:  # a run's request is checked without torch
    from megadec.data.stages import StagedStream
    from megadec.engine.ranks import Ranks

REPORT = "damaged_shards.json"
Sets = Sequence[DataSet]

log = logger(__name__)


def agree_on_sets(sets: Sets, held_out: Sets, verify: Verify, bad_shards: int | float, ranks: "Ranks") -> list[DataSet]:
    """The sets of training without what any rank found damaged; those that lack nothing more are the same objects.

    verify: "hashes" reads every shard once a machine, shared among its ranks. Collective. Raises ShardError: other data
    on another rank than on the first, more damaged shards than `bad_shards` (a number, or a share of those of `sets`),
    a damaged held-out shard, a place out of reach.
    """
    every = [*sets, *held_out]
    contents = ranks.all_gather([data.sha256 for data in every])
    others = [str(rank) for rank, found in enumerate(contents) if found != contents[0]]
    if others:
        raise ShardError(
            f"rank(s) {', '.join(others)} opened data sets with other contents than rank 0: all machines need the same"
        )
    together = [dict(data.skipped) for data in every]
    failure: MegadecError | None = None
    if verify == "hashes":
        try:
            _verify_share(every, together)
        except MegadecError as error:  # the others wait, and must hear of it
            failure = error
    of_ranks = ranks.all_gather((together, failure is not None))
    if failure is not None:
        raise failure
    if any(failed for _, failed in of_ranks):
        raise ShardError("another rank could not read its share of the shards; its own message says why")
    for rank, (of_rank, _) in enumerate(of_ranks):
        for found, theirs in zip(together, of_rank, strict=True):
            for number, wrong in theirs.items():
                found.setdefault(number, f"on rank {rank}: {wrong}")
    for held_out_shards in together[len(sets) :]:
        for wrong in held_out_shards.values():
            raise DamagedShardError(f"{wrong} (a held-out set is measured whole, or its figures would not compare)")
    agreed = [
        data if found.keys() == data.skipped.keys() else data.without(found)
        for data, found in zip(sets, together, strict=False)
    ]
    check_limit(agreed, bad_shards)
    return agreed


def check_limit(sets: Sets, bad_shards: int | float) -> None:
    """Raise DamagedShardError when the sets go without more shards than `bad_shards`, a number or a share of theirs."""
    words = [wrong for data in sets for wrong in data.skipped.values()]
    shards = sum(len(data.index["shards"]) for data in sets)
    allowed = allowed_shards(bad_shards, shards)
    if len(words) <= allowed:
        return
    if bad_shards == 0 and len(words) == 1:
        raise DamagedShardError(words[0])
    share = f" of {shards} shards" if isinstance(bad_shards, float) else ""
    raise DamagedShardError(
        f"{'1 shard is' if len(words) == 1 else f'{len(words)} shards are'} damaged, and"
        f" data.bad_shards={bad_shards}{share} lets the run go on without {allowed}: {'; '.join(words[:5])}"
    )


def report_damaged_shards(stream: "StagedStream", folder: Path, step: int) -> None:
    """Add a line to the run's damaged_shards.json for a start at `step` that leaves shards out, and say so."""
    shards = []
    for data in stream.sets:
        for number, found in data.skipped.items():
            shard = data.index["shards"][number]
            known = {key: shard[key] for key in ("sha256", "documents", "tokens")}
            shards.append({"set": data.folder, "shard": shard["name"], **known, "found": found})
    if not shards:
        return
    path = folder / REPORT
    windows = sum(len(stage.plan(number).lost) for stage in stream.stages for number in range(len(stage.sets)))
    totals = {key: sum(shard[key] for shard in shards) for key in ("documents", "tokens")}
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    start = {"from_step": step, "time": now, **totals, "windows": windows, "shards": shards}
    with may_fail("the report of damaged shards is not written"):
        before = read_json(path, ShardError)["starts"] if path.exists() else []
        write_json(path, {"starts": [*before, start]})
    for shard in shards:
        log.warning("going on without %s/%s: %s", shard["set"], shard["shard"], shard["found"])
    log.warning(f"{len(shards)} damaged shard(s) left out: {totals['documents']} documents, {windows} windows: {path}")


def _verify_share(sets: Sets, found: list[dict[int, str]]) -> None:
    """Read this rank's share of the shards, and add what is wrong to `found`."""
    places = [(which, number) for which, data in enumerate(sets) for number in range(len(data.index["shards"]))]
    for which, number in places[local_rank() % local_world_size() :: local_world_size()]:
        if number in found[which]:
            continue
        data = sets[which]
        if (wrong := data.place.examine(data.index["shards"][number], "hashes")) is not None:
            log.warning("%s", wrong)
            found[which][number] = wrong


def allowed_shards(bad_shards: int | float, shards: int) -> int:
    """How many of so many shards may be damaged: the number itself, or the most that are no more than the share."""
    if isinstance(bad_shards, int):
        return bad_shards
    # Compared as quotients: 0.29 * 100 is a little less than 29, and 29 / 100 is 0.29.
    most = round(bad_shards * shards)
    return most if most / shards <= bad_shards else most - 1

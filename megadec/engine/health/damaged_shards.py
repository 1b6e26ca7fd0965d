"""What the ranks found of the data, brought together before the first step.

In: the sets as each rank opened them. Out: one stream for all ranks, without the shards that any of them found damaged;
an error when these are more than the run allows, or when ranks opened different data; and `damaged_shards.json` in the
run's folder. A shard that is damaged on one machine is left out on all, for the batch of a step must not depend on who
makes it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megadec.common.errors import MegadecError, ShardError
from megadec.common.files import read_json, write_json
from megadec.common.log import logger
from megadec.common.ranks import local_rank, local_world_size
from megadec.data.index import DataSet
from megadec.data.shard_cache import DamagedShardError
from megadec.data.shard_folders import Verify
from megadec.data.stream import TrainStream
from megadec.engine.ranks import Ranks

REPORT = "damaged_shards.json"
FOUND_ELSEWHERE = "damaged on another rank, which has said how"
Sets = Sequence[DataSet]

log = logger(__name__)


def agree_on_sets(sets: Sets, held_out: Sets, verify: Verify, bad_shards: int | float, ranks: Ranks) -> list[DataSet]:
    """The sets of training without what any rank found damaged; those that lack nothing more are the same objects.

    verify: "hashes" reads every shard once a machine, shared among its ranks. Collective. Raises ShardError: other data
    on another rank than on the first, more damaged shards than `bad_shards` (a number, or a share of those of `sets`),
    a damaged held-out shard, a place out of reach.
    """
    _check_same([*sets, *held_out], ranks)
    own = [dict(data.skipped) for data in sets] + [{} for _ in held_out]
    failure: MegadecError | None = None
    if verify == "hashes":
        try:
            _verify_share([*sets, *held_out], own)
        except MegadecError as error:  # the others wait, and must hear of it
            failure = error
    together = _union([*sets, *held_out], own, failure, ranks)
    _check_limit([*sets, *held_out], len(sets), together, bad_shards)
    return [
        data if found.keys() == data.skipped.keys() else data.without(found)
        for data, found in zip(sets, together, strict=False)
    ]


def check_limit(sets: Sets, bad_shards: int | float) -> None:
    """Raise DamagedShardError when the sets go without more shards than `bad_shards`, a number or a share of theirs."""
    _check_limit(sets, len(sets), [data.skipped for data in sets], bad_shards)


def report_damaged_shards(stream: TrainStream, folder: Path, step: int) -> None:
    """Add a line to the run's damaged_shards.json for a start at `step` that leaves shards out, and say so."""
    shards = [shard for number in range(len(stream.sets)) for shard in _lost_shards(stream, number)]
    if not shards:
        return
    path = folder / REPORT
    windows = [stream.lost_windows(number) for number in range(len(stream.sets))]
    start = {
        "from_step": step,
        "time": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "documents": sum(shard["documents"] for shard in shards),
        "tokens": sum(shard["tokens"] for shard in shards),
        "windows": sum(windows),
        "shards": shards,
    }
    before = read_json(path, ShardError)["starts"] if path.exists() else []
    write_json(path, {"starts": [*before, start]})
    for shard in shards:
        log.warning("going on without %s/%s: %s", shard["set"], shard["shard"], shard["found"])
    log.warning(
        "%d damaged shard(s) are left out: %d documents, %d windows; see %s",
        len(shards), start["documents"], sum(windows), path,
    )  # fmt: skip


def _lost_shards(stream: TrainStream, number: int) -> list[dict[str, Any]]:
    data = stream.sets[number][0]
    entries = [(data.index["shards"][shard], found) for shard, found in data.skipped.items()]
    return [
        {
            "set": data.folder,
            "shard": shard["name"],
            "sha256": shard["sha256"],
            "documents": shard["documents"],
            "tokens": shard["tokens"],
            "found": found,
        }
        for shard, found in entries
    ]


def _check_same(sets: Sets, ranks: Ranks) -> None:
    """Raise ShardError on every rank when one has opened sets with other contents than the first."""
    mine = [data.sha256 for data in sets]
    first = ranks.broadcast(mine)
    flags = [0.0] * ranks.world_size
    flags[ranks.rank] = float(mine != first)
    others = [rank for rank, differs in enumerate(ranks.sum_over_ranks(flags)) if differs]
    if others:
        raise ShardError(
            f"rank(s) {', '.join(map(str, others))} opened data sets with other contents than rank 0: the folders of a"
            " run hold the same shards on every machine"
        )


def _verify_share(sets: Sets, found: list[dict[int, str]]) -> None:
    """Read this rank's share of the shards, and add what is wrong to `found`."""
    places = [(which, number) for which, data in enumerate(sets) for number in range(len(data.index["shards"]))]
    sharing = local_world_size()
    for which, number in places[local_rank() % sharing :: sharing]:
        data = sets[which]
        if number in found[which]:
            continue
        if (wrong := data.place.examine(data.index["shards"][number], "hashes")) is not None:
            log.warning("%s", wrong)
            found[which][number] = wrong


def _union(sets: Sets, own: list[dict[int, str]], failure: MegadecError | None, ranks: Ranks) -> list[dict[int, str]]:
    """What any rank found, for each set; raises `failure` on its rank, and that there was one on the others."""
    flags = [float(number in found) for data, found in zip(sets, own, strict=True) for number in _shards_of(data)]
    *sums, failures = ranks.sum_over_ranks([*flags, float(failure is not None)])
    if failure is not None:
        raise failure
    if failures:
        raise ShardError("another rank could not read its share of the shards; its own message says why")
    counts = iter(sums)
    return [
        {number: found.get(number, FOUND_ELSEWHERE) for number in _shards_of(data) if next(counts)}
        for data, found in zip(sets, own, strict=True)
    ]


def _shards_of(data: DataSet) -> range:
    return range(len(data.index["shards"]))


def _check_limit(sets: Sets, trained: int, found: Sequence[dict[int, str]], bad_shards: int | float) -> None:
    words = [
        word if word != FOUND_ELSEWHERE else f"{data.folder}/{data.index['shards'][number]['name']}: {word}"
        for data, one in zip(sets, found, strict=True)
        for number, word in one.items()
    ]
    if any(found[trained:]):
        raise DamagedShardError(f"{words[-1]} (a held-out set is measured whole, or its figures would not compare)")
    shards = sum(len(data.index["shards"]) for data in sets[:trained])
    allowed = allowed_shards(bad_shards, shards)
    if len(words) <= allowed:
        return
    if bad_shards == 0 and len(words) == 1:
        raise DamagedShardError(words[0])
    share = f" of {shards} shards" if isinstance(bad_shards, float) else ""
    found_words = "1 shard is" if len(words) == 1 else f"{len(words)} shards are"
    raise DamagedShardError(
        f"{found_words} damaged, and data.bad_shards={bad_shards}{share} lets the run go on without {allowed}: "
        + "; ".join(words[:5])
    )


def allowed_shards(bad_shards: int | float, shards: int) -> int:
    """How many of so many shards may be damaged: the number itself, or the most that are no more than the share."""
    if isinstance(bad_shards, int):
        return bad_shards
    # Compared as quotients: 0.29 * 100 is a little less than 29, and 29 / 100 is 0.29.
    most = math.ceil(bad_shards * shards)
    return most if most / shards <= bad_shards else most - 1

"""A rank that opens its own copy of a data set, agrees with the others, and counts the steps of an evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from megadec.common.errors import MegadecError
from megadec.common.tokenizer import Tokenizer
from megadec.data.index import DataSet
from megadec.data.sharding import rank_position
from megadec.data.stream import TrainStream
from megadec.engine.evaluate import EvaluateOptions, evaluate_loss, window_batches
from megadec.engine.health.damaged_shards import agree_on_sets
from megadec.engine.health.preemption import Interrupt
from megadec.engine.ranks import Ranks
from megadec.engine.zero.engine import end_process_group, start_process_group


class CountingScorer:
    """Every prediction costs one nat; counts the batches that it is asked for."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.batches = 0

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        yield

    def loss_sum(self, batch: Any) -> Tensor:
        self.batches += 1
        total: Tensor = batch.weights_BS.sum()
        return total


def stream_of(data: DataSet) -> TrainStream:
    return TrainStream([(data, 1.0)], 64, "cut", 0, 12)


def agreed(folder: Path, data: DataSet, bad_shards: int, ranks: Ranks) -> dict[str, Any]:
    try:
        stream = stream_of(*agree_on_sets([data], [], "hashes", bad_shards, ranks))
    except MegadecError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    lost = [row for step in range(9) for row, window in enumerate(stream.windows_of(step)) if stream.is_lost(window)]
    return {"skipped": sorted(stream.sets[0][0].skipped), "lost": lost, "found": stream.sets[0][0].skipped}


def evaluated(data: DataSet, tokenizer: Tokenizer, sequence_length: int, ranks: Ranks) -> dict[str, Any]:
    scorer = CountingScorer(ranks)
    options = EvaluateOptions(windows=13, micro_batch_size=2)
    position = rank_position(ranks.rank, ranks.world_size, 1)
    batches = window_batches(data, options, sequence_length, tokenizer.bos_id, position)
    [evaluation] = evaluate_loss(scorer, {"set": batches}, tokenizer, 0, Interrupt()) or []
    return {"batches": scorer.batches, "tokens": evaluation.values["evaluated_tokens"]}


def agree_on_data(folder: Path) -> None:
    """folder: has `rank0`, `rank1`, ..., each rank's copy of the set, `other`, another set, and the tokenizer.

    What a rank found goes to `found.rankN.json` there.
    """
    ranks = start_process_group()
    own = DataSet.open(folder / f"rank{ranks.rank}", skip_damaged=True)
    whole = DataSet.open(folder / "rank0")
    tokenizer = Tokenizer.load(folder / "tokenizer.model")
    found = {
        "agreed": agreed(folder, own, 2, ranks),
        "too_many": agreed(folder, own, 1, ranks),
        "same": agreed(folder, whole, 0, ranks),
        "strange": agreed(folder, DataSet.open(folder / "other") if ranks.rank == 2 else whole, 0, ranks),
        "evaluated": [evaluated(whole, tokenizer, rows, ranks) for rows in (whole.tokens // 7, whole.tokens, 64)],
        "tokens": whole.tokens,
    }
    (folder / f"found.rank{ranks.rank}.json").write_text(json.dumps(found))
    end_process_group(ranks)

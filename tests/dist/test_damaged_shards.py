"""Damaged shards: every rank goes on without the same ones, through stops too, within the limit, and says which."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from megadec.common.errors import MegadecError
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.document import Document
from megadec.corpus.shards import write_shards
from megadec.data.dataset import DataSet
from megadec.data.resumable import rank_position
from megadec.data.stream import TrainStream
from megadec.engine.evaluate import evaluate_loss, window_batches
from megadec.engine.evaluate_options import EvaluateOptions
from megadec.engine.health.damaged_shards import agree_on_sets
from megadec.engine.health.preemption import Interrupt
from megadec.engine.ranks import Ranks
from megadec.engine.zero.engine import end_process_group, start_process_group
from tests.support.processes import run_ranks
from tests.support.tiny_runs import TinyRuns


def cut(tar: Path) -> None:
    tar.write_bytes(tar.read_bytes()[:1000])


def flip(tar: Path) -> None:
    raw = bytearray(tar.read_bytes())
    raw[len(raw) // 2] ^= 1
    tar.write_bytes(raw)


def clear(tar: Path) -> None:
    """A file of the right size with nothing in it."""
    tar.write_bytes(bytes(tar.stat().st_size))


def wipe(tar: Path) -> None:
    """What a bad block of a disk leaves: documents lose their beginnings."""
    raw = bytearray(tar.read_bytes())
    middle = len(raw) // 2
    raw[middle : middle + 4096] = bytes(4096)
    tar.write_bytes(raw)


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


def test_ranks_with_different_damage_agree_on_the_shards_and_on_the_steps_of_an_evaluation(
    tmp_path: Path, tiny_shards: Path, tiny_tokenizer_path: Path, tiny_documents: list[Document]
) -> None:
    for rank in range(3):
        shutil.copytree(tiny_shards, tmp_path / f"rank{rank}")
    cut(tmp_path / "rank1" / "shard-000001.tar")
    flip(tmp_path / "rank2" / "shard-000000.tar")
    write_shards(tiny_documents[:9], Tokenizer.load(tiny_tokenizer_path), tmp_path / "other")
    shutil.copy(tiny_tokenizer_path, tmp_path / "tokenizer.model")
    run_ranks(agree_on_data, [tmp_path], 3, tmp_path / "log")
    found = [json.loads((tmp_path / f"found.rank{rank}.json").read_text()) for rank in range(3)]
    for one in found:
        assert one["agreed"]["skipped"] == [0, 1]
        assert one["agreed"]["lost"] == found[0]["agreed"]["lost"] != []
        assert "2 shards are damaged, and data.bad_shards=1" in one["too_many"]["error"]
        assert one["same"]["skipped"] == []
        assert "rank(s) 2 opened data sets with other contents than rank 0" in one["strange"]["error"]
        # 8, 1 and 13 windows in batches of 2: three ranks do what the first has to do, the last ones on padding.
        assert [e["batches"] for e in one["evaluated"]] == [2, 1, 3]
        assert one["evaluated"] == found[0]["evaluated"]
    assert "it was cut" in found[1]["agreed"]["found"]["1"]
    assert "on rank 1: " in found[0]["agreed"]["found"]["1"]


def test_a_run_goes_on_without_a_damaged_shard_as_if_it_had_never_stopped(runs: TinyRuns) -> None:
    lame, wiped, cleared = (runs.folder / name for name in ("lame", "wiped", "cleared"))
    for folder, damage in ((lame, cut), (wiped, wipe), (cleared, clear)):
        shutil.copytree(runs.shards, folder)
        damage(folder / "shard-000001.tar")
    data = DataSet.open(runs.shards)
    shards = data.index["shards"]
    lost = data.documents_between(shards[0]["tokens"], shards[0]["tokens"] + 1)[0].id

    def planned(name: str, folder: Path, *options: str, **more: str) -> dict[str, object]:
        sections = {"train": {"steps": 6}, "evaluate": {"interval_steps": 6}}
        training = runs.training(name, "zero1", *options, data={"train": {str(folder): 1.0}, "workers": 2}, **sections)
        return {**training, **more}

    one = "--data.bad_shards=1"
    hashes = "--data.verify=hashes"
    runs.train(
        planned("refused", lame, refused="DamagedShardError"),
        planned("whole", lame, one),
        planned("parts", lame, one, "--train.stop_at_step=2"),
        planned("parts", lame, one, "--data.workers=0"),
        planned("unseen", wiped, hashes, refused="DamagedShardError"),
        planned("hashed", wiped, one, hashes),
        # An id that stands in the damaged shard: nobody can know, and it is not learned from either way.
        planned("skipping", cleared, one, hashes, f"--data.skip_documents={lost}"),
        planned("packed", wiped, one, hashes, "--data.packing=best_fit"),
    )
    for name in ("parts", "hashed", "skipping"):
        assert runs.losses(name) == runs.losses("whole"), name
    assert len(runs.losses("packed")) == 6
    for name, words in (("refused", "it was cut"), ("unseen", "shard-000001.tar")):
        assert words in runs.refusals(name, "DamagedShardError")[1]
    starts = json.loads((runs.of("parts") / "damaged_shards.json").read_text())["starts"]
    assert [start["from_step"] for start in starts] == [0, 2]
    [shard] = starts[0]["shards"]
    assert (shard["shard"], shard["documents"]) == ("shard-000001.tar", shards[1]["documents"])
    assert starts[0]["windows"] >= shard["tokens"] // 32
    assert runs.manifest("parts", 6)["data"]["skipped"] == [[shard["sha256"]]]

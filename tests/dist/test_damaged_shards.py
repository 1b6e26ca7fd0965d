"""Damaged shards: every rank goes on without the same ones, through stops too, within the limit, and says which."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from megadec.common.tokenizer import Tokenizer
from megadec.corpus.document import Document
from megadec.corpus.shards import write_shards
from megadec.data.index import DataSet
from tests.support.agree_on_data import agree_on_data
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
        planned("share", lame, f"--data.bad_shards={1 / len(shards)}"),
        planned("small_share", lame, f"--data.bad_shards={0.9 / len(shards)}", refused="DamagedShardError"),
        planned("parts", lame, one, "--train.stop_at_step=2"),
        planned("parts", lame, one, "--data.workers=0"),
        planned("unseen", wiped, hashes, refused="DamagedShardError"),
        planned("hashed", wiped, one, hashes),
        # An id that stands in the damaged shard: nobody can know, and it is not learned from either way.
        planned("skipping", cleared, one, hashes, f"--data.skip_documents={lost}"),
        planned("packed", wiped, one, hashes, "--data.packing=best_fit"),
    )
    for name in ("parts", "hashed", "skipping", "share"):
        assert runs.losses(name) == runs.losses("whole"), name
    assert len(runs.losses("packed")) == 6
    for name, words in (
        ("small_share", f"of {len(shards)} shards lets the run go on without 0"),
        ("refused", "it was cut"),
        ("unseen", "shard-000001.tar"),
    ):
        assert words in runs.refusals(name, "DamagedShardError")[1]
    starts = json.loads((runs.of("parts") / "damaged_shards.json").read_text())["starts"]
    assert [start["from_step"] for start in starts] == [0, 2]
    [shard] = starts[0]["shards"]
    assert (shard["shard"], shard["documents"]) == ("shard-000001.tar", shards[1]["documents"])
    assert starts[0]["windows"] >= shard["tokens"] // 32
    assert runs.manifest("parts", 6)["data"]["skipped"] == [[shard["sha256"]]]

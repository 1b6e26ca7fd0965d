"""What tools/lineage.py asks of a run: shards through the run's own cache, and no option that does nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megadec.common.config import to_yaml
from megadec.common.errors import ConfigError
from megadec.data.index import DataSet
from megadec.data.shard_cache import ShardCacheOptions
from megadec.engine.runs.pretrain import DataOptions, Run, open_sets, stream_of
from megadec.engine.zero.settings import TrainOptions
from megadec.lineage.command import main
from tests.support.remote_shards import upload

ADDRESS = "faulty://bucket/tiny"


def make_run(folder: Path, cache: ShardCacheOptions) -> Run:
    """A run on the shards at ADDRESS with a checkpoint of step 4, as far as lineage reads it."""
    data = DataOptions(train={ADDRESS: 1.0}, sequence_length=64, cache=cache)
    run = Run(name="far", tokenizer="t", output_folder=str(folder), data=data, train=TrainOptions(global_batch_size=4))
    state = stream_of(run, open_sets(run)).state(4)
    checkpoint = run.checkpoints / "step_00000004"
    checkpoint.mkdir(parents=True)
    (checkpoint / "run.yaml").write_text(to_yaml(run), encoding="utf-8")
    manifest = {"step": 4, "data": state, "origins": []}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return run


def kept(folder: Path) -> int:
    return len(list(folder.glob("*.tar")))


def test_remote_shards_are_fetched_as_the_run_fetched_them_or_into_the_folder_that_is_named(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "default"))
    far = upload(tiny_shards, ADDRESS)
    shards = DataSet.open(tiny_shards).index["shards"]
    own = tmp_path / "own"
    folder = str(make_run(tmp_path, ShardCacheOptions(str(own), attempts=2, pause_seconds=0.0)).folder)
    main(["--run", folder, "--document", "wiki-0"])
    assert kept(own) == len(shards)
    far.reads.clear()
    main(["--run", folder, "--step", "2"])
    assert far.reads == []
    main(["--run", folder, "--document", "wiki-0", "--cache_folder", str(tmp_path / "named")])
    assert kept(tmp_path / "named") == len(shards)
    assert not (tmp_path / "default" / "megadec" / "shards").exists()


def test_the_bounds_of_the_runs_cache_hold_in_a_folder_that_is_named_too(tiny_shards: Path, tmp_path: Path) -> None:
    upload(tiny_shards, ADDRESS)
    largest = max(shard["bytes"] for shard in DataSet.open(tiny_shards).index["shards"])
    run = make_run(tmp_path, ShardCacheOptions(str(tmp_path / "own"), bytes=largest))
    named = tmp_path / "named"
    main(["--run", str(run.folder), "--document", "wiki-0", "--cache_folder", str(named)])
    assert 0 < sum(path.stat().st_size for path in named.glob("*.tar")) <= largest


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--search", "runs"], "--search with --step 3"),
        (["--until_step", "2"], "--until_step with --step 3"),
        (["--search", "runs", "--until_step", "2"], "--search, --until_step with --step 3"),
    ],
)
def test_what_only_a_document_is_looked_for_with_is_refused_beside_a_step(more: list[str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        main(["--run", "nowhere", "--step", "3", *more])

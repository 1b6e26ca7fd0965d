"""Looking into a run: the documents of a step are those that the step was trained on, wherever the shards lie."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from megadec.common.config import to_yaml
from megadec.common.errors import CheckpointError, ConfigError, ShardError
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.shards import write_shards
from megadec.data.dataset import DataSet
from megadec.data.shard_cache import DamagedShardError, ShardCacheOptions
from megadec.data.stream import TrainStream
from megadec.engine.checkpoint.skipped import RunStart
from megadec.engine.runs.open_pretrain import open_sets, stream_of
from megadec.engine.runs.pretrain import DataOptions, PretrainRun
from megadec.engine.runs.stages import StageOptions
from megadec.engine.train_options import TrainOptions
from megadec.lineage import command, show
from megadec.lineage.trained import Trained
from tests.support.commands import printed
from tests.support.remote_shards import upload

ADDRESS = "faulty://bucket/tiny"
SEED, ROWS, ROW_TOKENS = 7, 16, 64
WHOLE = RunStart(1, (), ((),))


def save(
    folder: Path,
    shards: Path | str,
    *steps: int,
    starts: Sequence[RunStart] = (WHOLE,),
    stages: Sequence[dict[str, Any]] = (),
    **options: object,
) -> Path:
    """A run on `shards` with checkpoints of these steps, as far as its documents are looked up by them."""
    data = DataOptions(train={str(shards): 1.0}, sequence_length=ROW_TOKENS, **options)
    sizes = TrainOptions(global_batch_size=ROWS)
    run = PretrainRun(name="saved", tokenizer="t", output_folder=str(folder), seed=SEED, data=data, train=sizes)
    run = replace(run, stages=tuple(StageOptions(**stage) for stage in stages))
    opened, *others = open_sets(run)
    read = opened.without(dict.fromkeys(opened.numbers_of(starts[-1].shards[0]), ""))
    for step in steps:
        checkpoint = run.checkpoints / f"step_{step:08d}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "run.yaml").write_text(to_yaml(run), encoding="utf-8")
        state = stream_of(run, [read, *others]).state(step)
        manifest = {"step": step, "data": state, "starts": [asdict(start) for start in starts], "origins": []}
        (checkpoint / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return run.folder


@pytest.fixture
def shards(tiny_shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_shards, tmp_path / "shards"))


def shown(run: Path, step: int) -> str:
    return printed(show.main, "--run", run, "--step", step)


def test_the_batch_of_a_step_is_shown_from_the_runs_newest_checkpoint(tmp_path, tiny_shards):
    run = save(tmp_path, tiny_shards, 2, 10)
    stream = TrainStream([(DataSet.open(tiny_shards), 1.0)], ROW_TOKENS, "cut", SEED, ROWS)
    ids = [span.id for window in stream.windows_of(4) for span in stream.documents_of(window)]
    assert [line.split()[1] for line in shown(run, 5).splitlines() if line.startswith("  document")] == ids
    assert shown(run / "checkpoints" / "step_00000002", 5) == shown(run, 5)


def test_shards_that_moved_are_found_by_what_they_hold(tmp_path, shards, tiny_documents, tiny_tokenizer_path):
    write_shards(tiny_documents[:9], Tokenizer.load(tiny_tokenizer_path), tmp_path / "other")
    run = save(tmp_path, shards, 10)
    before, id = shown(run, 5), DataSet.open(shards).documents_between(0, 1)[0].id
    asked = printed(command.main, "--run", run, "--document", id)
    moved = tmp_path / "mount" / "elsewhere"
    moved.parent.mkdir()
    shards.rename(moved)
    for main, question in ((show.main, ("--step", 5)), (command.main, ("--document", id))):
        with pytest.raises(ShardError, match=r"shards, which the run was trained on, is not there: --data FOLDER says"):
            main(["--run", str(run), *map(str, question)])
    for there in (moved, moved.parent):
        now = printed(show.main, "--run", run, "--step", 5, "--data", there)
        assert now.replace(str(moved), str(shards)) == before
    now = printed(command.main, "--run", run, "--document", id, "--data", moved)
    assert now.replace(str(moved), str(shards)) == asked
    with pytest.raises(ShardError, match="holds none of the data sets that the run was trained on"):
        show.main(["--run", str(run), "--step", "5", "--data", str(tmp_path / "other")])


@pytest.mark.parametrize(
    ("main", "arguments", "words"),
    [
        (show.main, [], "give --data"),
        (show.main, ["--run", "x"], "--run needs --step"),
        (show.main, ["--run", "x", "--step", "0"], "--run needs --step"),
        (command.main, ["--run", "x", "--step", "3", "--search", "y", "--until_step", "2"], "--search, --until_step"),
    ],
)
def test_what_is_looked_for_must_be_said_once(main, arguments, words):
    with pytest.raises(ConfigError, match=words):
        main(arguments)


def test_a_folder_that_is_no_run_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no run\.yaml"):
        shown(tmp_path, 1)


@pytest.mark.parametrize("named", ["", "checkpoints/step_00000004"])
def test_shards_that_were_prepared_anew_are_not_shown_for_those_of_the_run(
    named, shards, tmp_path, tiny_documents, tiny_tokenizer_path
):
    run = save(tmp_path, shards, 4)
    shutil.rmtree(shards)
    write_shards(tiny_documents[::-1], Tokenizer.load(tiny_tokenizer_path), shards, block_tokens=4096)
    with pytest.raises(ShardError, match=r"the checkpoint was trained on"):
        shown(run / named, 2)
    # What the file of a run says of its steps holds for whatever shards lie there.
    assert shown(shutil.copy(run / "checkpoints" / "step_00000004" / "run.yaml", tmp_path), 2)


def test_a_step_is_shown_without_the_shards_that_it_went_without_and_no_other(shards, tmp_path):
    tar, sha256 = shards / "shard-000001.tar", DataSet.open(shards).index["shards"][1]["sha256"]
    whole = tar.read_bytes()
    run = save(tmp_path, shards, 8, starts=[WHOLE, RunStart(5, (), ((sha256,),))], bad_shards=1)
    data = DataSet.open(shards)
    stream = TrainStream([(data.without({1: ""}), 1.0)], ROW_TOKENS, "cut", SEED, ROWS)
    lost = {step: sum(map(stream.is_lost, stream.windows_of(step - 1))) for step in (3, 6, 9)}
    assert all(lost.values())
    assert [shown(run, step).count("padding") for step in (3, 6, 9)] == [0, lost[6], 0]
    tar.write_bytes(whole[:1000])
    with pytest.raises(DamagedShardError, match=r"shard-000001\.tar has 1000 bytes.*the step has read it"):
        shown(run, 3)
    # Step 9 was not done yet, and would be done without it.
    assert [shown(run, step).count("padding") for step in (6, 9)] == [lost[6], lost[9]]


def test_rows_packed_by_best_fit_are_those_that_the_run_packed_whatever_is_damaged_now(shards, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "plans"))
    sha256 = DataSet.open(shards).index["shards"][1]["sha256"]
    run = save(tmp_path, shards, 8, starts=[RunStart(1, (), ((sha256,),))], bad_shards=1, packing="best_fit")
    before = shown(run, 3)
    (shards / "shard-000001.tar").unlink()
    assert shown(run, 3) == before
    (shards / "shard-000000.tar").unlink()
    with pytest.raises(DamagedShardError, match=r"shard-000000\.tar is missing"):
        shown(run, 9)


def test_remote_shards_are_fetched_as_the_run_fetched_them_or_into_the_folder_that_is_named(
    tiny_shards, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "default"))
    far = upload(tiny_shards, ADDRESS)
    count, own, named = len(DataSet.open(tiny_shards).index["shards"]), tmp_path / "own", tmp_path / "named"
    run = save(tmp_path, ADDRESS, 4, cache=ShardCacheOptions(str(own), attempts=2, pause_seconds=0.0))
    printed(command.main, "--run", run, "--document", "wiki-0")
    assert len(list(own.glob("*.tar"))) == count
    far.reads.clear()
    printed(command.main, "--run", run, "--step", 2)
    assert far.reads == []
    printed(command.main, "--run", run, "--document", "wiki-0", "--cache_folder", named)
    assert len(list(named.glob("*.tar"))) == count
    assert not (tmp_path / "default" / "megadec" / "shards").exists()


def test_the_bounds_of_the_runs_cache_hold_in_a_folder_that_is_named_too(tiny_shards, tmp_path):
    upload(tiny_shards, ADDRESS)
    largest = max(shard["bytes"] for shard in DataSet.open(tiny_shards).index["shards"])
    run = save(tmp_path, ADDRESS, 4, cache=ShardCacheOptions(str(tmp_path / "own"), bytes=largest))
    named = tmp_path / "named"
    printed(command.main, "--run", run, "--document", "wiki-0", "--cache_folder", named)
    assert 0 < sum(path.stat().st_size for path in named.glob("*.tar")) <= largest


def test_a_run_of_stages_tells_of_each_step_what_its_stage_read(tmp_path, tiny_shards, tiny_documents, tokenizer):
    good = tmp_path / "good"
    write_shards(tiny_documents[:30], tokenizer, good, block_tokens=2000)
    stages = (
        {"name": "mixed", "first_step": 4, "data": {"train": {str(good): 1.0, str(tiny_shards): 0.5}}},
        {"name": "long", "first_step": 7, "data": {"sequence_length": 128}, "train": {"global_batch_size": 8}},
    )
    run = save(tmp_path, tiny_shards, 3, 9, starts=(RunStart(1, (), ((),)),), stages=stages)
    trained, read = Trained(run), dict[str, set[tuple[int, int]]]()
    for step in range(1, 10):
        stream = trained.stream_at(step)
        sizes = stream.sequence_length, stream.global_batch_size, len(stream.sets)
        assert sizes == ((64, 16, 1) if step < 4 else (64, 16, 2) if step < 7 else (128, 8, 2))
        for sequence, window in enumerate(stream.windows_of(step - 1)):
            for span in stream.documents_of(window):
                read.setdefault(span.id, set()).add((step, sequence))
    ids = [document.id for document in tiny_documents]
    found = trained.steps_of_documents(ids)
    assert {one["id"]: {(s["step"], s["sequence"]) for s in one["seen"]} for one in found if one["seen"]} == read
    until = Trained(run).steps_of_documents(ids, until_step=5)
    kept = {id: {place for place in places if place[0] <= 5} for id, places in read.items()}
    assert {one["id"]: {(s["step"], s["sequence"]) for s in one["seen"]} for one in until if one["seen"]} == {
        id: places for id, places in kept.items() if places
    }
    assert "step 3: places" in shown(run, 3)
    assert "step 8, stage long: places 8 to 15" in shown(run, 8)
    # What has not begun by a checkpoint is free, so an earlier one is looked into by its own stages.
    assert shown(run / "checkpoints" / "step_00000003", 2) == shown(run, 2)
    # Shards that only a later stage reads may lie elsewhere now, too.
    before = shown(run, 8)
    moved = good.rename(tmp_path / "moved")
    now = printed(show.main, "--run", run, "--step", 8, "--data", moved)
    assert now.replace(str(moved), str(good)) == before

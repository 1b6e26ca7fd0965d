"""Looking into a run: the documents of a step are those that the step was trained on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from megadec.common.config import to_yaml
from megadec.common.errors import CheckpointError, ConfigError, ShardError
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.shards import write_shards
from megadec.data.index import DataSet
from megadec.data.shard_cache import DamagedShardError
from megadec.data.stream import TrainStream
from megadec.engine.checkpoint.skipped import RunStart
from megadec.engine.runs.pretrain import DataOptions, Run
from megadec.engine.zero.settings import TrainOptions
from megadec.lineage.show import main


@pytest.fixture
def run_folder(tiny_shards: Path, tmp_path: Path) -> Path:
    run = Run(
        name="shown",
        tokenizer="t",
        output_folder=str(tmp_path),
        seed=7,
        data=DataOptions(train={str(tiny_shards): 2.0}, sequence_length=64),
        train=TrainOptions(global_batch_size=4),
    )
    for step in (2, 10):
        checkpoint = run.checkpoints / f"step_{step:08d}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "run.yaml").write_text(to_yaml(run), encoding="utf-8")
    return run.folder


def test_the_batch_of_a_step_is_shown_from_the_runs_newest_checkpoint(run_folder, tiny_shards, capsys):
    main(["--run", str(run_folder), "--step", "5"])
    shown = capsys.readouterr().out
    stream = TrainStream([(DataSet.open(tiny_shards), 2.0)], 64, "cut", 7, 4)
    ids = [span.id for window in stream.windows_of(4) for span in stream.documents_of(window)]
    assert [line.split()[1] for line in shown.splitlines() if line.startswith("  document")] == ids
    main(["--run", str(run_folder / "checkpoints" / "step_00000002"), "--step", "5"])
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize(
    "arguments", [[], ["--run", "x"], ["--run", "x", "--step", "0"], ["--run", "x", "--data", "y"]]
)
def test_what_is_to_be_shown_must_be_said_once(arguments):
    with pytest.raises(ConfigError, match=r"--step|either --data"):
        main(arguments)


def test_a_folder_that_is_no_run_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no run\.yaml"):
        main(["--run", str(tmp_path), "--step", "1"])


def save(folder: Path, shards: Path, step: int, starts: Sequence[RunStart], **data: object) -> Path:
    """A run on `shards` with a checkpoint of `step`, as far as its documents are looked up by it."""
    options = DataOptions(train={str(shards): 1.0}, sequence_length=64, **data)
    sizes = TrainOptions(global_batch_size=16)
    run = Run(name="saved", tokenizer="t", output_folder=str(folder), data=options, train=sizes)
    opened = DataSet.open(shards)
    damaged = starts[-1].shards[0] if starts else ()
    opened = opened.without(dict.fromkeys(opened.numbers_of(damaged), ""))
    state = TrainStream([(opened, 1.0)], 64, options.packing, run.seed, 16).state(step)
    checkpoint = run.checkpoints / f"step_{step:08d}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "run.yaml").write_text(to_yaml(run), encoding="utf-8")
    manifest = {"step": step, "data": state, "starts": [asdict(start) for start in starts]}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return run.folder


@pytest.fixture
def shards(tiny_shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_shards, tmp_path / "shards"))


def shown(capsys: pytest.CaptureFixture[str], run: Path, step: int) -> str:
    main(["--run", str(run), "--step", str(step)])
    return capsys.readouterr().out


@pytest.mark.parametrize("named", ["", "checkpoints/step_00000004"])
def test_shards_that_were_prepared_anew_are_not_shown_for_those_of_the_run(
    named, shards, tmp_path, tiny_documents, tiny_tokenizer_path
):
    run = save(tmp_path, shards, 4, [RunStart(1, (), ((),))])
    shutil.rmtree(shards)
    write_shards(tiny_documents[::-1], Tokenizer.load(tiny_tokenizer_path), shards, block_tokens=4096)
    with pytest.raises(ShardError, match=r"the checkpoint was trained on"):
        main(["--run", str(run / named), "--step", "2"])
    # What the file of a run says of its steps holds for whatever shards lie there.
    alone = shutil.copy(run / "checkpoints" / "step_00000004" / "run.yaml", tmp_path)
    main(["--run", str(alone), "--step", "2"])


def test_a_step_is_shown_without_the_shards_that_it_went_without_and_no_other(shards, tmp_path, capsys):
    tar, sha256 = shards / "shard-000001.tar", DataSet.open(shards).index["shards"][1]["sha256"]
    whole = tar.read_bytes()
    run = save(tmp_path, shards, 8, [RunStart(1, (), ((),)), RunStart(5, (), ((sha256,),))], bad_shards=1)
    data = DataSet.open(shards)
    stream = TrainStream([(data.without({1: ""}), 1.0)], 64, "cut", 0, 16)
    lost = {step: sum(map(stream.is_lost, stream.windows_of(step - 1))) for step in (3, 6, 9)}
    assert all(lost.values())
    assert [shown(capsys, run, step).count("padding") for step in (3, 6, 9)] == [0, lost[6], 0]
    tar.write_bytes(whole[:1000])
    with pytest.raises(DamagedShardError, match=r"shard-000001\.tar has 1000 bytes.*the step has read it"):
        shown(capsys, run, 3)
    # Step 9 was not done yet, and would be done without it.
    assert [shown(capsys, run, step).count("padding") for step in (6, 9)] == [lost[6], lost[9]]


def test_rows_packed_by_best_fit_are_those_that_the_run_packed_whatever_is_damaged_now(
    shards, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "plans"))
    sha256 = DataSet.open(shards).index["shards"][1]["sha256"]
    run = save(tmp_path, shards, 8, [RunStart(1, (), ((sha256,),))], bad_shards=1, packing="best_fit")
    before = shown(capsys, run, 3)
    (shards / "shard-000001.tar").unlink()
    assert shown(capsys, run, 3) == before
    (shards / "shard-000000.tar").unlink()
    with pytest.raises(DamagedShardError, match=r"shard-000000\.tar is missing"):
        shown(capsys, run, 9)

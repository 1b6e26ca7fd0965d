"""Looking into a run: the documents of a step are those that the step was trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from megadec.common.config import to_yaml
from megadec.common.errors import CheckpointError, ConfigError
from megadec.data.index import DataSet
from megadec.data.stream import TrainStream
from megadec.engine.job import TrainOptions
from megadec.engine.run import DataOptions, Run
from tools.show import main


@pytest.fixture
def run_folder(tiny_shards: Path, tmp_path: Path) -> Path:
    run = Run(
        name="shown",
        tokenizer="t",
        output_folder=str(tmp_path),
        seed=7,
        data=DataOptions(train={str(tiny_shards): 2.0}, row_tokens=64),
        train=TrainOptions(sequences_per_step=4),
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

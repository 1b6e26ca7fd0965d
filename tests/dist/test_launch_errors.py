"""A request that cannot be met costs one clear message and leaves nothing behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from megadec.common.errors import MegadecError
from megadec.export.commands import pretrain
from tests.support.processes import errors_of, launched
from tests.support.tiny_runs import TinyRuns


def test_each_wrong_request_is_refused_by_a_message_that_names_key_or_file_what_was_found_and_the_rule(
    tmp_path: Path, runs: TinyRuns
) -> None:
    other = tmp_path / "other-tokenizer"
    shutil.copytree(runs.shards, other)
    index = json.loads((other / "index.json").read_text())
    index["tokenizer"]["sha256"] = "0" * 64
    (other / "index.json").write_text(json.dumps(index))
    (tmp_path / "empty").mkdir()

    usual = runs.command("wrong")
    _, zero, _, run = usual

    def settings(name: str, **values: Any) -> list[str]:
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(values))
        return ["--deepspeed", str(path), "--config", run]

    typing_error = tmp_path / "typing-error.yaml"
    typing_error.write_text(Path(run).read_text().replace("learning_rate:", "learning_rat:"))

    def train_on(folder: Path) -> str:
        return f"--data.train={json.dumps({str(folder): 1.0})}"

    cases: list[tuple[list[str], list[str]]] = [
        (["--deepspeed", zero, "--config", str(typing_error)], ["optimizer.learning_rat", "'learning_rate'"]),
        ([*usual, "--train.stepz", "3"], ["train.stepz", "train.steps"]),
        ([*usual, train_on(tmp_path / "nowhere")], ["nowhere"]),
        ([*usual, train_on(tmp_path / "empty")], ["empty", "index.json"]),
        ([*usual, "--data.train={}"], ["data.train"]),
        ([*usual, train_on(other)], ["other-tokenizer", "tokenizer"]),
        ([*usual, "--tokenizer", "none.model"], ["none.model"]),
        (
            [*usual, "--data.sequence_length", "65"],
            ["data.sequence_length=65", "max_position_embeddings=64"],
        ),
        ([*usual, "--model.shape.vocabulary_size", "7"], ["model.shape.vocabulary_size=7"]),
        (["--config", run], ["--deepspeed"]),
        (["--deepspeed", str(tmp_path / "no.json"), "--config", run], ["no.json"]),
        (settings("batch", train_batch_size=7), ["batch.json", "train_batch_size=7", "train.global_batch_size"]),
        (
            settings("zero-key", zero_optimization={"stage": 3, "stagee": 1}),
            ["zero-key.json", "zero_optimization.stagee"],
        ),
    ]
    for request, expected in cases:
        with pytest.raises(MegadecError) as refused:
            pretrain(request)
        assert refused.value.exit_status == 2, request
        for part in expected:
            assert part in str(refused.value), request
    assert not (tmp_path / "runs").exists()


def test_the_launcher_shows_one_message_for_all_ranks_and_passes_the_status_on(tmp_path: Path, runs: TinyRuns) -> None:
    [error] = errors_of(launched([*runs.command("odd"), "--train.micro_batch_size=8"], 2, tmp_path / "log", status=2))
    assert error == "error: train.global_batch_size=8 is not a multiple of 8 (train.micro_batch_size) x 2 (ranks)"

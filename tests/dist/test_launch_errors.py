"""A request that cannot be met costs one clear message and leaves nothing behind."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from megadec.common.errors import ConfigError, MegadecError
from megadec.engine.zero.engine import start_process_group
from megadec.pretrain.command import pretrain
from tests.support.processes import environment, errors_of, launched, run_ranks
from tests.support.tiny_runs import TinyRuns


def test_a_wrong_request_is_refused_with_the_key_or_file_and_what_was_found_before_anything_is_written(
    tmp_path: Path, runs: TinyRuns
) -> None:
    usual, other, zero = runs.command("wrong"), tmp_path / "other.model", tmp_path / "zero-key.json"
    other.write_bytes(runs.tokenizer.read_bytes() + b"\x32\x00")  # an empty field at the end: another hash
    zero.write_text(json.dumps({"zero_optimization": {"stage": 3, "stagee": 1}}))
    for wrong, expected in (
        (["--tokenizer", "none.model"], ["none.model"]),
        (["--tokenizer", str(other)], [runs.shards.name, "tokenizer"]),
        (["--data.sequence_length", "65"], ["data.sequence_length=65", "max_position_embeddings=64"]),
        (["--model.shape.vocabulary_size", "7"], ["model.shape.vocabulary_size=7"]),
        (["--deepspeed", "no.json"], ["no.json"]),
        (["--deepspeed", str(zero)], ["zero-key.json", "zero_optimization.stagee"]),
        (["--train.profile_steps", "3", "13"], ["train.profile_steps has 13", "train.steps=12"]),
        (["--evaluate.prompts_file", "none.txt"], ["evaluate.prompts_file=none.txt"]),
        (["--evaluate.prompts", "今天", "--evaluate.prompt_tokens=64"], ["今天", "max_position_embeddings=64"]),
        (["--evaluate.temperature=-1"], ["evaluate.temperature=-1"]),
    ):
        with pytest.raises(MegadecError) as refused:
            pretrain([*usual, *wrong])
        assert refused.value.exit_status == 2, wrong
        for part in expected:
            assert part in str(refused.value), wrong
    assert not (tmp_path / "runs").exists()


# Refuses each of the requests, given as JSON, and says what was imported for it.
REFUSE = """
import json, sys
from megadec.common.errors import MegadecError
from megadec.pretrain.command import pretrain
for arguments in json.loads(sys.argv[1]):
    try:
        pretrain(arguments)
    except MegadecError as error:
        assert error.exit_status == 2, error
        print(error)
print(*(name for name in ("torch", "deepspeed") if name in sys.modules))
from megadec.finetune.commands import finetune
from megadec.engine.command import seq2seq
for command in (finetune, seq2seq):
    try:
        command(["--seeed=3"])
    except MegadecError:
        print(*(name for name in ("deepspeed",) if name in sys.modules))
"""


def test_a_wrong_request_does_not_wait_for_torch_or_deepspeed(tmp_path: Path, runs: TinyRuns) -> None:
    usual, zero = runs.command("wrong"), tmp_path / "zero-key.json"
    zero.write_text(json.dumps({"zero_optimisation": {"stage": 3}}))
    wrong = (
        (["--seeed=3"], "--seeed"),
        (["--train.steps=many"], "train.steps"),
        (["--tokenizer=none.model"], "none.model"),
        (["--data.train={none: 1.0}"], "none"),
        (["--data.sequence_length=65"], "data.sequence_length=65"),
        (["--train.global_batch_size=7"], "train.global_batch_size=7"),
        (["--deepspeed", str(zero)], "zero_optimisation"),
    )
    command = [sys.executable, "-c", REFUSE, json.dumps([[*usual, *options] for options, _ in wrong])]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *said, imported, of_finetune, of_seq2seq = done.stdout.splitlines()
    assert len(said) == len(wrong)
    for line, (_, word) in zip(said, wrong, strict=True):
        assert word in line
    assert (imported, of_finetune, of_seq2seq) == ("", "", "")


def test_the_launcher_shows_one_message_for_all_ranks_and_passes_the_status_on(tmp_path: Path, runs: TinyRuns) -> None:
    [error] = errors_of(launched([*runs.command("odd"), "--train.micro_batch_size=8"], 2, tmp_path / "log", status=2))
    assert error == "error: train.global_batch_size=8 is not a multiple of 8 (train.micro_batch_size) x 2 (ranks)"


def join_at(port: int) -> None:
    """As a rank whose launcher was given this port."""
    os.environ["MASTER_PORT"] = str(port)
    with pytest.raises(ConfigError, match=f"port {port} is in use: --master_port names another"):
        start_process_group()


def test_a_port_that_another_run_has_is_named(tmp_path: Path) -> None:
    with socket.create_server(("", 0)) as taken:
        run_ranks(join_at, [taken.getsockname()[1]], 1, tmp_path / "log")

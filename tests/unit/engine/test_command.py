"""The command line of a training: what it wants, and which rank says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from megadec.common.errors import ConfigError
from megadec.engine import command
from megadec.engine.command import train_command
from megadec.engine.runs.common import CommonRun, Job

RUN = ["--name", "a", "--tokenizer", "t"]


def open_nothing(run: CommonRun, deepspeed_file: Path) -> Job:
    raise ConfigError(f"{run.name} with {deepspeed_file} cannot be")


def ask(*arguments: str) -> None:
    train_command([*RUN, *arguments], CommonRun, open_nothing, description="", program="a test")


def test_a_deepspeed_file_is_wanted_and_what_is_wrong_with_the_request_is_said() -> None:
    with pytest.raises(ConfigError, match="--deepspeed FILE is missing"):
        ask()
    with pytest.raises(ConfigError, match=r"a with zero\.json cannot be"):
        ask("--deepspeed", "zero.json", "--local_rank=0")


def test_only_another_rank_than_the_first_waits_before_it_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(command.time, "sleep", waited.append)
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(ConfigError):
            ask("--deepspeed", "zero.json")
    assert waited == [command.RANK_0_SPEAKS_SECONDS]

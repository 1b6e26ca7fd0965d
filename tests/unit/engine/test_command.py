"""The command line of a training: which rank says what is wrong."""

import os

import pytest

from megadec.common.errors import ConfigError
from megadec.engine import command


def test_only_another_rank_than_the_first_waits_before_it_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[tuple[str, float]] = []
    monkeypatch.setattr(command.time, "sleep", lambda seconds: waited.append((os.environ["RANK"], seconds)))
    for name, value in {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "here", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(ConfigError, match="--deepspeed FILE is missing"):
            command.seq2seq(["--name=a", "--tokenizer=t"])
    assert waited == [("1", command.RANK_0_SPEAKS_SECONDS)]

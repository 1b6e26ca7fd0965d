"""What the loop asks of all ranks before it trains."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from megadec.common.errors import ConfigError
from megadec.engine.loop import check_one_precision
from megadec.engine.ranks import Ranks
from megadec.engine.runs.common import Job


class Answers(Ranks):
    """One rank of several whose answers are given: a machine holds one kind of CPU."""

    def __init__(self, *answers: str) -> None:
        super().__init__(0, len(answers), torch.device("cpu"))
        self.__dict__["answers"] = list(answers)

    def all_gather(self, value: Any) -> list[Any]:
        return cast(Any, self).answers


def job(choice: str) -> Job:
    settings = SimpleNamespace(precision="bf16")
    return cast(Job, SimpleNamespace(settings=settings, run=SimpleNamespace(train=SimpleNamespace(precision=choice))))


def test_machines_on_which_auto_is_not_the_same_are_refused_with_the_ranks() -> None:
    check_one_precision(job("auto"), Answers("bf16", "bf16"))
    with pytest.raises(ConfigError, match=r"train\.precision=auto is bf16 on rank 0, fp32 on rank 2: .* say"):
        check_one_precision(job("auto"), Answers("bf16", "bf16", "fp32"))

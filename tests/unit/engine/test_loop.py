"""What the loop asks of all ranks before it trains."""

from types import SimpleNamespace
from typing import Any

import pytest

from megadec.common.errors import ConfigError
from megadec.engine.loop import check_one_precision


def check(*answers: str) -> None:
    """Of ranks that answer so, a run with `auto`: a machine of a test holds one kind of CPU."""
    run = SimpleNamespace(train=SimpleNamespace(precision="auto"))
    job: Any = SimpleNamespace(settings=SimpleNamespace(precision=answers[0]), run=run)
    ranks: Any = SimpleNamespace(all_gather=lambda _: list(answers))
    check_one_precision(job, ranks)


def test_machines_on_which_auto_is_not_the_same_are_refused_with_the_ranks() -> None:
    check("bf16", "bf16")
    with pytest.raises(ConfigError, match=r"train\.precision=auto is bf16 on rank 0, fp32 on rank 2: .* say"):
        check("bf16", "bf16", "fp32")

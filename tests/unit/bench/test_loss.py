"""The benchmarks of the loss and of memory compare the same computation."""

import pytest
import torch

from bench.loss import Inputs, LossOptions, step_of
from bench.measure import fresh_process
from megadec.common.errors import ConfigError

SMALL = LossOptions(vocabulary_size=300, tokens=50, hidden_size=16, precision="fp32")


def test_ours_and_the_plain_one_compute_one_loss() -> None:
    inputs = Inputs.of(SMALL)
    plain, ours, smoothed = (step_of(case, inputs)() for case in ("plain", "ours", "ours_smoothed"))
    assert ours == pytest.approx(plain, rel=1e-6)
    assert smoothed != pytest.approx(plain, rel=1e-4)


def test_a_case_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="cases: 'fast' is none of plain, ours"):
        LossOptions(cases=("fast",))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_case_that_cannot_run_here_says_why() -> None:
    with pytest.raises(ConfigError, match="Liger's kernels need a GPU"):
        step_of("liger", Inputs.of(SMALL))


@pytest.mark.slow
def test_ours_takes_less_than_15_percent_of_the_memory_of_the_plain_one() -> None:
    arguments = ["--vocabulary_size", "16384", "--tokens", "4096", "--hidden_size", "64", "--alone"]
    plain, ours = (fresh_process("bench.loss", [*arguments, case]) for case in ("plain", "ours"))
    assert ours["memory_bytes"] < 0.15 * plain["memory_bytes"]
    assert ours["loss"] == pytest.approx(plain["loss"], rel=1e-5)

"""The precision that suits a machine: here a CPU that is told to have no bf16 instructions."""

import platform

import pytest

from tests.support.processes import TRAIN_MANY, run_script
from tests.support.tiny_runs import NO_EVALUATION, TinyRuns

WITHOUT_BF16 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the variables are of x86")
def test_without_bf16_instructions_auto_trains_in_fp32_and_bf16_is_told_what_it_costs(runs: TinyRuns) -> None:
    usual = {"evaluate": NO_EVALUATION, "schedule": {"warmup_steps": 4}}
    plan = [runs.training(name, train={"steps": 4, "precision": name}, **usual) for name in ("auto", "bf16")]
    done = run_script(TRAIN_MANY, runs.plan_file(plan), **WITHOUT_BF16)
    assert done.returncode == 0, done.stderr[-4000:]
    before, warned, after = done.stderr.partition("train.precision=bf16: this machine has no bf16 instructions")
    assert "fp32 (auto: this CPU has no bf16 instructions)" in before
    assert warned
    assert warned not in after, "it is said once"
    assert "done: step 4" in before, "not of the first run"
    assert done.stderr.count("schedule.warmup_steps=4 of train.steps=4: the rate never reaches its peak") == 2
    fp32, bf16 = runs.losses("auto"), runs.losses("bf16")
    assert bf16 == pytest.approx(fp32, rel=2e-2)
    assert bf16 != fp32

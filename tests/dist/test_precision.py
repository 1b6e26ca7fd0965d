"""The precision that suits a machine, through the launcher: here a CPU that is told to have no bf16 instructions."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import deepspeed, losses_of

WITHOUT_BF16 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the variables are of x86")
def test_without_bf16_instructions_auto_trains_in_fp32_and_bf16_is_told_what_it_costs(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in WITHOUT_BF16.items():
        monkeypatch.setenv(name, value)
    said: dict[str, str] = {}
    for precision in ("auto", "bf16"):
        run = make_run(precision, train={"steps": 4, "precision": precision}, evaluate={"sets": {}})
        log = tmp_path / f"{precision}.log"
        with deepspeed(["--deepspeed", str(zero_file("zero3")), "--config", str(run)], 2, log) as process:
            assert process.wait() == 0, log.read_text()[-4000:]
        said[precision] = log.read_text()
    assert "fp32 (auto: this CPU has no bf16 instructions)" in said["auto"]
    assert "train.precision=bf16: this machine has no bf16 instructions" not in said["auto"]
    assert said["bf16"].count("train.precision=bf16: this machine has no bf16 instructions") == 1
    fp32, bf16 = (losses_of(tmp_path / "runs" / name) for name in ("auto", "bf16"))
    assert bf16 == pytest.approx(fp32, rel=2e-2)
    assert bf16 != fp32

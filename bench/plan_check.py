"""Whether the plan's memory figures are right: predicted beside measured peaks of real training steps.

    python -m bench.plan_check [--presets 10m 30m 124m] [--stages 1 3] [--ranks 1] [--output FILE]

In: sizes, ZeRO stages and a batch. Out: one JSON object: for each case the plan's parts, the measured peak and how far
the plan is from it, as shares of what lies above the base and of the whole. Each case trains three steps through the
engine in processes of its own; before the last the state is copied as for a save. On a GPU the peak is
torch.cuda.max_memory_allocated. On a CPU it is the resident peak; the base is that of a model of a few thousand
parameters, which takes the same way through the code. On a CPU it is measured twice: with glibc told to give freed
blocks back, beside what the plan counts as in use, and as a run has it, which keeps them (zero/cpu.py), beside
the whole plan.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bench.measure import environment
from bench.ranks import run_ranks
from bench.trainers import OPTIMIZER
from bench.zero_cases import SEED, ZeroWorkload, task_of
from megadec.common.config import from_dict, parse, to_dict
from megadec.common.errors import ConfigError, run_main
from megadec.common.files import write_json
from megadec.decoder.flops import parameter_count
from megadec.decoder.initialize import initial_tensor
from megadec.engine.checkpoint.checkpointer import Snapshot
from megadec.engine.metrics.device import peak_memory_bytes
from megadec.engine.step import train_step
from megadec.engine.train_options import TrainOptions, resolve_precision
from megadec.engine.zero.engine import build_engine, end_process_group, start_process_group
from megadec.engine.zero.settings import merge_settings
from megadec.plan.memory import memory_of
from megadec.plan.setup import Setup, Zero

STEPS = 3
# glibc then asks the system for each block above 128 KiB, and gives it back when it is freed.
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
TINY: dict[str, Any] = {
    "preset": None, "hidden_size": 32, "layers": 1, "heads": 1, "kv_heads": 1, "head_size": 32, "intermediate_size": 64,
    "vocabulary_size": 96, "rows": 1, "sequence_length": 16,
}  # fmt: skip


@dataclass(frozen=True)
class PlanCheckOptions(ZeroWorkload):
    """presets: the sizes. stages: of ZeRO, by ds_configs/zeroN.json. ranks: processes on this machine.

    keep: on a CPU also measure as a run has it, with freed memory kept. output: a file for the result, beside standard
    output.
    """

    presets: tuple[str, ...] = ("10m", "30m", "124m")
    stages: tuple[int, ...] = (1, 3)
    rows: int = 4
    ranks: int = 1
    keep: bool = True
    output: Path | None = None

    @property
    def setting_files(self) -> dict[int, Path]:
        """The DeepSpeed file of each stage."""
        return {stage: self.deepspeed.parent / f"zero{stage}.json" for stage in self.stages}


def train_here(workload: ZeroWorkload) -> dict[str, Any]:
    """Some steps of the workload in this process, and its peak. Collective."""
    ranks = start_process_group()
    size, shape = ranks.world_size, workload.shape
    rows = workload.rows
    sizes = TrainOptions(
        global_batch_size=rows * workload.micro_steps * size, micro_batch_size=rows, precision=workload.precision
    )
    settings = merge_settings(workload.deepspeed, sizes, OPTIMIZER.max_grad_norm, size)
    task = task_of(workload, lambda name: initial_tensor(shape, name, task.sizes[name], SEED))
    engine = build_engine(task, OPTIMIZER, settings, ranks)
    built = peak_memory_bytes(ranks.device)
    batches = [batch.to(ranks.device) for batch in workload.batches(ranks)]
    live, snapshot = engine.zero_state(), Snapshot(ranks.device)
    for step in range(1, STEPS + 1):
        if step == STEPS:
            snapshot.take(live, live.slices())
        report = train_step(engine, batches, step=step, learning_rate=1e-4)
    assert report is not None, "nobody asks it to stop"
    peak = peak_memory_bytes(ranks.device)
    end_process_group(ranks)
    return {"rank": ranks.rank, "peak_bytes": peak, "built_bytes": built, "loss": report.loss}


def train_ranks(workload: ZeroWorkload, ranks: int, more: Mapping[str, str]) -> dict[str, Any]:
    """What rank 0 of fresh processes measured. Raises TrainingError when one fails."""
    variables = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), **more}
    variables["PLAN_CHECK"] = json.dumps(to_dict(workload))
    first, *_ = run_ranks([sys.executable, "-m", "bench.plan_check"], ranks, variables)
    found: dict[str, Any] = json.loads(first.strip().splitlines()[-1])
    return found


def check(options: PlanCheckOptions, preset: str, stage: int, base: Mapping[str, int]) -> dict[str, Any]:
    """One case. base: the peak of the tiny model by way of measuring; nothing on a GPU."""
    values = {key: value for key, value in to_dict(options).items() if key in ZeroWorkload.__dataclass_fields__}
    workload = from_dict(ZeroWorkload, {**values, "preset": preset, "deepspeed": str(options.setting_files[stage])})
    precision = resolve_precision(workload.precision)
    rows = workload.rows
    sizes = TrainOptions(global_batch_size=rows * options.ranks, micro_batch_size=rows, precision=precision)
    setup = Setup(
        shape=workload.shape,
        zero=Zero.of(merge_settings(workload.deepspeed, sizes, 1.0, options.ranks).values),
        precision=precision,
        ranks=options.ranks,
        micro_batch_size=workload.rows,
        sequence_length=workload.sequence_length,
        execution=workload.execution,
        device="cuda" if torch.cuda.is_available() else "cpu",
        saves_behind=True,
    )
    memory = memory_of(setup)
    parts = {name: size for name, size in memory.parts.items() if name not in ("framework", "kept")}
    planned = sum(parts.values())
    row: dict[str, Any] = {
        "preset": preset,
        "parameters": parameter_count(workload.shape),
        "stage": stage,
        "planned_bytes": planned,
        "planned_kept_bytes": memory.parts["kept"],
        "planned_parts": parts,
        "planned_moment": memory.peak_moment,
    }
    for way, environment_ in ways(options).items():
        found = train_ranks(workload, options.ranks, environment_)
        above = found["peak_bytes"] - base.get(way, 0)
        stated = planned + (memory.parts["kept"] if way == "as_run" else 0)
        row[way] = {
            "peak_bytes": found["peak_bytes"],
            "built_bytes": found["built_bytes"],
            "base_bytes": base.get(way, 0),
            "above_base_bytes": above,
            "error_above_base": round(stated / above - 1, 4),
            "error_of_whole": round((stated + base.get(way, 0)) / found["peak_bytes"] - 1, 4),
        }
        print(f"{preset} zero{stage} {way}: {row[way]}", file=sys.stderr)
    return row


def ways(options: PlanCheckOptions) -> dict[str, dict[str, str]]:
    """How a peak is measured, and the environment for it."""
    if torch.cuda.is_available():
        return {"allocated": {}}
    return {"in_use": GIVE_BACK, **({"as_run": {}} if options.keep else {})}


def main(argv: Sequence[str]) -> None:
    """Parse, measure the base, then every case; JSON on standard output."""
    if "PLAN_CHECK" in os.environ:
        print(json.dumps(train_here(from_dict(ZeroWorkload, json.loads(os.environ["PLAN_CHECK"])))))
        return
    options = parse(PlanCheckOptions, argv, description="The plan's memory beside measured peaks.")
    for stage, file in options.setting_files.items():
        if not file.is_file():
            raise ConfigError(f"stages: {stage} has no file {file}")
    tiny = ZeroWorkload(**TINY, precision=options.precision, deepspeed=options.deepspeed)
    base = {}
    if not torch.cuda.is_available():
        base = {way: train_ranks(tiny, options.ranks, more)["peak_bytes"] for way, more in ways(options).items()}
    rows = [check(options, preset, stage, base) for preset in options.presets for stage in options.stages]
    result = {
        "bench": "plan_check",
        "environment": environment(),
        "options": to_dict(replace(options, output=None)),
        "base_bytes": base,
        "cases": rows,
    }
    if options.output is not None:
        write_json(options.output, result)
    print(json.dumps(result, ensure_ascii=False))


if __name__ == "__main__":
    run_main(main)

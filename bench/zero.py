"""What ZeRO costs: a plain loop of ours beside ZeRO 1 to 3 and changed settings, step by step in turns.

    python -m bench.zero [--compare settings] [--ranks 2] [--memory true] [--output FILE]
    python -m bench.zero --cases plain zero3 "zero3 {overlap_comm: true}"

In: a shape, a number of ranks, cases: `plain`, or a file of ds_configs without its ending, with changes of its
zero_optimization after a blank. Out: one JSON object: for each case the median seconds of a step, its spread, how many
times faster than the first case it is (the median over rounds), the loss of every step and how far that is from the
first case's. Starts its own ranks over gloo, or nccl; under a launcher (RANK is set) it is one of them. All engines
live in one process, so that they can take turns, and the peak memory of each needs fresh processes (--memory).
"""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from bench.measure import alternate, environment, product_flops, summary
from bench.ranks import run_ranks
from bench.zero_cases import PLAIN, Step, ZeroWorkload, build_step, first_values
from megadec.common.config import parse, take_options, to_dict, to_yaml
from megadec.common.errors import ConfigError, run_main
from megadec.common.files import read_json, write_json
from megadec.decoder.flops import parameter_count
from megadec.engine.metrics.device import peak_memory_bytes
from megadec.engine.ranks import Ranks
from megadec.engine.train_options import resolve_precision
from megadec.engine.zero.engine import end_process_group, start_process_group

COMPARISONS = {
    "stages": (PLAIN, "zero1", "zero2", "zero3"),
    "settings": (
        "zero3",
        "zero3 {leaf_module: {classes: []}}",
        "zero3 {memory_efficient_linear: false}",
        "zero3 {stage3_param_persistence_threshold: 0}",
        "zero3 {stage3_param_persistence_threshold: 1000000000}",
        "zero3 {stage3_prefetch_bucket_size: 0}",
        "zero3 {reduce_bucket_size: 5000000}",
        "zero3 {overlap_comm: false}",
        "zero3 {contiguous_gradients: false}",
        "zero3 {communication_data_type: bf16}",
    ),
}


@dataclass(frozen=True)
class ZeroOptions(ZeroWorkload):
    """compare: a list of cases by its name; cases: others. ranks: processes on this machine. rounds: in which every
    case takes a step. memory: also the peak memory of each case, alone in fresh processes. output: a file for the
    result, beside standard output.
    """

    compare: Literal["stages", "settings"] = "stages"
    cases: tuple[str, ...] = ()
    ranks: int = 1
    rounds: int = 7
    memory: bool = False
    output: Path | None = None

    def __post_init__(self) -> None:
        for name in ("ranks", "rounds", "sequence_length", "rows", "micro_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} is not at least 1")
        if torch.cuda.is_available() and self.ranks > torch.cuda.device_count():
            raise ConfigError(f"ranks={self.ranks}, but this machine has {torch.cuda.device_count()} GPU(s)")

    @property
    def names(self) -> tuple[str, ...]:
        """The cases, the first of which is what the others are compared with."""
        return self.cases or COMPARISONS[self.compare]


def measure(options: ZeroOptions, ranks: Ranks) -> dict[str, Any]:
    """One rank of the measurement; every rank gets the figures of its own. Collective."""
    losses: dict[str, list[float]] = {name: [] for name in options.names}
    with tempfile.TemporaryDirectory() as folder:
        first_value = first_values(options.shape)
        steps = {name: build_step(name, options, ranks, first_value, Path(folder)) for name in options.names}
        del first_value  # as large as the model in fp32

    def recorded(name: str, step: Step) -> Any:
        return lambda: losses[name].append(step())

    seconds = alternate({name: recorded(name, step) for name, step in steps.items()}, options.rounds, warm_up=2)
    first = options.names[0]
    product = product_flops(resolve_precision(options.precision)) if ranks.world_size == 1 else None
    cases = summary(seconds, first)
    return {
        "bench": "zero",
        "environment": environment(),
        "options": to_dict(replace(options, output=None)),
        "ranks": ranks.world_size,
        "parameters": parameter_count(options.shape),
        "product_flops_per_second": product,
        "peak_memory_bytes_of_all": peak_memory_bytes(ranks.device),
        "cases": {name: row | _figures(options, ranks, row, losses[name], losses[first], product)
                  for name, row in cases.items()},
    }  # fmt: skip


def _figures(
    options: ZeroOptions,
    ranks: Ranks,
    row: dict[str, float],
    losses: list[float],
    reference: list[float],
    product: float | None,
) -> dict[str, Any]:
    seconds = row["median_seconds"]
    rate = options.flops(ranks.world_size) / seconds
    return {
        "cost_fraction": round(1 / row["speed_ratio"] - 1, 4),
        "tokens_per_second": round(options.tokens(ranks.world_size) / seconds, 1),
        "share_of_product": round(rate / product, 4) if product else None,
        "largest_loss_difference": max(abs(a - b) for a, b in zip(losses, reference, strict=True)),
        "losses": [round(loss, 6) for loss in losses],
    }


def measure_in_ranks(options: ZeroOptions) -> dict[str, Any]:
    """Start the ranks as processes of their own and return what the first one found. Raises TrainingError."""
    with tempfile.TemporaryDirectory() as folder:
        result, request = Path(folder) / "result.json", Path(folder) / "options.yaml"
        request.write_text(to_yaml(replace(options, output=result)), encoding="utf-8")
        command = [sys.executable, "-m", "bench.zero", "--config", str(request)]
        threads = str(max(1, (os.cpu_count() or 1) // options.ranks))
        run_ranks(command, options.ranks, {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)})
        found: dict[str, Any] = read_json(result)
        return found


def with_memory(options: ZeroOptions, result: dict[str, Any]) -> None:
    """Add to each case its peak memory in processes of its own: resident on a CPU, allocated on a GPU."""
    for name, row in result["cases"].items():
        alone = measure_in_ranks(replace(options, cases=(name,), rounds=1))
        row["peak_memory_bytes"] = alone["peak_memory_bytes_of_all"]


def main(argv: Sequence[str]) -> None:
    """Parse; as a rank measure, else start the ranks; rank 0 says the result."""
    _, rest = take_options(argv, ("local_rank",))  # the deepspeed launcher passes it
    options = parse(ZeroOptions, rest, description="What ZeRO costs beside a plain loop.", program="bench.zero")
    if "RANK" in os.environ:
        ranks = start_process_group()
        result = measure(options, ranks)
        end_process_group(ranks)
        if ranks.rank:
            return
    else:
        result = measure_in_ranks(options)
        if options.memory:
            with_memory(options, result)
    if options.output is not None:
        write_json(options.output, result)
    print(json.dumps(result, ensure_ascii=False))


if __name__ == "__main__":
    run_main(main)

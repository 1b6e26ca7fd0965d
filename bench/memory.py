"""What each way to save memory saves and costs: peak memory and time of a training step under each policy.

    python -m bench.memory [--sequence_length 2048] [--policies none selective full] [--deepspeed FILE]

In: a shape and a batch, as for the other benchmarks, and policies by name (`POLICIES` below). Out: one JSON object: for
each policy the peak memory of the process (on a GPU: of the device), its share of the peak of the first policy, the
median seconds of a step, its speed beside the first policy's, and the loss, which is the same for all: nothing is
learned here. On a CPU a process's memory never shrinks, so each policy has a process of its own; times are taken in
turns in one process either way.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bench.measure import alternate, device, environment, fresh_process, summary
from bench.trainers import Workload, engine_of, initial_values, task_of
from megadec.common.config import parse
from megadec.common.errors import ConfigError, run_main
from megadec.decoder.execution import KEEPABLE, Execution, Recompute
from megadec.decoder.model import Decoder
from megadec.engine.metrics.device import peak_memory_bytes
from megadec.engine.step import train_step
from megadec.engine.zero.engine import start_process_group

TILE_TOKENS = 512
POLICIES = {
    "none": Execution(),
    "every_nth": Execution(recompute=Recompute("every_nth", every=2)),
    "selective_gate_up": Execution(recompute=Recompute("selective", keep=tuple(KEEPABLE))),
    "selective": Execution(recompute=Recompute("selective")),
    "selective_attention": Execution(recompute=Recompute("selective", keep=("attention",))),
    "full": Execution(recompute=Recompute("full")),
    "tiles": Execution(mlp_tile_tokens=TILE_TOKENS),
    "full_tiles": Execution(recompute=Recompute("full"), mlp_tile_tokens=TILE_TOKENS),
    "selective_offload": Execution(recompute=Recompute("selective", keep=("attention",), offload=True)),
    "full_offload": Execution(recompute=Recompute("full", offload=True)),
}
OF_A_GPU = ("selective_offload", "full_offload")


@dataclass(frozen=True)
class MemoryOptions(Workload):
    """policies: by name; all that do something on this device when none is named. rounds: timed steps of each, 0 for
    memory alone. alone: the memory of this policy, in this process.
    """

    policies: tuple[str, ...] = ()
    rounds: int = 3
    alone: str | None = None

    def __post_init__(self) -> None:
        for name in (*self.policies, *([self.alone] if self.alone else [])):
            if name not in POLICIES:
                raise ConfigError(f"policies: {name!r} is none of {', '.join(POLICIES)}")

    @property
    def chosen(self) -> tuple[str, ...]:
        """The policies to measure."""
        here = (name for name in POLICIES if torch.cuda.is_available() or name not in OF_A_GPU)
        return self.policies or tuple(here)


class Trainer:
    """A decoder under ZeRO whose policy can be changed between steps, and which learns nothing."""

    def __init__(self, options: MemoryOptions) -> None:
        ranks = start_process_group()
        self.engine = engine_of(task_of(options, initial_values(options.shape)), options, ranks)
        self.batch = options.batch(0)

    def step(self, policy: str) -> float:
        """A step under a policy, at a learning rate of 0; the loss in nats a token."""
        decoder = self.engine.module
        assert isinstance(decoder, Decoder), "task_of makes a decoder"
        decoder.execution = POLICIES[policy]
        for block in decoder.layers:
            block.mlp.tile_tokens = decoder.execution.mlp_tile_tokens  # type: ignore[union-attr]
        report = train_step(self.engine, [self.batch], step=1, learning_rate=0.0)
        assert report is not None, "nobody asks it to stop"
        return report.loss


def measure_alone(trainer: Trainer, policy: str) -> dict[str, Any]:
    """Peak memory and loss of two steps: the first one also makes the optimizer's state."""
    trainer.step(policy)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    loss = trainer.step(policy)
    return {"peak_bytes": peak_memory_bytes(device()), "loss": loss}


def peaks(options: MemoryOptions, arguments: Sequence[str], trainer: Callable[[], Trainer]) -> dict[str, Any]:
    """Peak memory and loss of each policy: in turn on a GPU, in a process each on a CPU."""
    if torch.cuda.is_available():
        here = trainer()
        return {policy: measure_alone(here, policy) for policy in options.chosen}
    return {p: fresh_process("bench.memory", [*arguments, "--alone", p]) for p in options.chosen}


def main(argv: Sequence[str]) -> None:
    """Memory first, then times in turns; JSON on standard output."""
    options = parse(MemoryOptions, argv, description="Peak memory and time of a step under each policy.")
    if options.alone:
        print(json.dumps(measure_alone(Trainer(options), options.alone)))
        return
    made: list[Trainer] = []

    def trainer() -> Trainer:
        if not made:
            made.append(Trainer(options))
        return made[0]

    rows = peaks(options, argv, trainer)
    if options.rounds:
        first, steps = options.chosen[0], trainer()
        table = summary(
            alternate({p: lambda p=p: steps.step(p) for p in options.chosen}, options.rounds),  # type: ignore[misc]
            first,
        )
        for policy, row in rows.items():
            row["tokens_per_second"] = round(options.step_tokens / table[policy]["median_seconds"], 1)
            row.update(table[policy])
    for row in rows.values():
        row["memory_share"] = round(row["peak_bytes"] / rows[options.chosen[0]]["peak_bytes"], 4)
    sizes = {"shape": options.shape.to_dict(), "rows": options.rows, "sequence_length": options.sequence_length}
    result = {"environment": environment(), **sizes, "deepspeed": str(options.deepspeed), "policies": rows}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    run_main(main)

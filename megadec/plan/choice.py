"""Which settings to take: the ZeRO stage, the micro-batch, what to compute again; or why nothing fits, and what would.

Every combination is counted, and the first by a stated order of preferences is taken. That one is faster than another
is judged by what is computed again and by what is sent, not by a measurement.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from megadec.common.config import to_dict
from megadec.decoder.execution import KEEPABLE, Recompute
from megadec.decoder.flops import attention_flops, flops_per_token, parameter_table
from megadec.decoder.shape import DecoderShape
from megadec.plan.memory import Memory, memory_of
from megadec.plan.setup import GIB, Machines, Setup, Work, Zero

# From the least that is computed again to the most.
POLICIES = (
    Recompute(),
    Recompute("selective", keep=tuple(KEEPABLE)),
    Recompute("selective"),
    Recompute("every_nth"),
    Recompute("selective", keep=("attention",)),
    Recompute("full"),
)
# A micro-step of fewer tokens leaves a device waiting: the matrices are too small for it.
LEAST_TOKENS = {"cuda": 8192, "cpu": 512}
MOST_RANKS = 4096
SAVES_IN_FRONT = "checkpoint.asynchronous=false"
OFFLOADED = Zero(stage=3, optimizer_at="host", parameters_at="host")


@dataclass(frozen=True)
class Choice:
    """Settings to choose, and what they need. setup: with these settings, on all ranks of the machines.

    again_fraction: operations that are computed again, as a share of the model's.
    """

    setup: Setup
    memory: Memory
    again_fraction: float

    @property
    def offload(self) -> bool:
        """Whether weights and optimizer state wait on the host."""
        return self.setup.zero.optimizer_at == "host"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "stage": self.setup.zero.stage,
            "micro_batch_size": self.setup.micro_batch_size,
            "recompute": to_dict(self.setup.recompute),
            "offload": self.offload,
            "peak_bytes": self.memory.peak_bytes,
            "again_fraction": self.again_fraction,
            "saves_behind": self.setup.saves_behind,
        }


def choose(setup: Setup, machines: Machines, work: Work) -> Choice | None:
    """The settings to take, or None where nothing fits.

    In this order: saves behind training where the run makes them, nothing on the host, micro-steps of enough tokens for
    the device, the least that is computed again, the lowest stage (it sends least), the largest micro-step.
    """

    def cost(choice: Choice) -> tuple[float, ...]:
        one = choice.setup
        enough = min(one.tokens, LEAST_TOKENS[one.device])
        return (
            not one.saves_behind, choice.offload, -enough, choice.again_fraction, one.zero.stage, -one.micro_batch_size,
        )  # fmt: skip

    fitting = (choice for choice in _candidates(setup, machines, work) if choice.memory.fits(machines))
    return min(fitting, key=cost, default=None)


def _candidates(setup: Setup, machines: Machines, work: Work) -> Iterator[Choice]:
    groups = machines.ranks // setup.sequence_parallel_size
    sequences = work.global_batch_size // groups if groups and work.global_batch_size % groups == 0 else 0
    micros = [micro for micro in range(1, sequences + 1) if sequences % micro == 0]
    stages = range(4) if setup.precision == "fp32" else range(1, 4)
    zeros = [Zero(stage, setup.zero.reduce_bucket, setup.zero.max_live) for stage in stages]
    if setup.device == "cuda":
        zeros.append(OFFLOADED)
    for recompute in POLICIES:
        again = again_fraction(setup.shape, recompute, work.document_tokens)
        for zero in zeros:
            for micro in micros:
                for saves_behind in {setup.saves_behind, False}:
                    one = replace(setup.with_recompute(recompute), zero=zero, ranks=machines.ranks)
                    one = replace(one, micro_batch_size=micro, saves_behind=saves_behind)
                    yield Choice(one, memory_of(one), again)


@functools.lru_cache(maxsize=256)
def again_fraction(shape: DecoderShape, recompute: Recompute, document_tokens: float) -> float:
    """Operations of the second passes over blocks as a share of the model's own.

    A block ends its second pass at what its gradient needs: the last product, `down`, is not done again.
    """
    kept = recompute.keep if recompute.mode == "selective" else ()
    products = {"mlp.down_proj"}.union(*(KEEPABLE[name] for name in kept))
    done_once = {f"layers.0.{name}.weight" for name in products}
    table = parameter_table(replace(shape, layers=1))
    matrices = {name: size for name, size in table.items() if name.startswith("layers.0.") and len(size) == 2}
    block = sum(2.0 * math.prod(size) for name, size in matrices.items() if name not in done_once)
    if "attention" not in kept:
        block += attention_flops(shape, 1) * document_tokens / 3 / shape.layers
    blocks = sum(recompute.applies_to(layer) for layer in range(shape.layers))
    return blocks * block / flops_per_token(shape, document_tokens)


def advice(setup: Setup, machines: Machines, work: Work, choice: Choice | None) -> str:
    """The recommendation in one sentence, or why nothing fits and what would."""
    if choice is not None:
        file = "zero3_offload.json" if choice.offload else f"zero{choice.setup.zero.stage}.json"
        return (
            f"take ds_configs/{file}, train.micro_batch_size={choice.setup.micro_batch_size},"
            f" model.execution.recompute.mode={choice.setup.recompute.mode}{details(choice.setup.recompute)}"
            f"{_given_up(setup, choice, ', ')}:"
            f" {choice.memory.peak_bytes / GIB:.2f} GiB of {machines.capacity_gib:g} a rank,"
            f" {choice.again_fraction:.0%} of the model's operations computed again"
        )
    memories = [one.memory for one in _candidates(replace(setup, saves_behind=False), machines, work)]
    on_device = [memory.host_bytes for memory in memories if machines.has_room(memory.peak_bytes)]
    if on_device:
        short = f"what fits the device needs at least {min(on_device) / GIB:.2f} GiB of the host a rank, and it has"
        short += f" {machines.host_memory_gib:g}"
    else:
        least = min(memory.peak_bytes for memory in memories)
        short = f"the least that a rank needs is {least / GIB:.2f} GiB, and it has {machines.capacity_gib:g}"
    even = f", even with {SAVES_IN_FRONT}" if setup.saves_behind else ""
    answers = [*_more_ranks(setup, machines, work), *_more_memory(machines, memories)]
    shared = setup.sequence_parallel_size * 2
    if all(number % shared == 0 for number in (setup.shape.heads, setup.sequence_length, machines.ranks)):
        answers.append(f"sequences shared by more ranks (train.sequence_parallel_size={shared})")
    answers.append("a smaller model or shorter sequences")
    margin = f"with a margin of {machines.left_free:.0%}"
    return f"it cannot fit{even}: {short} {margin}; {', or '.join(answers)} would do"


def details(recompute: Recompute) -> str:
    """What a policy has beside its mode, as the user types it."""
    if recompute.mode == "selective":
        return f" model.execution.recompute.keep=[{','.join(recompute.keep)}]"
    return f" model.execution.recompute.every={recompute.every}" if recompute.mode == "every_nth" else ""


def _given_up(setup: Setup, choice: Choice, joint: str) -> str:
    """That the choice has no room for the copy for saves of a run that would make one."""
    return f"{joint}{SAVES_IN_FRONT}" if setup.saves_behind and not choice.setup.saves_behind else ""


def _more_ranks(setup: Setup, machines: Machines, work: Work) -> list[str]:
    """How many more ranks would do, by doubling."""
    ranks = machines.ranks * 2
    while ranks <= MOST_RANKS:
        more = replace(work, global_batch_size=max(work.global_batch_size, ranks // setup.sequence_parallel_size))
        choice = choose(setup, replace(machines, ranks=ranks), more)
        if choice is not None:
            return [f"{ranks} ranks{_given_up(setup, choice, ' with ')}"]
        ranks *= 2
    return []


def _more_memory(machines: Machines, memories: Sequence[Memory]) -> list[str]:
    """How much memory of the device would do, or of the host, or of both where the device is too small for all."""

    def gib(size: int) -> str:
        return f"{math.ceil(size / GIB / (1 - machines.left_free) * 10) / 10:.1f} GiB"  # rounded down it would not do

    devices = [memory.peak_bytes for memory in memories if machines.has_host_room(memory.host_bytes)]
    hosts = [memory.host_bytes for memory in memories if machines.has_room(memory.peak_bytes)]
    answers = [f"{gib(min(devices))} a rank"] if devices else []
    answers += [f"{gib(min(hosts))} of the host a rank"] if hosts else []
    device, host = min((memory.peak_bytes, memory.host_bytes) for memory in memories)
    if not hosts and device < min(devices, default=math.inf):
        answers.append(f"{gib(device)} a rank with {gib(host)} of the host")
    return answers

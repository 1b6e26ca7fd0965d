"""Which settings to take: the ZeRO stage, the micro-batch, what to compute again; or why nothing fits, and what would.

In: a setup, machines, work. Out: a `Choice` and a sentence. Every combination is counted and the first by a stated
order of preferences is taken; that one is faster than another is judged by what is computed again and by what is sent,
not by a measurement.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from megadec.decoder.recompute import KEEPABLE, Recompute
from megadec.plan.duration import GIB, Machines, Work, again_fraction
from megadec.plan.memory import Memory, memory_of
from megadec.plan.setup import Setup, Zero

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
    """Settings to choose, and what they need."""

    stage: int
    micro_batch_size: int
    recompute: Recompute
    offload: bool
    peak_bytes: int
    again_fraction: float
    """Operations that are computed again, as a share of the model's."""
    saves_behind: bool = False
    """Whether there is room for the copy that is written while training goes on, of a run that makes one."""


def fits_device(memory: Memory, machines: Machines) -> bool:
    """Whether a rank's memory fits on its device with the margin."""
    return memory.peak_bytes <= machines.usable_bytes


def fits_host(memory: Memory, machines: Machines) -> bool:
    """Whether what a rank keeps in its host's memory fits there with the margin; where that is not stated, it does."""
    host = machines.host_memory_gib
    return host is None or memory.host_bytes <= host * GIB * (1 - machines.left_free)


def fits(memory: Memory, machines: Machines) -> bool:
    """Whether a rank's memory fits with the margin, on the device and, where that is stated, on the host."""
    return fits_device(memory, machines) and fits_host(memory, machines)


def choose(setup: Setup, machines: Machines, work: Work) -> Choice | None:
    """The settings to take, or None where nothing fits.

    In this order: nothing on the host, micro-steps of enough tokens for the device, the least that is computed again,
    the lowest stage (it sends least), the largest micro-step. A run that saves behind training gives that up last.
    """
    choice = _choose(setup, machines, work)
    if choice is None and setup.saves_behind:
        choice = _choose(replace(setup, saves_behind=False), machines, work)
    return choice


def _choose(setup: Setup, machines: Machines, work: Work) -> Choice | None:
    best: tuple[Any, Choice] | None = None
    for choice, memory in _candidates(setup, machines, work):
        if not fits(memory, machines):
            continue
        tokens = choice.micro_batch_size * setup.sequence_length // setup.sequence_parallel_size
        enough = min(tokens, LEAST_TOKENS[setup.device])
        key = (choice.offload, -enough, choice.again_fraction, choice.stage, -choice.micro_batch_size)
        if best is None or key < best[0]:
            best = key, choice
    return None if best is None else best[1]


def _candidates(setup: Setup, machines: Machines, work: Work) -> Iterator[tuple[Choice, Memory]]:
    ranks = machines.ranks
    groups = ranks // setup.sequence_parallel_size
    rows = work.global_batch_size // groups if groups and work.global_batch_size % groups == 0 else 0
    micros = [micro for micro in range(1, rows + 1) if rows % micro == 0]
    stages = [stage for stage in range(4) if stage or setup.precision == "fp32"]
    zeros = [replace(OFFLOADED, stage=stage, optimizer_at="device", parameters_at="device") for stage in stages]
    zeros = [replace(zero, reduce_bucket=setup.zero.reduce_bucket, max_live=setup.zero.max_live) for zero in zeros]
    if setup.device == "cuda":
        zeros.append(OFFLOADED)
    for recompute in POLICIES:
        again = again_fraction(setup.shape, recompute, work.document_tokens)
        for zero in zeros:
            for micro in micros:
                one = replace(setup, zero=zero, ranks=ranks, micro_batch_size=micro).with_recompute(recompute)
                memory = memory_of(one)
                offload = zero.optimizer_at == "host"
                choice = Choice(
                    zero.stage, micro, recompute, offload, memory.peak_bytes, again, saves_behind=setup.saves_behind
                )
                yield choice, memory


def advice(setup: Setup, machines: Machines, work: Work, choice: Choice | None) -> str:
    """The recommendation in one sentence, or why nothing fits and what would."""
    if choice is not None:
        file = "zero3_offload.json" if choice.offload else f"zero{choice.stage}.json"
        return (
            f"take ds_configs/{file}, train.micro_batch_size={choice.micro_batch_size},"
            f" model.execution.recompute.mode={choice.recompute.mode}{details(choice.recompute)}"
            f"{_given_up(setup, choice, ', ')}:"
            f" {choice.peak_bytes / GIB:.2f} GiB of {machines.memory_gib:g} a rank,"
            f" {choice.again_fraction:.0%} of the model's operations computed again"
        )
    memories = [memory for _, memory in _candidates(replace(setup, saves_behind=False), machines, work)]
    if not memories:
        return (
            f"train.global_batch_size={work.global_batch_size} does not divide among {machines.ranks} rank(s)"
            f" in groups of {setup.sequence_parallel_size}: no micro-batch can be planned"
        )
    on_device = [memory.host_bytes for memory in memories if fits_device(memory, machines)]
    if on_device:
        short = f"what fits the device needs at least {min(on_device) / GIB:.2f} GiB of the host a rank, and it has"
        short += f" {machines.host_memory_gib:g}"
    else:
        least = min(memory.peak_bytes for memory in memories)
        short = f"the least that a rank needs is {least / GIB:.2f} GiB, and it has {machines.memory_gib:g}"
    even = f", even with {SAVES_IN_FRONT}" if setup.saves_behind else ""
    answers = ", or ".join(_what_would(setup, machines, work, memories))
    return f"it cannot fit{even}: {short} with a margin of {machines.left_free:.0%}; {answers} would do"


def details(recompute: Recompute) -> str:
    if recompute.mode == "selective":
        return f" model.execution.recompute.keep={list(recompute.keep)}".replace("'", "")
    return f" model.execution.recompute.every={recompute.every}" if recompute.mode == "every_nth" else ""


def _given_up(setup: Setup, choice: Choice, joint: str) -> str:
    """That the choice has no room for the copy for saves of a run that would make one."""
    return f"{joint}{SAVES_IN_FRONT}" if setup.saves_behind and not choice.saves_behind else ""


def _what_would(setup: Setup, machines: Machines, work: Work, memories: list[Memory]) -> list[str]:
    """What would do. memories: of all candidates, without a copy for saves."""
    answers = []
    ranks = machines.ranks
    while (ranks := ranks * 2) <= MOST_RANKS:
        more = replace(work, global_batch_size=max(work.global_batch_size, ranks // setup.sequence_parallel_size))
        choice = choose(setup, replace(machines, ranks=ranks), more)
        if choice is not None:
            answers.append(f"{ranks} ranks{_given_up(setup, choice, ' with ')}")
            break
    answers += _more_memory(machines, memories)
    heads, shared = setup.shape.heads, setup.sequence_parallel_size * 2
    if heads % shared == 0 and setup.sequence_length % shared == 0 and machines.ranks % shared == 0:
        answers.append(f"rows shared by more ranks (train.sequence_parallel_size={shared})")
    answers.append("a smaller model or shorter rows")
    return answers


def _more_memory(machines: Machines, memories: list[Memory]) -> list[str]:
    """How much memory of the device would do, or of the host, or of both where the device is too small for all."""

    def gib(size: int) -> str:
        return f"{math.ceil(size / GIB / (1 - machines.left_free) * 10) / 10:.1f} GiB"  # rounded down it would not do

    devices = [memory.peak_bytes for memory in memories if fits_host(memory, machines)]
    hosts = [memory.host_bytes for memory in memories if fits_device(memory, machines)]
    answers = [f"{gib(min(devices))} a rank"] if devices else []
    answers += [f"{gib(min(hosts))} of the host a rank"] if hosts else []
    device, host = min((memory.peak_bytes, memory.host_bytes) for memory in memories)
    if not hosts and device < min(devices, default=math.inf):
        answers.append(f"{gib(device)} a rank with {gib(host)} of the host")
    return answers

"""What a run will need before it runs: memory a rank, tokens a second, days, and the settings to choose.

In: a run with its DeepSpeed file, machines, and how much of their peak they are believed to reach. Out: a `Plan`, as a
table or JSON. Trade-off: time follows from one stated utilisation and knows nothing of a network; memory is counted
part by part (plan_memory.py), and `tools/bench/plan_check.py` compares it with measured peaks.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from megadec.common.config import to_dict
from megadec.common.errors import ConfigError
from megadec.decoder.flops import attention_flops, flops_per_token, parameter_table
from megadec.decoder.recompute import KEEPABLE, Recompute
from megadec.decoder.shape import DecoderShape
from megadec.engine.metrics import PEAK_FLOPS_BY_NAME
from megadec.engine.plan_memory import Memory, Setup, Zero, memory_of

GIB = 2**30
# From the least that is computed again to the most.
POLICIES = (
    Recompute(),
    Recompute("selective", keep=tuple(KEEPABLE)),
    Recompute("selective"),
    Recompute("every_nth"),
    Recompute("selective", keep=("attention",)),
    Recompute("full"),
)
# What was measured to stay resident beside what is in use, by tools/bench/plan_check.py: a CPU's share is glibc's.
MARGINS = {"cuda": 0.1, "cpu": 0.25}
# A micro-step of fewer tokens leaves a device waiting: the matrices are too small for it.
LEAST_TOKENS = {"cuda": 8192, "cpu": 512}
MOST_RANKS = 4096
OFFLOADED = Zero(stage=3, optimizer_at="host", parameters_at="host")


@dataclass(frozen=True)
class Machines:
    """ranks: devices that train together. memory_gib: of one of them; of the share of the host's memory on a CPU.

    kind: cuda or cpu. device: a name that the metrics know (H100, A100, ...), for its peak; peak_flops in its place.
    utilisation: the share of the peak that a rank reaches in all that it computes, what it computes again included.
    margin: the share of the memory to leave free, for what an allocator keeps and for the unforeseen; a tenth, on a CPU
    a quarter, when left out. host_memory_gib:
    of the host for each of its ranks, for what is offloaded; not looked at where it is left out.
    """

    ranks: int = 1
    memory_gib: float = 80.0
    kind: Literal["cuda", "cpu"] = "cuda"
    device: str | None = None
    peak_flops: float | None = None
    utilisation: float = 0.4
    margin: float | None = None
    host_memory_gib: float | None = None

    def __post_init__(self) -> None:
        if self.ranks < 1:
            raise ConfigError(f"ranks={self.ranks} is not at least 1")
        for name in ("memory_gib", "peak_flops", "host_memory_gib"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name}={value} is not above 0")
        if not 0 < self.utilisation <= 1:
            raise ConfigError(f"utilisation={self.utilisation} is not in (0, 1]: it is a share of the peak")
        if self.margin is not None and not 0 <= self.margin < 1:
            raise ConfigError(f"margin={self.margin} is not in [0, 1)")
        if self.device is not None and self.device not in PEAK_FLOPS_BY_NAME:
            known = ", ".join(PEAK_FLOPS_BY_NAME)
            raise ConfigError(f"device={self.device!r} is none of {known}; state its peak_flops instead")

    @property
    def peak(self) -> float | None:
        """Operations a second of one device at its peak, or None where nobody said."""
        return self.peak_flops or (PEAK_FLOPS_BY_NAME[self.device] if self.device else None)

    @property
    def left_free(self) -> float:
        """The margin that holds."""
        return MARGINS[self.kind] if self.margin is None else self.margin

    @property
    def usable_bytes(self) -> int:
        """Memory of a device without the margin."""
        return int(self.memory_gib * GIB * (1 - self.left_free))


@dataclass(frozen=True)
class Work:
    """What is to be trained: rows of a step over all ranks, steps, and how long a document is in the mean."""

    sequences_per_step: int
    row_tokens: int
    steps: int
    document_tokens: float

    @property
    def tokens(self) -> int:
        """Tokens of the whole run."""
        return self.sequences_per_step * self.row_tokens * self.steps


@dataclass(frozen=True)
class Choice:
    """Settings to choose, and what they need."""

    stage: int
    micro_sequences: int
    recompute: Recompute
    offload: bool
    peak_bytes: int
    again_fraction: float
    """Operations that are computed again, as a share of the model's."""


@dataclass(frozen=True)
class Plan:
    """What was asked about, and the answer. speed: None where no peak is known."""

    setup: Setup
    memory: Memory
    machines: Machines
    work: Work
    speed: dict[str, float] | None
    choice: Choice | None
    advice: str
    notes: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether what was asked about fits with the margin."""
        return fits(self.memory, self.machines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        choice = None if self.choice is None else {**asdict(self.choice), "recompute": to_dict(self.choice.recompute)}
        return {
            "setup": {**to_dict(self.setup), "parameters": self.setup.parameters},
            "memory": {
                "peak_bytes": self.memory.peak_bytes,
                "peak_moment": self.memory.peak_moment,
                "parts": self.memory.parts,
                "moments": self.memory.moments,
                "host": self.memory.host,
                "disk": self.memory.disk,
                "fits": self.fits,
            },
            "machines": to_dict(self.machines),
            "work": {**to_dict(self.work), "tokens": self.work.tokens},
            "speed": self.speed,
            "choice": choice,
            "advice": self.advice,
            "notes": self.notes,
        }


def make_plan(setup: Setup, machines: Machines, work: Work) -> Plan:
    """The plan of one run on these machines."""
    memory = memory_of(setup)
    choice = choose(setup, machines, work)
    again = again_fraction(setup.shape, setup.execution.recompute, work.document_tokens)
    advice = _advice(setup, machines, work, choice)
    return Plan(setup, memory, machines, work, speed_of(setup.shape, again, machines, work), choice, advice)


def fits(memory: Memory, machines: Machines) -> bool:
    """Whether a rank's memory fits with the margin, on the device and, where that is stated, on the host."""
    host = machines.host_memory_gib
    enough = host is None or sum(memory.host.values()) <= host * GIB * (1 - machines.left_free)
    return memory.peak_bytes <= machines.usable_bytes and enough


@functools.lru_cache(maxsize=256)
def again_fraction(shape: DecoderShape, recompute: Recompute, document_tokens: float) -> float:
    """Operations of the second passes over blocks as a share of the model's own.

    A block ends its second pass at what its gradient needs: the last product, `down`, is not done again.
    """
    block = {name: size for name, size in parameter_table(shape).items() if name.startswith("layers.0.")}
    numbers = {
        name.removeprefix("layers.0.").removesuffix(".weight"): a[0] * a[1] for name, a in block.items() if a[1:]
    }
    attention = attention_flops(shape, 1) * document_tokens / 3 / shape.layers
    kept = set(recompute.keep) if recompute.mode == "selective" else set()
    skipped = {"mlp.down_proj"}.union(*(KEEPABLE[name] for name in kept))
    one = sum(2.0 * count for name, count in numbers.items() if name not in skipped)
    one += 0.0 if "attention" in kept else attention
    blocks = sum(recompute.applies_to(layer) for layer in range(shape.layers))
    return blocks * one / flops_per_token(shape, document_tokens)


def speed_of(shape: DecoderShape, again: float, machines: Machines, work: Work) -> dict[str, float] | None:
    """Tokens a second over all ranks, seconds a step, days, and the share of the peak that is the model's own work."""
    if machines.peak is None:
        return None
    useful = flops_per_token(shape, work.document_tokens)
    rate = machines.ranks * machines.peak * machines.utilisation / (useful * (1 + again))
    return {
        "model_flops_per_token": useful,
        "tokens_per_second": rate,
        "seconds_per_step": work.sequences_per_step * work.row_tokens / rate,
        "days": work.tokens / rate / 86400,
        "model_flops_utilisation_fraction": machines.utilisation / (1 + again),
    }


def choose(setup: Setup, machines: Machines, work: Work) -> Choice | None:
    """The settings to take, or None where nothing fits.

    In this order: nothing on the host, micro-steps of enough tokens for the device, the least that is computed again,
    the lowest stage (it sends least), the largest micro-step.
    """
    best: tuple[Any, Choice] | None = None
    for choice, memory in _candidates(setup, machines, work):
        if not fits(memory, machines):
            continue
        tokens = choice.micro_sequences * setup.row_tokens // setup.sequence_ranks
        enough = min(tokens, LEAST_TOKENS[setup.device])
        key = (choice.offload, -enough, choice.again_fraction, choice.stage, -choice.micro_sequences)
        if best is None or key < best[0]:
            best = key, choice
    return None if best is None else best[1]


def _candidates(setup: Setup, machines: Machines, work: Work) -> Iterator[tuple[Choice, Memory]]:
    ranks = machines.ranks
    groups = ranks // setup.sequence_ranks
    rows = work.sequences_per_step // groups if groups and work.sequences_per_step % groups == 0 else 0
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
                one = replace(setup, zero=zero, ranks=ranks, micro_sequences=micro).with_recompute(recompute)
                memory = memory_of(one)
                offload = zero.optimizer_at == "host"
                yield Choice(zero.stage, micro, recompute, offload, memory.peak_bytes, again), memory


def _advice(setup: Setup, machines: Machines, work: Work, choice: Choice | None) -> str:
    """The recommendation in one sentence, or why nothing fits and what would."""
    if choice is not None:
        file = "zero3_offload.json" if choice.offload else f"zero{choice.stage}.json"
        return (
            f"take ds_configs/{file}, train.micro_sequences={choice.micro_sequences},"
            f" model.recompute.mode={choice.recompute.mode}{_details(choice.recompute)}:"
            f" {choice.peak_bytes / GIB:.2f} GiB of {machines.memory_gib:g} a rank,"
            f" {choice.again_fraction:.0%} of the model's operations computed again"
        )
    least = min((memory.peak_bytes for _, memory in _candidates(setup, machines, work)), default=None)
    if least is None:
        return (
            f"train.sequences_per_step={work.sequences_per_step} does not divide among {machines.ranks} rank(s)"
            f" in groups of {setup.sequence_ranks}: no micro-batch can be planned"
        )
    least_gib = least / GIB
    said = f"it cannot fit: the least that a rank needs is {least_gib:.2f} GiB, and it has {machines.memory_gib:g}"
    return f"{said} with a margin of {machines.left_free:.0%}; {_what_would(setup, machines, work, least_gib)}"


def _details(recompute: Recompute) -> str:
    if recompute.mode == "selective":
        return f" model.recompute.keep={list(recompute.keep)}".replace("'", "")
    return f" model.recompute.every={recompute.every}" if recompute.mode == "every_nth" else ""


def _what_would(setup: Setup, machines: Machines, work: Work, least_gib: float) -> str:
    answers = []
    ranks = machines.ranks
    while (ranks := ranks * 2) <= MOST_RANKS:
        more = replace(work, sequences_per_step=max(work.sequences_per_step, ranks // setup.sequence_ranks))
        if choose(setup, replace(machines, ranks=ranks), more) is not None:
            answers.append(f"{ranks} ranks would do")
            break
    answers.append(f"or {least_gib / (1 - machines.left_free):.1f} GiB a rank")
    heads, shared = setup.shape.heads, setup.sequence_ranks * 2
    if heads % shared == 0 and setup.row_tokens % shared == 0 and machines.ranks % shared == 0:
        answers.append(f"or rows shared by more ranks (train.sequence_ranks={shared})")
    answers.append("or a smaller model or shorter rows")
    return ", ".join(answers)


def table(plan: Plan) -> str:
    """The plan for a person at a terminal."""
    setup, memory, machines, work = plan.setup, plan.memory, plan.machines, plan.work
    lines = [
        f"{setup.parameters:,} parameters, {setup.precision}, ZeRO stage {setup.zero.stage}, {setup.ranks} rank(s),"
        f" {setup.micro_sequences} row(s) of {setup.row_tokens} tokens a micro-step,"
        f" recompute {setup.execution.recompute.mode}{_details(setup.execution.recompute)}",
        "",
        f"{'GiB a rank':<14}" + "".join(f"{name:>11}" for name in memory.moments),
    ]
    for part in memory.parts:
        row = "".join(f"{moment[part] / GIB:>11.3f}" for moment in memory.moments.values())
        lines.append(f"{part:<14}{row}")
    totals = "".join(f"{sum(moment.values()) / GIB:>11.3f}" for moment in memory.moments.values())
    lines.append(f"{'total':<14}{totals}")
    verdict = "fits" if plan.fits else "does not fit"
    lines.append(
        f"peak {memory.peak_bytes / GIB:.3f} GiB ({memory.peak_moment}): {verdict} in {machines.memory_gib:g} GiB with"
        f" {machines.left_free:.0%} left free"
    )
    for name, elsewhere in (("host", memory.host), ("disk", memory.disk)):
        if elsewhere:
            sizes = ", ".join(f"{part} {size / GIB:.2f}" for part, size in elsewhere.items())
            lines.append(f"on the {name}, GiB a rank: {sizes}")
    lines += ["", *_speed_lines(plan, work), "", plan.advice, *plan.notes]
    return "\n".join(lines)


def _speed_lines(plan: Plan, work: Work) -> list[str]:
    if plan.speed is None:
        return ["no peak is known: state --device or --peak_flops for tokens a second and days"]
    speed, machines = plan.speed, plan.machines
    return [
        f"{speed['tokens_per_second']:,.0f} tokens/s and {speed['seconds_per_step']:.3g} s a step over"
        f" {machines.ranks} rank(s) at {machines.utilisation:.0%} of the peak"
        f" ({speed['model_flops_utilisation_fraction']:.1%} of it for the model's own operations)",
        f"{work.tokens:,} tokens: {speed['days']:.3g} days ({speed['days'] * 24:.3g} hours)",
    ]

"""What a run will need before it runs: memory a rank, tokens a second, days, and the settings to choose.

In: a run with its DeepSpeed file, machines, and how much of their peak they are believed to reach. Out: a `Plan`, as a
table or JSON. Time follows from one stated utilization and knows nothing of a network; memory is counted part by part
(plan_memory.py), and `bench/plan_check.py` compares it with measured peaks.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from megadec.common.config import to_dict
from megadec.plan.choice import Choice, advice, choose, details, fits, fits_device, fits_host
from megadec.plan.duration import GIB, Machines, Work, again_fraction, speed_of
from megadec.plan.memory import Memory, memory_of
from megadec.plan.setup import Setup


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
    return Plan(
        setup,
        memory,
        machines,
        work,
        speed_of(setup.shape, again, machines, work),
        choice,
        advice(setup, machines, work, choice),
    )


def table(plan: Plan) -> str:
    """The plan for a person at a terminal."""
    setup, memory, machines, work = plan.setup, plan.memory, plan.machines, plan.work
    lines = [
        f"{setup.parameters:,} parameters, {setup.precision}, ZeRO stage {setup.zero.stage}, {setup.ranks} rank(s),"
        f" {setup.micro_batch_size} row(s) of {setup.sequence_length} tokens a micro-step,"
        f" recompute {setup.execution.recompute.mode}{details(setup.execution.recompute)}",
        "",
        f"{'GiB a rank':<14}" + "".join(f"{name:>11}" for name in memory.moments),
    ]
    for part in memory.parts:
        row = "".join(f"{moment[part] / GIB:>11.3f}" for moment in memory.moments.values())
        lines.append(f"{part:<14}{row}")
    totals = "".join(f"{sum(moment.values()) / GIB:>11.3f}" for moment in memory.moments.values())
    lines.append(f"{'total':<14}{totals}")
    verdict = _verdict(fits_device(memory, machines), machines.memory_gib, machines)
    lines.append(f"peak {memory.peak_bytes / GIB:.3f} GiB ({memory.peak_moment}): {verdict}")
    for name, elsewhere in (("host", memory.host), ("disk", memory.disk)):
        if elsewhere:
            sizes = ", ".join(f"{part} {size / GIB:.2f}" for part, size in elsewhere.items())
            lines.append(f"on the {name}, GiB a rank: {sizes}")
            if name == "host" and machines.host_memory_gib is not None:
                lines[-1] += f": {_verdict(fits_host(memory, machines), machines.host_memory_gib, machines)}"
    lines += ["", *_speed_lines(plan, work), "", plan.advice, *plan.notes]
    return "\n".join(lines)


def _verdict(enough: bool, memory_gib: float, machines: Machines) -> str:
    return f"{'fits' if enough else 'does not fit'} in {memory_gib:g} GiB with {machines.left_free:.0%} left free"


def _speed_lines(plan: Plan, work: Work) -> list[str]:
    if plan.speed is None:
        return ["no peak is known: state --device or --peak_flops for tokens a second and days"]
    speed, machines = plan.speed, plan.machines
    return [
        f"{speed['tokens_per_second']:,.0f} tokens/s and {speed['seconds_per_step']:.3g} s a step over"
        f" {machines.ranks} rank(s) at {machines.utilization:.0%} of the peak"
        f" ({speed['mfu']:.1%} of it for the model's own operations)",
        f"{work.tokens:,} tokens: {speed['days']:.3g} days ({speed['days'] * 24:.3g} hours)",
    ]

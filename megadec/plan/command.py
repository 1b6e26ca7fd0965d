"""The command plan: a run or a preset and machines in, what fits and how long it takes out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from megadec.common.config import parse, take_options
from megadec.engine.runs.pretrain import Run
from megadec.plan.plan import plan_run, table
from megadec.plan.setup import Machines

DESCRIPTION = """What a run will need: memory a rank, tokens a second, days; and which ZeRO stage, micro-batch,
checkpointing to take. Options of launch/pretrain.py are taken too, --config FILE and --section.key VALUE."""


@dataclass(frozen=True)
class PlanOptions(Machines):
    """Beside the machines: deepspeed, the file of the run, zero3.json when left out; data, folders of shards (those of
    the run when left out, where they exist); tokens and epochs, how much to train in place of train.steps."""

    deepspeed: Path | None = None
    preset: str | None = None
    data: tuple[Path, ...] = ()
    tokens: float | None = None
    epochs: float | None = None
    json: bool = False


def main(argv: Sequence[str]) -> None:
    """Print the plan as a table or as JSON."""
    names = [field.name for field in fields(PlanOptions)]
    if "-h" in argv or "--help" in argv:
        parse(PlanOptions, ["--help"], description=DESCRIPTION)
    own, rest = take_options(argv, names)
    options = parse(PlanOptions, [f"--{k}={v}" for k, v in own.items()], description=DESCRIPTION)
    given = {argument.partition("=")[0].removeprefix("--") for argument in rest}
    if options.preset is not None:
        rest += ["--model.preset", options.preset]
    # A plan for a preset has no name and may have no tokenizer yet.
    if "config" not in given:
        rest = [*(word for n in ("name", "tokenizer") if n not in given for word in (f"--{n}", "plan")), *rest]
    run = parse(Run, rest, description=DESCRIPTION)
    machines = Machines(**{field.name: getattr(options, field.name) for field in fields(Machines)})
    plan = plan_run(run, options.deepspeed, machines, options.data, options.tokens, options.epochs)
    print(json.dumps(plan.to_dict(), ensure_ascii=False, indent=1) if options.json else table(plan))

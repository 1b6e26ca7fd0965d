"""What a run will need before it runs: memory a rank, tokens a second, days, and the settings to choose.

Nothing is opened but the shards' index.json, so a plan can be made before there is a tokenizer or a shard; what is then
assumed stands in its notes. `bench/plan_check.py` compares the memory with measured peaks.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from megadec.common.config import parse, take_options, to_dict
from megadec.common.errors import ConfigError, ShardError, check_range
from megadec.common.files import read_json
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.shards import INDEX_NAME
from megadec.data.dataset import check_tokenizer
from megadec.data.resumable import share_of_rank
from megadec.decoder.shape import DecoderShape
from megadec.engine.metrics.devices import device_table
from megadec.engine.runs.common import START, Stage
from megadec.engine.runs.open_pretrain import check_sizes
from megadec.engine.runs.pretrain import PretrainRun
from megadec.engine.runs.stages import changes_of
from megadec.engine.train_options import Precision, resolve_precision
from megadec.engine.zero.engine import check_zero_section
from megadec.engine.zero.settings import merge_settings
from megadec.plan.choice import Choice, advice, again_fraction, choose, details
from megadec.plan.memory import Memory, memory_of
from megadec.plan.setup import GIB, Machines, Setup, Work, Zero, measured_flops
from megadec.plan.speed import Speed, speed_of

DESCRIPTION = """What a run will need: memory a rank, tokens a second, days; and which ZeRO stage, micro-batch,
checkpointing to take. Options of launch/pretrain.py are taken too, --config FILE and --section.key VALUE."""


@dataclass(frozen=True)
class StagePlan:
    """A stage of a run. steps: from `first_step` on, counted from 1; days: None where no peak is known."""

    name: str
    first_step: int
    steps: int
    tokens: int
    peak_bytes: int
    days: float | None


@dataclass(frozen=True)
class Plan:
    """What was asked about, and the answer. speed: None where no peak is known. stages: of a run that has some; all
    else is then of the stage that takes the most memory.
    """

    setup: Setup
    memory: Memory
    machines: Machines
    work: Work
    speed: Speed | None
    choice: Choice | None
    advice: str
    notes: list[str] = field(default_factory=list)
    stages: tuple[StagePlan, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **to_dict(self),
            "setup": {**to_dict(self.setup), "parameters": self.setup.parameters},
            "memory": {
                "peak_bytes": self.memory.peak_bytes,
                "peak_moment": self.memory.peak_moment,
                "parts": self.memory.parts,
                **to_dict(self.memory),
                "fits": self.memory.fits(self.machines),
            },
            "machines": {
                **to_dict(self.machines),
                "memory_gib": self.machines.capacity_gib,
                "peak_flops": self.machines.peak,
                "memory_bandwidth": self.machines.bandwidth,
            },
            "speed": None if self.speed is None else self.speed._asdict(),
            "work": {**to_dict(self.work), "tokens": self.work.tokens},
            "choice": None if self.choice is None else self.choice.to_dict(),
        }


@dataclass(frozen=True)
class PlanOptions(Machines):
    """What is planned, beside the machines.

    deepspeed: the DeepSpeed file of the run; zero3.json when left out. preset: a model in place of a run file. data:
    folders of shards; those of the run when left out, where they exist. tokens: how much to train, in place of
    train.steps. epochs: the same, in passes over the data. devices: print the devices that are known by name, with
    their figures and where these stand. json: print JSON in place of a table.
    """

    deepspeed: Path | None = None
    preset: str | None = None
    data: tuple[Path, ...] = ()
    tokens: float | None = None
    epochs: float | None = None
    devices: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "", "tokens", "epochs", above=0)

    @property
    def machines(self) -> Machines:
        """The machines alone."""
        return Machines(**{field.name: getattr(self, field.name) for field in fields(Machines)})


def plan_run(run: PretrainRun, options: PlanOptions) -> Plan:
    """The plan of a run; of one with stages, each is planned as a run of its own.

    It makes the checks that a start makes of numbers, of the DeepSpeed file and of the shards' index; what only the
    machine of the start can tell (its folders, its disks) is not looked at.

    Raises ConfigError for a run that cannot be, ShardError for an index that was named and is not there, and for one of
    another tokenizer.
    """
    changes = changes_of(run)
    if not changes:
        return _plan_run(run, options)
    if options.tokens is not None or options.epochs is not None:
        raise ConfigError("tokens and epochs say how long to train, and so do the run's stages: leave them out")
    stages, plans = (Stage(START, 1, run), *changes), []
    ends = [*(stage.first_step - 1 for stage in changes), changes[-1].run.train.steps]
    for stage, end in zip(stages, ends, strict=True):
        assert isinstance(stage.run, PretrainRun)
        train = replace(stage.run.train, steps=end - stage.first_step + 1)
        try:
            plans.append(_plan_run(replace(stage.run, train=train, stages=()), options))
        except ConfigError as error:
            raise ConfigError(f"stages: {stage.name}: {error}") from error
    found = tuple(
        StagePlan(
            stage.name,
            stage.first_step,
            plan.work.steps,
            plan.work.tokens,
            plan.memory.peak_bytes,
            None if plan.speed is None else plan.speed.days,
        )
        for stage, plan in zip(stages, plans, strict=True)
    )
    largest = max(range(len(plans)), key=lambda number: plans[number].memory.peak_bytes)
    notes = dict.fromkeys(note for plan in plans for note in plan.notes)
    return replace(plans[largest], notes=list(notes), stages=found)


def _plan_run(run: PretrainRun, options: PlanOptions) -> Plan:
    notes = (
        [f"not counted: what comes before the stage {run.stage}, as a plan opens no checkpoint"] if run.stage else []
    )
    tokenizer = Tokenizer.load(run.tokenizer) if Path(run.tokenizer).exists() else None
    shape, machines = _shape(run, tokenizer, notes), options.machines
    check_sizes(run, shape)
    if machines.device is None and machines.memory_gib is None:
        notes.append(f"assumed: {machines.capacity_gib:g} GiB a rank, as neither --device nor --memory_gib was given")
    if machines.kind == "cpu" and machines.peak is None:
        machines = replace(machines, peak_flops=measured_flops())
    train = run.train
    share_of_rank(train.global_batch_size, machines.ranks, train.micro_batch_size, train.sequence_parallel_size)
    precision = _precision(run, machines, notes)
    zero = _zero(run, options.deepspeed, machines, precision, notes)
    if "disk" in zero.places:
        notes.append("not counted: the time of a disk")
    setup = Setup(
        shape=shape,
        zero=zero,
        precision=precision,
        ranks=machines.ranks,
        sequence_parallel_size=train.sequence_parallel_size,
        micro_batch_size=train.micro_batch_size,
        sequence_length=run.data.sequence_length,
        execution=run.model.execution,
        dropout=run.model.dropout,
        device=machines.kind,
        saves_behind=run.checkpoint.asynchronous,
        snapshot_bytes=run.checkpoint.snapshot_bytes,
    )
    work = _work(run, options, tokenizer, notes)
    if machines.kind == "cpu":
        notes.append(
            "kept: freed blocks that glibc keeps (zero/cpu.py), 8 to 17 % of what is in use by measurement"
            " in bf16, more in fp32; MALLOC_TRIM_THRESHOLD_=131072 MALLOC_MMAP_THRESHOLD_=131072 gives them back, for"
            " slower steps"
        )
    return make_plan(setup, machines, work, notes)


def make_plan(setup: Setup, machines: Machines, work: Work, notes: Sequence[str] = ()) -> Plan:
    """The plan of one setup on these machines."""
    choice = choose(setup, machines, work)
    again = again_fraction(setup.shape, setup.recompute, work.document_tokens)
    speed = speed_of(setup, again, machines, work)
    sentence = advice(setup, machines, work, choice)
    return Plan(setup, memory_of(setup), machines, work, speed, choice, sentence, list(notes))


def _shape(run: PretrainRun, tokenizer: Tokenizer | None, notes: list[str]) -> DecoderShape:
    """The run's shape; its vocabulary is the tokenizer's where that exists, else what the run or the preset says."""
    if run.model.init_from is not None and run.model.preset is None:
        raise ConfigError(
            f"model.init_from={run.model.init_from}: a plan opens no weights; state the shape (--model.preset, or"
            " --model.shape.FIELD for each)"
        )
    shape = run.model.decoder_shape(tokenizer)
    if tokenizer is None and "vocabulary_size" not in run.model.shape:
        notes.append(f"assumed: a vocabulary of {shape.vocabulary_size:,}, as there is no tokenizer {run.tokenizer}")
    return shape


def _precision(run: PretrainRun, machines: Machines, notes: list[str]) -> Precision:
    """`auto` is what the devices multiply best: on a CPU, this machine."""
    choice = run.train.precision
    if machines.kind == "cpu":
        return resolve_precision(choice)
    precision = machines.precision if choice == "auto" else choice
    if machines.known and machines.peak_flops is None and precision != machines.precision:
        notes.append(f"not counted: the peak is that of {machines.precision}, and the run trains in {precision}")
    return precision


def _zero(run: PretrainRun, file: Path | None, machines: Machines, precision: Precision, notes: list[str]) -> Zero:
    if file is None:
        notes.append("assumed: ZeRO stage 3 with the buckets of ds_configs/zero3.json, as no --deepspeed was given")
        return Zero()
    train = replace(run.train, precision=precision)
    settings = merge_settings(file, train, run.optimizer.max_grad_norm, machines.ranks)
    check_zero_section(settings)
    return Zero.of(settings.values)


def _work(run: PretrainRun, options: PlanOptions, tokenizer: Tokenizer | None, notes: list[str]) -> Work:
    """The steps, and the mean length of documents in the shards that were named, else in the run's that exist."""
    tokens, epochs = options.tokens, options.epochs
    sets = {Path(folder): 1.0 for folder in options.data} or {Path(folder): w for folder, w in run.data.train.items()}
    seen, documents = 0.0, 0.0  # in an epoch
    for folder, weight in sets.items():
        file = folder / INDEX_NAME
        if not file.is_file() and not options.data:
            notes.append(f"not counted: {folder} has no {INDEX_NAME}")
            continue
        index = read_json(file, ShardError)
        if not isinstance(index, dict) or not index.get("tokens") or not index.get("documents"):
            raise ShardError(f"{file} states no tokens or no documents; it is no index of shards")
        if tokenizer is not None:
            check_tokenizer(str(file), index, tokenizer.sha256)
        seen += int(index["tokens"]) * weight
        documents += int(index["documents"]) * weight
    sequences, length = run.train.global_batch_size, run.data.sequence_length
    if documents:
        document_tokens = min(float(length), seen / documents)
    else:
        notes.append("assumed: documents as long as a sequence, as no shards were found")
        document_tokens = float(length)
    if epochs is not None:
        if not documents:
            raise ConfigError(f"epochs={epochs}: no shards were found to count tokens in; name them with --data")
        tokens = epochs * seen
    steps = run.train.steps if tokens is None else max(1, round(tokens / (sequences * length)))
    return Work(sequences, length, steps, document_tokens)


def table(plan: Plan) -> str:
    """The plan for a person at a terminal."""
    setup, memory, machines = plan.setup, plan.memory, plan.machines

    def verdict(enough: bool, memory_gib: float) -> str:
        return f"{'fits' if enough else 'does not fit'} in {memory_gib:g} GiB with {machines.left_free:.0%} left free"

    lines = [
        f"{setup.parameters:,} parameters, {setup.precision}, ZeRO stage {setup.zero.stage}, {setup.ranks} rank(s),"
        f" {setup.micro_batch_size} sequence(s) of {setup.sequence_length} tokens a micro-step,"
        f" recompute {setup.recompute.mode}{details(setup.recompute)}",
        "",
        f"{'GiB a rank':<14}" + "".join(f"{name:>11}" for name in memory.moments),
    ]
    columns = [{**parts, "total": sum(parts.values())} for parts in memory.moments.values()]
    for part in columns[0]:
        lines.append(f"{part:<14}" + "".join(f"{column[part] / GIB:>11.3f}" for column in columns))
    fits = verdict(machines.has_room(memory.peak_bytes), machines.capacity_gib)
    lines.append(f"peak {memory.peak_bytes / GIB:.3f} GiB ({memory.peak_moment}): {fits}")
    for name, elsewhere in (("host", memory.host), ("disk", memory.disk)):
        if elsewhere:
            sizes = ", ".join(f"{part} {size / GIB:.2f}" for part, size in elsewhere.items())
            lines.append(f"on the {name}, GiB a rank: {sizes}")
            if name == "host" and machines.host_memory_gib is not None:
                fits = verdict(machines.has_host_room(memory.host_bytes), machines.host_memory_gib)
                lines[-1] += f": {fits}"
    return "\n".join([*lines, "", *_speed_lines(plan), "", *_stage_lines(plan), plan.advice, *plan.notes])


def _stage_lines(plan: Plan) -> list[str]:
    """A line for each stage, and one for all; none of a run that has no stages."""
    if not plan.stages:
        return []
    largest = max(plan.stages, key=lambda stage: stage.peak_bytes)
    lines = [f"above is the stage that takes the most memory, {largest.name}; all stages:"]
    for one in plan.stages:
        lines.append(
            f"  {one.name}: {one.steps:,} steps from {one.first_step}, {one.tokens:,} tokens, peak"
            f" {one.peak_bytes / GIB:.3f} GiB{'' if one.days is None else f', {_duration(one.days)}'}"
        )
    days = [one.days for one in plan.stages if one.days is not None]
    duration = f" in {_duration(sum(days))} (days, h:mm:ss)" if days else ""
    return [*lines, f"{sum(one.tokens for one in plan.stages):,} tokens{duration} in all", ""]


def _duration(days: float) -> timedelta:
    return timedelta(seconds=round(days * 86400))


def _speed_lines(plan: Plan) -> list[str]:
    if plan.speed is None:
        return ["no peak is known: state --device or --peak_flops for tokens a second and days"]
    speed, machines = plan.speed, plan.machines
    counted = {"updates": speed.update_seconds, "what is offloaded": speed.host_seconds}
    beside = "".join(f", {name} {seconds:.3g} s of it" for name, seconds in counted.items() if seconds)
    return [
        f"{speed.tokens_per_second:,.0f} tokens/s and {speed.seconds_per_step:.3g} s a step{beside}, over"
        f" {machines.ranks} rank(s) at {machines.utilization:.0%} of the peak, what is computed again included"
        f" (mfu {speed.mfu:.1%})",
        f"{plan.work.tokens:,} tokens in {_duration(speed.days)} (days, h:mm:ss)",
    ]


def main(argv: Sequence[str]) -> None:
    """Print the plan as a table or as JSON."""
    names = [field.name for field in fields(PlanOptions)]
    if "-h" in argv or "--help" in argv:
        parse(PlanOptions, ["--help"], description=DESCRIPTION)
    own, rest = take_options(argv, names, several=("data",))
    if own.get("device") == "cpu":
        own["kind"] = own.pop("device")
    options = parse(PlanOptions, [f"--{k}={v}" for k, v in own.items()], description=DESCRIPTION)
    if options.devices:
        print(device_table())
        return
    given = {argument.partition("=")[0].removeprefix("--") for argument in rest}
    if options.preset is not None:
        rest += ["--model.preset", options.preset]
    # A plan for a preset has no name and may have no tokenizer yet.
    if "config" not in given:
        rest = [*(word for n in ("name", "tokenizer") if n not in given for word in (f"--{n}", "plan")), *rest]
    run = parse(PretrainRun, rest, description=DESCRIPTION)
    plan = plan_run(run, options)
    if options.tokens is None and options.epochs is None and not {"config", "train.steps"} & given:
        plan.notes.append(f"assumed: train.steps={run.train.steps}, as neither --tokens nor --epochs was given")
    print(json.dumps(plan.to_dict(), ensure_ascii=False, indent=1) if options.json else table(plan))

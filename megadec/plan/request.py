"""From a run file to what a plan is made of.

In: a run, its DeepSpeed file, machines, shards that may not exist yet. Out: a `Plan`. Nothing is opened but index.json,
so a plan can be made before there is a tokenizer or a single shard; what is then assumed stands in its notes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from megadec.common.errors import ConfigError, ShardError
from megadec.common.files import read_json
from megadec.common.tokenizer import Tokenizer
from megadec.data.sharding import check_groups
from megadec.decoder.execution import Execution
from megadec.decoder.shape import DecoderShape
from megadec.engine.runs.pretrain import ModelOptions, Run
from megadec.engine.zero.settings import Precision, RunSettings, merge_settings, resolve_precision
from megadec.plan.duration import Machines, Work
from megadec.plan.plan import Plan, make_plan
from megadec.plan.setup import Setup, Zero

INDEX_NAME = "index.json"


def plan_run(
    run: Run,
    deepspeed_file: Path | None,
    machines: Machines,
    data: Sequence[Path] = (),
    tokens: float | None = None,
    epochs: float | None = None,
) -> Plan:
    """The plan of a run on machines. data: shards in place of the run's; tokens, epochs: in place of train.steps.

    Raises ConfigError for a run that cannot be (unknown preset, a batch that does not divide), ShardError for an index
    that was named and is not there.
    """
    notes: list[str] = []
    shape = _shape(run, notes)
    check_groups(machines.ranks, run.train.sequence_parallel_size)
    execution = Execution(**{field.name: getattr(run.model, field.name) for field in fields(Execution)})
    setup = Setup(
        shape=shape,
        zero=_zero(run, deepspeed_file, machines, notes),
        precision=_precision(run, machines),
        ranks=machines.ranks,
        sequence_parallel_size=run.train.sequence_parallel_size,
        micro_batch_size=run.train.micro_batch_size,
        sequence_length=run.data.sequence_length,
        execution=execution,
        dropout=run.model.dropout,
        device=machines.kind,
        saves_behind=run.checkpoint.asynchronous,
        snapshot_bytes=run.checkpoint.snapshot_bytes,
    )
    found = _indexes(run, data, notes)
    plan = make_plan(setup, machines, _work(run, found, tokens, epochs, notes))
    if machines.kind == "cpu":
        notes.append(
            "kept: freed blocks that glibc keeps (zero/cpu.py), 8 to 17 % of what is in use by measurement"
            " in bf16, more in fp32; MALLOC_TRIM_THRESHOLD_=131072 MALLOC_MMAP_THRESHOLD_=131072 gives them back, for"
            " slower steps"
        )
    return replace(plan, notes=notes)


def _shape(run: Run, notes: list[str]) -> DecoderShape:
    """The run's shape; its vocabulary is the tokenizer's where that exists, else what the run or the preset says."""
    if run.model.init_from is not None and run.model.preset is None:
        raise ConfigError(
            f"model.init_from={run.model.init_from}: a plan opens no weights; state the shape (--model.preset, or the"
            " fields of --model)"
        )
    if Path(run.tokenizer).exists():
        return run.model.shape(Tokenizer.load(run.tokenizer))
    others = {"preset", "init_from", "dropout"} | {field.name for field in fields(Execution)}
    names = [field.name for field in fields(ModelOptions) if field.name not in others]
    changes = {name: getattr(run.model, name) for name in names if getattr(run.model, name) is not None}
    shape = (
        DecoderShape.from_mapping(changes)
        if run.model.preset is None
        else DecoderShape.from_preset(run.model.preset, **changes)
    )
    if run.model.vocabulary_size is None:
        notes.append(f"assumed: a vocabulary of {shape.vocabulary_size:,}, as there is no tokenizer {run.tokenizer}")
    return shape


def _precision(run: Run, machines: Machines) -> Precision:
    """The run's; `auto` is bf16 on GPUs, since all that a plan knows multiply it, and on a CPU what it is here."""
    if run.train.precision == "auto" and machines.kind == "cuda":
        return "bf16"
    return resolve_precision(run.train.precision)


def _zero(run: Run, file: Path | None, machines: Machines, notes: list[str]) -> Zero:
    if file is None:
        notes.append("assumed: ZeRO stage 3 with the buckets of ds_configs/zero3.json, as no --deepspeed was given")
        return Zero()
    share = RunSettings(
        run.train.global_batch_size,
        run.train.micro_batch_size,
        _precision(run, machines),
        run.optimizer.max_grad_norm,
        machines.ranks,
        run.train.sequence_parallel_size,
    )
    return Zero.of(merge_settings(file, share).values)


def _indexes(run: Run, data: Sequence[Path], notes: list[str]) -> list[tuple[int, int, float]]:
    """(tokens, documents, weight) of each data set: of those that were named, else of the run's that exist."""
    named = [(Path(folder), 1.0) for folder in data]
    sets = named or [(Path(folder), weight) for folder, weight in run.data.train.items()]
    found = []
    for folder, weight in sets:
        file = folder / INDEX_NAME
        if not file.is_file() and not named:
            notes.append(f"not counted: {folder} has no {INDEX_NAME}")
            continue
        index = read_json(file, ShardError)
        if not isinstance(index, dict) or not index.get("tokens") or not index.get("documents"):
            raise ShardError(f"{file} states no tokens or no documents; it is no index of shards")
        found.append((int(index["tokens"]), int(index["documents"]), weight))
    return found


def _work(
    run: Run,
    found: Sequence[tuple[int, int, float]],
    tokens: float | None,
    epochs: float | None,
    notes: list[str],
) -> Work:
    rows, sequence_length = run.train.global_batch_size, run.data.sequence_length
    document_tokens = float(sequence_length)
    if found:
        weighed = [(t * w, d * w) for t, d, w in found]
        document_tokens = min(document_tokens, sum(t for t, _ in weighed) / max(sum(d for _, d in weighed), 1e-9))
    else:
        notes.append("assumed: documents as long as a row, as no shards were found")
    steps = run.train.steps
    if epochs is not None:
        if not found:
            raise ConfigError(f"epochs={epochs}: no shards were found to count tokens in; name them with --data")
        tokens = epochs * sum(t * w for t, _, w in found)
    if tokens is not None:
        if not tokens > 0:
            raise ConfigError(f"tokens={tokens} is not above 0")
        steps = max(1, round(tokens / (rows * sequence_length)))
    return Work(rows, sequence_length, steps, document_tokens)

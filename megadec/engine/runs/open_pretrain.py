"""Opens a pretraining run: what its options say is checked against what is on the disk.

In comes a `PretrainRun`, out comes a `Job` that is known to be possible: tokenizer, shards, shape, batch and DeepSpeed
settings fit each other. Every data set is opened before a process group exists, which takes a moment with very many
shards and turns a mistake into one message instead of a crash on every rank.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from megadec.common.config import to_dict
from megadec.common.errors import ConfigError, ShardError, suggest
from megadec.common.log import logger
from megadec.common.ranks import is_first, world_size
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.dedup.overlap import overlaps
from megadec.data.dataset import DataSet
from megadec.data.resumable import check_parts, rank_position
from megadec.data.shard_folders import RemoteFolder
from megadec.data.shuffle import check_weights
from megadec.data.skip_documents import read_ids
from megadec.decoder.shape import DecoderShape
from megadec.engine.health.damaged_shards import agree_on_sets, check_limit
from megadec.engine.runs.common import (
    INITIAL_CONTENT,
    START,
    Job,
    Stage,
    check_length,
    open_settings,
)
from megadec.engine.runs.pretrain import PretrainRun
from megadec.engine.runs.stages import changes_of, stage_values
from megadec.engine.zero.settings import merge_settings

# What imports torch is imported where a run that was found possible is put together: a wrong request does not wait.
if TYPE_CHECKING:
    from torch import Tensor

    from megadec.data.stages import StagedStream
    from megadec.engine.health.preemption import Interrupt
    from megadec.engine.metrics.reports import Evaluation, Sample
    from megadec.engine.ranks import Ranks
    from megadec.engine.task import InitialWeights, Scorer, Task, Writer

Sets = Mapping[str, DataSet]
# A parameter's first value by its name.
FirstValue = Callable[[str], "Tensor"]
TIED_NAMES = ("embed_tokens.weight", "lm_head.weight")

log = logger(__name__)


def open_run(run: PretrainRun, deepspeed_file: Path, initial: "InitialWeights | None" = None) -> Job:
    """Check everything that can be wrong with the request before anything costs.

    initial: the opened model of `model.init_from`. Raises ConfigError (batch does not divide, sequences longer than the
    context, settings that disagree, a folder that holds a run while checkpoint.resume=none, initial weights of another
    size), TokenizerError, ShardError (no shards, a cut tar, another tokenizer).
    """
    tokenizer = Tokenizer.load(run.tokenizer)
    shape = run.model.decoder_shape(tokenizer, initial)
    check_sizes(run, shape)
    changes = changes_of(run)
    merge_settings(deepspeed_file, run.train, run.optimizer.max_grad_norm, world_size())  # before a stage is blamed
    shapes = (shape, *(_shape_in(stage, run, deepspeed_file, tokenizer, initial) for stage in changes))
    _check_prompts(run, tokenizer, shape)
    allowed_epochs(run)
    check_there([*folders_of(run), *run.evaluate.sets.values()])
    sets = open_sets(run, tokenizer.sha256)
    held_out = {
        name: DataSet.open(folder, tokenizer.sha256, cache=run.data.cache) for name, folder in run.evaluate.sets.items()
    }
    if is_first():
        named = dict(zip(folders_of(run), sets, strict=True))
        named |= {f"evaluate.sets.{name}": one for name, one in held_out.items()}
        for sentence in overlaps({name: one.sketch for name, one in named.items()}):
            log.warning(f"{sentence}; docs/en/own-data.md says how to leave them out of one")
    settings = open_settings(run, deepspeed_file, sequence_parallel=True)
    stream = stream_of(run, sets)
    if run.data.verify == "sizes":  # else damaged shards are not known yet, and a table may be one of theirs
        stream.find_skipped()
    task = _task(run, tokenizer, shape, stream, held_out, first_values(run, shape, tokenizer, initial))
    if initial is not None:
        task = replace(task, details={**task.details, INITIAL_CONTENT: initial.content})
    return Job(run, settings, tokenizer, task, changes=changes, shapes=shapes)


def _shape_in(
    stage: Stage, run: PretrainRun, deepspeed_file: Path, tokenizer: Tokenizer, initial: "InitialWeights | None"
) -> DecoderShape:
    """The model's shape in a stage of the run. Raises ConfigError for a batch or sequences that do not fit."""
    changed = stage.run
    assert isinstance(changed, PretrainRun)
    try:
        merge_settings(deepspeed_file, changed.train, changed.optimizer.max_grad_norm, world_size())
        shape = changed.model.decoder_shape(tokenizer, initial)
        for one in (changed, run):  # held-out sets are measured at the run's own length throughout
            check_length("data.sequence_length", one.data.sequence_length, shape.max_position_embeddings)
    except ConfigError as error:
        raise ConfigError(f"stages: {stage.name}: {error}") from error
    return shape


def _check_prompts(run: PretrainRun, tokenizer: Tokenizer, shape: DecoderShape) -> None:
    """Raise ConfigError for a prompt that leaves no room in the context, and where sequences are shared by ranks."""
    prompts, positions = run.evaluate.all_prompts(), shape.max_position_embeddings
    if prompts and run.train.sequence_parallel_size > 1:
        raise ConfigError("evaluate.prompts: ranks that share sequences (train.sequence_parallel_size) write no texts")
    for prompt in prompts:
        if (tokens := len(tokenizer.prompt_ids(prompt)) + run.evaluate.prompt_tokens) > positions:
            raise ConfigError(
                f"evaluate.prompts: {prompt[:20]!r} and evaluate.prompt_tokens={run.evaluate.prompt_tokens} have"
                f" {tokens} tokens together, more than model.shape.max_position_embeddings={positions}"
            )


def check_sizes(run: PretrainRun, shape: DecoderShape) -> None:
    """Raise ConfigError where the run's numbers do not fit each other or the shape. Nothing is opened for it."""
    parts, length = run.train.sequence_parallel_size, run.data.sequence_length
    check_length("data.sequence_length", length, shape.max_position_embeddings)
    if shape.heads % parts:  # each rank of a group attends with a share of the heads
        raise ConfigError(f"train.sequence_parallel_size={parts} does not divide model.shape.heads={shape.heads}")
    check_parts(length, parts)
    check_once(run.data.train)
    check_weights(run.data.train.values())


def check_there(folders: Sequence[str]) -> None:
    """Raise ShardError naming all folders that are missing at once; addresses are found out when they are opened."""
    missing = [folder for folder in dict.fromkeys(folders) if "://" not in folder and not Path(folder).exists()]
    if len(missing) > 1:
        raise ShardError(
            f"{', '.join(missing)} do not exist; give the places where they are now, or write them with"
            " tools/prepare.py (docs/en/own-data.md says how)"
        )


def check_once(folders: Iterable[str]) -> None:
    """Raise ConfigError for a folder that stands twice under two spellings: its weight would be another than stated."""
    seen: dict[str, str] = {}
    for folder in folders:
        place = folder.rstrip("/") if "://" in folder else os.path.realpath(folder)
        if place in seen:
            raise ConfigError(f"data.train: {seen[place]} and {folder} are one set; name it once, with one weight")
        seen[place] = folder


def folders_of(run: PretrainRun) -> list[str]:
    """The folders of `data.train` in all stages, each once. Raises ConfigError where one names none, or one twice."""
    named: dict[str, None] = {}
    for train in mixtures_of(run):
        if not train:
            raise ConfigError("data.train names no shards: give a folder with its weight, `{shards/zhwiki: 1.0}`")
        check_once(train)
        named |= dict.fromkeys(train)
    return list(named)


def mixtures_of(run: PretrainRun) -> list[Mapping[str, float]]:
    """`data.train` of every stage."""
    return [one.values["data"]["train"] for one in stage_values(to_dict(run))]


def allowed_epochs(run: PretrainRun) -> dict[str, float]:
    """The epochs that each set of `data.max_epochs` may be seen in the whole run, the least that a stage allows.

    Raises ConfigError for a folder that no stage trains on.
    """
    folders = folders_of(run)
    allowed: dict[str, float] = {}
    for one in stage_values(to_dict(run)):
        for folder, epochs in one.values["data"]["max_epochs"].items():
            if folder not in folders:
                raise ConfigError(
                    f"data.max_epochs: {folder} is no folder of data.train{suggest(folder, folders)}; there are"
                    f" {', '.join(folders)}"
                )
            allowed[folder] = min(epochs, allowed.get(folder, epochs))
    return allowed


def last_step_of(run: PretrainRun) -> int:
    """How many steps the run has, all stages together."""
    return int(stage_values(to_dict(run))[-1].values["train"]["steps"])


def warn_of_epochs(run: PretrainRun, stream: "StagedStream") -> None:
    """Say of which sets the whole run sees more than `data.max_epochs`."""
    from megadec.data.budget import budget_of, over_epochs

    if allowed := allowed_epochs(run):
        budgets = budget_of(stream, last_step_of(run), count_documents=False)
        for sentence in over_epochs(dict(zip(folders_of(run), budgets, strict=True)), allowed):
            log.warning(f"data.max_epochs: {sentence}")


def open_sets(run: PretrainRun, tokenizer_sha256: str | None = None) -> list[DataSet]:
    """The sets of `folders_of`, without what is damaged where `data.bad_shards` allows it.

    Raises ConfigError when none is named, ShardError as `DataSet.open` does.
    """
    data = run.data
    sets = [
        DataSet.open(folder, tokenizer_sha256, cache=data.cache, skip_damaged=data.bad_shards > 0)
        for folder in folders_of(run)
    ]
    check_limit(sets, data.bad_shards)
    remote_bytes = sum(
        shard["bytes"] for one in sets if isinstance(one.place, RemoteFolder) for shard in one.index["shards"]
    )
    if remote_bytes > data.cache.bytes:
        log.warning(
            f"the remote shards of data.train have {remote_bytes} bytes, data.cache.bytes={data.cache.bytes}: windows"
            " are drawn from all shards, so they will be fetched again and again"
        )
    return sets


def stream_of(run: PretrainRun, sets: Sequence[DataSet]) -> "StagedStream":
    """The run's sequence of steps over the opened sets of `folders_of`. Raises ConfigError, ShardError."""
    from megadec.data.stages import StagedStream
    from megadec.data.stream import TrainStream

    opened = dict(zip(folders_of(run), sets, strict=True))
    stages = [
        TrainStream(
            [(opened[folder], weight) for folder, weight in run.data.train.items()],
            sequence_length=run.data.sequence_length,
            packing=run.data.packing,
            seed=run.seed,
            global_batch_size=run.train.global_batch_size,
            sequence_parallel_size=run.train.sequence_parallel_size,
            skip_documents=read_ids(run.data.skip_documents, run.data.skip_documents_file),
            stage=START,
        )
    ]
    for one in changes_of(run):
        assert isinstance(one.run, PretrainRun)
        data = one.run.data
        try:
            stage = stages[-1].next_stage(
                one.name,
                one.first_step - 1,
                [(opened[folder], weight) for folder, weight in data.train.items()],
                sequence_length=data.sequence_length,
                packing=data.packing,
                global_batch_size=one.run.train.global_batch_size,
            )
        except ConfigError as error:
            raise ConfigError(f"stages: {one.name}: {error}") from error
        stages.append(stage)
    return StagedStream(sets, stages)


def _task(
    run: PretrainRun,
    tokenizer: Tokenizer,
    shape: DecoderShape,
    stream: "StagedStream",
    held_out: Sets,
    first_value: FirstValue,
) -> "Task":
    from megadec.decoder.flops import model_flops, parameter_table
    from megadec.decoder.model import Decoder
    from megadec.engine.evaluate import evaluate_loss, window_batches
    from megadec.engine.samples import write_samples
    from megadec.engine.task import Task

    def evaluate(scorer: "Scorer", step: int, interrupt: "Interrupt") -> "list[Evaluation] | None":
        position = rank_position(scorer.ranks.rank, scorer.ranks.world_size, run.train.sequence_parallel_size)
        length, bos_id = run.data.sequence_length, tokenizer.bos_id
        sets = {name: window_batches(one, run.evaluate, length, bos_id, position) for name, one in held_out.items()}
        return evaluate_loss(scorer, sets, tokenizer, step, interrupt)

    def samples(writer: "Writer", step: int, interrupt: "Interrupt") -> "list[Sample] | None":
        return write_samples(writer, tokenizer, run.evaluate, run.seed, step, interrupt)

    asked = bool(run.evaluate.all_prompts())

    def agree_on_data(ranks: "Ranks") -> "StagedStream":
        sets = agree_on_sets(stream.sets, list(held_out.values()), run.data.verify, run.data.bad_shards, ranks)
        agreed = stream if sets == stream.sets else stream_of(run, sets)
        agreed.find_skipped()
        if ranks.rank == 0:
            warn_of_epochs(run, agreed)
        return agreed

    return Task(
        kind="language_model",
        shape=shape,
        build=lambda: Decoder(shape, run.model.execution, loss=run.loss, dropout=run.model.dropout),
        sizes=parameter_table(shape),
        first_value=first_value,
        flops=lambda tokens, squared_tokens: model_flops(shape, tokens, squared_tokens),
        stream=stream,
        evaluate=evaluate,
        evaluate_interval_steps=run.evaluate.interval_steps if held_out or asked else 0,
        details={"skipped_documents": sorted(stream.skip_documents)},
        tied=(TIED_NAMES,) if shape.tied_embeddings else (),
        workers=run.data.workers,
        prefetch_steps=run.data.prefetch_steps,
        agree_on_data=agree_on_data,
        write_samples=samples if asked else None,
    )


def first_values(
    run: PretrainRun, shape: DecoderShape, tokenizer: Tokenizer, initial: "InitialWeights | None"
) -> FirstValue:
    """Name -> first value: random from the run's seed, or the tensor of the initial model.

    Raises ConfigError when the initial model has other tensors than `shape`, or another tokenizer.
    """
    import torch

    from megadec.decoder.flops import parameter_table
    from megadec.decoder.initialize import initial_tensor

    sizes = parameter_table(shape)
    if initial is None:
        return lambda name: initial_tensor(shape, name, sizes[name], run.seed)
    theirs = parameter_table(initial.shape)
    differing = [name for name in sorted(sizes.keys() | theirs.keys()) if sizes.get(name) != theirs.get(name)]
    if differing:
        name = differing[0]
        raise ConfigError(
            f"model.init_from={initial.path}: tensor {name!r} is {theirs.get(name)} there and {sizes.get(name)} here"
            f" ({len(differing)} differ); a run begins from a model of its own shape"
        )
    if Tokenizer.load(initial.tokenizer_path).sha256 != tokenizer.sha256:
        raise ConfigError(f"model.init_from={initial.path} was trained with another tokenizer than {tokenizer.path}")
    changed = [key for key, value in shape.to_dict().items() if initial.shape.to_dict()[key] != value]
    if changed:
        log.info("beginning from %s with another %s", initial.path, ", ".join(changed))
    return lambda name: initial.tensor(name).to(torch.float32)

"""What a rehearsal runs: the user's run, scaled down, on links to the user's shards, in a folder of its own.

A damaged shard is a copy in place of a link, so the user's own files are only ever read.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from megadec.common.config import to_yaml
from megadec.common.errors import ConfigError
from megadec.common.files import read_json, storage_errors, whole_file
from megadec.common.tokenizer import Tokenizer
from megadec.data.shard_folders import LocalFolder, open_folder
from megadec.engine.early_stopping import EarlyStopping
from megadec.engine.metrics.options import MetricsOptions
from megadec.engine.runs.pretrain import ModelOptions, Run
from megadec.rehearse.disturbances import EVALUATE_EVERY, SAVE_EVERY, RehearsalOptions

SMALL_HEAD, SMALL_LAYERS, SMALL_INTERMEDIATE = 16, 2, 64
WARMUP_STEPS, WINDOWS, MICRO_BATCH_SIZE = 5, 8, 1
# Of a shard that is cut so much is left.
KEPT_FRACTION = 0.6


@dataclass(frozen=True)
class Scene:
    """The files of a rehearsal: `run` as the launcher takes it, the DeepSpeed files, and where shards can be damaged.

    shards: the links to the tars of training, all of them.
    """

    run: Run
    run_file: Path
    deepspeed_files: tuple[Path, ...]
    shards: tuple[Path, ...]

    @property
    def undisturbed(self) -> Path:
        """The folder of the run that nothing happens to; the other's is `run.folder`."""
        return self.run.folder.with_name("undisturbed")


def make_scene(run: Run, deepspeed: Path, options: RehearsalOptions, folder: Path) -> Scene:
    """Write what the launcher needs into `folder`. Raises ConfigError for a run or options that cannot be."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        train, shards = _linked(run, folder / "shards")
        scaled = scale(run, options)
        scaled = replace(scaled, output_folder=str(folder / "runs"), data=replace(scaled.data, train=train))
        run_file = folder / "run.yaml"
        with whole_file(run_file, "w") as stream:
            stream.write(to_yaml(scaled))
        files = []
        for number, file in enumerate((deepspeed, *options.other_deepspeed)):
            files.append(folder / f"deepspeed-{number}-{file.name}")
            with whole_file(files[-1], "w") as stream:
                json.dump(_scaled_settings(file, options), stream)
    return Scene(scaled, run_file, tuple(files), tuple(shards))


def scale(run: Run, options: RehearsalOptions) -> Run:
    """The run with few steps, short sequences, a small batch that every number of ranks divides, and often a save."""
    groups = []
    for ranks in options.all_ranks:
        if ranks % run.train.sequence_parallel_size:
            raise ConfigError(
                f"rehearse: {ranks} ranks are no groups of"
                f" train.sequence_parallel_size={run.train.sequence_parallel_size}"
            )
        groups.append(ranks // run.train.sequence_parallel_size)
    steps = options.run_steps
    sequence_length = min(options.sequence_length, run.data.sequence_length)
    train = replace(
        run.train,
        steps=steps,
        stop_at_step=None,
        global_batch_size=2 * MICRO_BATCH_SIZE * math.lcm(*groups),
        micro_batch_size=MICRO_BATCH_SIZE,
    )
    windows, micro = min(run.evaluate.windows, WINDOWS), MICRO_BATCH_SIZE
    return replace(
        run,
        name="disturbed",
        model=run.model if options.own_model else _small(run, sequence_length),
        data=replace(run.data, sequence_length=sequence_length, bad_shards=0),
        train=train,
        schedule=replace(run.schedule, warmup_steps=min(run.schedule.warmup_steps, WARMUP_STEPS)),
        evaluate=replace(run.evaluate, interval_steps=EVALUATE_EVERY, windows=windows, micro_batch_size=micro),
        checkpoint=replace(run.checkpoint, interval_steps=SAVE_EVERY, keep_every=0, resume="auto"),
        metrics=MetricsOptions(tensorboard=False),
        early_stopping=EarlyStopping(),  # it would end the run before the disturbances are through
    )


def _small(run: Run, sequence_length: int) -> ModelOptions:
    """A small model of the same kind: what it computes with is kept, what it holds is not."""
    own = run.model.decoder_shape(Tokenizer.load(run.tokenizer)) if run.model.init_from is None else None
    heads = 2 * run.train.sequence_parallel_size
    shared = own is None or own.kv_heads < own.heads
    small = {
        "hidden_size": heads * SMALL_HEAD,
        "layers": SMALL_LAYERS,
        "heads": heads,
        "kv_heads": heads // 2 if shared else heads,
        "head_size": SMALL_HEAD,
        "intermediate_size": SMALL_INTERMEDIATE,
        "max_position_embeddings": sequence_length,
    }
    return replace(run.model, init_from=None, shape={**run.model.shape, **small})


def _scaled_settings(file: Path, options: RehearsalOptions) -> dict[str, object]:
    """The DeepSpeed file; a small model's parameters are partitioned too, which stage 3 leaves out by default."""
    values = read_json(file)
    if not isinstance(values, dict):
        raise ConfigError(f"{file} holds {type(values).__name__}; a mapping of DeepSpeed's keys was expected")
    zero = values.get("zero_optimization")
    if not options.own_model and isinstance(zero, dict) and zero.get("stage") == 3:
        zero["stage3_param_persistence_threshold"] = 0
    return values


def _linked(run: Run, folder: Path) -> tuple[dict[str, float], list[Path]]:
    """Folders of links in place of the run's own, by weight, and the links to tars; addresses stay as they are."""
    train, shards = {}, []
    for number, (name, weight) in enumerate(run.data.train.items()):
        place = open_folder(name, run.data.cache)
        if not isinstance(place, LocalFolder):
            train[name] = weight
            continue
        place.read_index()  # says so where there is none
        links = folder / str(number) / place.name
        links.mkdir(parents=True, exist_ok=True)
        for file in sorted(place.path.resolve().iterdir()):
            link = links / file.name
            link.unlink(missing_ok=True)
            link.symlink_to(file)
            if file.suffix == ".tar":
                shards.append(link)
        train[str(links)] = weight
    return train, shards


@contextmanager
def damaged(link: Path, *, cut: bool) -> Iterator[None]:
    """A copy that was cut, or has one flipped byte, stands in place of a link to a shard."""
    source = link.resolve()
    copy = link.with_name(f".{link.name}.damaged")
    shutil.copyfile(source, copy)
    size = copy.stat().st_size
    if cut:
        os.truncate(copy, int(size * KEPT_FRACTION))
    else:
        with open(copy, "r+b") as target:
            target.seek(size // 2)
            [byte] = target.read(1)
            target.seek(size // 2)
            target.write(bytes([byte ^ 1]))
    copy.replace(link)
    try:
        yield
    finally:
        link.unlink()
        link.symlink_to(source)

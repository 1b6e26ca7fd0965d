"""The file behind `--deepspeed`: read, checked, and joined with what the run owns.

The three batch sizes, the precision and the clipping are derived from the run, here and nowhere else. A file that
states one of those itself is accepted only when it says the same as the run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megadec.common.errors import ConfigError, suggest
from megadec.common.files import read_json
from megadec.data.resumable import share_of_rank
from megadec.engine.train_options import Precision, TrainOptions, resolve_precision

# What DeepSpeed 0.19 reads at the top level and a pretraining run may set.
KNOWN_KEYS = frozenset({
    "zero_optimization", "bf16", "fp16", "optimizer", "scheduler", "train_batch_size", "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps", "gradient_clipping", "communication_data_type", "data_types", "aio", "checkpoint",
    "zero_force_ds_cpu_optimizer", "zero_allow_untested_optimizer", "prescale_gradients", "gradient_predivide_factor",
    "gradient_allreduce_op", "disable_allgather", "steps_per_print", "wall_clock_breakdown", "memory_breakdown",
    "dump_state", "comms_logger", "flops_profiler", "tensorboard", "csv_monitor", "wandb", "compile", "zenflow",
    "hybrid_engine", "timers", "log_level", "sequence_parallel_size", "data_parallel_size", "disable_python_gc",
})  # fmt: skip
REMOVED_KEYS = frozenset({
    "elasticity", "nebula", "compression_training", "amp", "quantize_training", "sparse_gradients", "eigenvalue",
    "sparse_attention", "curriculum_learning", "progressive_layer_drop", "graph_harvesting",
})  # fmt: skip
REMOVED_ZERO_KEYS = frozenset({"mics_shard_size", "mics_hierarchical_params_gather", "zeropp_loco_param"})
# What the file may not state, and the run's keys for it.
OWNED_ELSEWHERE = {"optimizer": "optimizer.*", "scheduler": "schedule.*"}


@dataclass(frozen=True)
class DeepSpeedSettings:
    """The merged dictionary for DeepSpeed, and the facts that the engine itself needs of it."""

    file: Path
    values: dict[str, Any]
    stage: int
    precision: Precision
    sequence_parallel_size: int = 1


def read_settings(file: Path) -> dict[str, Any]:
    """The file's own dictionary.

    Raises ConfigError naming file and key for what DeepSpeed would not or no longer read.
    """
    values = read_json(file, ConfigError)
    if not isinstance(values, dict):
        raise ConfigError(f"{file} holds a {type(values).__name__}; an object with DeepSpeed's keys was expected")
    zero = values.get("zero_optimization", {})
    if not isinstance(zero, dict):
        raise ConfigError(f"{file}: zero_optimization={zero!r}; an object with a 'stage' from 0 to 3 was expected")
    removed = [key for key in values if key in REMOVED_KEYS]
    removed += [f"zero_optimization.{key}" for key in zero if key in REMOVED_ZERO_KEYS]
    if removed:
        raise ConfigError(f"{file}: {removed[0]!r} was removed in DeepSpeed 0.19; take it out of the file")
    for key in values:
        if key not in KNOWN_KEYS:
            raise ConfigError(f"{file}: unknown key {key!r}{suggest(key, KNOWN_KEYS)}")
    if type(zero.get("stage", 0)) is not int or zero.get("stage", 0) not in range(4):
        raise ConfigError(f"{file}: zero_optimization.stage={zero['stage']!r} is none of 0, 1, 2, 3")
    return values


def merge_settings(file: Path, train: TrainOptions, max_grad_norm: float, world_size: int) -> DeepSpeedSettings:
    """Read `file` and write into it what the run decides.

    Raises ConfigError when the two say different things, and when the batch or the ranks do not divide.
    """
    parts = train.sequence_parallel_size
    own, micro = share_of_rank(train.global_batch_size, world_size, train.micro_batch_size, parts)
    values = read_settings(file)
    for key, owner in OWNED_ELSEWHERE.items():
        if key in values:
            raise ConfigError(f"{file}: {key!r} belongs to the run ({owner} of --config); take it out of the file")
    derived = {
        # DeepSpeed shards and averages over all ranks alike, and counts a rank's part of a sequence as one.
        "train_batch_size": (train.global_batch_size * parts, "train.global_batch_size x train.sequence_parallel_size"),
        "train_micro_batch_size_per_gpu": (micro, "train.micro_batch_size"),
        "gradient_accumulation_steps": (own // micro, "sequences of a rank / train.micro_batch_size"),
        "gradient_clipping": (max_grad_norm, "optimizer.max_grad_norm"),
        # train_step divides by the global number of tokens and cancels DeepSpeed's mean over ranks.
        "gradient_allreduce_op": ("mean", "the division by the global number of tokens"),
        "sequence_parallel_size": (parts, "train.sequence_parallel_size"),
        "data_parallel_size": (world_size // parts, "ranks / train.sequence_parallel_size"),
    }
    for key, (wanted, origin) in derived.items():
        if values.get(key, "auto") not in ("auto", wanted):
            raise ConfigError(f"{file}: {key}={values[key]!r}, but the run says {wanted} ({origin}); take it out")
        values[key] = wanted
    # DeepSpeed would make groups of its own from these; those of the run are made in engine.py.
    del values["sequence_parallel_size"], values["data_parallel_size"]
    precision = resolve_precision(train.precision)
    _merge_precision(file, values, precision)
    values.setdefault("steps_per_print", 1_000_000_000)
    stage = int(values.setdefault("zero_optimization", {}).get("stage", 0))
    if stage == 3 and world_size == 1:
        # Nothing is scattered, and the way without it copies the gradients twice less.
        values["zero_optimization"].setdefault("reduce_scatter", False)
    if stage == 0 and precision == "bf16":
        raise ConfigError(
            f"{file}: ZeRO stage 0 in bf16 (train.precision): DeepSpeed 0.19 then accumulates gradients in bf16 and"
            " takes an optimizer step when it is initialized, so the losses are not those of stages 1 to 3;"
            " choose zero1.json, or fp32"
        )
    return DeepSpeedSettings(file, values, stage, precision, parts)


def _merge_precision(file: Path, values: dict[str, Any], precision: Precision) -> None:
    """Turn bf16 on or off as the run says; gradients accumulate in fp32 unless the file asks for something else."""
    fp16, bf16 = values.pop("fp16", {}), values.get("bf16", {})
    if isinstance(fp16, Mapping) and fp16.get("enabled") is True:
        raise ConfigError(f"{file}: fp16 is not supported; train.precision is auto, bf16 or fp32")
    if not isinstance(bf16, Mapping):
        raise ConfigError(f"{file}: bf16={bf16!r}; an object with 'enabled' was expected")
    stated = bf16.get("enabled", "auto")
    if stated not in ("auto", precision == "bf16"):
        raise ConfigError(f"{file}: bf16.enabled={stated!r}, but the run trains in {precision} (train.precision)")
    values["bf16"] = {**bf16, "enabled": precision == "bf16"}
    accumulated = values.get("data_types", {}).get("grad_accum_dtype", "fp32")
    if precision == "fp32" and accumulated not in ("fp32", "float32"):
        raise ConfigError(f"{file}: data_types.grad_accum_dtype={accumulated!r}, but the run says train.precision=fp32")

"""Ours and its peers as trainers of one and the same decoder: a name and a workload in, a function that steps out.

Every trainer begins from the weights of `initial_tensor`, reads the same tokens (one document a row), clips at 1 and
steps with torch's fused AdamW at the same rate, so that losses agree. The peers are transformers' Qwen3: under the same
DeepSpeed file, or in a plain loop of one process with float32 weights (under autocast in bf16). Rows are one document
each, where the peers need no mask; packed documents are measured in attention.py.

    python -m bench.trainers --name ours --steps 3     # one trainer alone, a line of JSON
"""

import importlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.measure import device, seconds_of, top_operations
from megadec.common.config import parse
from megadec.common.errors import ConfigError, run_main
from megadec.data.batch import TokenBatch
from megadec.decoder.execution import PLAIN, Execution
from megadec.decoder.flops import model_flops, parameter_table
from megadec.decoder.initialize import initial_tensor
from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape
from megadec.engine.metrics.device import peak_memory_bytes
from megadec.engine.optimizer import OptimizerOptions, build_optimizer
from megadec.engine.task import Task
from megadec.engine.train_options import Precision, PrecisionChoice, TrainOptions, resolve_precision
from megadec.engine.zero.settings import merge_settings

DEEPSPEED = ("ours", "ours_compiled", "transformers", "transformers_compiled", "transformers_liger")
PLAIN_LOOPS = ("plain", "plain_compiled")
NAMES = (*DEEPSPEED, *PLAIN_LOOPS)
# Ours in a precision of its own, whatever that of the workload is: what one costs against the other.
IN_PRECISION: dict[str, Precision] = {"ours_bf16": "bf16", "ours_fp32": "fp32"}
OPTIMIZER = OptimizerOptions(learning_rate=1e-3, max_grad_norm=1.0)
BATCHES = 4
SEED = 0

Step = Callable[[TokenBatch], float]


@dataclass(frozen=True)
class Workload:
    """A Qwen3 shape, the batch of a step, and the DeepSpeed file that all who use DeepSpeed share.

    preset: in place of the shape's numbers. execution: how ours computes, beside what its name says. precision: of all
    trainers; auto is bf16 where the hardware multiplies it.
    """

    preset: str | None = None
    hidden_size: int = 512
    layers: int = 8
    heads: int = 8
    kv_heads: int = 4
    head_size: int = 64
    intermediate_size: int = 1408
    vocabulary_size: int = 8192
    sequence_length: int = 512
    rows: int = 8
    deepspeed: Path = Path("ds_configs/zero3.json")
    execution: Execution = PLAIN
    precision: PrecisionChoice = "auto"
    seed: int = 0

    @property
    def shape(self) -> DecoderShape:
        """The decoder's numbers."""
        names = ("hidden_size", "layers", "heads", "kv_heads", "head_size", "intermediate_size")
        if self.preset is not None:
            return DecoderShape.from_preset(self.preset, max_position_embeddings=self.sequence_length)
        numbers = {name: getattr(self, name) for name in (*names, "vocabulary_size")}
        return DecoderShape(max_position_embeddings=self.sequence_length, **numbers)

    @property
    def step_tokens(self) -> int:
        """Tokens that go through the decoder in a step."""
        return self.rows * self.sequence_length

    def batch(self, number: int) -> TokenBatch:
        """Random tokens; the last of a row predicts nothing, as transformers shifts labels inside a row."""
        generator = torch.Generator().manual_seed(self.seed * 1000 + number % BATCHES)
        ids_BS = torch.randint(0, self.shape.vocabulary_size, (self.rows, self.sequence_length), generator=generator)
        weights_BS = torch.ones(ids_BS.shape)
        weights_BS[:, -1] = 0
        positions_BS = torch.arange(self.sequence_length).expand_as(ids_BS).contiguous()
        documents_BS = torch.zeros(ids_BS.shape, dtype=torch.int32)
        return TokenBatch(ids_BS, ids_BS.roll(-1, 1), weights_BS, positions_BS, documents_BS).to(device())


@dataclass(frozen=True)
class TrainerOptions(Workload):
    """name: which trainer. steps: how many to time. profiled: give the operations of one more step. timeline: a
    .json.gz file for the profile of that step.
    """

    name: str = "ours"
    steps: int = 3
    profiled: bool = False
    timeline: Path | None = None


def make(name: str, workload: Workload) -> Step:
    """The trainer of this name. Raises ConfigError where it cannot run here, saying why."""
    if name not in (*NAMES, *IN_PRECISION):
        raise ConfigError(f"name={name!r} is none of {', '.join((*NAMES, *IN_PRECISION))}")
    if name in IN_PRECISION:
        return _ours(replace(workload, precision=IN_PRECISION[name]), compiled=False)
    if name.startswith("ours"):
        return _ours(workload, compiled=name == "ours_compiled")
    if name in PLAIN_LOOPS:
        return _plain(workload, compiled=name == "plain_compiled")
    return _transformers(workload, name.removeprefix("transformers").removeprefix("_"))


def _ours(workload: Workload, compiled: bool) -> Step:
    from megadec.engine.step import train_step

    execution = replace(workload.execution, compile="blocks") if compiled else workload.execution
    shape = workload.shape
    engine = _engine(workload, lambda: Decoder(shape, execution))
    done = 0

    def step(batch: TokenBatch) -> float:
        nonlocal done
        done += 1
        report = train_step(engine, [batch], step=done, learning_rate=OPTIMIZER.learning_rate)
        assert report is not None, "nobody asks it to stop"
        return report.loss

    return step


def task_of(
    workload: Workload,
    first_value: Callable[[str], Tensor],
    build: Callable[[], nn.Module] | None = None,
    prefix: str = "",
) -> Task:
    """The workload's decoder, or `build()`, whose parameters are ours behind a prefix, as an engine takes it; its
    batches come from the benchmark, so it has no stream."""
    shape = workload.shape
    return Task(
        kind="language_model",
        shape=shape,
        build=build or (lambda: Decoder(shape, workload.execution)),
        sizes={prefix + name: size for name, size in parameter_table(shape).items()},
        first_value=lambda name: first_value(name.removeprefix(prefix)),
        flops=lambda tokens, squared_tokens: model_flops(shape, tokens, squared_tokens),
        stream=None,  # type: ignore[arg-type]
    )


def initial_values(shape: DecoderShape) -> Callable[[str], Tensor]:
    """Name -> first value."""
    sizes = parameter_table(shape)
    return lambda name: initial_tensor(shape, name, sizes[name], SEED)


def engine_of(task: Task, workload: Workload, ranks: Any, deepspeed: Path | None = None, micro_steps: int = 1) -> Any:
    """A ZeroEngine that trains the task under a DeepSpeed file, the workload's when none is given.

    Raises ConfigError for settings that cannot be.
    """
    from megadec.engine.zero.engine import build_engine, check_zero_section

    rows, size = workload.rows, ranks.world_size
    sizes = TrainOptions(
        global_batch_size=rows * micro_steps * size, micro_batch_size=rows, precision=workload.precision
    )
    settings = merge_settings(deepspeed or workload.deepspeed, sizes, OPTIMIZER.max_grad_norm, size)
    check_zero_section(settings)
    return build_engine(task, OPTIMIZER, settings, ranks)


def _engine(workload: Workload, build: Callable[[], nn.Module], prefix: str = "") -> Any:
    from megadec.engine.zero.engine import start_process_group

    task = task_of(workload, initial_values(workload.shape), build, prefix)
    return engine_of(task, workload, start_process_group())


def _transformers(workload: Workload, variant: str) -> Step:
    """transformers under DeepSpeed as its Trainer runs it: engine(ids, labels), backward, step."""
    if variant == "liger":
        _apply_liger()
    # It is imported while the model is built, and cannot be inside zero.Init, which changes what torch.Tensor is.
    importlib.import_module("torch._dynamo")
    os.environ["MALLOC_TRIM_THRESHOLD_"] = ""  # keeps our setting of the C library from a peer
    engine = _engine(workload, lambda: qwen3(workload.shape), prefix="model.")._engine
    if variant == "compiled":
        engine.compile()
    for group in engine.optimizer.param_groups:
        group["lr"] = OPTIMIZER.learning_rate

    def step(batch: TokenBatch) -> float:
        loss = engine(input_ids=batch.ids_BS, labels=batch.ids_BS, use_cache=False).loss
        engine.backward(loss)
        engine.step()
        return float(loss.detach())

    return step


def _apply_liger() -> None:
    if not torch.cuda.is_available():
        raise ConfigError("Liger's kernels need a GPU")
    try:
        liger = importlib.import_module("liger_kernel.transformers")
    except ImportError as error:
        raise ConfigError("liger-kernel is not installed") from error
    liger.apply_liger_kernel_to_qwen3()


def _plain(workload: Workload, compiled: bool) -> Step:
    """One process without DeepSpeed: float32 weights, autocast in bf16, fused AdamW."""
    where = device()
    first_value = initial_values(workload.shape)
    model = qwen3(workload.shape).to(where)
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            parameter.copy_(first_value(name.removeprefix("model.")))
    named = ((name.removeprefix("model."), parameter) for name, parameter in model.named_parameters())
    optimizer = build_optimizer(named, OPTIMIZER)
    for group in optimizer.param_groups:
        group["lr"] = OPTIMIZER.learning_rate
    parameters = list(model.parameters())
    forward = torch.compile(model) if compiled else model
    bf16 = resolve_precision(workload.precision) == "bf16"

    def step(batch: TokenBatch) -> float:
        with torch.autocast(where.type, torch.bfloat16, enabled=bf16):
            loss: Tensor = forward(input_ids=batch.ids_BS, labels=batch.ids_BS, use_cache=False).loss
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, OPTIMIZER.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def qwen3(shape: DecoderShape) -> nn.Module:
    """transformers' decoder of this shape, attention by scaled_dot_product_attention."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=shape.vocabulary_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_size,
        max_position_embeddings=shape.max_position_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        rms_norm_eps=shape.norm_eps,
        tie_word_embeddings=shape.tied_embeddings,
        attn_implementation="sdpa",
    )
    model: nn.Module = Qwen3ForCausalLM(config)
    return model.train()


def main(argv: Sequence[str]) -> None:
    """Build one trainer and step; with --steps 0, do what standard input says, a number of steps a line."""
    options = parse(TrainerOptions, argv, description="One trainer of the step benchmark.")
    warnings.simplefilter("ignore")
    step = make(options.name, options)
    losses: list[float] = []

    def one() -> None:
        losses.append(step(options.batch(len(losses))))

    for count in map(int, sys.stdin) if options.steps == 0 else [options.steps]:
        seconds = [seconds_of(one) for _ in range(count)]
        answer = {"seconds": seconds, "losses": losses[-count:], "peak_bytes": peak_memory_bytes(device())}
        print(json.dumps(answer), flush=True)
    if options.profiled:
        print(json.dumps(top_operations(one, timeline=options.timeline)))


if __name__ == "__main__":
    run_main(main)

"""The one door to DeepSpeed: makes an engine of a task and settings, narrowed to what training needs.

Whoever needs more of DeepSpeed adds it here, not beside it.
"""

import atexit
import contextlib
import importlib
import logging
import os
import time
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

# DeepSpeed reads its log level once, at import; its INFO lines would bury ours.
os.environ.setdefault("DS_LOG_LEVEL", "warning")

import torch

if not torch.cuda.is_available():
    # Else it looks for accelerators and warns on standard output, where a tool's JSON goes, that it found none.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed
from deepspeed.accelerator import get_accelerator
from deepspeed.ops.op_builder import AsyncIOBuilder
from deepspeed.runtime.utils import combine_grad_norm_groups, get_global_norm_of_tensors
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from deepspeed.utils import logger as deepspeed_logger
from deepspeed.utils import set_z3_leaf_module
from pydantic import ValidationError
from torch import Tensor, nn

from megadec.common.errors import ConfigError
from megadec.common.processes import free_port
from megadec.common.ranks import adopt_launcher, local_rank, local_world_size, rank, world_size
from megadec.data.batch import Batch
from megadec.decoder.cache import KeyValueCache
from megadec.decoder.compiled import is_compiled
from megadec.decoder.model import Decoder
from megadec.decoder.sequence_parallel import SequenceRanks
from megadec.engine.optimizer import OptimizerOptions, build_optimizer, set_options
from megadec.engine.ranks import Ranks, lost_ranks
from megadec.engine.task import Task
from megadec.engine.zero.cpu import keep_freed_memory, share_cores
from megadec.engine.zero.gradients import GradientWatch, OwnGradients, gate_of, keep_in_place
from megadec.engine.zero.settings import DeepSpeedSettings
from megadec.engine.zero.state import ZeroState

PEERS_TIMEOUT = timedelta(minutes=30)
# Gloo's threads wake the waiting rank before they let go of the tensors of its message, which takes Python's
# lock. If the interpreter ends meanwhile, the process aborts in a destructor: at exit they get so long.
EXIT_DELAY_SECONDS = 0.2


def check_zero_section(settings: DeepSpeedSettings) -> None:
    """Let DeepSpeed check its own section. Raises ConfigError naming file and key, before any process group exists."""
    try:
        DeepSpeedZeroConfig(**settings.values["zero_optimization"])
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{settings.file}: zero_optimization.{key}: {first['msg']}") from error


def check_nvme(settings: DeepSpeedSettings) -> None:
    """Raise ConfigError where the file wants a disk that this machine does not have, or cannot use."""
    for name in ("offload_param", "offload_optimizer"):
        section = settings.values["zero_optimization"].get(name) or {}
        if section.get("device") != "nvme":
            continue
        key, folder = f"{settings.file}: zero_optimization.{name}", section.get("nvme_path")
        if not isinstance(folder, str) or not Path(folder).is_dir():
            raise ConfigError(f"{key}.nvme_path={folder!r} is no folder: make one on a fast disk, and name it there")
        if not AsyncIOBuilder().is_compatible(verbose=False):
            raise ConfigError(
                f"{key}.device=nvme needs DeepSpeed's async_io, which is built with g++ and libaio when it is first"
                " used: install libaio's headers (Debian: libaio-dev), or take zero3_offload.json"
            )


def start_process_group() -> Ranks:
    """Join the other ranks over gloo (CPU) or nccl (CUDA). Without a launcher the process is a group of one.

    A process group that exists already, as in a worker of Ray Train, is taken as it is. Raises ConfigError for a
    launcher's variables that are half set, and for a port that is in use.
    """
    if not torch.distributed.is_initialized():
        adopt_launcher()
    deepspeed_logger.setLevel(logging.WARNING)
    # DeepSpeed 0.19 calls collectives by names that torch 2.13 is about to rename.
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\..*is deprecated", category=FutureWarning)
    # Built with g++ for 30 to 50 seconds on first use, and leaves 69 MB in /dev/shm for each rank for ever.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    os.environ.update({**alone, "MASTER_PORT": str(free_port()), **os.environ})
    device = torch.device("cpu")
    if torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu":  # a rehearsal leaves GPUs alone
        device = torch.device("cuda", local_rank())
        torch.cuda.set_device(device)
    else:
        keep_freed_memory()
        share_cores(local_world_size())
        # Where a launcher has not said it, DeepSpeed asks numactl in a process of its own with every reduction.
        os.environ.setdefault("LOCAL_SIZE", str(local_world_size()))
        atexit.register(time.sleep, EXIT_DELAY_SECONDS)
    backend = get_accelerator().communication_backend_name()
    try:
        deepspeed.init_distributed(dist_backend=backend, timeout=PEERS_TIMEOUT, verbose=False)
    except torch.distributed.DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        raise ConfigError(f"port {os.environ['MASTER_PORT']} is in use: --master_port names another") from error
    return Ranks(rank(), world_size(), device)


def end_process_group(ranks: Ranks) -> None:
    """Leave the process group after the last rank has come here. Not after an error: the others may wait elsewhere."""
    ranks.barrier()
    torch.distributed.destroy_process_group()


def build_engine(
    task: Task, optimizer_options: OptimizerOptions, settings: DeepSpeedSettings, ranks: Ranks
) -> "ZeroEngine":
    """The task's model with its first weights, partitioned as the settings say, with its optimizer.

    The weights are the same for every ZeRO stage and number of ranks. A parameter that does not require a gradient is
    frozen. Raises ConfigError, and whatever reading the first weights raises.
    """
    zero3 = settings.stage == 3
    with deepspeed.zero.Init(config_dict_or_path=settings.values) if zero3 else ranks.device:
        model = task.build()
    if settings.sequence_parallel_size > 1:
        assert isinstance(model, Decoder), "open_settings lets only pretraining share sequences"
        size = settings.sequence_parallel_size
        neighbors, _ = torch.distributed.new_subgroups(group_size=size, timeout=PEERS_TIMEOUT)
        model.enable_sequence_parallel(SequenceRanks(size, neighbors.group_name))
    _fill(model, task, zero3)
    for module in filter(is_compiled, model.modules()):
        set_z3_leaf_module(module, True)  # gathered as a whole: hooks inside would cut its graph
    if zero3 and isinstance(model, Decoder):
        _require_embedding_gradient(model)
    watch = GradientWatch(model.named_parameters())
    optimizer = build_optimizer(model.named_parameters(), optimizer_options)
    _import_muon_uncompiled()
    try:
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings.values)
    except (AssertionError, ValueError, deepspeed.DeepSpeedConfigError) as error:
        raise ConfigError(f"{settings.file}: DeepSpeed refuses these settings: {error}") from error
    if zero3:
        keep_in_place(engine.optimizer)
    return ZeroEngine(engine, settings, ranks, watch)


def _import_muon_uncompiled() -> None:
    """Import DeepSpeed's Muon, which it looks at with every optimizer, without compiling its kernels.

    Compiling imports torch's inductor, which takes seconds on every rank, for a function that no run calls.
    """
    given = "TORCHDYNAMO_DISABLE" in os.environ
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    with contextlib.suppress(ImportError):  # DeepSpeed does without it, too
        importlib.import_module("deepspeed.runtime.zero.muon.muon_optimizer")
    if not given:
        del os.environ["TORCHDYNAMO_DISABLE"]


def _require_embedding_gradient(model: Decoder) -> None:
    """Have the first block give a gradient to a frozen embedding too, when something in the blocks is trained.

    It tells ZeRO-3 that the backward pass of a block which it gathers as a whole is over; without it, DeepSpeed 0.19
    takes the gradients of the block's weights before they are there.
    """
    if model.embed_tokens.weight.requires_grad or not any(one.requires_grad for one in model.layers.parameters()):
        return

    def want_gradient(_: nn.Module, inputs: object, embedded_BSH: Tensor) -> None:
        if torch.is_grad_enabled():
            embedded_BSH.requires_grad_()

    model.embed_tokens.register_forward_hook(want_gradient)


def _fill(model: nn.Module, task: Task, zero3: bool) -> None:
    """Give every parameter its first value; a partitioned one is gathered for that, and what rank 0 wrote counts."""
    for name, parameter in model.named_parameters():
        first = task.first_value(name)
        # copy_ would broadcast a tensor of another size without a word.
        assert tuple(first.shape) == task.sizes[name], (name, first.shape, task.sizes[name])
        whole = deepspeed.zero.GatheredParameters(parameter, modifier_rank=0) if zero3 else contextlib.nullcontext()
        with whole, torch.no_grad():
            parameter.copy_(first)


class ZeroEngine:
    """DeepSpeed's engine, narrowed to the verbs of training.

    Every rank calls the verbs of a step in one order, as there are messages in them: `loss_sum`, `logits`, `backward`,
    `end_micro_step`, `gradient_norm`, `update`, `skip_update`. The rest looks at or tells this rank alone.

    module: the model; under ZeRO-3 its parameters are partitioned. trained_names: of the parameters, by their number in
    `OwnGradients`.
    """

    def __init__(self, engine: Any, settings: DeepSpeedSettings, ranks: Ranks, watch: GradientWatch) -> None:
        self._engine = engine
        self._watch = watch
        self.trained_names = watch.names
        self._gate = gate_of(engine, settings.stage, get_global_norm_of_tensors, combine_grad_norm_groups)
        self.settings = settings
        self.ranks = ranks
        self.module: nn.Module = engine.module

    def loss_sum(self, batch: Batch) -> Tensor:
        """The sum over the batch's predictions of weight * nats, float32 scalar."""
        loss: Tensor = self._engine(batch.ids_BS, **batch.model_arguments())
        return loss

    def logits(self, batch: Batch) -> Tensor:
        """What the model says of the batch when it is given no targets."""
        logits: Tensor = self._engine(batch.ids_BS, **batch.context_arguments())
        return logits

    @property
    def decoder(self) -> Decoder:
        """The model, where it is a decoder."""
        assert isinstance(self.module, Decoder), type(self.module)
        return self.module

    def next_logits(self, ids_BS: Tensor, cache: KeyValueCache) -> Tensor:
        """A decoder's logits [B, 1, V] behind the last of `ids_BS`, which follow what the cache holds and join it."""
        logits: Tensor = self._engine(ids_BS, cache=cache, last_only=True)
        return logits

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradients, as they are, to those of the step; DeepSpeed takes the mean over ranks."""
        self._engine.backward(loss, scale_wrt_gas=False)

    def end_micro_step(self) -> None:
        """Tell DeepSpeed that a micro-step which is not the last one of its step is over."""
        self._engine.step()

    def begin_step(self, micro_steps: int) -> None:
        """Tell DeepSpeed after how many micro-steps to update, where that is not what it was in the step before."""
        engine = self._engine
        if micro_steps == engine.gradient_accumulation_steps():
            return
        per_micro_step = engine.train_batch_size() // engine.gradient_accumulation_steps()
        # DeepSpeed's own set_train_batch_size leaves the counter, whose remainder says where a step ends.
        engine.micro_steps = 0
        engine.set_train_batch_size(per_micro_step * micro_steps)
        if hasattr(engine.optimizer, "gradient_accumulation_steps"):
            engine.optimizer.gradient_accumulation_steps = micro_steps

    def change_course(self, options: OptimizerOptions) -> None:
        """Have the next updates made by these options; weights and moments stay."""
        set_options(self._engine.optimizer.param_groups, options)
        self._engine._config.gradient_clipping = options.max_grad_norm
        if hasattr(self._engine.optimizer, "clip_grad"):  # not torch's own, at stage 0
            self._engine.optimizer.clip_grad = options.max_grad_norm

    def dry_run(self, batch: Batch) -> None:
        """Take one micro-batch forward and backward, and drop its gradients: no weight, moment or counter changes."""
        engine = self._engine
        before = engine.micro_steps, engine.global_steps, engine.global_samples, engine.skipped_steps
        engine.micro_steps = engine.gradient_accumulation_steps() - 1  # the last one: what is dropped is all there is
        self.backward(self.loss_sum(batch) / max(batch.valid_tokens, 1))
        self._watch.read()
        self._gate.skip()
        level = deepspeed_logger.level
        deepspeed_logger.setLevel(logging.ERROR)  # it would warn of an overflow, which there is none of
        try:
            engine.step()
        finally:
            deepspeed_logger.setLevel(level)
        engine.micro_steps, engine.global_steps, engine.global_samples, engine.skipped_steps = before

    def own_gradients(self) -> OwnGradients:
        """This rank's gradients of the step before they were reduced; waits for the backward pass."""
        return self._watch.read()

    def gradient_norm(self) -> float:
        """The gradients' global norm after the last backward pass, before clipping; nan when it is not finite."""
        with lost_ranks("taking the norm of the gradients"):
            norm = float(self._gate.norm())
        # DeepSpeed's helpers say -1 where a norm is infinite or not a number.
        return norm if 0.0 <= norm < float("inf") else float("nan")

    def update(self, learning_rate: float) -> None:
        """End the last micro-step: clip, and update the weights at this rate. Call `gradient_norm` first."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.step()

    def skip_update(self) -> None:
        """End the last micro-step without an update: weights and optimizer state stay as they are, bit for bit."""
        self._gate.skip()
        self._engine.step()

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """No gradients, evaluation mode; training mode again at the end."""
        self._engine.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self._engine.train()

    def zero_state(self) -> ZeroState:
        """This rank's weights and optimizer state, where DeepSpeed keeps them."""
        return ZeroState(self._engine, self.settings.stage, self.ranks.rank, self.ranks.world_size)

    def set_step(self, step: int) -> None:
        """Tell DeepSpeed's own counters and monitors at which step a run goes on."""
        self._engine.global_steps = step

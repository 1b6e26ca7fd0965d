"""One training step in several forms: a plain loop of ours, and the engine under DeepSpeed files with changed settings.

In: a shape, random tokens and a case by name (`plain`, `zero3`, `zero3 {overlap_comm: true}`). Out: a function that
takes one step and gives its loss. The plain loop does ZeRO's arithmetic without ZeRO: bf16 weights, fp32 copies of them
with AdamW's state, gradients summed over ranks in one message, clipping. It keeps everything on every rank and waits
for its one message, so at several ranks it is the simplest loop that is right, not the fastest.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

from bench.trainers import OPTIMIZER, SEED, Workload, engine_of, initial_values, task_of
from megadec.common.errors import ConfigError
from megadec.common.files import write_json
from megadec.data.batch import TokenBatch
from megadec.decoder.flops import model_flops
from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape
from megadec.engine.optimizer import build_optimizer
from megadec.engine.ranks import Ranks
from megadec.engine.step import train_step
from megadec.engine.train_options import resolve_precision
from megadec.engine.zero.settings import KNOWN_KEYS, read_settings

__all__ = ["SEED", "ZeroWorkload", "build_step", "first_values", "settings_file", "task_of"]

PLAIN = "plain"
# DeepSpeed puts another one in its place for the whole process as soon as a model is made for ZeRO-3.
LINEAR = functional.linear

Step = Callable[[], float]


@dataclass(frozen=True)
class ZeroWorkload(Workload):
    """What every case trains: each rank has `rows` rows of the shape `micro_steps` times in a step.

    deepspeed: the files of the cases lie beside this one.
    """

    micro_steps: int = 1

    def batches(self, ranks: Ranks) -> list[TokenBatch]:
        """This rank's micro-batches, the same ones in each step."""
        return [replace(self, seed=ranks.rank).batch(number) for number in range(self.micro_steps)]

    def tokens(self, ranks: int) -> int:
        """Tokens that go through the decoder in a step, over all ranks."""
        return self.step_tokens * self.micro_steps * ranks

    def flops(self, ranks: int) -> int:
        """Operations of a step over all ranks, as `decoder.flops` counts them."""
        return model_flops(self.shape, self.tokens(ranks), self.tokens(ranks) * self.sequence_length)


def first_values(shape: DecoderShape) -> Callable[[str], Tensor]:
    """Name -> first value, each drawn once: billions of normal numbers a case would take longer than its steps."""
    return functools.cache(initial_values(shape))


def settings_file(case: str, deepspeed_folder: Path, folder: Path) -> Path:
    """Write the DeepSpeed file of a case: the shipped file of that name with the changes, each of which goes to the top
    of the file where DeepSpeed knows it there, else to zero_optimization.

    Raises ConfigError for a file that is not there and for changes that are no mapping.
    """
    name, _, text = case.partition(" ")
    values = read_settings(deepspeed_folder / f"{name}.json")
    try:
        changes = yaml.safe_load(text) if text.strip() else {}
    except yaml.YAMLError as error:
        raise ConfigError(f"case {case!r}: {text!r} is not a mapping of settings") from error
    if not isinstance(changes, dict):
        raise ConfigError(f"case {case!r}: {text!r} is not a mapping of settings, as in 'zero3 {{overlap_comm: true}}'")
    for key, value in changes.items():
        (values if key in KNOWN_KEYS else values["zero_optimization"])[key] = value
    file = folder / f"{len(list(folder.iterdir()))}-{name}.json"
    write_json(file, values)
    return file


def build_step(
    case: str, workload: ZeroWorkload, ranks: Ranks, first_value: Callable[[str], Tensor], folder: Path
) -> Step:
    """A function that trains one step of the case on the workload's batch and returns the loss in nats a token.

    folder: for changed DeepSpeed files. Raises ConfigError for settings that cannot be.
    """
    functional.linear = LINEAR
    if case == PLAIN:
        step = _plain_step(workload, ranks, first_value)
    else:
        step = _engine_step(case, workload, ranks, first_value, folder)
    linear = functional.linear

    def take() -> float:
        functional.linear = linear
        return step()

    return take


def _plain_step(workload: ZeroWorkload, ranks: Ranks, first_value: Callable[[str], Tensor]) -> Step:
    loop, batches = PlainLoop(workload, ranks, first_value), workload.batches(ranks)
    return lambda: loop.step(batches)


def _engine_step(
    case: str, workload: ZeroWorkload, ranks: Ranks, first_value: Callable[[str], Tensor], folder: Path
) -> Step:
    batches = workload.batches(ranks)
    file = settings_file(case, workload.deepspeed.parent, folder)
    engine = engine_of(task_of(workload, first_value), workload, ranks, file, workload.micro_steps)

    def step() -> float:
        report = train_step(engine, batches, step=1, learning_rate=OPTIMIZER.learning_rate)
        assert report is not None, "nobody asked to stop"
        return report.loss

    return step


class PlainLoop:
    """A training loop without a wrapper, doing the same arithmetic as ZeRO in the same precision."""

    def __init__(self, workload: ZeroWorkload, ranks: Ranks, first_value: Callable[[str], Tensor]) -> None:
        self.ranks = ranks
        with ranks.device:
            self.model = Decoder(workload.shape, workload.execution)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(first_value(name))
        if resolve_precision(workload.precision) == "bf16":
            self.model = self.model.bfloat16()
        # As under ZeRO, the fp32 copies begin at the rounded weights.
        masters = [
            (name, nn.Parameter(weight.detach().to(torch.float32, copy=True)))
            for name, weight in self.model.named_parameters()
        ]
        self.weights: list[Tensor] = list(self.model.parameters())
        self.masters: list[Tensor] = [master for _, master in masters]
        self.optimizer = build_optimizer(masters, OPTIMIZER)
        for group in self.optimizer.param_groups:
            group["lr"] = OPTIMIZER.learning_rate

    def step(self, batches: Sequence[TokenBatch]) -> float:
        """Train on this rank's micro-batches and those of the others; the loss in nats a token over all of them."""
        tokens = float(sum(batch.valid_tokens for batch in batches) * self.ranks.world_size)
        loss_sum = 0.0
        for batch in batches:
            loss = self.model(batch.ids_BS, **batch.model_arguments())
            (loss / tokens).backward()
            self._collect()
            loss_sum += float(loss.detach())
        self._sum_over_ranks()
        nn.utils.clip_grad_norm_(self.masters, OPTIMIZER.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_copy_(self.weights, self.masters)
        [loss_sum] = self.ranks.sum_over_ranks([loss_sum])
        return loss_sum / tokens

    def _collect(self) -> None:
        """Add the weights' gradients to those of the fp32 copies."""
        for weight, master in zip(self.weights, self.masters, strict=True):
            assert weight.grad is not None, "every weight takes part in every step"
            gradient = weight.grad.float()
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)
            weight.grad = None

    def _sum_over_ranks(self) -> None:
        """Add up the gradients over ranks, in one message of fp32 numbers."""
        if self.ranks.world_size == 1:
            return
        gradients = [master.grad for master in self.masters if master.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        torch.distributed.all_reduce(flat)
        for master, part in zip(self.masters, flat.split([one.numel() for one in gradients]), strict=True):
            master.grad = part.view_as(master)

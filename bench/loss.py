"""The language model's loss from hidden states on: ours beside the plain one and others, in memory and time.

    python -m bench.loss [--vocabulary_size 65536] [--tokens 8192] [--hidden_size 512] [--rounds 3]

In: a vocabulary, a number of tokens, a hidden size. Out: one JSON object: for each case the median seconds of forward
and backward, how many times faster than the plain one it is (the median over rounds), the memory that it takes above
its inputs at its peak, gradients included, as bytes and as a share of the plain one's, and the loss. The plain one is
`cross_entropy(linear(h, weight).float(), targets)`, as transformers has it. Memory is measured in a process of its own
for each case, which imports torch again each time.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import cross_entropy, linear

from bench.measure import DTYPES, alternate, device, environment, fresh_process, summary
from megadec.common.config import parse
from megadec.common.errors import ConfigError, run_main
from megadec.decoder.heads import LanguageModelHead
from megadec.decoder.layers import Embedding
from megadec.decoder.loss_options import PLAIN_LOSS, LanguageLoss
from megadec.engine.train_options import PrecisionChoice, resolve_precision

PLAIN = "plain"
CASES = (PLAIN, "ours", "ours_smoothed", "torch", "liger")
# torch's own is ten times slower than the plain one on a CPU, minutes for these sizes.
CPU_CASES = (PLAIN, "ours", "ours_smoothed")
TORCH_FUSED = ((functional, "linear_cross_entropy"), (nn, "LinearCrossEntropyOptions"))
CLEAR_PEAK, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
SMOOTHED = LanguageLoss(label_smoothing=0.1, z_loss=1e-4)


@dataclass(frozen=True)
class LossOptions:
    """hidden_size: 512 on a CPU and 2048 on a GPU when not given. cases: of plain, ours, ours_smoothed (label smoothing
    and z-loss), torch (its linear_cross_entropy, from 2.13) and liger; the first three on a CPU, all on a GPU when none
    is named; what cannot run here is noted. alone: the memory of this case, once, in this process.
    """

    vocabulary_size: int = 65536
    tokens: int = 8192
    hidden_size: int | None = None
    precision: PrecisionChoice = "auto"
    rounds: int = 3
    cases: tuple[str, ...] = ()
    alone: str | None = None

    def __post_init__(self) -> None:
        for name in (*self.cases, *([self.alone] if self.alone else [])):
            if name not in CASES:
                raise ConfigError(f"cases: {name!r} is none of {', '.join(CASES)}")

    @property
    def chosen(self) -> tuple[str, ...]:
        """The cases to measure."""
        return self.cases or (CASES if torch.cuda.is_available() else CPU_CASES)

    @property
    def width(self) -> int:
        """The hidden size."""
        return self.hidden_size or (2048 if torch.cuda.is_available() else 512)


@dataclass(frozen=True)
class Inputs:
    """h_NH and weight_VH require gradients; targets_N are in [0, V)."""

    h_NH: Tensor
    weight_VH: nn.Parameter
    targets_N: Tensor

    @staticmethod
    def of(options: LossOptions) -> "Inputs":
        """Random numbers of about a trained model's size, drawn without a larger copy."""
        dtype = DTYPES[resolve_precision(options.precision)]
        where = device()
        torch.manual_seed(0)
        h_NH = torch.empty(options.tokens, options.width, dtype=dtype, device=where).normal_()
        weight_VH = torch.empty(options.vocabulary_size, options.width, dtype=dtype, device=where).normal_(std=0.05)
        targets_N = torch.randint(0, options.vocabulary_size, (options.tokens,), device=where)
        return Inputs(h_NH.requires_grad_(), nn.Parameter(weight_VH), targets_N)


def loss_of(case: str, inputs: Inputs) -> Callable[[], Tensor]:
    """The mean loss in nats a token, by the case's way. Raises ConfigError where it cannot run, saying why."""
    h_NH, weight_VH, targets_N = inputs.h_NH, inputs.weight_VH, inputs.targets_N
    if case == PLAIN:
        return lambda: cross_entropy(linear(h_NH, weight_VH).float(), targets_N)
    if case == "torch":
        fused, chunked = (getattr(place, name, None) for place, name in TORCH_FUSED)
        if fused is None or chunked is None:
            raise ConfigError("this torch has no linear_cross_entropy; 2.13 has")
        return lambda: fused(h_NH, weight_VH, targets_N, options=chunked())  # type: ignore[no-any-return]
    if case == "liger":
        return _liger(inputs)
    embedding = Embedding(*weight_VH.shape)
    embedding.weight = weight_VH
    loss = SMOOTHED if case == "ours_smoothed" else PLAIN_LOSS
    head = LanguageModelHead(embedding, True, loss)
    return lambda: head(h_NH[None], targets_N[None]) / targets_N.numel()  # type: ignore[no-any-return]


def _liger(inputs: Inputs) -> Callable[[], Tensor]:
    if not torch.cuda.is_available():
        raise ConfigError("Liger's kernels need a GPU")
    try:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss  # type: ignore[import-not-found]
    except ImportError as error:
        raise ConfigError("liger-kernel is not installed") from error
    fused = LigerFusedLinearCrossEntropyLoss()
    return lambda: fused(inputs.weight_VH, inputs.h_NH, inputs.targets_N)  # type: ignore[no-any-return]


def step_of(case: str, inputs: Inputs) -> Callable[[], float]:
    """Forward and backward; returns the loss. Raises ConfigError where the case cannot run."""
    forward = loss_of(case, inputs)

    def step() -> float:
        inputs.h_NH.grad = inputs.weight_VH.grad = None
        loss = forward()
        loss.backward()
        return float(loss.detach())

    return step


def measure_alone(options: LossOptions) -> dict[str, Any]:
    """The memory of the case `options.alone` above its inputs, and its loss, in this process, which did nothing yet."""
    assert options.alone is not None, "the caller names a case"
    inputs = Inputs.of(options)
    step = step_of(options.alone, inputs)
    # Libraries take memory on their first product; it is not the loss's.
    step_of(options.alone, Inputs(inputs.h_NH[:8].detach().requires_grad_(), inputs.weight_VH, inputs.targets_N[:8]))()
    inputs.weight_VH.grad = None
    before = reset_peak_bytes()
    loss = step()
    return {"memory_bytes": peak_bytes() - before, "loss": loss}


def reset_peak_bytes() -> int:
    """Forget the process's peak memory; bytes that it holds now, on the GPU where there is one.

    Raises ConfigError on a CPU whose system is not Linux.
    """
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    try:
        CLEAR_PEAK.write_text("5", encoding="ascii")  # proc(5)
    except OSError as error:
        raise ConfigError(
            f"{CLEAR_PEAK} cannot be written ({error.strerror}); peak memory is Linux's to tell"
        ) from error
    return peak_bytes()


def peak_bytes() -> int:
    """The most memory this process has held since `reset_peak_bytes`."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    lines = STATUS.read_text(encoding="ascii").splitlines()
    [peak] = [line for line in lines if line.startswith("VmHWM:")]
    return int(peak.split()[1]) * 1024


def _arguments(options: LossOptions, case: str) -> list[str]:
    numbers = {
        "vocabulary_size": options.vocabulary_size,
        "tokens": options.tokens,
        "hidden_size": options.width,
        "precision": resolve_precision(options.precision),
        "alone": case,
    }
    return [word for name, value in numbers.items() for word in (f"--{name}", str(value))]


def main(argv: Sequence[str]) -> None:
    """Memory of each case in its own process, then the time of all in turns; JSON on standard output."""
    options = parse(LossOptions, argv, description="The language model's loss: memory and time.")
    if options.alone:
        print(json.dumps(measure_alone(options)))
        return
    inputs = Inputs.of(options)
    steps: dict[str, Callable[[], float]] = {}
    rows: dict[str, dict[str, Any]] = {}
    missing: dict[str, str] = {}
    for case in options.chosen:
        try:
            steps[case] = step_of(case, inputs)
        except ConfigError as error:
            missing[case] = str(error)
            continue
        rows[case] = fresh_process("bench.loss", _arguments(options, case))
    table = summary(alternate(steps, options.rounds), PLAIN if PLAIN in steps else None)
    for case, row in rows.items():
        row.update(table[case])
        if PLAIN in rows:
            row["memory_share"] = round(row["memory_bytes"] / rows[PLAIN]["memory_bytes"], 4)
    sizes = {"vocabulary_size": options.vocabulary_size, "tokens": options.tokens, "hidden_size": options.width}
    result = {
        "environment": environment(),
        **sizes,
        "precision": resolve_precision(options.precision),
        "cases": rows,
        "missing": missing,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    run_main(main)

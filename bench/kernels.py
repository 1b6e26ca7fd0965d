"""What the operations between the matrix products cost: ours, the plain formula, torch.compile and Liger, in turns.

    python -m bench.kernels [--hidden 768 2048] [--precision bf16] [--seconds 120]

In: hidden sizes. Out: one JSON object: for each operation, hidden size and pass the fewest bytes that must be moved
(each input read once, each result written once), and for each case the median seconds, GB/s of those bytes, their share
of a clone of a tensor of the same size in the same run, and times as fast as the formula in eager torch. Forward builds
the graph for the backward pass, as in training. Tensors are larger than the caches, as a GPU's in training are, so a
CPU is shown without what its caches would give; an operation whose turn comes after `seconds` is left out, and named.
"""

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.measure import DTYPES, alternate, clone_bytes_per_second, device, environment, summary
from megadec.common.config import parse, to_dict
from megadec.common.errors import ConfigError, run_main
from megadec.decoder.compiled import missing_compiler
from megadec.decoder.kernels import norm, rotary, swiglu
from megadec.decoder.layers import rotations
from megadec.engine.train_options import PrecisionChoice, resolve_precision

EPS = 1e-6
FORMULA = "torch"
# What is left out of the options: a clone of a tensor this large does not fit the caches.
DEFAULTS = {
    "cpu": {"hidden": (768, 2048), "tensor_bytes": 2**25, "seconds": 120, "calls": 1},
    "cuda": {"hidden": (768, 1024, 2048, 4096, 8192), "tensor_bytes": 2**28, "seconds": 70, "calls": 10},
}

Run = Callable[..., Any]


@dataclass(frozen=True)
class KernelsOptions:
    """hidden: elements of a row. tensor_bytes: of one activation. seconds: after which no further operation is begun.

    compiled: whether torch.compile takes part. calls: in a turn of a case, whose mean is taken.
    """

    hidden: tuple[int, ...] = ()
    tensor_bytes: int | None = None
    precision: PrecisionChoice = "auto"
    rounds: int = 7
    calls: int | None = None
    compiled: bool = True
    seconds: int | None = None

    def __post_init__(self) -> None:
        for name in ("tensor_bytes", "rounds", "calls", "seconds"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name}={value} is not at least 1")
        if any(size < 64 or size % 64 for size in self.hidden):
            raise ConfigError(f"hidden={list(self.hidden)}: sizes are multiples of 64")


class Operation(NamedTuple):
    """inputs: what gradients are wanted of. cases: who computes it, ours and the formula among them.

    forward, backward: tensors of an activation's size that are read or written; tables: bytes beside them, each time.
    """

    name: str
    inputs: tuple[Tensor, ...]
    cases: dict[str, Run]
    forward: float
    backward: float
    tables: int = 0


def operations(hidden: int, tokens: int, dtype: torch.dtype) -> Iterator[Operation]:
    """The operations of a block of this width; one activation is [tokens, hidden]."""
    where = device()

    def random(*size: int) -> Tensor:
        return torch.randn(*size, device=where, dtype=dtype).requires_grad_()

    liger = liger_functions()
    x, added, weight = random(tokens, hidden), random(tokens, hidden), random(hidden)
    cases: dict[str, Run] = {
        "ours": lambda x, w: norm.rms_norm(x, w, EPS),
        FORMULA: lambda x, w: norm.formula(x, w, EPS),
    }
    if liger:
        cases["liger"] = lambda x, w: liger["rms_norm"](x, w, EPS, in_place=False)
    yield Operation("rms_norm", (x, weight), cases, 2, 3)
    cases = {
        "ours": lambda x, a, w: norm.stream_norm(x, a, w, EPS),
        FORMULA: lambda x, a, w: (x + a, norm.formula(x + a, w, EPS)),
    }
    if liger:
        cases["liger"] = lambda x, a, w: (s := x + a, liger["rms_norm"](s, w, EPS, in_place=False))
    yield Operation("stream_norm", (x, added, weight), cases, 4, 4)
    cases = {"ours": swiglu.swiglu, FORMULA: swiglu.formula}
    if liger:
        cases["liger"] = liger["swiglu"]
    yield Operation("swiglu", (x, added), cases, 3, 5)
    yield from _rotations(hidden, tokens, random, liger)


def _rotations(
    hidden: int, tokens: int, random: Callable[..., Tensor], liger: Mapping[str, Run]
) -> Iterator[Operation]:
    head = 128 if hidden % 512 == 0 else 64
    heads, kv_heads = hidden // head, max(1, hidden // head // 4)
    q, k, weight = random(1, tokens, heads, head), random(1, tokens, kv_heads, head), random(head)
    cos, sin = rotations(torch.arange(tokens, device=q.device)[None], head, 1e4, tokens)
    tables = cos.nbytes + sin.nbytes
    cases: dict[str, Run] = {
        "ours": lambda q, k: rotary.rotate_pair(q, k, cos, sin),
        FORMULA: lambda q, k: (rotary.formula(q, cos, sin), rotary.formula(k, cos, sin)),
    }
    if liger:
        both = [torch.cat((table, table), -1)[:, :, 0].to(q.dtype) for table in (cos, sin)]
        cases["liger"] = lambda q, k: [
            x.transpose(1, 2) for x in liger["rope"](q.transpose(1, 2), k.transpose(1, 2), *both)
        ]
    pair = 2 * (1 + kv_heads / heads)
    yield Operation("rotate_pair", (q, k), cases, pair, pair, tables)
    cases = {
        "ours": lambda q, w: rotary.norm_rotate(q, w, EPS, cos, sin),
        FORMULA: lambda q, w: rotary.formula(norm.formula(q, w, EPS), cos, sin),
    }
    yield Operation("norm_rotate", (q, weight), cases, 2, 3, tables)


def liger_functions() -> dict[str, Run]:
    """Liger's functions by what they compute; none without a GPU, or where it is not installed."""
    if device().type != "cuda":
        return {}
    try:
        from liger_kernel.transformers import functional  # type: ignore[import-not-found]
    except ImportError:
        return {}
    return {name: getattr(functional, f"liger_{name}") for name in ("rms_norm", "swiglu", "rope")}


def measure(operation: Operation, options: KernelsOptions, clone: float, activation_bytes: int) -> list[dict[str, Any]]:
    """A row for the forward pass and one for the backward pass."""
    cases = dict(operation.cases)
    if options.compiled and missing_compiler(device()) is None:
        cases["compiled"] = torch.compile(cases[FORMULA], dynamic=False)
    forward = {name: functools.partial(run, *operation.inputs) for name, run in cases.items()}
    backward = {name: _backward(run, operation.inputs) for name, run in forward.items()}
    rows = []
    for which, runs, activations in (
        ("forward", forward, operation.forward),
        ("backward", backward, operation.backward),
    ):
        seconds = alternate(runs, options.rounds, warm_up=2, calls=options.calls or 1)
        moved = activations * activation_bytes + operation.tables
        table: dict[str, dict[str, float]] = summary(seconds, FORMULA)
        for row in table.values():
            row["gigabytes_per_second"] = round(moved / row["median_seconds"] / 1e9, 2)
            row["share_of_clone"] = round(moved / row["median_seconds"] / clone, 3)
        rows.append({"operation": operation.name, "pass": which, "bytes": int(moved), "cases": table})
    return rows


def _backward(run: Callable[[], Any], inputs: Sequence[Tensor]) -> Callable[[], object]:
    """The backward pass alone, of a graph that is kept."""
    outs = run()
    outs = [outs] if isinstance(outs, Tensor) else list(outs)
    gradients = [torch.randn_like(out) for out in outs]
    return lambda: torch.autograd.grad(outs, inputs, gradients, retain_graph=True)


def main(argv: Sequence[str]) -> None:
    import torch._functorch.config

    began = monotonic()
    options = parse(KernelsOptions, argv, description="Time the operations between the matrix products.")
    given = {name: value for name, value in to_dict(options).items() if value not in (None, [])}
    options = KernelsOptions(**{**DEFAULTS[device().type], **given})
    torch._functorch.config.donated_buffer = False  # or a compiled graph could not go backward twice
    torch.manual_seed(0)
    dtype = DTYPES[resolve_precision(options.precision)]
    size = options.tensor_bytes or 0
    clone = clone_bytes_per_second(size)
    rows, skipped = [], []
    for hidden in options.hidden:
        tokens = max(1, size // (hidden * dtype.itemsize))
        for operation in operations(hidden, tokens, dtype):
            if monotonic() - began > (options.seconds or 0):
                skipped.append(f"{operation.name} of hidden {hidden}")
                continue
            found = measure(operation, options, clone, tokens * hidden * dtype.itemsize)
            rows += [{"hidden": hidden, "tokens": tokens, **row} for row in found]
            torch._dynamo.reset()
    result = {
        "benchmark": "kernels",
        "environment": environment(),
        "options": to_dict(options),
        "compiler": missing_compiler(device()) or "used" if options.compiled else "not asked for",
        "liger": "used" if liger_functions() else "not installed, or no GPU",
        "clone_gigabytes_per_second": round(clone / 1e9, 2),
        "rows": rows,
        "skipped": skipped,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    run_main(main)

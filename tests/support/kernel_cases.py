"""Each fused operation beside its plain formula: their errors against float64, and losses of five steps.

As a program (with TRITON_INTERPRET=1 set before Python starts, because Triton reads it when it is imported) it computes
with the Triton kernels on the CPU and prints everything as JSON. The interpreter cuts float32 to bfloat16 where a GPU
rounds to the nearest; that is put right here.
"""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from megadec.decoder.execution import Execution, Kernels
from megadec.decoder.kernels import norm, rotary, swiglu
from megadec.decoder.kernels.choose import module_for
from megadec.decoder.layers import rotations
from megadec.decoder.rope_scaling import YarnScaling
from tests.support import PROJECT
from tests.support.decoders import decoder_of, tiny_shape

EPS = 1e-6
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TINY = tiny_shape(vocabulary_size=61, hidden_size=24, head_size=8, intermediate_size=64, max_position_embeddings=32)

Operation = Callable[..., Sequence[Tensor]]
# Rows, and elements of a row: odd ones, one, none, a row that fills a tile, and one that is wider than a tile.
ROWS = ((7, 129), (1, 3), (0, 16), (33, 64), (5, 4099))
# Batch, sequence, query heads, key-value heads, head size.
HEADS = ((2, 19, 5, 1, 24), (1, 1, 1, 1, 2), (2, 0, 4, 2, 8), (1, 37, 6, 3, 64))
CASES = [
    *((name, size) for name in ("rms_norm", "stream_norm", "swiglu") for size in ROWS),
    *((name, size) for name in ("rotate_pair", "norm_rotate") for size in HEADS),
]


def operations(name: str, size: Sequence[int], kernels: Kernels) -> tuple[list[Tensor], Operation, Operation]:
    """Inputs in float64, the fused operation, and its formula; the first row is zero, as padding may be."""
    torch.manual_seed(0)
    if name in ("rms_norm", "stream_norm", "swiglu"):
        x, y, weight = torch.randn(*size).double(), torch.randn(*size).double(), 1 + 0.1 * torch.randn(size[1]).double()
        x[:1], y[:1] = 0, 0
        if name == "swiglu":
            return [x, y], lambda g, u: [swiglu.swiglu(g, u, kernels)], lambda g, u: [swiglu.formula(g, u)]
        if name == "rms_norm":
            return (
                [x, weight],
                lambda x, w: [norm.rms_norm(x, w, EPS, kernels)],
                lambda x, w: [norm.formula(x, w, EPS)],
            )
        return (
            [x, y, weight],
            lambda x, y, w: norm.stream_norm(x, y, w, EPS, kernels),
            lambda x, y, w: [x + y, norm.formula(x + y, w, EPS)],
        )
    batch, tokens, heads, kv_heads, head = size
    q, k = torch.randn(batch, tokens, heads, head).double(), torch.randn(batch, tokens, kv_heads, head).double()
    q[:, :1] = 0
    # YaRN's cosines and sines are no rotation alone: what is turned grows too.
    scaling = YarnScaling(factor=8.0, original_max_position_embeddings=128)
    turn = rotations(torch.randint(0, 900, (batch, tokens)), head, 1e4, 1000, scaling)
    if name == "rotate_pair":
        return (
            [q, k],
            lambda q, k: rotary.rotate_pair(q, k, *turn, kernels),
            lambda q, k: [rotary.formula(q, *turn), rotary.formula(k, *turn)],
        )
    return (
        [q, 1 + 0.1 * torch.randn(head).double()],
        lambda q, w: [rotary.norm_rotate(q, w, EPS, *turn, kernels)],
        lambda q, w: [rotary.formula(norm.formula(q, w, EPS), *turn)],
    )


# Tokens and vocabulary: odd, one, a whole block, several blocks and a rest, no tokens.
LOGITS = ((5, 37), (1, 1), (3, 1024), (2, 40001), (0, 37))
# Label smoothing and z-loss.
LOSSES = ((0.0, 0.0), (0.1, 0.0), (0.0, 0.01), (0.2, 0.001))
LOSS_CASES = list(itertools.product(LOGITS, DTYPES, LOSSES))


def drawn(size: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Logits in a tensor with longer rows, so that a row does not begin where the last one ends; targets; weights, of
    which some are 0."""
    torch.manual_seed(sum(size))
    tokens, vocabulary = size
    logits = (3 * torch.randn(tokens, vocabulary + 3)).to(dtype)[:, :vocabulary]
    weights = torch.rand(tokens) * (torch.rand(tokens) > 0.3)
    return logits, torch.randint(0, vocabulary, (tokens,)), weights


def formula(
    logits: Tensor, targets: Tensor, weights: Tensor, label_smoothing: float, z_loss: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Nats and gradient by torch's cross_entropy and autograd, computed in `dtype`."""
    leaf = logits.detach().clone().requires_grad_()
    wide = leaf.to(dtype)
    nats = cross_entropy(wide, targets, reduction="none", label_smoothing=label_smoothing)
    nats = nats + z_loss * wide.logsumexp(-1).square()
    [gradient] = torch.autograd.grad((nats * weights.to(dtype)).sum(), leaf)
    return nats.detach(), gradient


def loss_errors(
    size: tuple[int, int], dtype: torch.dtype, loss: tuple[float, float], *, triton: bool
) -> list[tuple[float, float]]:
    """(ours, torch's in the same precision) for nats and gradient: the norm of the difference over that of float64."""
    logits, targets, weights = drawn(size, dtype)
    truth = formula(logits.double(), targets, weights, *loss, torch.float64)
    theirs = formula(logits, targets, weights, *loss, torch.float32)
    ours = ours_of(logits, targets, weights, loss, triton=triton)
    return [
        (_distance(one, true), _distance(other, true)) for one, other, true in zip(ours, theirs, truth, strict=True)
    ]


def ours_of(
    logits: Tensor, targets: Tensor, weights: Tensor, loss: tuple[float, float], *, triton: bool
) -> tuple[Tensor, Tensor]:
    """Nats and gradient by our kernels; what lies between the rows is checked to be as it was."""
    longer = torch.nn.functional.pad(logits, (0, 3), value=7.0)
    rows = longer[:, : logits.shape[1]]
    module = module_for("cross_entropy", "triton" if triton else "torch", rows)
    nats = module.losses(rows, targets, weights, *loss, gradient=True)
    assert bool((longer[:, logits.shape[1] :] == 7.0).all())
    return nats, rows


def errors(name: str, size: Sequence[int], dtype: torch.dtype, kernels: Kernels) -> list[tuple[float, float]]:
    """For each result and each gradient |x - exact| / |exact| of the fused operation and of torch's own formula."""
    inputs, fused, formula = operations(name, size, kernels)
    inputs = [x.to(dtype).double() for x in inputs]
    torch.manual_seed(1)
    upstream = [torch.randn(out.shape).to(dtype).double() for out in formula(*inputs)]

    def all_of(run: Operation, precision: torch.dtype) -> list[Tensor]:
        # A copy that lies in memory otherwise: gradients often come transposed.
        leaves = [x.to(precision).mT.contiguous().mT if x.dim() > 1 else x.to(precision) for x in inputs]
        leaves = [x.requires_grad_() for x in leaves]
        outs = list(run(*leaves))
        wanted = [g.to(precision).mT.contiguous().mT if g.dim() > 1 else g.to(precision) for g in upstream]
        gradients = torch.autograd.grad(outs, leaves, wanted)
        assert all(x.dtype == precision for x in (*outs, *gradients))
        return [x.detach() for x in (*outs, *gradients)]

    exact = all_of(formula, torch.float64)
    return [
        (_distance(ours, true), _distance(theirs, true))
        for ours, theirs, true in zip(all_of(fused, dtype), all_of(formula, dtype), exact, strict=True)
    ]


def _distance(found: Tensor, exact: Tensor) -> float:
    assert found.shape == exact.shape
    size = exact.norm() if exact.numel() else torch.tensor(0.0)
    return float((found.double() - exact).norm() / (size if size else 1.0))


def five_losses(kernels: Kernels) -> list[float]:
    """The losses of five steps of a tiny decoder in float32."""
    decoder = decoder_of(TINY, 3, execution=Execution(kernels=kernels))
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=3e-3)
    torch.manual_seed(0)
    ids_BS = torch.randint(0, TINY.vocabulary_size, (2, 13))
    documents_BS = torch.tensor([[0] * 13, [0] * 5 + [1] * 8])
    losses = []
    for _ in range(5):
        loss = decoder(ids_BS[:, :-1], documents_BS=documents_BS[:, :-1], targets_BS=ids_BS[:, 1:]) / 24
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def interpreted() -> Any:
    """What this program prints, run where Triton is imported as an interpreter."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "tests.support.kernel_cases"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def assert_no_worse(found: Sequence[Sequence[float]]) -> None:
    """A tenth is left for luck in few numbers, and a few times float32's own precision for another order of sums."""
    for ours, theirs in found:
        assert ours <= 1.1 * theirs + 4 * torch.finfo(torch.float32).eps, found


def rounding_to_nearest() -> Any:
    """A context in which the interpreter converts to the nearest bfloat16, and of two the even one."""
    import triton.language as tl
    from triton.runtime import interpreter

    convert = interpreter._convert_float

    def converted(data: Any, source: Any, target: Any, mode: Any) -> Any:
        if (source, target) != (tl.float32, tl.bfloat16):
            return convert(data, source, target, mode)
        bits = np.ascontiguousarray(data).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)

    return mock.patch.object(interpreter, "_convert_float", converted)


def main() -> None:
    with rounding_to_nearest():
        table = {
            f"{name} {size} {dtype}": errors(name, size, DTYPES[dtype], "triton")
            for name, size in CASES
            for dtype in DTYPES
        }
        entropies = [loss_errors(size, DTYPES[dtype], loss, triton=True) for size, dtype, loss in LOSS_CASES]
        print(json.dumps({"errors": table, "losses": five_losses("triton"), "cross_entropy": entropies}))


if __name__ == "__main__":
    main()

"""What attention costs: packed documents, one long document, a mask, FlexAttention, in turns and per operation.

    python -m bench.attention [--sequence_length 512 2048] [--document_tokens 128 512] [--precision bf16]

In: a shape of heads, the lengths of rows, mean lengths of documents. Out: one JSON object: for each row length and case
the median seconds of forward and backward, TFLOP/s of the work that had to be done (causal inside documents, forward
and backward counted as three forward passes), and times as fast as the mask; `packed_per_flop`: the packed documents'
TFLOP/s over those of one document a row. Documents are drawn with lognormal lengths and are no real ones, so that no
data is needed; real rows have about such lengths.
"""

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.measure import DTYPES, alternate, device, environment, product_flops, summary, top_operations
from megadec.common.config import parse, to_dict
from megadec.common.errors import ConfigError, run_main
from megadec.decoder.attention import CAUSAL, AttentionMask, attend, packed_mask
from megadec.decoder.document_attention import document_blocks, document_kernel, document_mask
from megadec.engine.train_options import PrecisionChoice, resolve_precision

SPREAD_OF_LENGTHS = 1.0  # standard deviation of the logarithm
ONE = "one_document"
MASKED = "masked"


@dataclass(frozen=True)
class AttentionOptions:
    """tokens: of a batch, in rows of each of sequence_length; on a CPU 4096 in rows of 512 and 2048 where they are left
    out.

    document_tokens: mean lengths of packed documents. flex: whether FlexAttention takes part, for the first length of
    rows (it compiles for each); it needs CUDA and triton.
    """

    sequence_length: tuple[int, ...] = ()
    tokens: int | None = None
    document_tokens: tuple[int, ...] = (128, 512)
    heads: int | None = None
    kv_heads: int | None = None
    head_size: int | None = None
    precision: PrecisionChoice = "auto"
    rounds: int = 7
    flex: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("tokens", "heads", "kv_heads", "head_size", "rounds"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name}={value} is not at least 1")
        if any(length < 1 for length in (*self.sequence_length, *self.document_tokens)):
            raise ConfigError("sequence_length and document_tokens are lengths of at least 1")


# What is left out: on a CPU the shape of 28 million parameters, on a GPU that of 1.3 billion.
DEFAULTS = {
    "cpu": {"sequence_length": (512, 2048), "tokens": 4096, "heads": 8, "kv_heads": 4, "head_size": 64},
    "cuda": {"sequence_length": (4096, 16384), "tokens": 32768, "heads": 16, "kv_heads": 8, "head_size": 128},
}


def main(argv: Sequence[str]) -> None:
    options = parse(AttentionOptions, argv, description="Time attention within packed documents.")
    given = {name: value for name, value in to_dict(options).items() if value not in (None, [])}
    options = AttentionOptions(**{**DEFAULTS[device().type], **given})
    rows = {str(length): measure(options, length, number == 0) for number, length in enumerate(options.sequence_length)}
    kernel = document_kernel(device(), dtype_of(options), options.head_size or 0)
    result = {
        "benchmark": "attention",
        "environment": environment(),
        "options": to_dict(options),
        "kernel": kernel,
        "matrix_product_tflops": product_flops(resolve_precision(options.precision)) / 1e12,
        "sequence_length": rows,
        "top_operations": top_operations(packed_case(options)),
    }
    print(json.dumps(result, indent=1))


def dtype_of(options: AttentionOptions) -> torch.dtype:
    return DTYPES[resolve_precision(options.precision)]


def measure(options: AttentionOptions, sequence_length: int, first: bool) -> dict[str, Any]:
    """The cases of one row length in turns."""
    rows = max(1, (options.tokens or 0) // sequence_length)
    documents = {
        f"packed_{mean}": draw_documents(rows, sequence_length, mean, options.seed) for mean in measured(options)
    }
    whole_BS = torch.zeros(rows, sequence_length, dtype=torch.int32)
    shortest = next(iter(documents))
    masks = {name: mask_of(options, documents_BS) for name, documents_BS in documents.items()}
    masks |= {ONE: mask_of(options, whole_BS), "causal": CAUSAL}
    masks[MASKED] = AttentionMask(mask_B1ST=document_mask(documents[shortest].to(device())))
    if first and options.flex and device().type == "cuda" and document_kernel(device(), torch.float32, 64) == "flex":
        masks["flex"] = AttentionMask(blocks=document_blocks(documents[shortest].to(device())))
    squares = {name: squared_lengths(documents_BS) for name, documents_BS in documents.items()}
    squares |= dict.fromkeys((ONE, "causal"), rows * sequence_length**2)
    squares |= dict.fromkeys((MASKED, "flex"), squares[shortest])
    cases = {name: forward_and_backward(options, rows, sequence_length, mask) for name, mask in masks.items()}
    seconds = alternate(cases, options.rounds, warm_up=2)
    return {
        "rows": rows,
        "cases": table(options, seconds, squares),
        "packed_per_flop": {
            name: ratio_per_flop(seconds[name], squares[name], seconds[ONE], squares[ONE]) for name in documents
        },
        "error_against_mask": error(options, rows, sequence_length, masks[shortest], masks[MASKED]),
    }


def measured(options: AttentionOptions) -> tuple[int, ...]:
    return options.document_tokens or (128,)


def draw_documents(rows: int, sequence_length: int, mean_tokens: int, seed: int) -> Tensor:
    """documents_BS: rows filled with documents of lognormal lengths, the last of a row cut at its end."""
    generator = torch.Generator().manual_seed(seed)
    documents_BS = torch.empty(rows, sequence_length, dtype=torch.int32)
    for row_S in documents_BS:
        lengths = torch.empty(sequence_length).log_normal_(
            math.log(mean_tokens) - SPREAD_OF_LENGTHS**2 / 2, SPREAD_OF_LENGTHS, generator=generator
        )
        ends = lengths.ceil().clamp(min=1, max=sequence_length).long().cumsum(0)
        row_S.copy_(torch.searchsorted(ends, torch.arange(sequence_length), right=True))
    return documents_BS


def squared_lengths(documents_BS: Tensor) -> int:
    return sum(int(row_S.unique_consecutive(return_counts=True)[1].square().sum()) for row_S in documents_BS)


def mask_of(options: AttentionOptions, documents_BS: Tensor) -> AttentionMask:
    return packed_mask(documents_BS.to(device()), dtype_of(options), options.head_size or 0)


def inputs(options: AttentionOptions, rows: int, sequence_length: int) -> list[Tensor]:
    """q, k, v and the gradient of what comes out, the last without heads of its own."""
    torch.manual_seed(options.seed)
    heads, kv_heads, size = options.heads or 0, options.kv_heads or 0, options.head_size or 0
    sizes = [(rows, sequence_length, number, size) for number in (heads, kv_heads, kv_heads)]
    sizes.append((rows, sequence_length, heads * size))  # type: ignore[arg-type]
    return [torch.randn(each, device=device(), dtype=torch.float32).to(dtype_of(options)) for each in sizes]


def forward_and_backward(
    options: AttentionOptions, rows: int, sequence_length: int, mask: AttentionMask
) -> Callable[[], tuple[Tensor, ...]]:
    *qkv, upstream = inputs(options, rows, sequence_length)
    q, k, v = (x.requires_grad_() for x in qkv)
    return lambda: torch.autograd.grad(attend(q, k, v, mask), (q, k, v), upstream)


def packed_case(options: AttentionOptions) -> Callable[[], tuple[Tensor, ...]]:
    sequence_length = options.sequence_length[0]
    rows = max(1, (options.tokens or 0) // sequence_length)
    documents_BS = draw_documents(rows, sequence_length, measured(options)[0], options.seed)
    return forward_and_backward(options, rows, sequence_length, mask_of(options, documents_BS))


def table(
    options: AttentionOptions, seconds: Mapping[str, Sequence[float]], squares: Mapping[str, int]
) -> dict[str, dict[str, float]]:
    found = summary(seconds, baseline=MASKED)
    for name, row in found.items():
        row["squared_document_tokens"] = squares[name]
        row["tflops"] = float(f"{flops(options, squares[name]) / row['median_seconds'] / 1e12:.4g}")
    return found


def flops(options: AttentionOptions, squared_tokens: int) -> int:
    """Three forward passes of two products, half of each square (megadec/decoder/flops.py)."""
    return 3 * 2 * 2 * (options.heads or 0) * (options.head_size or 0) * squared_tokens // 2


def ratio_per_flop(ours: Sequence[float], our_work: int, theirs: Sequence[float], their_work: int) -> float:
    """Median over rounds of our operations a second over theirs."""
    ratio = statistics.median(
        (our_work / mine) / (their_work / other) for mine, other in zip(ours, theirs, strict=True)
    )
    return float(f"{ratio:.4g}")


def error(
    options: AttentionOptions, rows: int, sequence_length: int, mask: AttentionMask, masked: AttentionMask
) -> float:
    """The largest difference between what our way and the mask give."""
    *qkv, _ = inputs(options, rows, sequence_length)
    q, k, v = qkv
    return float((attend(q, k, v, mask).float() - attend(q, k, v, masked).float()).abs().max())


if __name__ == "__main__":
    run_main(main)

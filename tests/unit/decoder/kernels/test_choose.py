"""Who computes an operation, and in what pieces."""

import pytest
import torch
from torch import Tensor

from megadec.common.errors import ConfigError
from megadec.decoder.attention import CAUSAL
from megadec.decoder.block import Block
from megadec.decoder.execution import Execution, Kernels
from megadec.decoder.kernels import choose
from megadec.decoder.kernels.choose import CPU_PIECE_ELEMENTS, pieces, use_triton
from megadec.decoder.layers import rotations
from tests.support.kernel_cases import TINY

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("kernels", "dtype"), [("auto", torch.float32), ("torch", torch.float32), ("triton", torch.float64)]
)
def test_on_a_cpu_and_in_double_precision_torch_computes(kernels: Kernels, dtype: torch.dtype) -> None:
    assert not use_triton(kernels, torch.ones(1, dtype=dtype))


def test_triton_without_a_gpu_is_refused_unless_it_is_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ConfigError, match=r"model\.execution\.kernels=triton needs a GPU, and the model is on cpu"):
        use_triton("triton", torch.ones(1))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(choose, "triton_is_installed", lambda: True)
    assert use_triton("triton", torch.ones(1))
    monkeypatch.setattr(choose, "triton_is_installed", lambda: False)
    with pytest.raises(ConfigError, match="triton is not installed"):
        use_triton("triton", torch.ones(1))


@pytest.mark.parametrize(("rows", "size"), [(0, 5), (1, 1), (7, 2 * CPU_PIECE_ELEMENTS), (1000, 1024), (513, 512)])
def test_pieces_are_all_rows_once_in_their_order(rows: int, size: int) -> None:
    found = [row for piece in pieces(rows, size, CPU) for row in range(rows)[piece]]
    assert found == list(range(rows))
    assert all((piece.stop - piece.start) * size <= max(size, CPU_PIECE_ELEMENTS) for piece in pieces(rows, size, CPU))


def test_an_accelerator_works_on_all_rows_at_once() -> None:
    assert list(pieces(10**6, 4096, torch.device("meta"))) == [slice(0, 10**6)]


def block_and_inputs(dtype: torch.dtype) -> tuple[Block, tuple[Tensor, Tensor, Tensor]]:
    torch.manual_seed(0)
    block = Block(TINY, 0, execution=Execution()).to(dtype)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.dim() == 1 else 0.0, 0.1)
    x = torch.randn(2, 16, TINY.hidden_size).to(dtype).requires_grad_()
    return block, (x, *rotations(torch.arange(16).expand(2, 16), TINY.head_size, 1e4, 32))


def test_a_block_is_traced_whole_and_gives_the_same_numbers() -> None:
    block, inputs = block_and_inputs(torch.float32)
    traced = torch.compile(block, backend="aot_eager", fullgraph=True)
    results = []
    for run in (block, traced):
        out = run(*inputs, CAUSAL)
        results.append((out.detach(), *torch.autograd.grad(out.square().sum(), (inputs[0], *block.parameters()))))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_block_keeps_no_float32_copy_of_its_activations() -> None:
    """What stays for the backward pass is in the model's dtype, but for attention's own and a number a row."""
    block, inputs = block_and_inputs(torch.bfloat16)
    tables = {x.untyped_storage().data_ptr() for x in inputs[1:]}
    wide: list[int] = []

    def pack(x: Tensor) -> Tensor:
        if x.dtype == torch.float32 and x.untyped_storage().data_ptr() not in tables:
            wide.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        block(*inputs, CAUSAL)
    rows = 2 * 16
    # Two norms of the stream, those of the heads, and the logarithms of attention's sums.
    assert sum(wide) <= rows * (2 + TINY.heads + TINY.kv_heads + TINY.heads)

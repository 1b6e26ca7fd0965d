"""Products in bfloat16, in hardware or in float32 where a CPU has no instructions for it; rotary positions."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from megadec.decoder.kernels import cpu_attention, precision
from megadec.decoder.kernels.rotary import rotate_pair
from megadec.decoder.layers import linear, matmul, rotations
from megadec.decoder.shape import DecoderShape
from megadec.decoder.textbook.registry import architecture
from tests.support.decoders import decoder_of, fresh
from tests.support.seq2seq_models import SHAPES as PAIR_SHAPES
from tests.support.seq2seq_models import VOCABULARY

ROUNDING = 2.0**-8  # of bfloat16 to the nearest: its significand has 8 bits
TARGET_MODULES = ("aten.mm", "aten.bmm", "aten.addmm", "aten.baddbmm", "aten.linear", "aten.matmul", "attention")


@pytest.fixture(autouse=True)
def _same_numbers_each_time() -> None:
    torch.manual_seed(0)


@pytest.fixture
def no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU without bfloat16 instructions."""
    monkeypatch.setattr(precision, "CPU_HAS_BF16", False)


class NoProductInBf16(TorchDispatchMode):
    """Fails when an operation that multiplies matrices is given bfloat16; counts those that it lets pass."""

    def __init__(self) -> None:
        super().__init__()
        self.products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(name in str(func) for name in TARGET_MODULES):
            self.products += 1
            for x in args:
                assert not (isinstance(x, Tensor) and x.dtype == torch.bfloat16), func
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("no_bf16")
def test_a_wide_product_is_the_exact_one_rounded_once() -> None:
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(*size).bfloat16().requires_grad_() for size in ((3, 5, 70), (90, 70), (90,)))
    given = torch.randn(3, 5, 90).bfloat16()
    y = linear(x, weight, bias)
    exact = [tensor.detach().double().requires_grad_() for tensor in (x, weight, bias)]
    y_exact = exact[0] @ exact[1].T + exact[2]
    found = [y.detach(), *torch.autograd.grad(y, (x, weight, bias), given)]
    wanted = [y_exact.detach(), *torch.autograd.grad(y_exact, exact, given.double())]
    for one, truth in zip(found, wanted, strict=True):
        assert one.dtype == torch.bfloat16
        assert float((one.double() - truth).norm() / truth.norm()) < ROUNDING
    # The nearest bfloat16 to it.
    product = matmul(x, weight.T).double()
    torch.testing.assert_close(product, exact[0] @ exact[1].T, rtol=ROUNDING, atol=1e-6)


def test_what_is_no_bfloat16_is_multiplied_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for has in (True, False):
        monkeypatch.setattr(precision, "CPU_HAS_BF16", has)
        assert precision.matmul_dtype(torch.ones(1, dtype=torch.float64)) == torch.float64
        assert precision.matmul_dtype(torch.ones(1, dtype=torch.float32)) == torch.float32
        # The attention of blocks, which no dispatch mode looks into, is taken in hardware alone.
        assert cpu_attention.is_faster(torch.bfloat16, 512) is has
        wanted = torch.bfloat16 if has else torch.float32
        assert precision.matmul_dtype(torch.ones(1, dtype=torch.bfloat16)) == wanted


@pytest.mark.usefixtures("no_bf16")
@pytest.mark.parametrize("packed", [True, False])
def test_without_bf16_instructions_a_decoder_multiplies_no_bf16_and_has_float64s_loss_and_gradients(
    packed: bool,
) -> None:
    shape = DecoderShape.from_preset("1m", vocabulary_size=64, max_position_embeddings=300, initializer_std=0.1)
    decoder = decoder_of(shape)
    rounded, exact = copy.deepcopy(decoder).bfloat16(), decoder.bfloat16().double()
    torch.manual_seed(1)
    ids_BS = torch.randint(0, 64, (2, 300))
    documents_BS = (torch.arange(300) >= 20).int().expand(2, -1)  # a short and a long one
    given = {"documents_BS": documents_BS if packed else None, "targets_BS": ids_BS.roll(-1, 1)}
    with NoProductInBf16() as watch:
        loss = rounded(ids_BS, **given) / ids_BS.numel()
        found = torch.autograd.grad(loss, list(rounded.parameters()))
        with torch.no_grad():
            rounded(ids_BS)
    assert watch.products > 7 * 3 * shape.layers
    truth = exact(ids_BS, **given) / ids_BS.numel()
    assert loss.item() == pytest.approx(truth.item(), rel=ROUNDING)
    for one, wanted in zip(found, torch.autograd.grad(truth, list(exact.parameters())), strict=True):
        assert float((one.double() - wanted).norm() / wanted.norm()) < 8 * ROUNDING  # some roundings behind one another


@pytest.mark.usefixtures("no_bf16")
@pytest.mark.parametrize(("name", "values"), PAIR_SHAPES)
def test_without_bf16_instructions_an_encoder_decoder_multiplies_no_bf16(name: str, values: dict[str, Any]) -> None:
    found = architecture(name)
    model = fresh(found, found.shape_from(values), 3).bfloat16()
    ids_BS, lengths_B = torch.randint(1, VOCABULARY, (4, 7)), torch.tensor([6, 1, 9, 4])
    source_BT = torch.randint(1, VOCABULARY, (4, 9))
    with NoProductInBf16() as watch:
        loss = model(ids_BS, targets_BS=ids_BS, source_ids_BT=source_BT, source_lengths_B=lengths_B)
        loss.backward()
    assert watch.products > 20
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_bfloat16_activations_are_rotated_by_unrounded_angles() -> None:
    x = torch.randn(1, 64, 2, 16, dtype=torch.bfloat16)
    turn = rotations(torch.arange(960, 1024)[None], 16, 1e4, 1024)
    for rounded, exact in zip(rotate_pair(x, x, *turn), rotate_pair(x.float(), x.float(), *turn), strict=True):
        assert torch.equal(rounded, exact.bfloat16())


def test_a_table_first_made_while_generating_serves_training_too() -> None:
    with torch.inference_mode():
        rotations(torch.arange(4)[None], 8, 123.0, 16)
    x = torch.randn(1, 4, 1, 8, requires_grad=True)
    rotate_pair(x, x, *rotations(torch.arange(4)[None], 8, 123.0, 16))[0].sum().backward()
    assert x.grad is not None

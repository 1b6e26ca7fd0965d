"""Activation checkpointing: the same numbers from less memory."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from megadec.common.errors import ConfigError
from megadec.decoder import recompute as recompute_module
from megadec.decoder.block import SwiGLU
from megadec.decoder.execution import KEEP, KEEPABLE, Execution, Recompute
from megadec.decoder.model import Decoder
from megadec.decoder.offload import HostCopy, can_offload
from megadec.decoder.recompute import in_tiles
from megadec.decoder.shape import DecoderShape
from tests.support.decoders import decoder_of, tiny_shape

TINY = tiny_shape(layers=3, intermediate_size=192)
BIASED = tiny_shape(layers=3, intermediate_size=192, qk_norm=False, attention_bias="qkvo")
KEEPS = [(), ("attention",), ("output", "qkv"), ("gate_up",), tuple(KEEPABLE)]
POLICIES = [
    Recompute("every_nth", every=1),
    *(Recompute("selective", keep=keep) for keep in KEEPS),
    *(Recompute(mode, offload=on_host) for mode in ("full", "every_nth", "selective") for on_host in (False, True)),
]


def loss_and_gradients(recompute: Recompute, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    decoder = decoder_of(TINY, dtype=dtype, execution=Execution(recompute=recompute))
    torch.manual_seed(0)
    ids, targets = torch.randint(0, 97, (2, 2, 24)).unbind(0)
    documents = torch.tensor([[0] * 9 + [1] * 15, [0] * 24])
    loss = decoder(ids, documents_BS=documents, targets_BS=targets)
    return [loss.detach(), *torch.autograd.grad(loss, list(decoder.parameters()))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_policy_gives_the_loss_and_gradients_of_none_bit_for_bit(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Activations go to the host as on a GPU, with a copy in the same memory in place of one over the bus."""
    monkeypatch.setattr(recompute_module, "can_offload", lambda x: True)
    expected = loss_and_gradients(Recompute(), dtype)
    for recompute in POLICIES:
        assert all(map(torch.equal, loss_and_gradients(recompute, dtype), expected)), recompute


def kept_bytes(module: nn.Module, run: Callable[[], Tensor]) -> dict[int, int]:
    """Memory that stays for the backward pass, beside weights: bytes by address."""
    weights = {parameter.data_ptr() for parameter in module.parameters()}
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() not in weights:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        assert run().requires_grad
    return kept


def test_recomputing_more_keeps_less() -> None:
    ids = torch.zeros(1, 64, dtype=torch.int64)
    kept = []
    for recompute in (Recompute("full"), Recompute("every_nth", 2), Recompute()):
        decoder = Decoder(TINY, Execution(recompute=recompute))
        kept.append(sum(kept_bytes(decoder, lambda decoder=decoder: decoder(ids, targets_BS=ids)).values()))
    assert kept[0] < kept[1] < kept[2]


def products(recompute: Recompute, shape: DecoderShape) -> Counter[str]:
    """Operations of a step's products by their kind, and how often attention was computed forward."""
    decoder = Decoder(shape, Execution(recompute=recompute))
    ids = torch.zeros(1, 16, dtype=torch.int64)
    attention = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda *_shapes, **_out: 1}
    with FlopCounterMode(display=False, custom_mapping=attention) as counter:
        decoder(ids, targets_BS=ids).backward()
    found: Counter[str] = Counter()
    for operation, count in counter.get_flop_counts()["Global"].items():
        found[str(operation).removeprefix("aten.").removeprefix("add")] += count  # addmm: with a bias
    return found


@pytest.mark.parametrize("shape", [TINY, BIASED])
def test_selective_computes_again_exactly_what_is_not_named(shape: DecoderShape) -> None:
    tokens, hidden, query, key_value, wide = 16, 64, 64, 32, 192
    cost = {"qkv": hidden * (query + 2 * key_value), "output": query * hidden, "gate_up": 2 * hidden * wide}
    attention = "_scaled_dot_product_flash_attention_for_cpu"
    none = products(Recompute(), shape)
    for keep in (KEEP, *KEEPS):
        missing = sum(cost[name] for name in cost if name not in keep)
        expected = {"mm": 2 * tokens * missing * TINY.layers, attention: TINY.layers * ("attention" not in keep)}
        assert products(Recompute("selective", keep=keep), shape) - none == +Counter(expected), keep
    assert products(Recompute("full"), shape).total() > products(Recompute("selective"), shape).total()


def test_a_block_leaves_only_its_input_and_what_is_named_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[tuple[int, ...]] = []

    class Counted(HostCopy):
        def __init__(self, x: Tensor) -> None:
            waiting.append(tuple(x.shape))
            super().__init__(x)

    monkeypatch.setattr(recompute_module, "can_offload", lambda x: True)
    monkeypatch.setattr(recompute_module, "HostCopy", Counted)
    monkeypatch.setattr("megadec.decoder.offload.HostCopy", Counted)
    loss_and_gradients(Recompute("full", offload=True))
    assert waiting == [(2, 24, 64)] * TINY.layers
    waiting.clear()
    loss_and_gradients(Recompute("selective", keep=("output",), offload=True))
    assert sorted(waiting) == sorted([(2, 24, 64), (48, 64)] * TINY.layers)


def test_on_a_cpu_offloading_changes_nothing_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    can_offload.cache_clear()
    for _ in range(2):
        loss_and_gradients(Recompute("full", offload=True))
    assert caplog.text.count("has no effect on a CPU") == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_tensor_comes_back_from_the_host_though_its_memory_was_used_meanwhile() -> None:
    x = torch.randn(2**24, device="cuda")
    expected = x.clone()
    copy = HostCopy(x)
    del x
    torch.full((2**24,), 7.0, device="cuda")
    assert torch.equal(copy.back(), expected)


@pytest.mark.parametrize("tile_tokens", [1, 7, 24, 48, 1000])
def test_a_feed_forward_layer_in_tiles_gives_the_same_from_less_memory(tile_tokens: int) -> None:
    torch.manual_seed(0)
    whole, tiled = SwiGLU(TINY).double(), SwiGLU(TINY, tile_tokens=tile_tokens).double()
    for parameter in whole.parameters():
        nn.init.normal_(parameter, std=0.1)
    tiled.load_state_dict(whole.state_dict())
    x = torch.randn(2, 24, 64).double()
    results = []
    for mlp in (whole, tiled):
        leaf = x.clone().requires_grad_()
        out = mlp(leaf)
        out.square().sum().backward()
        results.append([out.detach(), leaf.grad, *(parameter.grad for parameter in mlp.parameters())])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(tiled(x), whole(x))


def test_of_tiles_only_the_input_is_kept() -> None:
    mlp, x = SwiGLU(TINY), torch.randn(40, 64, requires_grad=True)
    assert kept_bytes(mlp, lambda: in_tiles(mlp, x, 16)).keys() <= {x.untyped_storage().data_ptr(), 0}


def test_wishes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"recompute\.every=0"):
        Recompute("every_nth", 0)
    with pytest.raises(ConfigError, match=r"recompute\.keep='atention' is none of .*\(did you mean 'attention'"):
        Recompute("selective", keep=("atention",))
    with pytest.raises(ConfigError, match=r"recompute\.keep=\['qkv'\] is for mode=selective, and the mode is full"):
        Recompute("full", keep=("qkv",))
    with pytest.raises(ConfigError, match=r"recompute\.offload=true with mode=none"):
        Recompute(offload=True)

"""Random weights to start training from.

In: a shape, a parameter's name, a seed. Out: that parameter's first value. Each tensor is a pure function of (seed,
name), so every rank, ZeRO stage and order of construction starts from the same decoder. Every rank draws every tensor
on its CPU, one at a time, which takes about a minute for billions of parameters and needs no communication to agree on.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from megadec.common.errors import ConfigError
from megadec.decoder.flops import parameter_table
from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape

Gather = Callable[[nn.Parameter], contextlib.AbstractContextManager[object]]

_INPUTS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
_OUTPUTS = ("o_proj", "down_proj")


def initial_std(shape: DecoderShape, name: str) -> float:
    """Standard deviation of a parameter's first value; 0 stands for a norm, which is all ones.

    Products that write into the residual stream are divided by sqrt(2 * layers), the number of such additions, so
    that its variance does not grow with depth (GPT-2, section 2.3). Raises ConfigError for a name that the decoder
    does not have.
    """
    kind = name.removesuffix(".weight").rsplit(".", 1)[-1]
    if kind in ("embed_tokens", "lm_head", "score") or kind in _INPUTS:
        return shape.initializer_std
    if kind in _OUTPUTS:
        return shape.initializer_std / math.sqrt(2 * shape.layers)
    if kind.endswith("norm"):
        return 0.0
    raise ConfigError(f"parameter {name!r} has no rule for its initial values")


def initial_tensor(shape: DecoderShape, name: str, tensor_shape: tuple[int, ...], seed: int) -> Tensor:
    """The first value of parameter `name`: float32 on the CPU, a pure function of its arguments."""
    std = initial_std(shape, name)
    return torch.ones(tensor_shape, device="cpu") if std == 0.0 else normal_tensor(name, tensor_shape, std, seed)


def normal_tensor(name: str, tensor_shape: tuple[int, ...], std: float, seed: int) -> Tensor:
    """Normal numbers around 0 for parameter `name`: float32 on the CPU, a pure function of the arguments."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big", signed=True))
    return torch.empty(tensor_shape, device="cpu").normal_(0.0, std, generator=generator)


def initialize(decoder: Decoder, seed: int, gather: Gather | None = None) -> None:
    """Fill every parameter of the decoder in place.

    gather: makes, for one parameter, the context in which it is whole and may be changed (under ZeRO-3
    `deepspeed.zero.GatheredParameters(parameter, modifier_rank=0)`). Sizes come from the shape, because a partitioned
    parameter has none.
    """
    sizes = parameter_table(decoder.shape, decoder.classes)
    for name, parameter in decoder.named_parameters():
        if name not in sizes:
            raise ConfigError(f"parameter {name!r} is not one of the decoder's")
        first = initial_tensor(decoder.shape, name, sizes[name], seed)
        with gather(parameter) if gather is not None else contextlib.nullcontext(), torch.no_grad():
            parameter.copy_(first)


def initialisation_table(shape: DecoderShape, classes: int | None = None) -> str:
    """A line for each kind of parameter: how many tensors, the size of each, and how it starts."""
    rows: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for name, size in parameter_table(shape, classes).items():
        kind = ".".join("N" if part.isdigit() else part for part in name.split("."))
        rows.setdefault((kind, size), []).append(name)
    lines = [f"{'parameter':<42}{'tensors':>8}  {'size':<16}start"]
    for (kind, size), names in rows.items():
        std = initial_std(shape, names[0])
        start = f"normal, std {std:.5f}" if std else "ones"
        lines.append(f"{kind:<42}{len(names):>8}  {' x '.join(map(str, size)):<16}{start}")
    return "\n".join(lines)

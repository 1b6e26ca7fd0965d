"""Random weights to start training from.

Each tensor is a pure function of (seed, name), so every rank, ZeRO stage and order of construction starts from the same
decoder without communication. Every rank draws every tensor on its CPU, about a minute for billions of parameters.
"""

import hashlib
import math

import torch
from torch import Tensor

from megadec.common.errors import ConfigError
from megadec.decoder.shape import DecoderShape

# The last part of a parameter's name, where it is no norm: matrices that read the residual stream, or stand outside of
# it, and those that write into it.
_READERS = ("embed_tokens", "lm_head", "score", "q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
_WRITERS = ("o_proj", "down_proj")


def initial_tensor(shape: DecoderShape, name: str, tensor_shape: tuple[int, ...], seed: int) -> Tensor:
    """The first value of parameter `name`: float32 on the CPU, a pure function of its arguments.

    Products that write into the residual stream are divided by sqrt(2 * layers), the number of such additions, so
    that its variance does not grow with depth (GPT-2, section 2.3). Raises ConfigError for a name that the decoder
    does not have.
    """
    kind = name.removesuffix(".weight").rsplit(".", 1)[-1]
    if kind == "bias":
        return torch.zeros(tensor_shape, device="cpu")
    if kind.endswith("norm"):
        return torch.ones(tensor_shape, device="cpu")
    if kind in _READERS:
        return normal_tensor(name, tensor_shape, shape.initializer_std, seed)
    if kind in _WRITERS:
        return normal_tensor(name, tensor_shape, shape.initializer_std / math.sqrt(2 * shape.layers), seed)
    raise ConfigError(f"parameter {name!r} has no rule for its initial values")


def normal_tensor(name: str, tensor_shape: tuple[int, ...], std: float, seed: int) -> Tensor:
    """Normal numbers around 0 for parameter `name`: float32 on the CPU, a pure function of the arguments."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big", signed=True))
    return torch.empty(tensor_shape, device="cpu").normal_(0.0, std, generator=generator)

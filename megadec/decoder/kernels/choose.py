"""Which way an operation is computed, and how much of it at a time.

In: the run's wish and a tensor. Out: the module that computes with it, and slices of rows. Float64 is never given
to Triton, so that tests in double precision mean what they say whatever the wish is.
"""

import functools
import importlib.util
import os
from collections.abc import Iterator
from types import ModuleType

import torch
from torch import Tensor

from megadec.common.errors import ConfigError
from megadec.decoder.execution import Kernels

# On a CPU the intermediate float32 numbers of a piece, three buffers of 1 MiB, stay in the caches of two cores, and its
# 2^18 elements are enough for several threads.
CPU_PIECE_ELEMENTS = 2**18


@functools.cache
def triton_is_installed() -> bool:
    """Whether triton can be imported; it is not imported for the answer."""
    return importlib.util.find_spec("triton") is not None


def use_triton(kernels: Kernels, x: Tensor) -> bool:
    """Whether an operation on x is given to a Triton kernel.

    Raises ConfigError when `triton` was asked for and x is not on a GPU (Triton's interpreter, TRITON_INTERPRET=1,
    needs none) or triton is not installed.
    """
    if kernels == "torch" or x.dtype == torch.float64 or torch.compiler.is_compiling():
        return False
    if kernels == "auto":
        return x.is_cuda and triton_is_installed()
    if not x.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise ConfigError(
            f"model.execution.kernels=triton needs a GPU, and the model is on {x.device}; say auto or torch"
        )
    if not triton_is_installed():
        raise ConfigError(
            "model.execution.kernels=triton, and triton is not installed; say auto or torch, or pip install triton"
        )
    return True


def module_for(operation: str, kernels: Kernels, x: Tensor) -> ModuleType:
    """The module whose functions compute an operation on x: `triton_NAME`, imported where it is wanted, or NAME.

    Raises ConfigError as `use_triton` does.
    """
    prefix = "triton_" if use_triton(kernels, x) else ""
    return importlib.import_module(f"megadec.decoder.kernels.{prefix}{operation}")


def pieces(rows: int, row_elements: int, device: torch.device) -> Iterator[slice]:
    """Slices of rows to work on one after another: what fits the caches of a CPU, all rows at once elsewhere."""
    step = max(1, CPU_PIECE_ELEMENTS // max(1, row_elements)) if device.type == "cpu" else max(1, rows)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))

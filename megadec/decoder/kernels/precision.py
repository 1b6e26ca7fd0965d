"""The precision that sums and products are computed in.

In: tensors of the model's dtype. Out: the same in float32, or the dtype to compute a product in. Bfloat16 is widened
piece by piece and not for a whole tensor, which leaves the widening to those who call.
"""

import platform

import torch
from torch import Tensor


def _cpu_has_bf16() -> bool:
    """Whether this processor has bfloat16 instructions (AVX512_BF16, AMX, Arm's BF16) and torch makes use of them."""
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    # oneDNN also takes AVX512 without BF16 for support, and is five times as slow as float32 there.
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512") and torch.cpu._is_avx512_bf16_supported()


# A constant and not a function, so that torch.compile guards it instead of tracing it.
CPU_HAS_BF16 = _cpu_has_bf16()


def has_bf16() -> bool:
    """Whether this machine's GPUs, or its CPU where it has none, multiply bfloat16 in hardware."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return CPU_HAS_BF16


def matmul_dtype(x: Tensor) -> torch.dtype:
    """The dtype to multiply x in: its own, but float32 for bfloat16 on a CPU that has no instructions for it.

    There torch's bfloat16 products take 5 to 15 times as long as float32's.
    """
    if x.dtype == torch.bfloat16 and x.device.type == "cpu" and not CPU_HAS_BF16:
        return torch.float32
    return x.dtype


def wide_dtype(x: Tensor) -> torch.dtype:
    """float32, or x's dtype when it is wider (float64 in tests)."""
    return torch.promote_types(x.dtype, torch.float32)


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32, or as it is when it is wider (float64 in tests)."""
    return x.to(wide_dtype(x))

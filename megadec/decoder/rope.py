"""Rotary position embedding (arXiv 2104.09864) in the layout of Hugging Face ("rotate half").

In: positions inside documents. Out: cosines and sines, by which `kernels/rotary.py` rotates queries and keys. The pair
that is rotated together is (i, i + head_size / 2), so q and k weights equal those of a Hugging Face Llama or Qwen3. The
tables are float32 and cached per device, outside the module, so that a model cast to bfloat16 does not round its
positions.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

# Shapes: B batch, S sequence, T table rows, F head size / 2.


@functools.lru_cache(maxsize=16)
def rope_table(head_size: int, theta: float, tokens: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos_TF and sin_TF, float32, for positions 0 .. tokens - 1."""
    # Computed in float64 on the host: the same table on every device. inference_mode(False) because a table that is
    # first made while generating must also serve training.
    with torch.inference_mode(False), torch.device("cpu"):
        frequencies_F = theta ** -(torch.arange(0, head_size, 2, dtype=torch.float64) / head_size)
        angles_TF = torch.outer(torch.arange(tokens, dtype=torch.float64), frequencies_F)
        return angles_TF.cos().float().to(device), angles_TF.sin().float().to(device)


def rotations(positions_BS: Tensor, head_size: int, theta: float, tokens: int) -> tuple[Tensor, Tensor]:
    """cos_BS1F and sin_BS1F of each token's position, float32; made once a batch and shared by all layers."""
    cos_TF, sin_TF = rope_table(head_size, theta, tokens, positions_BS.device)
    return cos_TF[positions_BS].unsqueeze(2), sin_TF[positions_BS].unsqueeze(2)

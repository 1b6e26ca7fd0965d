"""Rotary positions: distances only, in float32, wherever the table was first made."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from megadec.decoder.kernels.rotary import rotate_pair
from megadec.decoder.rope import rotations


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    queries, keys = rotate_pair(x, x, cos, sin)
    assert torch.equal(queries, keys)
    return queries


@pytest.fixture(autouse=True)
def _same_ids_each_time() -> None:
    torch.manual_seed(0)


def test_scores_depend_on_the_distance_of_positions_only() -> None:
    q, k = torch.randn(2, 1, 1, 1, 16).unbind(0)
    near = (
        rotate(q, *rotations(torch.tensor([[7]]), 16, 1e4, 64)),
        rotate(k, *rotations(torch.tensor([[3]]), 16, 1e4, 64)),
    )
    far = (
        rotate(q, *rotations(torch.tensor([[60]]), 16, 1e4, 64)),
        rotate(k, *rotations(torch.tensor([[56]]), 16, 1e4, 64)),
    )
    torch.testing.assert_close((near[0] * near[1]).sum(), (far[0] * far[1]).sum(), rtol=0, atol=1e-5)


def test_position_zero_is_not_rotated_and_lengths_are_kept() -> None:
    x = torch.randn(2, 5, 3, 16)
    positions = torch.arange(5).expand(2, 5)
    rotated = rotate(x, *rotations(positions, 16, 1e4, 64))
    assert torch.equal(rotated[:, 0], x[:, 0])
    torch.testing.assert_close(rotated.norm(dim=-1), x.norm(dim=-1))


def test_bfloat16_activations_are_rotated_by_unrounded_angles() -> None:
    x = torch.randn(1, 64, 2, 16, dtype=torch.bfloat16)
    turn = rotations(torch.arange(960, 1024)[None], 16, 1e4, 1024)
    assert torch.equal(rotate(x, *turn), rotate(x.float(), *turn).bfloat16())


def test_a_table_first_made_while_generating_serves_training_too() -> None:
    with torch.inference_mode():
        rotations(torch.arange(4)[None], 8, 123.0, 16)
    x = torch.randn(1, 4, 1, 8, requires_grad=True)
    rotate(x, *rotations(torch.arange(4)[None], 8, 123.0, 16)).sum().backward()
    assert x.grad is not None

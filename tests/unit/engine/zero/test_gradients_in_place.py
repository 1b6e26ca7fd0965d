"""Gradients that lie one behind the other in a buffer are found there; all others are not."""

from __future__ import annotations

import torch

from megadec.engine.zero.engine import _stretch


def test_neighbours_in_the_buffer_are_a_view_of_it() -> None:
    buffer = torch.arange(10.0)
    found = _stretch(buffer, [buffer[2:5], buffer[5:6], buffer[6:9]])
    assert found is not None
    assert found.data_ptr() == buffer[2:].data_ptr()
    assert found.tolist() == [2, 3, 4, 5, 6, 7, 8]


def test_anything_else_is_not() -> None:
    buffer = torch.arange(10.0)
    for parts in ([buffer[2:5], buffer[6:9]], [buffer[5:6], buffer[2:5]], [buffer[:4:2]], [torch.ones(3)]):
        assert _stretch(buffer, parts) is None
    assert _stretch(buffer, [torch.ones(3), torch.ones(3)]) is None
    assert _stretch(buffer.bfloat16(), [buffer[2:5]]) is None

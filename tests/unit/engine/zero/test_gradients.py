"""What the hooks see of a rank's own gradients."""

import math

import pytest
import torch
from torch import nn

from megadec.engine.zero.gradients import GradientWatch, OwnGradients, view_of


def test_the_norm_is_that_of_all_gradients_and_is_forgotten_once_read() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    watch = GradientWatch(model.named_parameters())
    model(torch.ones(2, 3)).sum().backward()
    whole = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()
    assert watch.read() == OwnGradients(pytest.approx(float(whole)), -1)
    assert watch.read() == OwnGradients(0.0, -1)


def test_a_micro_step_counts_as_what_it_leaves_which_is_the_sum_so_far_where_gradients_stay() -> None:
    model = nn.Linear(3, 1, bias=False)
    watch = GradientWatch(model.named_parameters())
    for stays, expected in ((True, math.hypot(1, 2)), (False, math.hypot(1, 1))):
        for _ in range(2):
            model(torch.tensor([[1.0, 0.0, 0.0]])).sum().backward()
            if not stays:
                model.zero_grad()
        assert watch.read().norm == pytest.approx(expected)
        model.zero_grad()


def test_the_first_parameter_in_the_backward_pass_that_breaks_is_named_and_a_frozen_one_is_not_looked_at() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[1].bias.requires_grad_(False)
    watch = GradientWatch(model.named_parameters())
    assert watch.names == ["0.weight", "0.bias", "1.weight"]
    model[1].weight.register_hook(lambda gradient: gradient * math.nan)
    model[0].weight.register_hook(lambda gradient: gradient * math.inf)
    model(torch.ones(2, 3)).sum().backward()
    found = watch.read()
    assert watch.names[found.first_not_finite] == "1.weight"
    assert not math.isfinite(found.norm)


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ([slice(2, 5), slice(5, 6), slice(6, 9)], [2, 3, 4, 5, 6, 7, 8]),
        ([slice(2, 5), slice(6, 9)], None),
        ([slice(5, 6), slice(2, 5)], None),
        ([slice(0, 4, 2)], None),
    ],
)
def test_neighbors_in_the_buffer_are_a_view_of_it_and_anything_else_is_not(
    parts: list[slice], found: list[int] | None
) -> None:
    buffer = torch.arange(10.0)
    view = view_of(buffer, [buffer[part] for part in parts])
    assert (None if view is None else view.tolist()) == found
    assert view is None or view.data_ptr() == buffer[parts[0]].data_ptr()


def test_what_is_in_another_buffer_or_of_another_dtype_is_no_view() -> None:
    buffer = torch.arange(10.0)
    assert view_of(buffer, [torch.ones(3), torch.ones(3)]) is None
    assert view_of(buffer.bfloat16(), [buffer[2:5]]) is None

"""Ranks of one machine share its cores, and what the user says of threads stays."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from megadec.engine.zero.threads import share_cores


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("cores", "ranks", "threads"), [(8, 1, 8), (8, 2, 4), (7, 2, 3), (2, 4, 1)])
def test_a_rank_computes_with_its_share_of_the_cores_and_at_least_one(monkeypatch, cores, ranks, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert share_cores(ranks) == threads


def test_what_the_environment_says_of_threads_stays(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    torch.set_num_threads(3)
    assert share_cores(1) == 3

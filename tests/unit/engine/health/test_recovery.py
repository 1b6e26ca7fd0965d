"""What is told of an anomaly: on which ranks, of which documents, in the log and in the metrics."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from megadec.engine.health.recovery import describe, documents_read, line_of
from megadec.engine.metrics.reports import Anomaly, StepReport
from megadec.engine.ranks import Ranks

SPIKE = Anomaly(8, "loss_spike", "skip", (1,), "the loss is 9")


def read(step: int, rank: int, world_size: int) -> Sequence[str]:
    return [f"{step}/{rank}/{world_size}"]


@pytest.mark.parametrize(
    ("rank", "named", "found"),
    [
        (0, (1,), {1: ["7/1/3"]}),
        (1, (1,), {1: ["7/1/3"]}),
        (2, (1,), {}),
        (0, (), {0: ["7/0/3"], 1: ["7/1/3"], 2: ["7/2/3"]}),
    ],
)
def test_the_first_rank_and_those_that_are_named_read_the_documents_of_the_step(rank, named, found) -> None:
    ranks = Ranks(rank, 3, torch.device("cpu"))
    assert documents_read(read, ranks, replace(SPIKE, ranks=named)) == found


def test_a_log_line_says_what_was_done_and_shows_a_few_documents() -> None:
    assert describe(SPIKE, {}) == "step 8: the loss is 9; no rank updated its weights"
    names = [f"wiki-{number}" for number in range(9)]
    told = describe(replace(SPIKE, action="stop"), {1: names})
    assert told.endswith("; the weights were not changed; rank 1 read wiki-0, wiki-1, wiki-2, wiki-3, wiki-4, wiki-5"
                         " and 3 more (metrics.jsonl has all)")  # fmt: skip
    assert describe(SPIKE, dict.fromkeys(range(20), names)).count("read") == 6


def test_the_line_of_the_metrics_has_every_document_and_null_for_what_json_cannot_say() -> None:
    report = StepReport(8, math.inf, 100, 1000, 0.1, math.nan, (), SPIKE)
    line = line_of(SPIKE, report, {1: ["wiki-3"]})
    assert json.loads(json.dumps(line, allow_nan=False)) == {
        "step": 8,
        "found": "loss_spike",
        "action": "skip",
        "ranks": [1],
        "parameters": [],
        "words": "the loss is 9",
        "loss": None,
        "grad_norm": None,
        "documents": {"1": ["wiki-3"]},
    }
    assert line_of(SPIKE, replace(report, loss=2.5), {})["loss"] == 2.5

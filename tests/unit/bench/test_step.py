"""The benchmark of a training step, on a decoder that takes no time."""

import gzip
import json
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from bench.measure import alternate, fresh_process, product_flops, summary
from bench.step import StepOptions, main
from bench.trainers import NAMES, Workload, make
from megadec.common.errors import ConfigError, TrainingError
from tests.support.commands import answer

TINY = [
    *("--hidden_size", "64", "--layers", "2", "--heads", "4", "--kv_heads", "2", "--head_size", "16"),
    *("--intermediate_size", "64", "--vocabulary_size", "64", "--sequence_length", "32", "--rows", "2"),
]


def report_of(names: tuple[str, ...], *more: object) -> Any:
    smallest = partial(product_flops, limit_seconds=0.0)
    with mock.patch("bench.step.product_flops", smallest):
        report = answer(main, *TINY, "--names", *names, "--rounds", 2, *more)
    ran = [name for name in names if name not in report["skipped"]]
    assert list(report["rows"]) == ran
    for name in ran:
        row = report["rows"][name]
        assert row["loss_difference"] < 0.005, name
        assert len(row["losses"]) == 4  # two to warm up
        assert row["tokens_per_second"] > 0
        assert row["peak_bytes"] > 2**20
        assert row["operations"][0]["milliseconds"] > 0
    assert report["rows"]["transformers"]["speed_ratio"] == 1.0
    return report


def test_a_peer_has_our_losses_and_one_that_cannot_run_says_why(tmp_path: Path) -> None:
    names = ("ours", "transformers", "transformers_liger")
    report = report_of(names, "--timelines", tmp_path)
    for name in report["rows"]:
        events = json.loads(gzip.decompress((tmp_path / f"{name}.json.gz").read_bytes()))["traceEvents"]
        assert any(event["name"] == "aten::mm" for event in events)
    assert {"torch", "deepspeed", "transformers"} <= report["environment"]["versions"].keys()
    assert report["step_flops"] > 6 * 50_000 * 64 / 2
    assert report["product_flops_per_second"] > 0
    assert set(report["skipped"]) <= {"transformers_liger"}
    bars = report["bars"]
    assert {"ours", "speed_against_transformers", "memory_against_transformers"} <= bars.keys()


@pytest.mark.slow
def test_every_peer_has_our_losses_and_bf16_is_measured_beside_fp32() -> None:
    report = report_of((*NAMES, "ours_fp32", "ours_bf16"))
    assert set(report["skipped"]) <= {"transformers_liger"}
    bars = report["bars"]
    assert "speed_against_best_plain_loop" in bars
    assert bars["bf16_seconds_over_fp32"] > 0
    assert 0 < bars["bf16_loss_difference"] < 0.005


def test_an_unknown_trainer_is_refused() -> None:
    with pytest.raises(ConfigError, match="'his' is none of"):
        StepOptions(names=("ours", "his"))
    with pytest.raises(ConfigError, match="'his' is none of"):
        make("his", Workload())


def test_the_batches_of_a_workload_repeat_and_predict_the_next_token_of_their_row() -> None:
    batch = Workload(rows=2, sequence_length=16).batch(1)
    again = Workload(rows=2, sequence_length=16).batch(5)
    assert torch.equal(batch.ids_BS, again.ids_BS)
    assert torch.equal(batch.targets_BS[:, :-1], batch.ids_BS[:, 1:])
    assert batch.valid_tokens == 2 * 15


def test_cases_take_turns_and_ratios_are_those_of_a_round() -> None:
    called: list[str] = []
    seconds = alternate({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, rounds=2, warm_up=1)
    assert called == ["b", "a", "a", "b", "b", "a"]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}
    table = summary({"a": [1.0, 3.0, 2.0], "b": [0.5, 1.0, 1.0]}, "a")
    assert (table["b"]["median_seconds"], table["b"]["speed_ratio"]) == (1.0, 2.0)
    assert table["a"]["speed_ratio"] == 1.0


def test_a_process_that_fails_says_so_with_its_last_words() -> None:
    with pytest.raises(TrainingError, match=r"No module named bench\.nothing"):
        fresh_process("bench.nothing", [])

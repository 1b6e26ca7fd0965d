"""The benchmark of a training step, on a decoder that takes no time."""

from __future__ import annotations

import json

import pytest
import torch

from megadec.common.errors import ConfigError, TrainingError
from tools.bench.measure import alternate, fresh_process, summary
from tools.bench.step import StepOptions, main
from tools.bench.trainers import Workload, make

TINY = [
    *("--hidden_size", "64", "--layers", "2", "--heads", "4", "--kv_heads", "2", "--head_size", "16"),
    *("--intermediate_size", "64", "--vocabulary_size", "64", "--row_tokens", "32", "--rows", "2"),
]


def test_the_peers_have_our_losses_and_those_that_cannot_run_say_why(capsys: pytest.CaptureFixture[str]) -> None:
    main([*TINY, "--names", "ours", "transformers", "plain", "transformers_liger", "--rounds", "2"])
    report = json.loads(capsys.readouterr().out)
    assert {"torch", "deepspeed", "transformers"} <= report["environment"]["versions"].keys()
    assert report["step_flops"] > 6 * 50_000 * 64 / 2
    skipped = set(report["skipped"])
    assert skipped == set() if torch.cuda.is_available() else {"transformers_liger"}
    for name in ("ours", "transformers", "plain"):
        row = report["rows"][name]
        assert row["loss_difference"] < 0.005, name
        assert len(row["losses"]) == 4  # two to warm up
        assert row["tokens_per_second"] > 0
        assert row["peak_bytes"] > 2**20
        assert row["operations"][0]["milliseconds"] > 0
    assert report["rows"]["transformers"]["speed_ratio"] == 1.0
    against = report["against_peers"]
    assert against["ours"] == "ours"
    assert against.keys() >= {"speed_against_transformers", "memory_against_best_plain_loop"}


def test_an_unknown_trainer_is_refused() -> None:
    with pytest.raises(ConfigError, match="'his' is none of"):
        StepOptions(names=("ours", "his"))
    with pytest.raises(ConfigError, match="'his' is none of"):
        make("his", Workload())


def test_the_batches_of_a_workload_repeat_and_predict_the_next_token_of_their_row() -> None:
    batch = Workload(rows=2, row_tokens=16).batch(1)
    again = Workload(rows=2, row_tokens=16).batch(5)
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
    with pytest.raises(TrainingError, match=r"No module named tools\.bench\.nothing"):
        fresh_process("tools.bench.nothing", [])

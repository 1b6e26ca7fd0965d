"""The benchmark of ZeRO: its cases are the files that they name, and all of them train the same decoder."""

import json
import sys
from pathlib import Path

import pytest

from bench import ranks
from bench.zero import COMPARISONS, ZeroOptions, main
from bench.zero_cases import settings_file
from megadec.common.errors import ConfigError, TrainingError
from tests.support import PROJECT
from tests.support.processes import run_ranks

FILES = PROJECT / "ds_configs"
TINY = {
    "hidden_size": 32, "layers": 2, "heads": 2, "kv_heads": 1, "head_size": 16, "intermediate_size": 64,
    "vocabulary_size": 96, "sequence_length": 16, "rows": 2, "micro_steps": 2,
}  # fmt: skip


def test_a_change_goes_where_deepspeed_reads_it(tmp_path: Path) -> None:
    case = "zero3 {reduce_bucket_size: 5, communication_data_type: bf16}"
    changed = json.loads(settings_file(case, FILES, tmp_path).read_text())
    shipped = json.loads((FILES / "zero3.json").read_text())
    assert changed["communication_data_type"] == "bf16"
    assert changed["zero_optimization"] == {**shipped["zero_optimization"], "reduce_bucket_size": 5}
    assert json.loads(settings_file("zero3", FILES, tmp_path).read_text()) == shipped


@pytest.mark.parametrize(("case", "words"), [("zero9", "does not exist"), ("zero3 [a", "is not a mapping")])
def test_a_case_that_is_none_is_refused(tmp_path: Path, case: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        settings_file(case, FILES, tmp_path)


@pytest.mark.parametrize("name", COMPARISONS)
def test_every_listed_case_has_its_file(tmp_path: Path, name: str) -> None:
    for case in COMPARISONS[name]:
        assert case == "plain" or settings_file(case, FILES, tmp_path).is_file()


def test_a_number_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="rounds=0 is not at least 1"):
        ZeroOptions(rounds=0)


def test_the_plain_loop_and_every_stage_train_the_same_decoder_on_two_ranks(tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    arguments = [f"--{name}={value}" for name, value in TINY.items()]
    arguments += ["--precision=fp32", "--rounds=2", f"--output={output}", "--cases", "plain", "zero1", "zero2", "zero3"]
    run_ranks(main, [arguments], 2, tmp_path / "log")
    result = json.loads(output.read_text())
    assert (result["ranks"], list(result["cases"])) == (2, ["plain", "zero1", "zero2", "zero3"])
    for name, row in result["cases"].items():
        assert len(row["losses"]) == 4
        assert row["losses"][-1] < row["losses"][0]
        assert row["largest_loss_difference"] < 1e-5, name
        assert row["tokens_per_second"] == pytest.approx(2 * 2 * 2 * 16 / row["median_seconds"], rel=1e-2)


def test_a_rank_that_fails_ends_the_others_and_is_reported() -> None:
    program = "import os, time; time.sleep(0 if os.environ['RANK'] == '1' else 999); raise SystemExit(3)"
    with pytest.raises(TrainingError, match=r"the ranks ended with \[None, 3\]"):
        ranks.run_ranks([sys.executable, "-c", program], 2)

"""The table of fine-tuned decoders and the baseline beside them."""

import json
from pathlib import Path

import pytest

from bench.titles import BenchOptions, main
from megadec.common.errors import ConfigError
from megadec.export.read.megadec import to_megadec
from tests.support import PROJECT
from tests.support.sources import random_source
from tests.support.titles import WORDS, write_titles


def test_the_baseline_learns_what_a_word_gives_away_and_is_written_with_its_picture(tmp_path, capsys):
    data = write_titles(tmp_path / "titles")
    main(["--data", str(data), "--model", "none", "--output", str(tmp_path / "out"), "--runs", "[]"])
    [row] = json.loads(capsys.readouterr().out)
    assert row["accuracy"] > 0.9
    [full] = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["rows"]
    assert (full["labels"], full["texts"]) == (list(WORDS), 18)
    assert full["trained_parameters"] % (len(WORDS)) == 0
    assert (tmp_path / "out" / "svm.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("run", ["full", "full:x", "half:0"])
def test_a_run_that_is_no_method_and_seed_is_refused(run):
    with pytest.raises(ConfigError, match="is not METHOD:SEED"):
        BenchOptions(Path("data"), Path("model"), Path("out"), runs=(run,))


def test_a_run_that_nobody_teaches_is_refused():
    with pytest.raises(ConfigError, match="'taught:0' needs a run of the method full before it"):
        BenchOptions(Path("data"), Path("model"), Path("out"), runs=("lora:0", "taught:0", "full:1"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_is_trained_by_the_launcher_and_measured_like_the_baseline(tmp_path, tiny_tokenizer_path, monkeypatch):
    to_megadec(random_source(tiny_tokenizer_path), tmp_path / "model")
    data = write_titles(tmp_path / "titles")
    (tmp_path / "launch").symlink_to(PROJECT / "launch")
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.chdir(tmp_path)
    small = "--epochs 1 --data.sequence_length 40 --data.variants 2 --train.precision fp32 --evaluate.interval_steps 50"
    out = tmp_path / "out"
    arguments = ["--data", str(data), "--model", str(tmp_path / "model"), "--output", str(out), "--ranks", "1"]
    arguments += ["--deepspeed", str(PROJECT / "ds_configs/zero2.json"), "--runs", "lora:3", "full:1", "taught:2"]
    arguments += ["--options", json.dumps(dict.fromkeys(("lora", "full", "taught"), small))]
    arguments += ["--unlabelled", str(data / "dev.txt")]
    main(arguments)
    _, found, full, taught = json.loads((out / "results.json").read_text(encoding="utf-8"))["rows"]
    assert (found["method"], found["seed"], found["steps"]) == ("lora", 3, 3)
    assert 0 < found["trained_parameters"] < 20_000
    assert found["accuracy"] >= found["accuracy_of_last_step"]
    assert taught["taught_by"] == ["full:1"]
    assert taught["steps"] > 2 * full["steps"] - 2  # the training texts again, and those of dev.txt

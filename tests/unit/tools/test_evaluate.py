"""Scoring a model: that its numbers are those of training is tested in tests/dist/test_export.py."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from megadec.common.errors import ConfigError, ModelFolderError, ShardError
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.shards import write_shards
from megadec.export.commands import convert, generate
from megadec.export.read.megadec import to_megadec
from megadec.finetune.commands import evaluate as main
from tests.support.commands import answer
from tests.support.remote_shards import upload
from tests.support.sources import random_source

ADDRESS = "faulty://bucket/tiny"


@pytest.fixture
def model(tmp_path, tiny_tokenizer_path) -> Path:
    to_megadec(random_source(tiny_tokenizer_path), tmp_path / "model")
    return tmp_path / "model"


def test_each_set_gets_the_figures_of_its_scored_tokens_in_the_file_and_on_standard_output(
    tmp_path, model, tiny_documents, tiny_tokenizer_path
):
    tokenizer = Tokenizer.load(tiny_tokenizer_path)
    parts = {"first": tiny_documents[:4], "second": tiny_documents[4:8]}
    indexes = {name: write_shards(documents, tokenizer, tmp_path / name) for name, documents in parts.items()}
    output = tmp_path / "scores.json"
    sets = [tmp_path / name for name in parts]
    result = answer(main, "--model", model, "--output", output, "--device", "cpu", "--data", *sets)
    assert result == json.loads(output.read_text())
    assert (result["step"], result["trained_tokens"], list(result["sets"])) == (12, 3456, list(parts))
    for name, figures in result["sets"].items():
        # The first token of each document is not predicted.
        assert figures["tokens"] == indexes[name]["tokens"] - indexes[name]["documents"]
        assert figures["characters"] == indexes[name]["characters"]
        assert figures["perplexity"] == pytest.approx(math.exp(figures["loss"]))
        bits = figures["loss"] * figures["tokens"] / figures["characters"] / math.log(2)
        assert figures["bits_per_character"] == pytest.approx(bits)


def test_the_size_of_a_batch_does_not_change_the_score(model, tiny_shards):
    usual = ("--model", model, "--data", tiny_shards, "--windows", 7, "--micro_batch_size")
    losses = [answer(main, *usual, size)["sets"]["tiny"]["loss"] for size in (1, 5)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sequence_length", "49"], "sequence_length=49 is not from 1 to 48"),
        (["--micro_batch_size", "0"], "micro_batch_size=0"),
        (["--windows", "0"], "windows=0"),
        (["--cache.attempts", "0"], r"cache\.attempts=0 is not at least 1"),
        (["--data", "a/tiny", "b/tiny"], r"must differ; found \['tiny', 'tiny'\]"),
        (["--data", "a/tiny", "https://example.org/sets/tiny/"], r"must differ; found \['tiny', 'tiny'\]"),
    ],
)
def test_a_wrong_request_is_refused(model, tiny_shards, arguments, words):
    with pytest.raises(ConfigError, match=words):
        main(["--model", str(model), "--data", str(tiny_shards), *arguments])


def test_shards_of_another_tokenizer_are_refused(tmp_path, model, tiny_documents, tiny_tokenizer_path):
    other = tmp_path / "other.model"
    other.write_bytes(tiny_tokenizer_path.read_bytes() + b"\x32\x00")  # an empty field at the end: another hash
    write_shards(tiny_documents[:9], Tokenizer.load(other), tmp_path / "shards")
    with pytest.raises(ShardError, match="tokenizer"):
        main(["--model", str(model), "--data", str(tmp_path / "shards")])


def sets_of(*arguments: object) -> dict[str, Any]:
    sets: dict[str, Any] = answer(main, *arguments)["sets"]
    for figures in sets.values():
        del figures["seconds"]
    return sets


def test_shards_behind_an_address_give_the_figures_of_local_ones_and_are_fetched_once_within_the_bytes_of_the_cache(
    tmp_path, model, tiny_shards
):
    far = upload(tiny_shards, ADDRESS)
    shards = json.loads((tiny_shards / "index.json").read_text())["shards"]
    usual = ("--model", model, "--sequence_length", 32, "--windows", 40, "--device", "cpu", "--data")
    here = sets_of(*usual, tiny_shards)
    for _ in range(2):
        assert sets_of(*usual, f"{ADDRESS}/", "--cache.folder", tmp_path / "cache") == here
    assert sorted(far.reads) == sorted(shard["name"] for shard in shards)

    largest, small = max(shard["bytes"] for shard in shards), tmp_path / "small"
    assert sets_of(*usual, ADDRESS, "--cache.folder", small, "--cache.bytes", largest) == here
    assert 0 < sum(path.stat().st_size for path in small.glob("*.tar")) <= largest
    with pytest.raises(ConfigError, match=rf"cache\.bytes=1000 is less than the \d+ bytes of {ADDRESS}/"):
        sets_of(*usual, ADDRESS, "--cache.folder", tmp_path / "none", "--cache.bytes", 1000)
    with pytest.raises(ShardError, match=r"/none/index\.json is missing"):
        sets_of(*usual, "faulty://bucket/none", "--cache.folder", tmp_path, "--cache.attempts", 1)


@pytest.mark.parametrize(
    ("to", "dtype", "runtime"), [("gguf", "q8_0", "llama.cpp q8_0"), ("onnx", "int8", "onnxruntime int8")]
)
def test_a_quantized_export_is_evaluated_and_continues_a_text_and_its_folder_says_what_it_lost_and_took(
    tmp_path, tiny_tokenizer_path, tiny_shards, capsys, to, dtype, runtime
):
    pytest.importorskip({"gguf": "cyllama", "onnx": "onnxruntime"}[to])
    model, folder = tmp_path / "model", tmp_path / "export"
    to_megadec(random_source(tiny_tokenizer_path, hidden_size=64), model)
    asked = ["--to", to, "--dtype", dtype, "--parity", "quick", "--output", str(folder)]
    convert(["--input", str(model), *asked])
    stated = json.loads((folder / "megadec.json").read_text())
    assert (stated["parity"]["runtime"], stated["parity"]["mode"]) == (runtime, "quick")
    assert set(stated["seconds"]) == {"writing", "parity"}
    assert stated["parity"]["source_bits_per_character"] > 1

    windows = ("--data", tiny_shards, "--windows", 6, "--micro_batch_size", 2)
    ours, theirs = (answer(main, "--model", path, *windows) for path in (model, folder))
    assert (theirs["step"], theirs["trained_tokens"], theirs["dtype"]) == (12, 3456, runtime)
    before, after = ours["sets"]["tiny"], theirs["sets"]["tiny"]
    assert (after["tokens"], after["characters"]) == (before["tokens"], before["characters"])
    assert after["bits_per_character"] == pytest.approx(before["bits_per_character"], rel=0.01)

    capsys.readouterr()
    generate(
        ["--model", str(folder), "--prompt", "小林", "--sampling.max_new_tokens", "8", "--sampling.temperature", "0"]
    )
    assert capsys.readouterr().out.startswith("小林")
    with pytest.raises(ConfigError, match=rf"dtype bfloat16: .* is {to.upper()}, which runs on the CPU here"):
        main(["--model", str(folder), "--data", str(tiny_shards), "--dtype", "bfloat16"])

    changed = next(folder.glob("model.*"))
    changed.write_bytes(changed.read_bytes()[:-1] + b"\xff")
    for command, question in ((main, ["--data", str(tiny_shards)]), (generate, ["--prompt", "小林"])):
        with pytest.raises(ModelFolderError, match="was changed"):  # status 2
            command(["--model", str(folder), *question])

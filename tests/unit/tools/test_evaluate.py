"""Scoring a model: that its numbers are those of training is tested in tests/dist/test_export.py."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from megadec.common.errors import ConfigError, ShardError
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.shards import write_shards
from megadec.export.read.megadec import to_megadec
from megadec.finetune.commands import evaluate as main
from tests.support.remote_shards import upload
from tests.support.sources import random_source

ADDRESS = "faulty://bucket/tiny"


@pytest.fixture
def model(tmp_path, tiny_tokenizer_path) -> Path:
    to_megadec(random_source(tiny_tokenizer_path), tmp_path / "model")
    return tmp_path / "model"


def test_each_set_gets_its_figures_in_the_file_and_on_standard_output(
    tmp_path, model, tiny_shards, tiny_documents, tiny_tokenizer_path, capsys
):
    write_shards(tiny_documents[:9], Tokenizer.load(tiny_tokenizer_path), tmp_path / "second")
    output = tmp_path / "scores.json"
    arguments = ["--model", str(model), "--windows", "6", "--sequence_length", "32", "--output", str(output)]
    main([*arguments, "--data", str(tiny_shards), str(tmp_path / "second"), "--device", "cpu"])
    result = json.loads(output.read_text())
    assert result == json.loads(capsys.readouterr().out)
    assert (result["step"], result["trained_tokens"], list(result["sets"])) == (12, 3456, ["tiny", "second"])
    for figures in result["sets"].values():
        assert figures["perplexity"] == pytest.approx(math.exp(figures["loss"]))
        bits = figures["loss"] * figures["tokens"] / figures["characters"] / math.log(2)
        assert figures["bits_per_character"] == pytest.approx(bits)


def test_the_size_of_a_batch_does_not_change_the_score(model, tiny_shards, capsys):
    losses = []
    for size in ("1", "5"):
        main(["--model", str(model), "--data", str(tiny_shards), "--windows", "7", "--micro_batch_size", size])
        losses.append(json.loads(capsys.readouterr().out)["sets"]["tiny"]["loss"])
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


def test_every_token_but_the_first_of_each_document_is_scored(
    tmp_path, model, tiny_documents, tiny_tokenizer_path, capsys
):
    index = write_shards(tiny_documents[:9], Tokenizer.load(tiny_tokenizer_path), tmp_path / "shards")
    main(["--model", str(model), "--data", str(tmp_path / "shards"), "--device", "cpu"])
    figures = json.loads(capsys.readouterr().out)["sets"]["shards"]
    assert figures["tokens"] == index["tokens"] - index["documents"]
    assert figures["characters"] == index["characters"]


def sets_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    main([str(argument) for argument in arguments])
    sets: dict[str, Any] = json.loads(capsys.readouterr().out)["sets"]
    for figures in sets.values():
        del figures["seconds"]
    return sets


def test_shards_behind_an_address_give_the_figures_of_local_ones_and_are_fetched_once_within_the_bytes_of_the_cache(
    tmp_path, model, tiny_shards, capsys
):
    far = upload(tiny_shards, ADDRESS)
    shards = json.loads((tiny_shards / "index.json").read_text())["shards"]
    usual = ("--model", model, "--sequence_length", 32, "--windows", 40, "--device", "cpu", "--data")
    here = sets_of(capsys, *usual, tiny_shards)
    for _ in range(2):
        assert sets_of(capsys, *usual, f"{ADDRESS}/", "--cache.folder", tmp_path / "cache") == here
    assert sorted(far.reads) == sorted(shard["name"] for shard in shards)

    largest, small = max(shard["bytes"] for shard in shards), tmp_path / "small"
    assert sets_of(capsys, *usual, ADDRESS, "--cache.folder", small, "--cache.bytes", largest) == here
    assert 0 < sum(path.stat().st_size for path in small.glob("*.tar")) <= largest
    with pytest.raises(ConfigError, match=rf"cache\.bytes=1000 is less than the \d+ bytes of {ADDRESS}/"):
        sets_of(capsys, *usual, ADDRESS, "--cache.folder", tmp_path / "none", "--cache.bytes", 1000)
    with pytest.raises(ShardError, match=r"/none/index\.json is missing"):
        sets_of(capsys, *usual, "faulty://bucket/none", "--cache.folder", tmp_path, "--cache.attempts", 1)

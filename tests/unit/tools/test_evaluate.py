"""Scoring a model: that its numbers are those of training is tested in tests/dist/test_export.py."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from megadec.common.errors import ConfigError, ShardError
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.shards import write_shards
from megadec.export.megadec import to_megadec
from tests.unit.export.conftest import random_source
from tools.evaluate import main


@pytest.fixture
def model(tmp_path, tiny_tokenizer_path) -> Path:
    to_megadec(random_source(tiny_tokenizer_path), tmp_path / "model")
    return tmp_path / "model"


def test_each_set_gets_its_figures_in_the_file_and_on_standard_output(
    tmp_path, model, tiny_shards, tiny_documents, tiny_tokenizer_path, capsys
):
    write_shards(tiny_documents[:9], Tokenizer.load(tiny_tokenizer_path), tmp_path / "second")
    output = tmp_path / "scores.json"
    arguments = ["--model", str(model), "--windows", "6", "--row_tokens", "32", "--output", str(output)]
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
        main(["--model", str(model), "--data", str(tiny_shards), "--windows", "7", "--micro_sequences", size])
        losses.append(json.loads(capsys.readouterr().out)["sets"]["tiny"]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--row_tokens", "49"], "row_tokens=49 is not from 1 to 48"),
        (["--micro_sequences", "0"], "micro_sequences=0"),
        (["--windows", "0"], "windows=0"),
    ],
)
def test_a_wrong_request_is_refused(model, tiny_shards, arguments, words):
    with pytest.raises(ConfigError, match=words):
        main(["--model", str(model), "--data", str(tiny_shards), *arguments])


def test_two_sets_of_one_name_are_refused(model, tiny_shards):
    with pytest.raises(ConfigError, match="must differ"):
        main(["--model", str(model), "--data", str(tiny_shards), str(tiny_shards)])


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

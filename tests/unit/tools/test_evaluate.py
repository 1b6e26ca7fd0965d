"""Scoring a model: that its numbers are those of training is tested in tests/dist/test_export.py."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from megadec.common.errors import ConfigError, ShardError
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.shards import write_shards
from megadec.export.read.megadec import to_megadec
from megadec.finetune.commands import evaluate as main
from tests.support.sources import random_source


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


@pytest.fixture
def web(tiny_shards: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of a server over the folder that holds the tiny set, and the paths that it was asked for."""
    pytest.importorskip("aiohttp")
    asked: list[str] = []

    class Listing(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_: object) -> None:
            return None

    folder = str(tiny_shards.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: Listing(*a, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def sets_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    main([str(argument) for argument in arguments])
    sets: dict[str, Any] = json.loads(capsys.readouterr().out)["sets"]
    for figures in sets.values():
        del figures["seconds"]
    return sets


def test_shards_behind_an_address_give_the_figures_of_local_ones_and_are_fetched_once(
    tmp_path, model, tiny_shards, web, capsys
):
    address, asked = web
    usual = ("--model", model, "--sequence_length", 32, "--windows", 40, "--device", "cpu")
    here = sets_of(capsys, *usual, "--data", tiny_shards)
    cache = ("--cache.folder", tmp_path / "cache")
    for _ in range(2):
        assert sets_of(capsys, *usual, "--data", f"{address}/tiny/", *cache) == here
    shards = json.loads((tiny_shards / "index.json").read_text())["shards"]
    assert sorted(path.name for path in (tmp_path / "cache").glob("*.tar")) == sorted(
        f"{shard['sha256']}.tar" for shard in shards
    )
    tars = [path for path in asked if path.endswith(".tar")]
    assert sorted(tars) == [f"/tiny/{shard['name']}" for shard in shards]


def test_the_cache_of_an_evaluation_stays_within_its_bytes(tmp_path, model, tiny_shards, capsys):
    files = fsspec.filesystem("memory")
    files.pipe({f"/held-out/tiny/{path.name}": path.read_bytes() for path in tiny_shards.iterdir()})
    try:
        usual = ("--model", model, "--sequence_length", 32, "--windows", 40, "--device", "cpu")
        here = sets_of(capsys, *usual, "--data", tiny_shards)
        largest = max(shard["bytes"] for shard in json.loads((tiny_shards / "index.json").read_text())["shards"])
        there = ("--data", "memory://held-out/tiny", "--cache.folder", tmp_path / "cache")
        assert sets_of(capsys, *usual, *there, "--cache.bytes", largest) == here
        assert 0 < sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.tar")) <= largest
        with pytest.raises(
            ConfigError, match=r"cache\.bytes=1000 is less than the \d+ bytes of memory://held-out/tiny/"
        ):
            sets_of(capsys, *usual, "--data", there[1], "--cache.folder", tmp_path / "small", "--cache.bytes", 1000)
    finally:
        files.rm("/held-out", recursive=True)


def test_a_path_and_an_address_of_one_name_are_refused(model, tiny_shards):
    with pytest.raises(ConfigError, match=r"must differ; found \['tiny', 'tiny'\]"):
        main(["--model", str(model), "--data", str(tiny_shards), "https://example.org/sets/tiny/"])
    with pytest.raises(ConfigError, match=r"cache\.attempts=0 is not at least 1"):
        main(["--model", str(model), "--data", str(tiny_shards), "--cache.attempts", "0"])


def test_a_set_that_is_not_behind_the_address_is_named(tmp_path, model, web):
    cache = ["--cache.folder", str(tmp_path), "--cache.attempts", "1"]
    with pytest.raises(ShardError, match=r"/none/index\.json is missing"):
        main(["--model", str(model), "--data", f"{web[0]}/none", *cache])

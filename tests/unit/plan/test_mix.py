"""The command mix: the budget of a card, what it warns of, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from megadec.common.config import from_yaml, to_dict
from megadec.common.errors import ConfigError
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.shards import write_shards
from megadec.engine.runs.open_pretrain import allowed_epochs, open_sets, stream_of
from megadec.engine.runs.pretrain import PretrainRun
from megadec.plan.mix import SourceBudget, licence_warning, main, read_tokens
from tests.support.decoders import TINY

SMALL = {key: value for key, value in TINY.items() if key != "vocabulary_size"}
SIZES = ("--data.sequence_length", "32", "--train.global_batch_size", "8")


@pytest.fixture(scope="module")
def few_shards(tmp_path_factory, tiny_documents, tiny_tokenizer_path: Path) -> Path:
    folder = tmp_path_factory.mktemp("mix") / "few"
    write_shards(tiny_documents[40:60], Tokenizer.load(tiny_tokenizer_path), folder, block_tokens=4096)
    return folder


@pytest.fixture
def card(tmp_path: Path, tiny_shards: Path, few_shards: Path) -> Path:
    sources = {
        "tiny": {"shards": str(tiny_shards), "weight": 0.5, "licences": ["MIT"]},
        "few": {"shards": str(few_shards), "weight": 3.0, "epochs": 2},
    }
    path = tmp_path / "mix.yaml"
    path.write_text(yaml.safe_dump({"sources": sources}, sort_keys=False))
    return path


def mixed(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    main([*arguments, "--json", "true"])
    return json.loads(capsys.readouterr().out)


def test_a_budget_of_a_card_adds_up_to_the_tokens_asked_for(card: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mix = mixed(capsys, "--card", str(card), "--tokens", "25.6K", *SIZES)
    assert mix["steps"] == 100
    assert mix["tokens"] + mix["padding"] == 25_600
    assert sum(one["tokens"] for one in mix["sources"]) == mix["tokens"]
    assert [one["name"] for one in mix["sources"]] == ["tiny", "few"]
    assert sum(one["share"] for one in mix["sources"]) == pytest.approx(1)
    assert mix["sources"][1]["documents"] == mix["sources"][1]["documents_there"] == 20


def test_what_is_seen_too_often_and_what_licences_lack_is_warned_of(
    card: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--card", str(card), "--tokens", "1M", *SIZES])
    printed = capsys.readouterr().out
    assert "warning: few is seen" in printed
    assert "more than the 2 epochs that it may be" in printed
    assert "warning: tiny: the card states MIT, its shards" in printed
    assert mixed(capsys, "--card", str(card), "--tokens", "512", *SIZES)["warnings"] != []


@pytest.mark.parametrize(
    ("here", "there", "said"),
    [
        (("MIT",), ("MIT",), None),
        (("a", "b"), ("b", "a"), None),
        (None, ("MIT",), None),
        (None, (), "no licence is known"),
        ((), (), "no licence is known"),
        ((), ("MIT",), "the card states no licence, its shards state MIT"),
        (("MIT",), (), "the card states MIT, its shards none"),
        (("MIT",), ("GPL",), "the card states MIT, its shards GPL"),
    ],
)
def test_a_licence_that_is_missing_or_another_is_said(
    here: tuple[str, ...] | None, there: tuple[str, ...], said: str | None
) -> None:
    found = licence_warning(SourceBudget("x", "x", "", 0, 0.0, 0.0, None, None, 0, here, there))
    assert found == (None if said is None else f"x: {said}") or (
        found is not None and said is not None and said in found
    )


def test_the_budget_of_a_run_is_that_of_its_stages(
    card: Path, few_shards: Path, tmp_path: Path, tiny_tokenizer_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = {
        "name": "x",
        "tokenizer": str(tiny_tokenizer_path),
        "model": {"shape": SMALL},
        "data": {"card": str(card), "sequence_length": 32},
        "train": {"steps": 60, "global_batch_size": 8, "micro_batch_size": 2},
        "stages": [
            {
                "name": "anneal",
                "first_step": 41,
                "data": {"train": {str(few_shards): 1.0}, "max_epochs": {str(few_shards): 1.5}},
            }
        ],
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(run, sort_keys=False))
    loaded = from_yaml(PretrainRun, path)
    assert loaded.data.card is None
    assert loaded.data.max_epochs == {str(few_shards): 2.0}
    assert to_dict(from_yaml(PretrainRun, path)) == to_dict(loaded)
    assert allowed_epochs(loaded) == {str(few_shards): 1.5}
    stream = stream_of(loaded, open_sets(loaded))
    windows = sum(len(stream.windows_of(step)) for step in range(60))
    mix = mixed(capsys, "--config", str(path))
    assert mix["tokens"] + mix["padding"] == 32 * windows
    assert [one["allowed_epochs"] for one in mix["sources"]] == [None, 1.5]
    with pytest.raises(ConfigError, match="stages: leave it out"):
        main(["--config", str(path), "--tokens", "1M"])


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--tokens", "10X"], r"tokens=10X is no number of tokens"),
        (["--tokens", "0"], "above 0"),
        ([], "how long does it train"),
        (["--tokens", "1M", "--data.train", "{/x: 1}"], "data.card=.* and data.train were both given"),
        (["--tokens", "1M", "--data.max_epoch", "{/x: 1}"], "did you mean '?(data.)?max_epochs"),
    ],
)
def test_a_wrong_request_is_refused(card: Path, arguments: list[str], wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted):
        main(["--card", str(card), *arguments])


def test_allowed_epochs_of_a_folder_that_is_not_trained_on_are_refused(card: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.max_epochs: /x is no folder of data.train"):
        main(["--data.train", "{/y: 1}", "--data.max_epochs", "{/x: 1}", "--tokens", "1M"])
    with pytest.raises(ConfigError, match="names no shards"):
        main(["--tokens", "1M"])


@pytest.mark.parametrize(("text", "tokens"), [("10B", 1e10), ("1.5T", 1.5e12), ("300M", 3e8), ("1e10", 1e10), ("7", 7)])
def test_a_number_of_tokens_is_read_with_its_unit(text: str, tokens: float) -> None:
    assert read_tokens(text) == tokens

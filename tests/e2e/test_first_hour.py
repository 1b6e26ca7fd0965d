"""What stood in the way of new users: each is said, read or refused by the command that they type."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from megadec.cli import run_verb
from megadec.common.errors import ConfigError, ShardError
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.document import Document
from megadec.engine.checkpoint.resume import check_same_run
from megadec.engine.metrics.reports import Evaluation
from megadec.export.read.megadec import to_megadec
from megadec.finetune.examples import LabelledOptions, read_sets
from tests.support import PROJECT
from tests.support.documents import write_documents
from tests.support.sources import random_classifier


def test_an_evaluation_reads_as_one_line() -> None:
    found = Evaluation(3, "dev", {"loss": 0.5, "accuracy": 0.75, "texts": 50.0}, 1.0)
    assert str(found) == "dev accuracy 0.7500, loss 0.5000"


def pretrain(tokenizer: Path, folder: Path, *more: str) -> None:
    words = ["--name", "x", "--tokenizer", str(tokenizer), "--model.preset", "1m", "--data.sequence_length", "64"]
    words += ["--output_folder", str(folder), "--deepspeed", str(PROJECT / "ds_configs" / "zero1.json")]
    run_verb(["pretrain", *words, *more])


def test_pretraining_names_every_set_that_is_missing(tiny_tokenizer_path: Path, tmp_path: Path) -> None:
    sets = ["--data.train", "{no/news: 1.0, no/wiki: 1.0}", "--evaluate.sets", "{held: no/held}"]
    with pytest.raises(ShardError, match="no/news, no/wiki, no/held do not exist"):
        pretrain(tiny_tokenizer_path, tmp_path, *sets)


def test_an_archive_inside_a_folder_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("label,review\n1,房间很干净，下次还来住。\n", encoding="utf-8")
    with zipfile.ZipFile(tmp_path / "in" / "more.zip", "w") as archive:
        archive.writestr("b.csv", "label,review\n0,不好。\n")
    out = str(tmp_path / "out.parquet")
    run_verb(["prepare", "--source", "comments", "--input", str(tmp_path / "in"), "--documents", out, "--workers", "1"])
    assert "more.zip is an archive inside of" in caplog.text


def test_label_reads_a_text_a_line_and_overwrites_nothing(
    tiny_tokenizer_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to_megadec(random_classifier(tiny_tokenizer_path), tmp_path / "classifier")
    (tmp_path / "texts.txt").write_text("今天天气很好\n主场球迷欢呼\n\n股市收盘\n", encoding="utf-8")
    words = ["label", "--models", str(tmp_path / "classifier"), "--input", str(tmp_path / "texts.txt")]
    words += ["--output", str(tmp_path / "soft.jsonl")]
    run_verb(words)
    assert json.loads(capsys.readouterr().out)["read"] == 3
    with pytest.raises(ConfigError, match="exists already"):
        run_verb(words)


@pytest.mark.parametrize("name", ["model.gguf", "model.onnx"])
def test_what_another_runtime_runs_is_called_so(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ConfigError, match=f"{name}, which .* runs: launch/serve.py"):
        run_verb(["convert", "--input", str(tmp_path), "--to", "hf", "--output", str(tmp_path / "out")])


def test_plan_takes_several_sets_and_measures_a_cpu(tiny_shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--preset", "1m", "--device", "cpu", "--data", str(tiny_shards), str(tiny_shards)]
    run_verb([*words, "--data.sequence_length", "64", "--json", "true"])
    plan: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert plan["speed"]["tokens_per_second"] > 0


def test_show_describes_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ("今天天气很好。", "主场球迷欢呼。")
    documents = [
        Document(id=f"d:{number}", source="mine", text=text, label="天气") for number, text in enumerate(texts)
    ]
    write_documents(tmp_path / "mine.parquet", documents)
    run_verb(["show", "--data", str(tmp_path / "mine.parquet")])
    shown = capsys.readouterr().out
    assert "2 documents, 14 characters" in shown
    assert "2 mine 天气" in shown
    assert "d:0: '今天天气很好。'" in shown


def test_labels_without_names_are_said(
    tiny_tokenizer_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "train.txt").write_text("主场球迷欢呼\t0\n股市收盘上涨\t1\n", encoding="utf-8")
    read_sets(LabelledOptions(train=str(tmp_path / "train.txt")), Tokenizer.load(tiny_tokenizer_path))
    assert "the labels have no names but 0, 1" in caplog.text


def test_another_number_of_steps_says_how_to_go_on() -> None:
    saved, wanted = ({"train": {"steps": steps}, "stages": []} for steps in (10, 20))
    with pytest.raises(ConfigError, match=r"train\.steps: 10 there, 20 here.*--model\.init_from=runs/x begins from"):
        check_same_run(Path("runs/x"), saved, wanted, saved, 10, named=False)


def test_sets_that_share_documents_are_told_by_show_and_at_the_start_of_a_run(
    tiny_tokenizer_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    texts = [f"第{number}篇：今天天气很好，大家都去公园散步，看见了{number}只鸟。" for number in range(60)]
    parts = {"one": texts[:40], "two": texts[30:], "held": texts[35:38]}
    for name, part in parts.items():
        documents = [Document(id=f"{name}:{number}", source=name, text=text) for number, text in enumerate(part)]
        write_documents(tmp_path / f"{name}.parquet", documents)
        words = ["prepare", "--source", "documents", "--input", str(tmp_path / f"{name}.parquet"), "--workers", "1"]
        run_verb([*words, "--tokenizer", str(tiny_tokenizer_path), "--output", str(tmp_path / name)])
    capsys.readouterr()
    one, two, held = (str(tmp_path / name) for name in parts)
    for ending in ("", ".parquet"):
        run_verb(["show", "--data", one + ending, two + ending])
        assert capsys.readouterr().out.splitlines()[-1] == (
            f"{one + ending} and {two + ending} have about 10 documents in common (33% of the smaller)"
        )
    sets = ["--data.train", f"{{{one}: 1.0, {two}: 1.0}}", "--evaluate.sets", f"{{held: {held}}}"]
    with pytest.raises(ConfigError, match="skip_documents_file"):  # is read behind the warnings
        pretrain(tiny_tokenizer_path, tmp_path / "runs", *sets, "--data.skip_documents_file", str(tmp_path / "none"))
    said = [line for line in caplog.messages if "in common" in line]
    assert len(said) == 3
    assert "evaluate.sets.held have about 3 documents in common (100% of the smaller)" in said[1]

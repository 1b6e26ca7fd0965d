"""The command words: a whole folder, the same for any number of workers, or one clear error."""

import json

import pytest

from megadec.cli import run_verb
from megadec.common.errors import ConfigError, InputError
from megadec.corpus.document import Document
from tests.support.documents import write_documents


@pytest.fixture
def documents(tmp_path):
    texts = {"体育": "球队今晚迎战对手，教练说要赢", "财经": "股市今天上涨，收音机的价格也上涨"}
    path = tmp_path / "documents.parquet"
    write_documents(
        path, [Document(f"{n}", "news", text, label=label) for n in range(300) for label, text in texts.items()]
    )
    return path


def files(folder):
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    return {name: text.replace(folder.name, "") for name, text in found.items()}


def test_words_by_label_are_told_in_json_and_markdown(tmp_path, documents, tiny_tokenizer_path, capsys):
    (tmp_path / "stop.txt").write_text("的\n也\n", encoding="utf-8")
    (tmp_path / "vocabulary.txt").write_text("球队 3\n股市\t5\n", encoding="utf-8")
    (tmp_path / "own.txt").write_text("收音机的价格\n", encoding="utf-8")
    arguments = ["--input", documents, "--by", "label", "--coverage", "1", "1000", "--ngrams", "3", "--top", "3"]
    arguments += ["--stop_words", tmp_path / "stop.txt", "--vocabulary", tmp_path / "vocabulary.txt"]
    arguments += ["--user_dict", tmp_path / "own.txt", "--tokenizer", tiny_tokenizer_path]
    for workers in (1, 2):
        folder = tmp_path / f"words{workers}"
        run_verb(["words", *map(str, [*arguments, "--output", folder, "--workers", workers])])
    alone, two = (files(tmp_path / f"words{workers}") for workers in (1, 2))
    assert alone["report.json"].replace('"workers": 1', '"workers": 2') == two.pop("report.json")
    assert {name: text for name, text in alone.items() if name != "report.json"} == two
    report = json.loads(alone["report.json"])
    sport, money = report["sources"]["体育"], report["sources"]["财经"]
    assert sport["keywords"]["log_likelihood"][0]["word"] in ("球队", "今晚", "迎战", "对手", "教练", "说要")
    assert money["ngrams"]["1"]["most_frequent"][0] == ["上涨", 600]
    assert money["stop_words"] == 300
    assert ["收音机的价格", 300] in report["sources"]["财经"]["ngrams"]["1"]["most_frequent"]
    assert money["coverage"]["1000"] == {"words": 1.0, "different_words": 1.0}
    assert 0 < money["coverage"]["vocabulary"]["words"] < 1
    assert money["tokenizer"]["pieces_per_word"] > 1
    assert alone["words.tsv"].splitlines()[0] == "上涨\t600\t0\t600"
    assert "今晚 迎战 对手\t300\t300\t0" in alone["ngrams.tsv"].splitlines()
    assert "| 体育 | 300 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (["--ngrams", "6"], ConfigError, "ngrams=6 is not at least 1 and at most 5"),
        (["--coverage", "0"], ConfigError, "coverage=0: a number of words is at least 1"),
        (["--stop_words", "none.txt"], InputError, "none.txt cannot be read"),
        (["--user_dict", "none.txt"], InputError, "none.txt cannot be read"),
        (["--by", "variants"], ConfigError, "variants"),
    ],
)
def test_a_wrong_request_leaves_no_folder(tmp_path, documents, options, error, words):
    with pytest.raises(error, match=words):
        run_verb(["words", "--input", str(documents), "--output", str(tmp_path / "out"), *options])
    assert [path.name for path in tmp_path.iterdir()] == ["documents.parquet"]


def test_documents_without_words_and_too_many_sources_are_refused(tmp_path):
    path = tmp_path / "a.parquet"
    write_documents(path, [Document("1", "a", "……！？")])
    with pytest.raises(InputError, match="no words in 1 documents"):
        run_verb(["words", "--input", str(path), "--output", str(tmp_path / "out")])
    write_documents(path, [Document("1", str(n), "股市上涨") for n in range(201)])
    with pytest.raises(InputError, match="201 values of source, at most 200"):
        run_verb(["words", "--input", str(path), "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()

"""`--explain ID`: one document at every stage, and why."""

import json
from pathlib import Path
from typing import Any

import pytest

from megadec.common.errors import InputError
from megadec.corpus.options import PrepareOptions
from megadec.corpus.prepare import main, prepare

GOOD = (
    "<p>这家店的菜很好吃，服务也周到，下次还会带朋友再来。</p><p>地方在老城的河边，从车站走过去只要十分钟，"
    "门口种着两棵桂花树，秋天的时候满院子都是香气。</p>"
)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    texts = {"good": GOOD, "again": GOOD, "short": "<b>短</b>。", "other": GOOD.replace("菜", "汤")}
    lines = [json.dumps({"id": name, "text": text}, ensure_ascii=False) for name, text in texts.items()]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([*lines, "[1]"]), encoding="utf-8")
    return path


def explained(capsys: pytest.CaptureFixture[str], path: Path, name: str, *more: Any) -> str:
    main(["--source", "jsonl", "--input", str(path), "--explain", name, "--workers", "1", *map(str, more)])
    return capsys.readouterr().out


def test_a_document_is_shown_after_each_step_with_what_the_step_took_out(
    capsys: pytest.CaptureFixture[str], rows: Path, tmp_path: Path
) -> None:
    told = explained(capsys, rows, "good")
    assert f"=== raw: {len(GOOD)} characters" in told
    assert "=== markup: " in told
    assert "=== taken out in all" in told
    assert "not known: no run with these results has got as far" in told
    assert not [path for path in tmp_path.iterdir() if path != rows]


def test_a_rule_that_does_not_hold_is_shown_with_its_figure_and_its_threshold(
    capsys: pytest.CaptureFixture[str], rows: Path
) -> None:
    told = explained(capsys, rows, "short")
    assert "min_characters           50, found 2: does not hold: too_short" in told
    assert told.rstrip().endswith("=== quality rules: dropped: too_short")


def test_a_line_that_its_reader_dropped_is_explained_too(capsys: pytest.CaptureFixture[str], rows: Path) -> None:
    assert "dropped while it was read: malformed_line" in explained(capsys, rows, f"{rows}:5")


def test_what_a_finished_run_decided_is_told(capsys: pytest.CaptureFixture[str], rows: Path, tmp_path: Path) -> None:
    places = {"documents": tmp_path / "out"}
    prepare(PrepareOptions(source="jsonl", input=(rows,), workers=1, **places))
    kept = explained(capsys, rows, "good", "--documents", tmp_path / "out")
    assert f"among all documents: kept ({tmp_path / 'out' / 'jsonl.parquet'}" in kept
    gone = explained(capsys, rows, "again", "--documents", tmp_path / "out")
    assert "among all documents: dropped: duplicate" in gone


def test_an_id_that_two_inputs_have_is_shown_of_both(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name, text in (("a", "甲的正文。"), ("b", "乙的正文。")):
        (tmp_path / name / "x").mkdir(parents=True)
        (tmp_path / name / "x" / "1.txt").write_text(text, encoding="utf-8")
    main(["--source", "text", "--input", str(tmp_path / "a"), str(tmp_path / "b"), "--explain", "x/1"])
    told = capsys.readouterr().out
    assert "甲的正文。" in told
    assert "乙的正文。" in told
    assert "2 documents have this id; what was decided is found by the id alone" in told


def test_an_id_that_stands_often_in_one_input_is_counted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [json.dumps({"id": "7", "text": f"第{n}篇的正文。"}, ensure_ascii=False) for n in range(5)]
    path.write_text("\n".join(rows), encoding="utf-8")
    told = explained(capsys, path, "7")
    assert [n for n in range(5) if f"第{n}篇" in told] == [0, 1, 2]
    assert "5 documents have this id, 3 are shown" in told


def test_an_id_that_no_document_has_is_an_error(rows: Path) -> None:
    with pytest.raises(InputError, match="explain=nobody: no document of the input has this id"):
        main(["--source", "jsonl", "--input", str(rows), "--explain", "nobody"])

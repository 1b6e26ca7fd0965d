"""The whole line of a run: what it writes, what it refuses, and what it leaves behind."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from megadec.common.errors import ConfigError, InputError, MegadecError
from megadec.corpus.dedup.exact import digest_of, is_held_out
from megadec.corpus.dedup.options import DedupOptions
from megadec.corpus.document import Document, full_text, read_documents
from megadec.corpus.prepare import PrepareOptions, prepare
from megadec.corpus.quality.rules import FilterOptions
from tests.support.documents import write_documents


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    rows = [f"{n % 2},第{n}次来这里吃饭，味道一直很好。" for n in range(200)]
    path = tmp_path / "reviews.csv"
    path.write_text("\n".join(["label,review", *rows, "1,坏", rows[0]]), encoding="utf-8")
    return path


def options(path: Path, **others: Any) -> PrepareOptions:
    return PrepareOptions(**{"source": "comments", "input": (path,), "workers": 1, **others})


def texts(path: Path) -> list[str]:
    return [full_text(document) for document in read_documents([path])]


def visible(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_documents_and_their_report_are_written_together(tmp_path: Path, reviews: Path) -> None:
    (tmp_path / "dev.txt").write_text("第7次来这里吃饭，味道一直很好。\t1\n", encoding="utf-8")
    names = {"name": "food", "licence": "CC0-1.0"}
    report = prepare(options(reviews, documents=tmp_path / "out", exclude_texts=(tmp_path / "dev.txt",), **names))
    assert visible(tmp_path / "out") == [
        "food.dropped.parquet",
        "food.duplicates.parquet",
        "food.parquet",
        "food.report.html",
        "food.report.json",
    ]
    documents = list(read_documents([tmp_path / "out" / "food.parquet"]))
    assert len(documents) == 199
    assert {(document.source, document.licence) for document in documents} == {("food", "CC0-1.0")}
    written = json.loads((tmp_path / "out" / "food.report.json").read_text(encoding="utf-8"))
    assert written["report"] == report.to_dict()
    assert dict(report.dropped) == {"too_short": 1, "duplicate": 1, "excluded": 1}
    assert report.documents_read == 202
    assert written["options"]["source"] == "comments"


def test_the_number_of_workers_changes_no_byte(tmp_path: Path, reviews: Path, tiny_tokenizer_path: Path) -> None:
    places = {"documents": tmp_path / "made" / "a.parquet", "output": tmp_path / "made" / "shards"}
    made = []
    for workers in (1, 2):
        prepare(options(reviews, tokenizer=tiny_tokenizer_path, workers=workers, overwrite=True, **places))
        (tmp_path / "made" / "a.report.json").unlink()  # it says how many workers there were
        made.append({name: (tmp_path / "made" / name).read_bytes() for name in visible(tmp_path / "made")})
    assert made[0] == made[1]


def test_the_held_out_share_is_a_function_of_the_text_and_missing_from_the_rest(tmp_path: Path, reviews: Path) -> None:
    prepare(options(reviews, documents=tmp_path / "all.parquet"))
    some = {"documents": tmp_path / "rest.parquet", "held_out": tmp_path / "held", "held_out_fraction": 0.2}
    prepare(options(reviews, **some))
    held, rest = texts(tmp_path / "held" / "comments.parquet"), texts(tmp_path / "rest.parquet")
    assert sorted(held + rest) == sorted(texts(tmp_path / "all.parquet"))
    assert held == [text for text in texts(tmp_path / "all.parquet") if is_held_out(digest_of(text), 0.2)]
    assert 10 < len(held) < 80


def test_a_folder_of_articles_and_title_lists_is_judged_each_by_its_own_rules(tmp_path: Path) -> None:
    folder = tmp_path / "raw" / "体育"
    folder.mkdir(parents=True)
    (folder / "1.txt").write_text("太短的文章。", encoding="utf-8")
    (tmp_path / "raw" / "train.txt").write_text("球队夺冠归来\t0\n", encoding="utf-8")
    report = prepare(options(tmp_path / "raw", source="thucnews", documents=tmp_path / "out"))
    assert dict(report.kept) == {"titles": 1}
    assert dict(report.dropped) == {"too_short": 1}


def test_shards_come_with_the_report_and_the_held_out_shards(
    tmp_path: Path, reviews: Path, tiny_tokenizer_path: Path
) -> None:
    folders = tmp_path / "food", tmp_path / "held" / "food"
    places = {"output": folders[0], "held_out": folders[1], "held_out_fraction": 0.2}
    report = prepare(options(reviews, tokenizer=tiny_tokenizer_path, **places))
    train, held = (json.loads((folder / "index.json").read_text(encoding="utf-8")) for folder in folders)
    for index in (train, held):
        assert index["tokens"] == sum(shard["tokens"] for shard in index["shards"]) > 0
    assert train["documents"] + held["documents"] == 200
    assert train["documents"] == report.kept.total()
    assert train["report"]["dropped"]["too_short"]["documents"] == 1
    assert not [name for name in visible(tmp_path) if ".documents-" in name or "partial" in name]


def test_documents_of_earlier_runs_become_shards_as_they_are(tmp_path: Path, tiny_tokenizer_path: Path) -> None:
    paths = []
    for source in ("titles", "wiki"):
        paths.append(tmp_path / f"{source}.parquet")
        write_documents(paths[-1], [Document("1", source, f"{source}短"), Document("2", source, "同")])
    shards = {"tokenizer": tiny_tokenizer_path, "output": tmp_path / "shards"}
    report = prepare(PrepareOptions(source="parquet", input=tuple(paths), workers=1, **shards))
    assert dict(report.kept) == {"titles": 2, "wiki": 1}
    assert dict(report.dropped) == {"duplicate": 1}


def test_what_is_there_is_only_replaced_with_overwrite(
    tmp_path: Path, reviews: Path, tiny_tokenizer_path: Path
) -> None:
    wanted = {"documents": tmp_path / "out", "tokenizer": tiny_tokenizer_path, "output": tmp_path / "shards"}
    prepare(options(reviews, **wanted))
    before = visible(tmp_path)
    for part in ({"documents": wanted["documents"]}, {key: wanted[key] for key in ("tokenizer", "output")}):
        with pytest.raises(ConfigError, match="exists already"):
            prepare(options(reviews, **part))
    prepare(options(reviews, overwrite=True, **wanted))
    assert visible(tmp_path) == before


def test_a_folder_that_is_no_data_set_is_never_overwritten(
    tmp_path: Path, reviews: Path, tiny_tokenizer_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("…")
    with pytest.raises(ConfigError, match="is not a data set"):
        prepare(options(reviews, tokenizer=tiny_tokenizer_path, output=tmp_path / "mine", overwrite=True))
    assert visible(tmp_path / "mine") == ["thesis.txt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "coments"}, "did you mean 'comments'"),
        ({"variant": "zh-hans"}, "variant='zh-hans' is none of .*did you mean 'zh-Hans'"),
        ({"encoding": "gbk2"}, "encoding='gbk2'"),
        ({"documents": None}, "nothing to write"),
        ({"output": Path("x")}, "tokenizer and output go together"),
        ({"held_out_fraction": 0.1}, "held_out_fraction and held_out go together"),
        ({"held_out_fraction": 1.0, "held_out": Path("x")}, "held_out_fraction=1.0 is not at least 0 and below 1"),
        (
            {"filter": FilterOptions(min_characters=9, max_characters=5)},
            "filter.min_characters=9 is above filter.max_characters=5",
        ),
        ({"filter": FilterOptions(min_quality=0.9)}, "filter.min_quality=0.9 wants a filter.classifier"),
        ({"dedup": DedupOptions(near=False, threshold=0.7)}, "dedup.threshold=0.7 is of near duplicates"),
        ({"dedup": DedupOptions(near=False, keep="first")}, "dedup.keep=first is of near duplicates"),
        ({"workers": -1}, "workers=-1 is not at least 0"),
        ({"input": ()}, "no file was given"),
        ({"input": (Path("none.csv"),)}, r"none\.csv: no such file"),
        ({"tokenizer": Path("no.model"), "output": Path("x")}, r"no\.model does not exist"),
    ],
)
def test_options_that_do_not_fit_stop_before_anything_is_read(
    tmp_path: Path, reviews: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(MegadecError, match=message):
        prepare(options(reviews, **{"documents": tmp_path / "out", **change}))
    assert visible(tmp_path) == ["reviews.csv"]


def test_what_is_no_file_of_documents_is_refused_as_an_earlier_run(tmp_path: Path, reviews: Path) -> None:
    lines, table, dropped = tmp_path / "x.jsonl", tmp_path / "t.parquet", tmp_path / "x.dropped.parquet"
    lines.write_text("{}", encoding="utf-8")
    for file in (table, dropped):
        pq.write_table(pa.table({"text": ["正文"]}), file)
    for path, message in (
        (lines, "neither a .parquet file of documents nor a folder"),
        (table, "a table, not documents"),
        (dropped, "a list beside documents"),
    ):
        with pytest.raises(ConfigError, match=f"dedup.against=.*{path.name}: {message}"):
            prepare(options(reviews, documents=tmp_path / "out", dedup=DedupOptions(against=(path,))))
    assert visible(tmp_path) == ["reviews.csv", "t.parquet", "x.dropped.parquet", "x.jsonl"]


def test_one_place_for_two_results_or_for_input_and_result_is_refused(tmp_path: Path, reviews: Path) -> None:
    same = {"documents": tmp_path / "a.parquet", "held_out": tmp_path / "a.parquet", "held_out_fraction": 0.1}
    with pytest.raises(ConfigError, match="two results in one place"):
        prepare(options(reviews, **same))
    prepare(options(reviews, documents=tmp_path / "a.parquet"))
    with pytest.raises(ConfigError, match="both input and result"):
        prepare(options(tmp_path / "a.parquet", source="parquet", documents=tmp_path / "a.parquet", overwrite=True))


def test_nothing_left_is_an_error_with_the_reasons_and_no_output(tmp_path: Path, tiny_tokenizer_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("label,review\n1,好\n0,坏\n", encoding="utf-8")
    places = {"documents": tmp_path / "out", "tokenizer": tiny_tokenizer_path, "output": tmp_path / "shards"}
    with pytest.raises(InputError, match=r"a\.csv: no documents to train on of 2 read \(too_short 2\)"):
        prepare(options(path, **places))
    assert visible(tmp_path) == ["a.csv"]


@pytest.mark.parametrize(
    ("source", "change", "message"),
    [
        (
            "jsonl",
            {},
            r"raw: no file to read: files with \.jsonl, \.json, \.ndjson are looked for, found were 2 \.txt, 1 \.c",
        ),
        ("parquet", {}, r"files with \.parquet are looked for, found were 2 \.txt"),
        ("text", {"include": ("*.md", "x/*")}, r"--include \*\.md x/\* leaves none of its 3 files"),
        ("text", {"exclude": ("*",)}, r"--exclude \* leaves none of its 3 files"),
    ],
)
def test_an_input_without_a_file_of_the_kind_says_what_was_looked_for_and_found(
    tmp_path: Path, source: str, change: dict[str, Any], message: str
) -> None:
    (tmp_path / "raw").mkdir()
    for name in ("1.txt", "2.txt", "3.csv"):
        (tmp_path / "raw" / name).write_text("正文", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        prepare(options(tmp_path / "raw", source=source, documents=tmp_path / "out", **change))
    assert not [name for name in visible(tmp_path) if not name.startswith("raw/")]


def test_a_pattern_may_leave_out_all_of_one_input_but_not_of_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").write_text("一段正文。", encoding="utf-8")
    given = (tmp_path / "a", tmp_path / "b")
    places = {"documents": tmp_path / "out", "filter": FilterOptions(rules="none")}
    report = prepare(PrepareOptions(source="text", input=given, include=("a*",), workers=1, **places))
    assert report.kept.total() == 1
    assert "b: no file to read: --include a* leaves none of its 1 files" in caplog.text


def test_a_pattern_that_no_file_matches_is_an_error_beside_others_and_a_warning_as_an_exclusion(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a/1.txt", "b/2.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(f"{name}的正文。", encoding="utf-8")
    given = (tmp_path / "a", tmp_path / "b")
    asked = PrepareOptions(
        source="text", input=given, documents=tmp_path / "out", filter=FilterOptions(rules="none"), workers=1
    )
    with pytest.raises(ConfigError, match=r"include=x\*: no path in the input's folders matches"):
        prepare(replace(asked, include=("1*", "x*")))
    assert visible(tmp_path) == ["a/1.txt", "b/2.txt"]
    assert prepare(replace(asked, include=("1*", "2*"), exclude=("x*",))).kept.total() == 2
    assert "--exclude x* leaves nothing out" in caplog.text


def test_the_names_in_an_archive_are_known_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "1.txt").write_text("一段正文。", encoding="utf-8")
    shutil.make_archive(str(tmp_path / "raw"), "zip", tmp_path / "raw")
    asked = options(tmp_path / "raw.zip", source="text", documents=tmp_path / "out", include=("1*", "x*"))
    assert prepare(replace(asked, filter=FilterOptions(rules="none"))).kept.total() == 1


@pytest.mark.parametrize("source", ["documents", "parquet"])
def test_a_list_of_dropped_documents_alone_is_called_what_it_is(tmp_path: Path, reviews: Path, source: str) -> None:
    prepare(options(reviews, documents=tmp_path / "out"))
    path = tmp_path / "out" / "comments.dropped.parquet"
    with pytest.raises(InputError, match="only lists of dropped documents or of duplicates"):
        prepare(PrepareOptions(source=source, input=(path,), documents=tmp_path / "again", workers=1))


def test_title_and_text_count_together_where_texts_are_compared(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"title": title, "text": "味道很好，送餐也快。"} for title in ("甲店", "乙店", "甲店")]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    report = prepare(options(path, source="jsonl", documents=tmp_path / "out", filter=FilterOptions(rules="short")))
    assert (report.kept.total(), dict(report.dropped)) == (2, {"duplicate": 1})


def test_every_dropped_document_is_listed_with_its_reason_and_the_books_close(tmp_path: Path, reviews: Path) -> None:
    report = prepare(options(reviews, documents=tmp_path / "out", held_out=tmp_path / "held", held_out_fraction=0.2))
    rows = pq.read_table(tmp_path / "out" / "comments.dropped.parquet").to_pylist()
    assert [(row["id"], row["reason"], row["stage"]) for row in rows] == [
        ("reviews:202", "too_short", "quality rules"),
        ("reviews:203", "duplicate", "duplicates"),
    ]
    counts = report.sources["comments"]
    assert counts.unexplained_characters == 0
    assert counts.read == 202
    assert sum(row["characters"] for row in rows) == counts.dropped_characters.total()


def test_documents_are_read_from_a_folder_that_holds_the_list_of_dropped_ones_too(
    tmp_path: Path, reviews: Path
) -> None:
    kept = prepare(options(reviews, documents=tmp_path / "out")).kept
    paths = sorted((tmp_path / "out").glob("*.parquet"))
    for number, given in enumerate([(tmp_path / "out",), tuple(paths)]):
        places = {"documents": tmp_path / f"again-{number}.parquet"}
        again = prepare(PrepareOptions(source="parquet", input=given, workers=1, **places))
        assert again.kept == kept
    assert len(list(read_documents(paths))) == kept.total()


def test_what_another_run_left_half_written_is_no_part_of_the_result(
    tmp_path: Path, reviews: Path, tiny_tokenizer_path: Path
) -> None:
    (tmp_path / ".shards.staged").mkdir()
    (tmp_path / ".shards.staged" / "shard-000007.tar").write_text("of a larger run that was killed")
    prepare(options(reviews, tokenizer=tiny_tokenizer_path, output=tmp_path / "shards"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reviews.csv", "shards"]
    assert not (tmp_path / "shards" / "shard-000007.tar").exists()


def test_an_interrupted_run_goes_on_in_the_same_process_too(
    tmp_path: Path, reviews: Path, tiny_tokenizer_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"tokenizer": tiny_tokenizer_path, "output": tmp_path / "shards", "documents": tmp_path / "out"}
    with monkeypatch.context() as patch:
        patch.setattr("megadec.corpus.prepare.decide", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(options(reviews, **wanted))
    assert (tmp_path / ".shards.work").exists()

    def done_again(*_: object) -> None:
        raise AssertionError("what is done was done again")

    monkeypatch.setattr("megadec.corpus.prepare.process_piece", done_again)
    report = prepare(options(reviews, **wanted))
    assert report.documents_read == 202
    assert not (tmp_path / ".shards.work").exists()


def test_the_page_and_the_letters_are_of_what_was_kept_or_held_out(tmp_path: Path, reviews: Path) -> None:
    report = prepare(options(reviews, documents=tmp_path / "out", held_out=tmp_path / "held", held_out_fraction=0.2))
    page = (tmp_path / "out" / "comments.report.html").read_text("utf-8")
    data = json.loads(page.split('type="application/json">')[1].split("</script>")[0])
    assert sum(count for _, count in data["lengths"]) == sum(data["han"]) == report.kept.total()
    [counts] = report.sources.values()
    letters = sum(count for name, count in counts.measured.items() if name.startswith("letters "))
    assert 0 < letters < counts.kept_characters + counts.held_out_characters

"""THUCNews: articles in folders, lists of titles or articles with their labels; files in another encoding."""

import re
from pathlib import Path

import pytest

from megadec.common.errors import InputError
from megadec.corpus.clean.context import CleanContext
from megadec.corpus.document import Document
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.jsonl import read_jsonl
from megadec.corpus.sources.reading import MALFORMED_ALLOWED, ReadOptions
from megadec.corpus.sources.text import read_text
from megadec.corpus.sources.thucnews import clean_news, read_thucnews, split_title
from tests.support.readers import read, write

PLAIN = ReadOptions()


def test_an_article_has_its_folder_as_label_and_its_first_line_as_title(tmp_path: Path) -> None:
    write(tmp_path / "体育" / "1.txt", "决赛今晚开战\n　　本报讯　球队已经到达。\n　　教练说。\n")
    write(tmp_path / "财 经" / "2.txt", "　　没有标题的文章。\n　　第二段。")
    one, two = read(read_thucnews, tmp_path)
    assert (one.id, one.label, one.title) == ("体育/1", "体育", "决赛今晚开战")
    assert one.text.startswith("　　本报讯")
    assert (two.id, two.label, two.title) == ("财 经/2", "财 经", "")


@pytest.mark.parametrize(
    ("raw", "plain", "marks"),
    [
        ("坚持到了最后$LOTOzf$\n", "坚持到了最后", 1),
        ("全明星赛。$LOTOzf$此微博已被原作者删除。 \n\t\t$LOTOzf$", "全明星赛。\n此微博已被原作者删除。", 2),
        ("一条短消息\n　　$LOTOzf$\n", "一条短消息", 1),
    ],
)
def test_the_mark_after_each_post_of_a_forum_is_counted_and_is_no_text(
    tmp_path: Path, raw: str, plain: str, marks: int
) -> None:
    write(tmp_path / "体育" / "1.txt", raw, "gb18030")
    (document,) = read(read_thucnews, tmp_path, encoding="auto")
    context = CleanContext()
    cleaned = clean_news(document, context)
    assert isinstance(cleaned, Document)
    assert re.sub(r"\s*\n\s*", "\n", cleaned.text).strip() == plain
    assert context.taken.pieces == {"crawler marks": marks}
    assert len(document.text) - len(cleaned.text) == context.taken.characters.total()


@pytest.mark.parametrize("classes", ["finance\nsports\n", "0\tfinance\n1\tsports\n"])
def test_a_list_of_titles_takes_its_labels_from_class_txt(tmp_path: Path, classes: str) -> None:
    write(tmp_path / "class.txt", classes)
    write(tmp_path / "train.txt", "\ufeff股价上涨\t0\n\n球队\t夺冠\t1\n")
    for path in (tmp_path / "train.txt", tmp_path):
        titles = [(document.text, document.label) for document in read(read_thucnews, path)]
        assert titles == [("股价上涨", "finance"), ("球队\t夺冠", "sports")]


def test_few_malformed_lines_are_dropped_and_many_are_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "train.txt", "标题\t0\n" + "没有制表符\n" * MALFORMED_ALLOWED)
    report = CorpusReport()
    assert len(list(read_thucnews(path, report, PLAIN))) == 1
    assert report.dropped["malformed_line"] == MALFORMED_ALLOWED
    write(path, "标题\t0\n" + "没有制表符\n" * (MALFORMED_ALLOWED + 1))
    with pytest.raises(InputError, match=r"train\.txt: line 12: no title<TAB>label; 11 of 12 lines are malformed"):
        read(read_thucnews, path)


def test_a_first_line_is_a_title_only_before_indented_lines() -> None:
    assert split_title("题\n　　文") == ("题", "　　文")
    for text in ("题\n文", "　　题\n　　文", "题", "题" * 80 + "\n　　文", "\n\n"):
        assert split_title(text)[0] == ""


LONG = "今天的新闻说，城市里的公园在春天开放了，" * 4


@pytest.mark.parametrize(
    ("text", "labels", "source"),
    [
        (f"体育\t{LONG}\n财经\t{LONG}，\t{LONG}\n", ["体育", "财经"], "thucnews"),  # cnews
        (f"{LONG}\t体育\n{LONG}\t财经\n", ["体育", "财经"], "thucnews"),
        ("体育\t甲队胜\n体育\t乙队胜\n财经\t股价涨\n", ["体育", "体育", "财经"], "titles"),
        ("甲队胜\t体育\n乙队胜\t体育\n", ["体育", "体育"], "titles"),
        ("0\t球队夺冠\n1\t股价上涨\n", ["0", "1"], "titles"),
        ("股价大涨\tfinance\n球队获胜\tsports\n", ["finance", "sports"], "titles"),
        ("体育\t球队夺冠归来了\n财经\t股价今天上涨了\n", ["体育", "财经"], "titles"),
        ("label\ttext\n1\t好\n0\t差\n", ["1", "0"], "titles"),
    ],
)
def test_which_column_of_a_list_is_the_label_is_seen_from_all_of_it(
    tmp_path: Path, text: str, labels: list[str], source: str
) -> None:
    documents = read(read_thucnews, write(tmp_path / "cnews.val.txt", text))
    assert [document.label for document in documents] == labels
    assert {document.source for document in documents} == {source}


@pytest.mark.parametrize("name", ["体育/1.txt", "体育/a.txt", "a.txt"])
def test_an_article_that_holds_a_tab_is_no_list(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, "有人问我，\t您自己最喜欢的球员是谁呢？\n")
    assert [document.text for document in read(read_thucnews, tmp_path)] == ["有人问我，\t您自己最喜欢的球员是谁呢？"]


def test_files_in_another_encoding_are_dropped_up_to_a_share_of_all(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / "体育" / f"{number}.txt", "正文", "gbk" if number == 1 else "utf-8")
    report = CorpusReport()
    assert len(list(read_thucnews(tmp_path, report, ReadOptions(malformed_fraction=0.25)))) == 3
    assert report.dropped == {"undecodable_file": 1}
    with pytest.raises(InputError, match=r"1\.txt.*1 of 4 files cannot be decoded, more than 1\.00% .*--encoding auto"):
        read(read_thucnews, tmp_path)


def test_a_file_in_no_encoding_is_named_once_and_auto_is_not_proposed_where_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "a folder" / "bin.txt"
    path.parent.mkdir()
    path.write_bytes(bytes(range(255, 127, -1)) * 3)
    with pytest.raises(InputError) as raised:
        list(read_text(path.parent, CorpusReport(), ReadOptions(encoding="auto")))
    assert str(raised.value).count("bin.txt") == 1
    assert "auto" not in str(raised.value)
    assert "--exclude" in str(raised.value)


@pytest.mark.parametrize(
    ("field", "words"),
    [("nope", "no 'nope' in it; it has text, id"), ("texts", "no 'texts' .did you mean 'text'.. in it")],
)
def test_a_key_of_text_that_no_row_has_is_named(tmp_path: Path, field: str, words: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "正文", "id": "1"}\n' * 20)
    with pytest.raises(InputError, match=words):
        list(read_jsonl(path, CorpusReport(), ReadOptions(text_field=field)))

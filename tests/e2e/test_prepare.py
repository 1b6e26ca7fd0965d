"""tools/prepare.py on a dump that is cut and on a full disk: one clear error, and nothing under a final name."""

import json
import random
import resource
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from megadec.cli import run_verb
from megadec.common.errors import InputError, StorageError
from megadec.corpus.clean.glossary import groups_of
from megadec.corpus.document import read_documents
from tests.support import PROJECT
from tests.support.processes import errors_of, run_script

DUMP = PROJECT / "samples" / "zhwiki" / "sample-pages-articles.xml.bz2"


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_truncated_dump_is_named_on_one_line_without_a_traceback(tmp_path: Path, tiny_tokenizer_path: Path) -> None:
    dump = tmp_path / "cut.xml.bz2"
    data = DUMP.read_bytes()
    dump.write_bytes(data[: int(len(data) * 0.99)])
    shards = ["--tokenizer", tiny_tokenizer_path, "--output", tmp_path / "made" / "shards"]
    done = run_script("tools/prepare.py", "--source", "zhwiki", "--input", dump, *shards)
    assert done.returncode == 2, done.stderr
    [error] = errors_of(done.stderr)
    assert str(dump) in error
    assert files(tmp_path) == ["cut.xml.bz2"]


@pytest.fixture
def news(tmp_path: Path) -> Path:
    """A corpus in THUCNews form whose text cannot be compressed to nothing."""
    chance = random.Random(0)
    for number in range(60):
        folder = tmp_path / "raw" / ("体育" if number % 2 else "财经")
        folder.mkdir(parents=True, exist_ok=True)
        body = "".join(chr(chance.randrange(0x4E00, 0x9000)) for _ in range(2000))
        text = f"第{number}条新闻的标题\n　　{body}。\n　　又一段。\n"
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    return tmp_path / "raw"


@pytest.mark.parametrize("with_shards", [False, True])
def test_a_full_disk_is_an_error_and_leaves_nothing(
    tmp_path: Path, news: Path, tiny_tokenizer_path: Path, with_shards: bool
) -> None:
    before = files(tmp_path)
    arguments = ["--documents", str(tmp_path / "out")]
    if with_shards:
        arguments = ["--tokenizer", str(tiny_tokenizer_path), "--output", str(tmp_path / "shards")]
    # What a full disk is to the program, a limit on the size of a file is too: a write that is refused half-way.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100 * 1024, limits[1]))
    try:
        with pytest.raises(StorageError, match="cannot write"):
            run_verb(["prepare", "--source", "thucnews", "--input", str(news), "--workers", "1", *arguments])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(tmp_path) == before


def test_comments_lose_their_forms_and_private_data_and_the_report_counts_both(tmp_path: Path) -> None:
    rows = ["房间不错[哈哈] 电话13800138001 //@小王:同意", "转发微博", "#北京#的早餐很好吃http://t.cn/Rabc1"]
    rows.append("今日の朝ごはんはとてもおいしかった")
    (tmp_path / "raw.csv").write_text("label,review\n" + "".join(f"1,{row}\n" for row in rows), encoding="utf-8")
    documents = tmp_path / "comments.parquet"
    asked = ["--documents", str(documents), "--privacy.mask", "all", "--workers", "1"]
    run_verb(["prepare", "--source", "comments", "--input", str(tmp_path / "raw.csv"), *asked])
    assert [one.text for one in read_documents([documents])] == [
        "房间不错 电话【手机号】",
        "北京的早餐很好吃",
    ]
    report = json.loads((tmp_path / "comments.report.json").read_text(encoding="utf-8"))["report"]
    assert {name: counts["pieces"] for name, counts in report["taken"].items()} == {
        "emoticons": 1, "links": 1, "private mobile": 1, "reposts": 1, "social forms": 1, "topics": 1
    }  # fmt: skip
    assert {reason: counts["documents"] for reason, counts in report["dropped"].items()} == {"empty": 1, "japanese": 1}
    [counts] = report["sources"].values()
    assert counts["read"]["characters"] == sum(map(len, rows))
    taken, dropped = (sum(one["characters"] for one in report[part].values()) for part in ("taken", "dropped"))
    assert counts["read"]["characters"] == counts["kept"]["characters"] + taken + dropped
    assert counts["measured"] == {"letters zh": 8, "letters zh-Hans": 9}


def test_private_data_stands_in_no_file_beside_the_documents(tmp_path: Path) -> None:
    rows = [
        "房间不错，早餐也很好吃[哈哈] 电话13800138001，下次还来",
        "电话13900139002//@小王:今日の朝ごはんはとてもおいしかった",
    ]
    (tmp_path / "raw.csv").write_text("label,review\n" + "".join(f"1,{row}\n" for row in rows), encoding="utf-8")
    asked = ["--documents", str(tmp_path / "out" / "comments.parquet"), "--privacy.mask", "mobile", "--workers", "1"]
    run_verb(
        ["prepare", "--source", "comments", "--input", str(tmp_path / "raw.csv"), *asked, "--social.remove", "none"]
    )
    [dropped] = pq.read_table(tmp_path / "out" / "comments.dropped.parquet").to_pylist()
    assert dropped["text"].startswith("电话【手机号】")
    assert dropped["characters"] == len(rows[1])
    for name in ("comments.report.json", "comments.report.html"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert "手机号" in text
        assert "13800138001" not in text
        assert "13900139002" not in text


def test_a_wikipedia_page_gets_the_words_of_the_variant_that_is_asked_for(tmp_path: Path) -> None:
    text = "{{NoteTA|G1=IT|T=zh-cn:鼠标;zh-tw:滑鼠}}用-{zh-hans:鼠标;zh-hant:滑鼠}-点击软件，"
    text += "它{{age|1980|1|1}}岁，「這裡」有-{里}-。"
    page = f"<page><title>鼠标</title><ns>0</ns><id>1</id><revision><id>1</id><text>{text}</text></revision></page>"
    (tmp_path / "dump.xml").write_text(f"<mediawiki>{page}</mediawiki>", encoding="utf-8")
    groups = tmp_path / "groups.txt"
    groups.write_text("[IT]\nzh-cn:软件;zh-tw:軟仔;\n", encoding="utf-8")
    command = ["prepare", "--source", "zhwiki", "--input", str(tmp_path / "dump.xml"), "--filter.rules", "none"]
    command += ["--variant", "zh-Hant", "--documents", str(tmp_path / "out.parquet"), "--workers", "1"]
    run_verb([*command, "--conversion_groups", str(groups)])
    [document] = read_documents([tmp_path / "out.parquet"])
    assert (document.title, document.text) == ("滑鼠", "用滑鼠點擊軟仔，「這裡」有里。")
    groups.write_text("软件 軟體\n", encoding="utf-8")
    groups_of.cache_clear()
    with pytest.raises(InputError, match=r"groups.txt:1: '软件 軟體' is neither"):
        run_verb([*command, "--overwrite", "--conversion_groups", str(groups)])

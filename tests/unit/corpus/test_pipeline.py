"""Raw documents to those that are learned: the steps, and what each takes out."""

from dataclasses import replace
from time import process_time
from typing import Any

import pytest

from megadec.corpus.clean.context import CleanContext
from megadec.corpus.dedup.fingerprint import fingerprint
from megadec.corpus.dedup.options import DedupOptions
from megadec.corpus.document import Document
from megadec.corpus.options import PrepareOptions
from megadec.corpus.pipeline import context_of, judged, stages, steps_of
from megadec.corpus.privacy import PrivacyOptions
from megadec.corpus.report.counts import CorpusReport, size_of
from megadec.corpus.sources import SOURCES

COMMENTS = SOURCES["comments"]
OPTIONS = PrepareOptions(source="comments", input=(), workers=1)


def comments(count: int) -> list[Document]:
    return [Document(str(n), "comments", "坏" if n % 10 == 0 else f"第{n}号菜很好吃，送餐也快。") for n in range(count)]


def run(documents: list[Document], **changes: Any) -> tuple[list[Document], CorpusReport]:
    report = CorpusReport()
    return [passed.document for passed in judged(documents, COMMENTS, replace(OPTIONS, **changes), report)], report


def test_every_part_of_a_document_becomes_uniform() -> None:
    raw = Document("a\n1", "comments", "很好&hellip;\r\n　　ＯＫ，下次再来", title=" 题\t目 ", label="１", url=" u ")
    (document,), _ = run([raw])
    assert document == Document("a 1", "comments", "很好…\nOK，下次再来", "题 目", "1", "u", "", document.variant)


def test_name_and_licence_of_the_run_reach_the_documents() -> None:
    raw = [Document("1", "comments", "这家店的菜很好吃"), Document("2", "comments", "送餐很快很好", licence="MIT")]
    documents, _ = run(raw, name="reviews", licence="CC0-1.0")
    found = [(document.source, document.licence) for document in documents]
    assert found == [("reviews", "CC0-1.0"), ("reviews", "MIT")]


def test_the_variant_of_a_document_is_that_of_its_text() -> None:
    raw = [Document("1", "comments", "這家飯館的飯菜很便宜", title="飯館")]
    (kept,), _ = run(raw)
    assert (kept.text, kept.variant) == (raw[0].text, "zh-Hant")
    (converted,), _ = run(raw, variant="zh-Hans")
    assert (converted.text, converted.title, converted.variant) == ("这家饭馆的饭菜很便宜", "饭馆", "zh-Hans")


def test_what_a_step_takes_out_and_does_not_name_is_counted_under_its_own_name() -> None:
    raw = Document("1", "comments", "这家店的<b>菜</b>　　很好吃，下次&amp;再来\u200b", title="题 ")
    context = CleanContext()
    seen = list(stages(raw, steps_of(COMMENTS, OPTIONS), context))
    assert [stage.step for stage in seen] == [
        "mojibake",
        "markup",
        "social forms",
        "made uniform",
        "quality rules",
        "naming",
    ]
    assert isinstance(seen[-1].outcome, Document)
    assert size_of(raw) == size_of(seen[-1].outcome) + context.taken.characters.total()
    assert set(context.taken.characters) == {"HTML tags", "markup", "made uniform"}


def test_a_drop_is_counted_with_its_raw_characters_and_its_stage() -> None:
    told = []
    report = CorpusReport(on_drop=lambda *what: told.append(what[1:]))
    assert not list(judged([Document("1", "comments", "<b>坏</b>")], COMMENTS, OPTIONS, report))
    assert told == [("too_short", "quality rules", 8)]
    assert report.sources["comments"].characters_read == 8


@pytest.mark.parametrize("source", ["text", "comments", "zhwiki"])
@pytest.mark.parametrize(
    "unit",
    [
        "一座古老的城市坐落在河边，",
        "[[链接|字]]<ref>甲</ref>{{lang|en|x}}'''粗'''-{zh-cn:甲;zh-tw:乙}-&nbsp;http://a.b/c [http://x.y 名]<br>",
        "13800138001",
        "//@甲:[哈哈]",
    ],
)
def test_an_article_on_one_line_takes_linear_time(source: str, unit: str) -> None:
    """Eight times the text takes about eight times as long; what is quadratic takes 64 times."""
    options = replace(OPTIONS, variant="zh-Hans", privacy=PrivacyOptions(mask=("all",)))
    kind = SOURCES[source]

    def seconds(characters: int) -> float:
        began = process_time()
        document = Document("1", source, (unit * characters)[:characters], title="甲")
        for stage in stages(document, steps_of(kind, options), context_of(options)):
            if isinstance(stage.outcome, Document):
                fingerprint(stage.outcome, DedupOptions())
        return process_time() - began

    assert seconds(160_000) < 32 * max(seconds(20_000) for _ in range(2))

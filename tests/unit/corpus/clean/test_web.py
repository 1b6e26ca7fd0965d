"""Entities and layout tags in text from web pages."""

from __future__ import annotations

import pytest

from megadec.corpus.clean.web import clean_web, plain_web
from megadec.corpus.document import Document


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("好&hellip;&hellip;", "好……"),
        ("&amp;nbsp;双重", "\xa0双重"),
        ("一<br/>二</p><p>三", "一\n二\n三"),
        ("<a href='x'>链接</a>&#8220;引&#x201d;", "链接“引”"),
        ("a<b 且 AT&T，<3", "a<b 且 AT&T，<3"),
        ("vector<int> & x", "vector<int> & x"),
    ],
)
def test_entities_and_layout_tags_go_and_other_signs_stay(raw: str, plain: str) -> None:
    assert plain_web(raw) == plain


def test_a_document_of_tags_is_empty() -> None:
    assert clean_web(Document("1", "s", "<p>&nbsp;</p>")) == "empty"

"""Markdown made plain, with code and formulas kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megadec.corpus.clean.context import CleanContext
from megadec.corpus.clean.markdown import clean_markdown, plain_markdown
from megadec.corpus.document import Document


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("---\ntitle: 甲\n---\n正文", "正文"),
        ("第一条 <!-- INFO END -->内容", "第一条 内容"),
        ("<p><strong>本台消息</strong>：开幕。</p><p>第二段<br>续</p>", "本台消息：开幕。\n第二段\n续\n"),
        ("见[说明](https://e.org/a_(b))与[题[一]号](x)", "见说明与题[一]号"),
        ("图![示意](a.png)后", "图后"),
        ("[查看原文](https://e.org)", ""),
        ("- [条目](https://e.org)", "- 条目"),
        ("**重点**和*斜体*，2*3*4", "重点和斜体，2*3*4"),
        ("## 第一章  总则 ##", "第一章  总则"),
        ("甲\n\n---\n\n乙", "甲\n\n\n\n乙"),
        ("| 名 | 值 |\n| --- | :-: |\n| 甲 | 1 |", "| 名 | 值 |\n| 甲 | 1 |"),
        ("注[^1]\n[^1]: 解释", "注\n 解释"),
        ("[a]: https://e.org\n正文[词][a]", "\n正文词"),
        ("a &lt; b &amp;&nbsp;c", "a < b &\xa0c"),
        ("\\*星号\\*", "*星号*"),
        ("<https://e.org>", ""),
    ],
)
def test_prose_loses_its_markup(raw: str, plain: str) -> None:
    assert plain_markdown(raw) == plain


@pytest.mark.parametrize(
    "kept",
    [
        "```cpp\n#include <vector>\nint *a, *b; // [x](y)\n```",
        "~~~\n# 不是标题\n~~~",
        "设 $a_i * b_i * c < d$ 成立",
        "$$\n\\sum_{i} [x](y) <p> **z**\n$$",
        "价格 a < b 且 c > d",
    ],
)
def test_code_and_formulas_stay_to_the_letter(kept: str) -> None:
    assert plain_markdown(kept) == kept


def test_inline_code_keeps_its_contents_without_the_ticks() -> None:
    assert plain_markdown("用 `vector<int>` 和 `` a`b ``") == "用 vector<int> 和 a`b"


def test_notes_and_tabs_of_mkdocs_leave_their_titles() -> None:
    raw = 'author: 甲, 乙\n\n??? note "证明"\n    显然。\n\n=== "C++"\n    代码\n\n    --8<-- "docs/a.cpp"\n'
    plain = plain_markdown(raw)
    assert [line.strip() for line in plain.splitlines() if line.strip()] == ["证明", "显然。", "C++", "代码"]


def test_a_title_that_the_text_repeats_is_there_once() -> None:
    document = Document("1", "laws", "# 某条例\n\n第一条 为了", title="某条例")
    assert clean_markdown(document, CleanContext()) == Document("1", "laws", "第一条 为了", title="某条例")


def test_markdown_of_nothing_but_markup_is_empty() -> None:
    assert clean_markdown(Document("1", "m", "---\nbookCollapseSection: true\n---\n"), CleanContext()) == "empty"


@given(st.text(st.sampled_from(list("ab汉 \n`$*[]()<>#!-|\\{}~&;\x00"))))
def test_any_markdown_gives_some_text(raw: str) -> None:
    assert "\x00" not in plain_markdown(raw)

"""Fingerprints: what is remembered of a document."""

import pytest

from megadec.corpus.dedup.exact import digest_of
from megadec.corpus.dedup.fingerprint import date_of, fingerprint
from megadec.corpus.dedup.options import DedupOptions
from megadec.corpus.document import Document

LONG = "".join(map(chr, range(0x4E00, 0x4E00 + 200)))


def test_a_long_text_has_a_signature_and_a_short_one_none() -> None:
    document = Document("1", "s", LONG, title="某题")
    made = fingerprint(document, DedupOptions())
    assert made.digest == digest_of(f"某题\n{LONG}")
    assert made.characters == len(LONG) + 3
    assert made.signature
    assert fingerprint(Document("1", "s", LONG[:99]), DedupOptions()).signature == b""
    assert fingerprint(document, DedupOptions(near=False)).signature == b""


def test_blanks_and_punctuation_change_no_fingerprint() -> None:
    spread = "，".join(LONG) + "。"
    one, other = (fingerprint(Document("1", "s", text), DedupOptions()) for text in (LONG, spread))
    assert (one.digest, one.signature) == (other.digest, other.signature)
    raw = fingerprint(Document("1", "s", LONG + "ＡＢ"), DedupOptions(), cleaned=False)
    assert raw.digest == fingerprint(Document("1", "s", LONG + "AB"), DedupOptions()).digest


@pytest.mark.parametrize(
    ("title", "number", "url", "date"),
    [
        ("某法(2018-10-26)", "1999-01-01", "", "2018-10-26"),
        ("某法", "民法/某法(2004-8-28).md", "http://x/2020/01/02/", "2004-08-28"),
        ("", "1", "http://x/2020/01/02/a.html", "2020-01-02"),
        ("", "news/20230405.md", "", "2023-04-05"),
        ("2019年3月2日修订，2023年7月20日再修订", "", "", "2023-07-20"),
        ("第2018-13-45号", "138001380000", "", ""),
        ("电话 13820181026", "", "", ""),
    ],
)
def test_the_date_is_the_last_that_title_id_or_address_name(title: str, number: str, url: str, date: str) -> None:
    assert date_of(Document(number, "s", "text 2001-01-01", title=title, url=url)) == date

"""What is remembered of a document for the search for duplicates: made in any worker, compared by `decide`."""

import re
from dataclasses import dataclass
from datetime import date

from megadec.corpus.clean.text import clean_text
from megadec.corpus.dedup.contamination import EvaluationIndex
from megadec.corpus.dedup.exact import digest_of_letters, letters_of
from megadec.corpus.dedup.near import signature_of
from megadec.corpus.dedup.options import DedupOptions
from megadec.corpus.document import Document, full_text

_DATE = re.compile(
    r"(?<!\d)((?:19|20)\d{2})(?:[-/.](\d{1,2})[-/.](\d{1,2})(?!\d)|(\d{2})(\d{2})(?!\d)|年(\d{1,2})月(\d{1,2})日)"
)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A document in some 600 bytes.

    `digest` is that of its whole text. `signature` is its MinHash signature, empty for a text that is too short to be
    compared in parts. `characters` counts its text; `date` is the last one in its title, id or address (2018-10-26), or
    empty. `evaluation_set` is the name of a set of which it holds the text `evaluation_item`; both are empty without.
    """

    digest: bytes
    signature: bytes = b""
    characters: int = 0
    date: str = ""
    evaluation_set: str = ""
    evaluation_item: str = ""


def fingerprint(
    document: Document, options: DedupOptions, *, cleaned: bool = True, evaluation: EvaluationIndex | None = None
) -> Fingerprint:
    """The fingerprint of a document. cleaned: `clean_text` was already applied to its parts. evaluation: what is asked
    for texts of evaluation sets."""
    text = full_text(document)
    plain = text if cleaned else clean_text(text)
    letters = letters_of(plain)
    signed = options.near and len(letters) >= options.min_characters
    held = evaluation.find(plain, letters) if evaluation else None
    return Fingerprint(
        digest=digest_of_letters(plain, letters),
        signature=signature_of(letters) if signed else b"",
        characters=len(text),
        date=date_of(document),
        evaluation_set=held.set if held else "",
        evaluation_item=held.item if held else "",
    )


def date_of(document: Document) -> str:
    """The last date that the title names, or else the id, or else the address: 2018-10-26, or an empty string."""
    for place in (document.title, document.id, document.url):
        if dates := [found for match in _DATE.finditer(place) if (found := _iso(match))]:
            return max(dates)
    return ""


def _iso(match: re.Match[str]) -> str:
    year, month, day = (int(part) for part in match.groups() if part)
    try:
        return date(year, month, day).isoformat()
    except ValueError:
        return ""

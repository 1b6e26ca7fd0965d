"""Which encoding bytes are in, by what the characters would be: text has common characters, mistakes have rare ones.

The measure is the share of the most frequent characters of modern Chinese (the first in Jun Da's lists and their
traditional forms), which make up a third of any text.
"""

import codecs

from megadec.corpus.clean.common_characters import BEYOND_ASCII, common_share

# The mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
ONE_BYTE_ASCII = ("utf-8", "gb18030", "big5hkscs")
UTF_16 = ("utf-16-le", "utf-16-be")
SAMPLE_BYTES = 1 << 16
LEAST_SHARE = 0.15
TIMES_ANOTHER = 3
LEAST_CHARACTERS = 20


def detect(head: bytes, among: tuple[str, ...] = (), *, surely: bool = False) -> str:
    """The codec of a file that begins with `head`: UTF-8 where it can be, else the one that gives the most common text.

    among: only these. surely: "" unless it is far better than any other, which a few characters never are.
    """
    for mark, codec in _MARKS:
        if head.startswith(mark):
            return codec
    text = decoded(head, "utf-8")
    if text is not None and not among and b"\0" not in head:
        return "utf-8" if not surely or len(BEYOND_ASCII.findall(text[:SAMPLE_BYTES])) >= LEAST_CHARACTERS else ""
    # A few Chinese characters in one of the others are pairs of bytes too.
    wide = UTF_16 if b"\0" in head or len(head) > 2 * LEAST_CHARACTERS else ()
    scores = {codec: _score(head[:SAMPLE_BYTES], codec) for codec in among or (*ONE_BYTE_ASCII, *wide)}
    best = max(scores, key=lambda codec: scores[codec])
    if surely:
        others = max(score for codec, score in scores.items() if codec != best)
        far_better = scores[best] > max(LEAST_SHARE, TIMES_ANOTHER * others)
        return best if far_better and len(head) > 2 * LEAST_CHARACTERS else ""
    if scores[best] == 0 and not among:  # no common character in any: what it can be, the likeliest first
        return next((codec for codec in ("utf-8", "gb18030") if decoded(head, codec) is not None), "utf-8")
    return best


def decoded(head: bytes, codec: str) -> str | None:
    """The text of a file's beginning, which may end within a character; None where it is not in this codec."""
    try:
        return codecs.getincrementaldecoder(codec)("strict").decode(head, final=False)
    except UnicodeDecodeError:
        return None


def _score(head: bytes, codec: str) -> float:
    text = decoded(head, codec)
    return -1.0 if text is None else common_share(text)

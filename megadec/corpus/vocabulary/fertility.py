"""Tokens per word: how many pieces a vocabulary makes of a word, words being what jieba cuts.

Characters per token say what a text costs, tokens per word how far pieces follow the language; 1 would be a vocabulary
of words. Only the beginning of each source is cut, since jieba takes seconds for a million characters.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megadec.common.errors import MissingExtraError
from megadec.common.log import logger
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.dedup.exact import digest_of, is_held_out
from megadec.corpus.document import full_text, read_documents
from megadec.corpus.words.segment import SegmentOptions, is_word

CHARACTERS_PER_SOURCE = 100_000

log = logger(__name__)


def fertility(tokenizer: Tokenizer, paths: Sequence[Path], held_out_fraction: float) -> dict[str, Any] | None:
    """Words, tokens and tokens per word of each source; None where no segmenter is installed.

    Of held-out documents only, where some are. Punctuation and blanks are no words, and their tokens do not count
    either. Raises InputError for files.
    """
    words_of = SegmentOptions()
    try:
        segmenter = words_of.open_segmenter()
    except MissingExtraError as error:
        log.warning("the report card has no tokens per word: %s", error)
        return None
    seen: Counter[str] = Counter()
    words: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for document in read_documents(paths):
        if seen[document.source] >= CHARACTERS_PER_SOURCE:
            continue
        text = full_text(document)
        if held_out_fraction and not is_held_out(digest_of(text), held_out_fraction):
            continue
        found = list(filter(is_word, segmenter.cut(text)))
        seen[document.source] += len(text)
        words[document.source] += len(found)
        tokens[document.source] += sum(map(len, tokenizer.encode_many(found)))
    sources = {
        name: {"words": words[name], "tokens": tokens[name], "tokens_per_word": round(tokens[name] / words[name], 4)}
        for name in sorted(words)
        if words[name]
    }
    return {"segmenter": words_of.segmenter_described(), "sources": sources}

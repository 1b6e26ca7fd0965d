"""What the counts of words say: frequent words, coverage by vocabularies and a tokenizer, keywords of each source."""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from megadec.common.tokenizer import Tokenizer
from megadec.corpus.words.counting import SourceCounts

# As jieba's own keywords: single characters say little.
KEYWORD_CHARACTERS = 2
ENCODED_AT_A_TIME = 10_000
MILLION = 1_000_000

Ranked = list[tuple[str, int]]


def frequent(counts: SourceCounts, most: int) -> dict[str, Any]:
    """The most frequent n-grams by n, how many there are, and how far a count may be short."""
    return {
        str(n): {
            "all": table.total,
            "different": len(table.counts),
            "forgotten": table.forgotten,
            "counts_short_by_at_most": table.short,
            "most_frequent": table.ranked()[:most],
        }
        for n, table in counts.grams.items()
    }


def together(sources: Mapping[str, SourceCounts], n: int = 1) -> Ranked:
    """N-grams of all sources with the sum of their counts, the most frequent first, equal ones by their text."""
    total = Counter[str]()
    for source in sources.values():
        total.update(source.grams[n].counts)
    return sorted(total.items(), key=lambda item: (-item[1], item[0]))


def coverage(source: SourceCounts, known: Collection[str]) -> dict[str, float]:
    """Which share of a source's words, and of its different words, is among those known."""
    counts = source.words.counts
    covered = [count for word, count in counts.items() if word in known]
    return {
        "words": _share(sum(covered), source.words.total),
        "different_words": _share(len(covered), len(counts)),
    }


def pieces_of_words(sources: Mapping[str, SourceCounts], tokenizer: Tokenizer) -> dict[str, dict[str, float]]:
    """How a tokenizer takes each source's words when they stand alone: the share of words, and of different words, that
    are a single piece; pieces a word; the share of words with a character that it has only as bytes."""
    return {name: _pieces_of(source.words.counts, tokenizer) for name, source in sources.items()}


def _pieces_of(counts: Mapping[str, int], tokenizer: Tokenizer) -> dict[str, float]:
    words, sums = sorted(counts), Counter[str]()
    for first in range(0, len(words), ENCODED_AT_A_TIME):
        some = words[first : first + ENCODED_AT_A_TIME]
        for word, ids in zip(some, tokenizer.encode_many(some), strict=True):
            count, is_single, has_bytes = counts[word], len(ids) == 1, bool(tokenizer.is_byte[ids].any())
            sums.update(words=count, different=1, pieces=count * len(ids), single=count * is_single)
            sums.update(different_single=is_single, in_bytes=count * has_bytes)
    return {
        "single_piece_words": _share(sums["single"], sums["words"]),
        "single_piece_different_words": _share(sums["different_single"], sums["different"]),
        "pieces_per_word": _share(sums["pieces"], sums["words"]),
        "words_in_bytes": _share(sums["in_bytes"], sums["words"]),
    }


def keywords(sources: Mapping[str, SourceCounts], most: int) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """For each source the words that set it apart.

    tf_idf: share of the source's words x ln(documents / documents that hold the word), over the documents of all
    sources. log_likelihood: G2 of the word in the source against all others (Dunning, Computational Linguistics 19,
    1993), of words that are more frequent in it; empty where there is one source.
    """
    everything = dict(together(sources))
    in_documents = Counter[str]()
    for source in sources.values():
        in_documents.update(source.in_documents.counts)
    words = sum(source.words.total for source in sources.values())
    documents = sum(source.documents for source in sources.values())
    return {
        name: {
            "tf_idf": _by_tf_idf(source, documents, in_documents, most),
            "log_likelihood": _by_likelihood(source, words, everything, most),
        }
        for name, source in sources.items()
    }


def _by_tf_idf(
    source: SourceCounts, documents: int, in_documents: Mapping[str, int], most: int
) -> list[dict[str, Any]]:
    scored = [
        # A word whose count of documents was forgotten is in one at least.
        (count / source.words.total * math.log(documents / max(in_documents.get(word, 0), 1)), word)
        for word, count in source.words.counts.items()
        if len(word) >= KEYWORD_CHARACTERS
    ]
    return [{"word": word, "score": float(f"{score:.4g}")} for score, word in _largest(scored, most)]


def _by_likelihood(source: SourceCounts, words: int, everything: Mapping[str, int], most: int) -> list[dict[str, Any]]:
    counts, here = source.words.counts, source.words.total
    scored = [
        (log_likelihood(count, here, everything[word] - count, words - here), word)
        for word, count in counts.items()
        if len(word) >= KEYWORD_CHARACTERS
    ]
    return [
        {
            "word": word,
            "score": float(f"{score:.4g}"),
            "per_million": round(MILLION * counts[word] / here),
            "per_million_elsewhere": round(MILLION * (everything[word] - counts[word]) / (words - here)),
        }
        for score, word in _largest(scored, most)
        if score > 0
    ]


def log_likelihood(count: int, words: int, count_elsewhere: int, words_elsewhere: int) -> float:
    """G2 of a word that stands `count` times among `words`; 0 where it is not more frequent here than elsewhere."""
    if not words_elsewhere or count * words_elsewhere <= count_elsewhere * words:
        return 0.0
    rate = (count + count_elsewhere) / (words + words_elsewhere)
    parts = ((count, words * rate), (count_elsewhere, words_elsewhere * rate))
    return 2 * sum(seen * math.log(seen / expected) for seen, expected in parts if seen)


def render(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    sources = report["sources"]
    lines = ["# Words", "", f"Cut by {report['segmenter']['name']} {report['segmenter']['version']}.", ""]
    sizes = [f"the {size} most frequent" for size in report["coverage_sizes"]]
    given = ["vocabulary"] if report["vocabulary"] else []
    tokenizer = ["single piece", "pieces a word"] if report["tokenizer"] else []
    header = [report["by"], "documents", "words", "different", *sizes, *given, *tokenizer]
    lines += [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for name, source in sources.items():
        words = source["ngrams"]["1"]
        cells = [name, *(f"{n:,}" for n in (source["documents"], words["all"], words["different"]))]
        cells += [f"{100 * source['coverage'][str(size)]['words']:.2f} %" for size in report["coverage_sizes"]]
        cells += [f"{100 * source['coverage']['vocabulary']['words']:.2f} %"] if given else []
        if tokenizer:
            pieces = source["tokenizer"]
            cells += [f"{100 * pieces['single_piece_words']:.2f} %", f"{pieces['pieces_per_word']:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Percentages are shares of a source's words that the most frequent words of all sources cover.", ""]
    for name, source in sources.items():
        lines += [f"## {name}", "", *_words_of(source), ""]
    return "\n".join(lines)


def _words_of(source: Mapping[str, Any]) -> Iterator[str]:
    yield f"- by log-likelihood: {_named(one['word'] for one in source['keywords']['log_likelihood'])}"
    yield f"- by TF-IDF: {_named(one['word'] for one in source['keywords']['tf_idf'])}"
    for n, table in source["ngrams"].items():
        name = "words" if n == "1" else f"{n}-grams"
        short = table["counts_short_by_at_most"]
        bound = f" (counts up to {short:,} too low: {table['forgotten']:,} rare ones were forgotten)" if short else ""
        yield f"- frequent {name}{bound}: {_named(gram for gram, _ in table['most_frequent'])}"


def _named(words: Iterator[str]) -> str:
    return "、".join(word.replace("|", "\\|") for word in words) or "none"


def _largest(scored: Sequence[tuple[float, str]], most: int) -> list[tuple[float, str]]:
    return sorted(scored, key=lambda one: (-one[0], one[1]))[:most]


def _share(part: float, whole: float) -> float:
    return round(part / whole, 6) if whole else 0.0

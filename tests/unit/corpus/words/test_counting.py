"""Counts of words are exact while they fit, never too high, and the same for any number of workers."""

import random
from collections import Counter

from megadec.corpus.document import Document
from megadec.corpus.words.counting import BoundedCounts, Counting, count_words
from megadec.corpus.words.segment import SegmentOptions

DOCUMENTS = [
    Document(f"{n}", f"s{n % 2}", f"球队今晚迎战对手，球队必胜。\n股市{n}点 上涨，收音机的价格", title=f"第{n}条新闻")
    for n in range(600)
]


def count(limit: int = 1000, workers: int = 1, longest: int = 2, stop: tuple[str, ...] = ()):
    counting = Counting(SegmentOptions(), "source", longest, frozenset(stop))
    return count_words(DOCUMENTS, counting, limit, workers)


def test_counts_are_those_of_all_documents_of_a_source():
    found = count()
    assert list(found) == ["s0", "s1"]
    one = found["s0"]
    assert (one.documents, one.words.counts["球队"], one.in_documents.counts["球队"]) == (300, 600, 300)
    assert one.characters == sum(len(f"{d.title}\n{d.text}") for d in DOCUMENTS if d.source == "s0")
    assert (one.words.short, one.words.forgotten) == (0, 0)
    assert one.words.total == sum(one.words.counts.values())


def test_an_n_gram_ends_at_punctuation_newlines_and_stop_words_and_not_at_a_blank():
    grams = count(longest=3)["s0"].grams
    assert grams[2].counts["今晚 迎战"] == 300
    assert grams[2].counts["点 上涨"] == 300
    assert grams[3].counts["今晚 迎战 对手"] == 300
    assert not any("对手 球队" in gram or "必胜 股市" in gram for gram in grams[2].counts)
    stopped = count(stop=("迎战",))["s0"]
    assert stopped.stopped == 300
    assert "迎战" not in stopped.words.counts
    assert "今晚 对手" not in stopped.grams[2].counts


def test_any_number_of_workers_gives_the_same_counts_also_where_some_are_forgotten():
    alone, two = count(limit=40), count(limit=40, workers=2)
    assert alone == two
    assert alone["s0"].words.short > 0
    assert list(alone["s0"].words.counts) == list(two["s0"].words.counts)


def test_a_bounded_count_is_never_too_high_and_short_by_no_more_than_it_says():
    chance = random.Random(0)
    true, bounded = Counter[str](), BoundedCounts(50)
    for _ in range(200):
        part = Counter(str(int(chance.paretovariate(0.7))) for _ in range(200))
        true.update(part)
        bounded.add(part)
        assert len(bounded.counts) <= 100
    assert bounded.short > 0
    assert bounded.total == true.total()
    for entry, count_ in true.items():
        assert 0 <= count_ - bounded.counts[entry] <= bounded.short
    assert [entry for entry, _ in bounded.ranked()[:5]] == [entry for entry, _ in true.most_common(5)]

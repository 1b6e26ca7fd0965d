"""Changed copies of labelled texts, for training sets that are small: words deleted, swapped, replaced by near ones,
and texts of one class joined (Wei and Zou, arXiv 1901.11196, with word vectors in place of a thesaurus).

A copy is a pure function of the texts, the options, the seed and its number. Only what is learned from is ever changed.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from megadec.common.errors import ConfigError, check_range
from megadec.corpus.words.segment import SegmentOptions, is_word
from megadec.corpus.words.vectors import read_vectors

# A text of several sentences is joined to another at their ends, one sentence at any word.
_SENTENCE_END = re.compile(r"[。！？!?\n]")
MIXED_FROM, MIXED_TO = 0.25, 0.75


@dataclass(frozen=True)
class AugmentOptions(SegmentOptions):
    """Changed copies of the texts that are learned from; those that measure stay as they are.

    Attributes:
        copies: of each text, beside itself; 0: none. A copy that equals its text or an earlier copy is left out.
        mixing: the probability that a copy ends with the end of another text of the same label.
        synonyms: of a copy, the share of its words that are replaced by one of the words nearest to them.
        swap: of a copy, the share of its words that change places.
        deletion: of a copy, the share of its words that are left out; at least one stays.
        vectors: word vectors that synonyms come from, a folder of tools/word_vectors.py or a file in word2vec's format.
        neighbors: a synonym is one of so many nearest words.
        least_similarity: no word below this cosine is a synonym.
    """

    copies: int = 0
    mixing: float = 0.0
    synonyms: float = 0.0
    swap: float = 0.0
    deletion: float = 0.0
    vectors: str = ""
    neighbors: int = 10
    least_similarity: float = 0.0

    def __post_init__(self) -> None:
        section = "augment."
        check_range(self, section, "copies", least=0)
        check_range(self, section, "mixing", "synonyms", "swap", least=0, most=1)
        check_range(self, section, "deletion", least=0, below=1)
        check_range(self, section, "neighbors", least=1)
        check_range(self, section, "least_similarity", least=-1, most=1)
        changes = self.mixing or self.synonyms or self.swap or self.deletion
        if bool(self.copies) != bool(changes):
            raise ConfigError(
                f"augment.copies={self.copies} and {'a' if changes else 'no'} change that is above 0: give copies, and"
                " at least one of mixing, synonyms, swap and deletion"
            )
        if self.synonyms and not self.vectors:
            raise ConfigError(f"augment.synonyms={self.synonyms} without augment.vectors to find the nearest words in")


def augmented(
    texts: Sequence[tuple[str, str]], options: AugmentOptions, seed: int
) -> tuple[list[list[str]], dict[str, int]]:
    """For each (text, label) its copies, and what was done: copies, words deleted, swapped and replaced, texts mixed,
    copies left out because they are the same as another.

    Raises InputError for vectors or a dictionary that cannot be read, MissingExtraError.
    """
    counts = Counter(dict.fromkeys(("copies", "mixed", "replaced", "swapped", "deleted", "same"), 0))
    if not options.copies:
        return [[] for _ in texts], dict(counts)
    cut = options.open_segmenter().cut
    words = [cut(text) for text, _ in texts]
    of_label: defaultdict[str, list[int]] = defaultdict(list)
    for number, (_, label) in enumerate(texts):
        of_label[label].append(number)
    near = _nearest(words, options)
    copies: list[list[str]] = []
    for number, (text, label) in enumerate(texts):
        found: list[str] = []
        for copy in range(options.copies):
            chance = random.Random(f"{seed} {number} {copy}")
            partner = words[_other(of_label[label], number, chance)]
            made = "".join(_changed(words[number], partner, near, options, chance, counts)).strip()
            if not made or made == text or made in found:
                counts["same"] += 1
            else:
                found.append(made)
        copies.append(found)
        counts["copies"] += len(found)
    return copies, dict(counts)


def _nearest(words: Sequence[Sequence[str]], options: AugmentOptions) -> Mapping[str, Sequence[str]]:
    """The synonyms of every word of the texts that has a vector."""
    if not options.synonyms:
        return {}
    vectors = read_vectors(Path(options.vectors))
    every = {word for some in words for word in some}
    return vectors.nearest(every, options.neighbors, options.least_similarity)


def _other(numbers: Sequence[int], number: int, chance: random.Random) -> int:
    """Another of the numbers, or the same where there is only one."""
    drawn = numbers[chance.randrange(len(numbers))]
    return drawn if drawn != number else numbers[(numbers.index(number) + 1) % len(numbers)]


def _changed(
    words: Sequence[str],
    partner: Sequence[str],
    near: Mapping[str, Sequence[str]],
    options: AugmentOptions,
    chance: random.Random,
    counts: Counter[str],
) -> list[str]:
    """One copy: mixed, then replaced, then swapped, then deleted, each as often as the options say."""
    found = list(words)
    if chance.random() < options.mixing:
        found = mix(words, partner, chance)
        counts["mixed"] += 1
    if options.synonyms:
        counts["replaced"] += _replace(found, near, options.synonyms, chance)
    if options.swap:
        counts["swapped"] += _swap(found, options.swap, chance)
    if options.deletion:
        before = len(found)
        found = _delete(found, options.deletion, chance)
        counts["deleted"] += before - len(found)
    return found


def _replace(words: list[str], near: Mapping[str, Sequence[str]], share: float, chance: random.Random) -> int:
    """Put a near word in place of such a share of the words that have one; returns of how many."""
    replaced = 0
    for place, word in enumerate(words):
        if near.get(word) and chance.random() < share:
            words[place] = chance.choice(near[word])
            replaced += 1
    return replaced


def _swap(words: list[str], share: float, chance: random.Random) -> int:
    """Let such a share of the words change places among themselves; returns how many did."""
    chosen = [place for place, word in enumerate(words) if is_word(word) and chance.random() < share]
    if len(chosen) < 2:
        return 0
    # Each goes to the next one's place, so that none stays where it was.
    chance.shuffle(chosen)
    moved = [words[place] for place in chosen]
    for place, word in zip(chosen[1:] + chosen[:1], moved, strict=True):
        words[place] = word
    return len(chosen)


def _delete(words: Sequence[str], share: float, chance: random.Random) -> list[str]:
    """The rest when such a share of the words is left out; punctuation, and at least one word, stays."""
    places = [place for place, word in enumerate(words) if is_word(word)]
    dropped = {place for place in places if chance.random() < share}
    if places and len(dropped) == len(places):
        dropped.remove(chance.choice(places))
    return [word for place, word in enumerate(words) if place not in dropped]


def mix(words: Sequence[str], partner: Sequence[str], chance: random.Random) -> list[str]:
    """The beginning of one text and the end of the other, cut at the same share of both: between sentences where both
    have several, else between words."""
    share = chance.uniform(MIXED_FROM, MIXED_TO)
    parts = [_sentences(some) for some in (words, partner)]
    if min(map(len, parts)) < 2:
        parts = [[[word] for word in some] for some in (words, partner)]
    first, second = parts
    head = first[: max(1, round(share * len(first)))]
    return [word for part in (*head, *second[round(share * len(second)) :]) for word in part]


def _sentences(words: Sequence[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in words:
        parts[-1].append(word)
        if _SENTENCE_END.search(word):
            parts.append([])
    return [part for part in parts if part]

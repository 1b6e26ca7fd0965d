"""How many documents two sets have in common, from a small sample of each that `prepare` keeps in index.json.

The sample is the same whatever the order: the smallest of the documents' hashes (a bottom-k sketch, Cohen and Kaplan
2007). Of two sets with at most SKETCH_HASHES documents together the number is exact; of larger ones it is an estimate,
off by a few hundredths of the documents of both, and a few common documents among millions are not seen.
"""

from collections.abc import Mapping
from itertools import combinations

from megadec.corpus.dedup.exact import digest_of_cleaned

SKETCH_HASHES = 2048
HASH_BYTES = 8


class Sketch:
    """The smallest hashes of the texts that were added, and their number `documents`."""

    def __init__(self, documents: int = 0, stored: str = "") -> None:
        """stored: the `str` of the sketch to go on from."""
        self.documents = documents
        data = bytes.fromhex(stored)
        self._hashes = {data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)}

    def add(self, text: str) -> None:
        """Add a document's cleaned text; blanks, punctuation and case do not count."""
        self.add_digest(digest_of_cleaned(text))

    def add_digest(self, digest: bytes) -> None:
        """Add a document by the digest of its text, of which the first 8 bytes are looked at."""
        self.documents += 1
        self._hashes.add(digest[:HASH_BYTES])
        if len(self._hashes) > 16 * SKETCH_HASHES:
            self._hashes = set(self.smallest())

    def smallest(self) -> list[bytes]:
        """At most SKETCH_HASHES of them, in order."""
        return sorted(self._hashes)[:SKETCH_HASHES]

    def __str__(self) -> str:
        return b"".join(self.smallest()).hex()


def shared_documents(one: Sketch, other: Sketch) -> int:
    """About how many documents are in both sets."""
    ours, theirs = one.smallest(), other.smallest()
    union = sorted({*ours, *theirs})[:SKETCH_HASHES]
    alike = len({*ours} & {*theirs} & {*union}) / max(1, len(union))
    return round(alike * (one.documents + other.documents) / (1 + alike))


def overlaps(sets: Mapping[str, Sketch]) -> list[str]:
    """A sentence for each two of these sets, by name, that have documents in common."""
    sentences = []
    for (name, one), (other_name, other) in combinations(sets.items(), 2):
        if shared := shared_documents(one, other):
            share = shared / min(one.documents, other.documents)
            sentences.append(
                f"{name} and {other_name} have about {shared:,} documents in common ({share:.0%} of the smaller)"
            )
    return sentences

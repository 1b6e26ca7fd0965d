"""Near-duplicate removal beside datasketch: time and the pairs that each finds, against exact Jaccard similarity.

    python -m bench.near_duplicates --input documents/*.parquet [--output FILE.json]

Both get the same texts, the same threshold, and bands in which 99 % of the pairs at it meet. Ours is timed from text to
decisions (digests, signatures of 512 permutations, clusters, what stays), datasketch from text to the pairs of its LSH
index whose signatures are alike, with 128 permutations, its default, and with as many as ours; each in one process.
"""

import argparse
import json
import tempfile
import time
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any

from datasketch import MinHash, MinHashLSH

from megadec.corpus.dedup.decide import NO_CLUSTER, Decisions, decide
from megadec.corpus.dedup.exact import letters_of
from megadec.corpus.dedup.fingerprint import fingerprint
from megadec.corpus.dedup.near import PERMUTATIONS, SHINGLE_CHARACTERS, bands_of
from megadec.corpus.dedup.options import DedupOptions
from megadec.corpus.document import Document, full_text, read_documents

DATASKETCH_PERMUTATIONS = (128, PERMUTATIONS)
Pairs = set[tuple[int, int]]


def near_duplicates_vs_datasketch(documents: list[Document], threshold: float = 0.8) -> dict[str, Any]:
    """Seconds of CPU time of each, how many times as fast ours is, and what part of the true pairs each finds."""
    options = DedupOptions(threshold=threshold)
    texts = [letters_of(full_text(document)) for document in documents]
    long = [index for index, text in enumerate(texts) if len(text) >= options.min_characters]
    began = time.process_time()
    decisions = _ours(documents, options)
    ours_seconds = time.process_time() - began
    theirs: dict[int, Pairs] = {}
    their_seconds = {}
    for permutations in DATASKETCH_PERMUTATIONS:
        began = time.process_time()
        theirs[permutations] = _datasketch(texts, long, threshold, permutations)
        their_seconds[permutations] = time.process_time() - began
    compared = {*long}
    ours = {pair for pair in _pairs_of(decisions) if compared.issuperset(pair)}
    true = {pair for pair in ours.union(*theirs.values()) if _jaccard(texts, pair) >= threshold}
    dropped = {
        (min(pair), max(pair))
        for pair in enumerate(decisions.instead.tolist())
        if pair[1] != -1 and decisions.reason(pair[0]) == "near_duplicate"
    }
    return {
        "documents": len(documents),
        "characters": sum(map(len, texts)),
        "seconds": round(ours_seconds, 3),
        "true_pairs": len(true),
        "found_fraction": _share(ours & true, true),
        "datasketch": {
            str(permutations): {
                "seconds": round(their_seconds[permutations], 3),
                "times_as_fast": round(their_seconds[permutations] / ours_seconds, 1),
                "found_fraction": _share(pairs & true, true),
                "also_ours_fraction": _share(pairs & true & ours, pairs & true),
            }
            for permutations, pairs in theirs.items()
        },
        "near_duplicates": len(dropped),
        "near_duplicates_true_fraction": _share(dropped & true, dropped),
    }


def _ours(documents: list[Document], options: DedupOptions) -> Decisions:
    with tempfile.TemporaryDirectory() as work:
        return decide((fingerprint(document, options) for document in documents), options, Path(work))


def _datasketch(texts: list[str], long: list[int], threshold: float, permutations: int) -> Pairs:
    """The pairs that its index gives, and whose signatures are alike. Its own choice of bands would lose many."""
    index = MinHashLSH(num_perm=permutations, params=bands_of(threshold, permutations))
    made: dict[int, MinHash] = {}
    found: Pairs = set()
    for number in long:
        made[number] = MinHash(permutations)
        made[number].update_batch([shingle.encode() for shingle in _shingles(texts[number])])
        for other in index.query(made[number]):
            if made[number].jaccard(made[other]) >= threshold:
                found.add((other, number))
        index.insert(number, made[number])
    return found


def _pairs_of(decisions: Decisions) -> Pairs:
    members = defaultdict(list)
    for index, cluster in enumerate(decisions.clusters.tolist()):
        if cluster != NO_CLUSTER:
            members[cluster].append(index)
    return {pair for cluster in members.values() for pair in combinations(cluster, 2)}


def _shingles(text: str) -> set[str]:
    return {text[at : at + SHINGLE_CHARACTERS] for at in range(len(text) - SHINGLE_CHARACTERS + 1)}


def _jaccard(texts: list[str], pair: tuple[int, int]) -> float:
    one, other = (_shingles(texts[index]) for index in pair)
    return len(one & other) / max(1, len(one | other))


def _share(part: Pairs, whole: Pairs) -> float:
    return round(len(part) / max(1, len(whole)), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    result = near_duplicates_vs_datasketch(list(read_documents(given.input)))
    text = json.dumps(result, indent=2)
    print(text)
    if given.output:
        given.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

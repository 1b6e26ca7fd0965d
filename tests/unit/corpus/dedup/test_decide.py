"""Which documents stay: exact and near duplicates, excluded texts, clusters."""

import random
import tracemalloc
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from megadec.corpus.dedup import clusters
from megadec.corpus.dedup.decide import Decisions, decide, write_clusters
from megadec.corpus.dedup.exact import digest_of
from megadec.corpus.dedup.fingerprint import Fingerprint, fingerprint
from megadec.corpus.dedup.near import MOST_BANDS, SIGNATURE_BYTES, Signatures
from megadec.corpus.dedup.options import DedupOptions
from megadec.corpus.document import Document

CHANCE = random.Random(0)


def prose(characters: int) -> str:
    return "".join(chr(CHANCE.randrange(0x4E00, 0x9000)) for _ in range(characters))


def changed(text: str, places: int) -> str:
    """The text with so many characters replaced, evenly: each costs five shingles."""
    step = len(text) // places
    return "".join("变" if at % step == step // 2 else character for at, character in enumerate(text))


def decided(tmp_path: Path, texts: Iterable[str | Document], options: DedupOptions | None = None) -> Decisions:
    options = options or DedupOptions()
    documents = [text if isinstance(text, Document) else Document("", "s", text) for text in texts]
    decisions = decide((fingerprint(document, options) for document in documents), options, tmp_path)
    assert list(tmp_path.iterdir()) == []
    return decisions


def reasons(decisions: Decisions) -> list[str]:
    return [decisions.reason(index) for index in range(len(decisions))]


def test_of_equal_texts_the_first_stays_and_of_similar_ones_the_longest(tmp_path: Path) -> None:
    one, other = prose(600), prose(600)
    texts = [one, other, one, changed(one, 6), changed(other, 5) + "多一些字", prose(600)]
    decisions = decided(tmp_path, texts)
    assert reasons(decisions) == ["", "near_duplicate", "duplicate", "near_duplicate", "", ""]
    assert decisions.clusters.tolist() == [0, 1, 0, 0, 1, -1]
    assert decisions.instead.tolist() == [-1, 4, 0, 0, -1, -1]
    assert decisions.similarities[[0, 2, 4, 5]].tolist() == [1.0] * 4
    assert 0.8 <= decisions.similarities[1] < 1
    assert 0.8 <= decisions.similarities[3] < 1


def test_texts_that_share_less_than_the_threshold_stay(tmp_path: Path) -> None:
    one = prose(1000)
    half = changed(one, 70)  # 350 of 996 shingles differ: Jaccard 646 / 1346
    assert reasons(decided(tmp_path, [one, half, prose(1000)])) == ["", "", ""]
    assert reasons(decided(tmp_path, [one, changed(one, 10)], DedupOptions(threshold=0.97))) == ["", ""]
    assert reasons(decided(tmp_path, [one, changed(one, 10)], DedupOptions(near=False))) == ["", ""]


def test_short_texts_are_only_compared_as_a_whole(tmp_path: Path) -> None:
    texts = ["很好吃，下次还来", "很好吃，下次还來", "很好吃！下次还来", "", prose(99), prose(99)]
    assert reasons(decided(tmp_path, texts)) == ["", "", "duplicate", "", "", ""]
    short = prose(80)
    assert reasons(decided(tmp_path, [short, changed(short, 1)])) == ["", ""]
    assert reasons(decided(tmp_path, [short, changed(short, 1)], DedupOptions(min_characters=60))) == [
        "",
        "near_duplicate",
    ]


def test_the_newest_stays_or_the_first_where_that_is_asked_for(tmp_path: Path) -> None:
    text = prose(900)
    versions = [
        Document("1", "laws", text, title="某法(2004-08-28)"),
        Document("2", "laws", changed(text, 5), title="某法(2018-10-26)"),
        Document("3", "laws", changed(text, 9) + prose(30), title="某法"),
    ]
    kept = {
        keep: reasons(decided(tmp_path, versions, DedupOptions(keep=keep))).index("")
        for keep in ("first", "newest", "longest")
    }
    assert kept == {"first": 0, "newest": 1, "longest": 2}


def test_every_text_that_goes_is_like_one_that_stays(tmp_path: Path) -> None:
    """A chain of versions, each like the next: its ends are not alike, and both stay."""
    versions = [prose(800)]
    for _ in range(12):
        versions.append(changed(versions[-1][30:], 2) + prose(30))
    decisions = decided(tmp_path, versions, DedupOptions(keep="first"))
    assert len(set(decisions.clusters.tolist())) == 1
    stay = [index for index, reason in enumerate(reasons(decisions)) if not reason]
    assert stay[0] == 0
    assert 2 <= len(stay) < len(versions)
    shingles = [{text[at : at + 5] for at in range(len(text) - 4)} for text in versions]
    for index in set(range(len(versions))) - set(stay):
        nearest = max(len(shingles[index] & shingles[kept]) / len(shingles[index] | shingles[kept]) for kept in stay)
        assert nearest > 0.7  # 0.8 in 128 samples


def test_the_decisions_do_not_depend_on_other_documents(tmp_path: Path) -> None:
    pair = [prose(500)]
    pair.append(changed(pair[0], 5))
    alone = reasons(decided(tmp_path, pair))
    among = reasons(decided(tmp_path, [*pair, *(prose(300) for _ in range(300))]))
    assert among == [*alone, *[""] * 300]


def test_excluded_and_contaminated_texts_go_and_are_no_duplicates_of_others(tmp_path: Path) -> None:
    options, text = DedupOptions(), prose(500)
    prints = [fingerprint(Document("", "s", part), options) for part in (text, "测试标题一", changed(text, 3))]
    prints[0] = replace(prints[0], evaluation_set="dev.txt", evaluation_item="某题")
    decisions = decide(prints, options, tmp_path, excluded={"a": [digest_of("无")], "b": [digest_of("测试，标题一")]})
    assert reasons(decisions) == ["contaminated:dev.txt", "excluded", ""]
    assert decisions.clusters.tolist() == [-1, -1, -1]
    assert decisions.excluded == {"a": 0, "b": 1}
    assert decisions.evaluation_items == {"dev.txt": {"某题": 1}}


def test_what_earlier_runs_hold_goes_whatever_stays_otherwise(tmp_path: Path) -> None:
    options, text = DedupOptions(), prose(500)
    seen = [fingerprint(Document("", "s", part), options) for part in (text, "短的")]
    prints = [fingerprint(Document("", "s", part), options) for part in (text + prose(20), "短的", prose(500))]
    decisions = decide(prints, options, tmp_path, seen=seen)
    assert reasons(decisions) == ["near_duplicate", "duplicate", ""]
    assert decisions.clusters.tolist() == [0, 1, -1]
    assert decisions.instead.tolist() == [-1, -1, -1]


def test_no_documents_are_no_decisions(tmp_path: Path) -> None:
    assert len(decided(tmp_path, [])) == 0


def test_the_clusters_are_those_of_all_pairs_above_the_threshold(tmp_path: Path) -> None:
    """Against the definition: versions are far above the threshold among themselves, and far below between groups."""
    texts, groups = [], []
    for group in range(40):
        base = prose(400)
        for version in range(group % 4 + 1):
            texts.append(changed(base, version) if version else base)
            groups.append(group)
    order = CHANCE.sample(range(len(texts)), len(texts))
    decisions = decided(tmp_path, [texts[index] for index in order])
    clusters = decisions.clusters.tolist()
    for one in range(len(order)):
        for other in range(one):
            together = groups[order[one]] == groups[order[other]]
            assert (clusters[one] == clusters[other] != -1) == together
    assert len([reason for reason in reasons(decisions) if not reason]) == 40
    numbered = [number for number in dict.fromkeys(clusters) if number != -1]
    assert numbered == sorted(numbered) == list(range(30))


def test_a_fingerprint_without_a_signature_takes_no_part_in_near_duplicates(tmp_path: Path) -> None:
    prints = [Fingerprint(bytes([number]) * 16) for number in range(3)]
    assert reasons(decide(prints, DedupOptions(), tmp_path)) == ["", "", ""]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_order_alone_decides(tmp_path: Path, workers: int) -> None:
    """However the documents are dealt out, their fingerprints in order give the same decisions."""
    base = [prose(300) for _ in range(30)]
    documents = [Document(str(at), "s", changed(base[at % 30], 1 + at // 30)) for at in range(120)]
    options = DedupOptions()
    dealt = {at: fingerprint(documents[at], options) for w in range(workers) for at in range(w, 120, workers)}
    decisions = decide((dealt[at] for at in range(120)), options, tmp_path)
    expected = decided(tmp_path, documents)
    assert np.array_equal(decisions.codes, expected.codes)
    assert np.array_equal(decisions.clusters, expected.clusters)


def test_clusters_are_listed_with_what_stays(tmp_path: Path) -> None:
    one, other = prose(600), prose(600)
    texts = [other, one, prose(600), changed(other, 4), one]
    decisions = decided(tmp_path, texts)
    path = tmp_path / "duplicates.parquet"
    write_clusters(decisions, ((str(at), "news", f"题{at}") for at in range(len(texts))), path)
    rows = pq.read_table(path).to_pylist()
    assert [(row["cluster"], row["id"], row["title"], row["kept"]) for row in rows] == [
        (0, "0", "题0", True), (0, "3", "题3", False), (1, "1", "题1", True), (1, "4", "题4", False),
    ]  # fmt: skip
    assert [row["similarity"] for row in rows if row["id"] != "3"] == [1.0] * 3
    assert rows[1]["similarity"] == pytest.approx(float(decisions.similarities[3]))
    assert decisions.cluster_count == 2


def test_texts_of_one_template_are_read_a_few_times_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # They meet in the same buckets and are not alike: each is compared with many others.
    template, read = prose(400), 0
    texts = [template + prose(120) for _ in range(400)]
    original = Signatures.at

    def at(signatures: Signatures, rows: np.ndarray) -> np.ndarray:
        nonlocal read
        read += len(rows)
        return original(signatures, rows)

    monkeypatch.setattr(Signatures, "at", at)
    texts.insert(300, texts[7][:-9])
    decisions = decided(tmp_path, texts)
    assert [index for index, reason in enumerate(reasons(decisions)) if reason] == [300]
    assert read <= (MOST_BANDS + 1) * len(texts)
    monkeypatch.setattr(clusters, "ROWS_HELD", 0)
    monkeypatch.setattr(clusters, "ROWS_AT_ONCE", 16)
    assert reasons(decided(tmp_path, texts)) == reasons(decisions)


def test_memory_is_some_100_bytes_a_document(tmp_path: Path) -> None:
    def prints(count: int) -> Iterator[Fingerprint]:
        values = np.random.default_rng(0)
        for at in range(count):
            signature = bytes(SIGNATURE_BYTES) if at % 100 == 0 else values.bytes(SIGNATURE_BYTES)
            yield Fingerprint(at.to_bytes(16, "little"), signature, 1000)

    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            decisions = decide(prints(count), DedupOptions(), tmp_path)
            found = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert np.count_nonzero(decisions.codes) == count // 100 - 1
        return found

    assert (peak(20_000) - peak(10_000)) / 10_000 < 130

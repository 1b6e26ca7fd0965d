"""What two sets have in common, from their sketches."""

import pytest

from megadec.corpus.dedup.overlap import SKETCH_HASHES, Sketch, overlaps, shared_documents


def sketch_of(numbers: range) -> Sketch:
    sketch = Sketch()
    for number in numbers:
        sketch.add(f"第{number}篇。")
    return sketch


def test_small_sets_are_counted_exactly_and_large_ones_within_a_few_hundredths() -> None:
    assert shared_documents(sketch_of(range(700)), sketch_of(range(600, 1000))) == 100
    assert shared_documents(sketch_of(range(100)), sketch_of(range(100, 300))) == 0
    found = shared_documents(sketch_of(range(40_000)), sketch_of(range(30_000, 60_000)))
    assert found == pytest.approx(10_000, abs=0.03 * 60_000)


def test_a_stored_sketch_is_the_same_one_whatever_the_order_and_a_set_without_one_shares_nothing() -> None:
    first = sketch_of(range(40_000))
    backwards = sketch_of(range(39_999, -1, -1))
    assert str(first) == str(backwards) == str(Sketch(40_000, str(first)))
    assert len(first.smallest()) == SKETCH_HASHES
    assert overlaps({"a": first, "b": Sketch(40_000)}) == []
    assert overlaps({"a": first, "b": backwards}) == [
        "a and b have about 40,000 documents in common (100% of the smaller)"
    ]

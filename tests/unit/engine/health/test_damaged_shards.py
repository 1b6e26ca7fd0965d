"""How many damaged shards a run goes on without: a number, or a share of its shards."""

from pathlib import Path

import pytest

from megadec.data.dataset import DataSet
from megadec.data.shard_cache import DamagedShardError
from megadec.engine.health.damaged_shards import allowed_shards, check_limit


def test_a_number_is_itself_and_a_share_the_most_shards_that_are_no_more_than_it() -> None:
    assert [allowed_shards(number, 5) for number in (0, 7)] == [0, 7]
    assert allowed_shards(0.999, 10) == 9
    for shards in range(1, 300):
        for hundredths in range(1, 100):
            assert allowed_shards(hundredths / 100, shards) == hundredths * shards // 100


def test_a_share_counts_the_shards_of_all_sets_together(tiny_shards: Path) -> None:
    whole = DataSet.open(tiny_shards)
    shards = len(whole.index["shards"])
    lame = whole.without({0: "a is cut", 1: "b is cut"})
    check_limit([lame, whole], 1 / shards)
    with pytest.raises(
        DamagedShardError, match=rf"2 shards are damaged.*of {2 * shards} shards.* without 1: a is cut; b"
    ):
        check_limit([lame, whole], 0.9 / shards)
    with pytest.raises(
        DamagedShardError, match=rf"1 shard is damaged, and data.bad_shards=0.01 of {shards} shards lets"
    ):
        check_limit([whole.without({0: "a is cut"})], 0.01)
    with pytest.raises(DamagedShardError, match=r"^a is cut$"):
        check_limit([whole.without({0: "a is cut"})], 0)

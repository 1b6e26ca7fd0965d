"""Blocks are never lost, never given to two sequences unless they hold the same text, and shared where they do."""

import random

from megadec.decoding.blocks import BlockPool, BlockTable

BLOCK, PART = 2, 4


def pool_of(blocks: int) -> BlockPool:
    return BlockPool(blocks, BLOCK, PART)


def begin(pool: BlockPool, ids: list[int], share: bool = True) -> BlockTable:
    """A sequence whose prompt has been fed."""
    table = pool.begin(ids, 1, share)
    assert table is not None
    table.length = len(ids)
    pool.written(table)
    return table


def test_a_prompt_shares_the_whole_parts_that_another_began_with_but_never_its_last_id() -> None:
    pool = pool_of(40)
    first = begin(pool, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert first.cached_tokens == 0
    for ids, cached in (
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 8),
        ([1, 2, 3, 4, 5, 6, 7, 8], 4),
        ([1, 2, 3, 4, 0, 6, 7, 8, 9], 4),
        ([0, 2, 3, 4, 5, 6, 7, 8, 9], 0),
        ([1, 2, 3, 4], 0),
    ):
        table = pool.begin(ids, 1, share=True)
        assert table is not None
        assert table.cached_tokens == cached
        assert table.blocks[: cached // BLOCK] == first.blocks[: cached // BLOCK]
        assert not set(table.blocks[cached // BLOCK :]) & set(first.blocks)
    other = pool.begin([1, 2, 3, 4, 5], 1, share=False)
    assert other is not None
    assert other.cached_tokens == 0


def test_what_has_ended_is_shared_until_its_room_is_needed_the_longest_unused_first() -> None:
    pool = pool_of(9)
    old, new = [1, 2, 3, 4, 5], [6, 7, 8, 9, 0]
    for ids in (old, new):
        pool.end(begin(pool, ids))
    assert (pool.used, pool.available) == (0, 9)
    large = pool.begin([0] * 11, 1, share=True)  # 6 blocks: 5 are free
    assert large is not None
    again = pool.begin(new, 1, share=True)
    assert again is not None
    assert again.cached_tokens == PART
    assert pool.begin(old, 1, share=True) is None


def test_room_that_is_not_there_is_refused_and_nothing_changes() -> None:
    pool = pool_of(4)
    first = begin(pool, [1, 2, 3, 4, 5])
    assert pool.begin([6, 7], 1, share=True) is None
    assert pool.reserve(first, 1)
    assert pool.reserve(first, 3)
    assert not pool.reserve(first, 4)
    assert pool.used == 4
    pool.end(first)
    assert pool.available == 4


def test_a_thousand_random_sequences_leave_every_block_free() -> None:
    chance = random.Random(3)
    pool, live = pool_of(30), []
    for _ in range(1000):
        if live and chance.random() < 0.5:
            pool.end(live.pop(chance.randrange(len(live))))
        else:
            ids = [chance.randrange(2) for _ in range(chance.randint(1, 14))]
            table = pool.begin(ids, chance.randint(1, 3), chance.random() < 0.9)
            if table is None:
                continue
            table.length = len(ids)
            pool.written(table)
            live.append(table)
        held: dict[int, list[BlockTable]] = {}
        for table in live:
            for block in table.blocks:
                held.setdefault(block, []).append(table)
        assert pool.used == len(held)
        for tables in held.values():  # a block of several has the same place in all of them
            assert len(tables) == 1 or all(table.keys for table in tables)
    for table in live:
        pool.end(table)
    assert pool.available == 30

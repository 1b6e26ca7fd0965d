"""Which blocks of the key-value cache belong to which sequence: bookkeeping without tensors.

A block holds `block_tokens` tokens of one sequence. The beginning of a prompt that others asked for before is found by
its hash and shared (Kwon et al., arXiv 2309.06180); it stays after its last sequence until the room is needed. The
lowest free block is taken first, so that the blocks in use stay together at the front.
"""

import heapq
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np


@dataclass(eq=False)
class BlockTable:
    """A sequence's room. blocks: in the order of its tokens; length: tokens that were fed.

    cached_tokens: how many of them another prompt had left there.
    """

    blocks: list[int]
    length: int = 0
    cached_tokens: int = 0
    keys: list[bytes] = field(default_factory=list)  # of the prompt's parts that may be shared


class BlockPool:
    """`blocks` blocks of `block_tokens` tokens. Prompts are shared in whole parts of `part_tokens`."""

    def __init__(self, blocks: int, block_tokens: int, part_tokens: int) -> None:
        assert part_tokens % block_tokens == 0, "a part that is shared is whole blocks"
        self.blocks = blocks
        self.block_tokens = block_tokens
        self.part_tokens = part_tokens
        self._free = list(range(blocks))
        self._users = [0] * blocks
        # Parts without a user, the longest unused first; each part's blocks by the hash of the prompt up to its end.
        self._unused: OrderedDict[bytes, None] = OrderedDict()
        self._parts: dict[bytes, list[int]] = {}

    @property
    def used(self) -> int:
        """Blocks that a sequence holds."""
        return self.blocks - self.available

    @property
    def available(self) -> int:
        """Blocks that can be had: free ones, and those that only wait to be shared again."""
        return len(self._free) + len(self._unused) * (self.part_tokens // self.block_tokens)

    def begin(self, ids: Sequence[int], more_tokens: int, share: bool) -> BlockTable | None:
        """Room for a prompt and more tokens, sharing what is there; None where the room is not to be had."""
        keys = self._keys(ids) if share else []
        shared: list[bytes] = []
        for key in keys:
            if key not in self._parts:
                break
            shared.append(key)
        for key in shared:
            self._use(key)
        table = BlockTable([block for key in shared for block in self._parts[key]], keys=keys)
        table.length = table.cached_tokens = len(shared) * self.part_tokens
        if not self.reserve(table, len(ids) + more_tokens - table.length):
            self.end(table)
            return None
        return table

    def reserve(self, table: BlockTable, tokens: int) -> bool:
        """Room for `tokens` more behind the table's length; False where it is not to be had."""
        missing = -(-(table.length + tokens) // self.block_tokens) - len(table.blocks)
        if missing > self.available:
            return False
        while len(self._free) < missing:
            key, _ = self._unused.popitem(last=False)
            self._release(self._parts.pop(key))
        for _ in range(missing):
            block = heapq.heappop(self._free)
            self._users[block] = 1
            table.blocks.append(block)
        return True

    def written(self, table: BlockTable) -> None:
        """The table's length has grown: parts of its prompt that are whole now can be shared."""
        step = self.part_tokens // self.block_tokens
        for number, key in enumerate(table.keys[: table.length // self.part_tokens]):
            self._parts.setdefault(key, table.blocks[number * step : (number + 1) * step])

    def end(self, table: BlockTable) -> None:
        """Free what no other sequence uses; whole parts of a prompt wait to be shared again."""
        step = self.part_tokens // self.block_tokens
        for block in table.blocks:
            self._users[block] -= 1
        kept: set[int] = set()
        # The last part first: without the ones in front of it nobody can use it.
        for number in reversed(range(len(table.keys))):
            own = table.blocks[number * step : (number + 1) * step]
            if own and self._parts.get(table.keys[number]) == own:
                kept.update(own)
                if not self._users[own[0]]:
                    self._unused[table.keys[number]] = None
        self._release([block for block in table.blocks if block not in kept and not self._users[block]])
        table.blocks, table.keys = [], []

    def _use(self, key: bytes) -> None:
        self._unused.pop(key, None)
        for block in self._parts[key]:
            self._users[block] += 1

    def _release(self, blocks: Sequence[int]) -> None:
        for block in blocks:
            heapq.heappush(self._free, block)

    def _keys(self, ids: Sequence[int]) -> list[bytes]:
        """A hash for each whole part: of all ids up to its end. The last id is always fed, so its part has none."""
        keys, found = [], blake2b(digest_size=16)
        for start in range(0, len(ids) - self.part_tokens, self.part_tokens):
            found.update(np.asarray(ids[start : start + self.part_tokens], np.int64).tobytes())
            keys.append(found.digest())
        return keys

"""The order of windows: which window of which data set stands at place N of the endless sequence.

In: the number of windows of each set, the weights, a seed. Out: set and window at any place, and the places of a
window, in constant time and without any list in memory: a keyed permutation (a Feistel network on the smallest power of
two, walked until it lands inside; Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002).

A set of weight w gives round(w x windows) windows to each epoch. It is gone through in passes, each pass in an order of
its own, and an epoch goes on where the last one stopped: weight 0.5 sees all windows in two epochs, none twice.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from megadec.common.errors import ConfigError

VERSION = 1
ROUNDS = 6
COUNTED_AT_ONCE = 1 << 18
_GOLDEN = 0x9E3779B97F4A7C15
_MASK_64 = 2**64 - 1
# Domains keep the keys of the epoch's shuffle and of the sets' passes apart.
_EPOCH_DOMAIN = 1
_SET_DOMAIN = 2


def check_weights(weights: Iterable[float]) -> None:
    """Raise ConfigError for a weight that is negative or not finite."""
    for weight in weights:
        if not (math.isfinite(weight) and weight >= 0):
            raise ConfigError(f"data weight {weight}: a weight is a number from 0 up, how often a set is seen an epoch")


class Shuffle:
    """The sequence for `windows[i]` windows of each set i, of weight `weights[i]`, under `seed`.

    Raises ConfigError for a weight that is negative or not finite, and when no window is left.
    """

    def __init__(self, windows: Sequence[int], weights: Sequence[float], seed: int) -> None:
        check_weights(weights)
        self.windows = tuple(windows)
        self.seed = seed
        self.draws = tuple(round(weight * count) for count, weight in zip(windows, weights, strict=True))
        self.windows_per_epoch = sum(self.draws)
        if self.windows_per_epoch < 1:
            raise ConfigError(f"data weights {list(weights)} leave no window of {list(windows)}: raise one of them")
        self._bounds = np.cumsum(self.draws)

    def at(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Set numbers and window numbers (int64 [count] each) at the places first, ..., first + count - 1."""
        epoch, place = np.divmod(np.arange(first, first + count, dtype=np.int64), self.windows_per_epoch)
        slot = permute(place, self.windows_per_epoch, _key(self.seed, _EPOCH_DOMAIN, 0, epoch))
        sets = np.searchsorted(self._bounds, slot, side="right")
        windows = np.empty_like(slot)
        for number in np.unique(sets).tolist():
            mine = sets == number
            draws = self.draws[number]
            draw = epoch[mine] * draws + slot[mine] - (int(self._bounds[number]) - draws)
            passed, index = np.divmod(draw, self.windows[number])
            windows[mine] = permute(index, self.windows[number], _key(self.seed, _SET_DOMAIN, number, passed))
        return sets, windows

    def counts(self, first: int, stop: int) -> list[np.ndarray]:
        """How often each window of each set stands at the places first, ..., stop - 1 (int64 [windows] for each set).

        What whole epochs draw is computed set by set; only what is left of the first and the last is gone through.
        """
        found = [np.zeros(windows, dtype=np.int64) for windows in self.windows]
        begin, end = -(-first // self.windows_per_epoch), stop // self.windows_per_epoch
        if begin < end:
            for number, draws in enumerate(self.draws):
                self._add_draws(found[number], number, begin * draws, end * draws)
            parts = [(first, begin * self.windows_per_epoch), (end * self.windows_per_epoch, stop)]
        else:
            parts = [(first, stop)]
        for start, limit in parts:
            for place in range(start, limit, COUNTED_AT_ONCE):
                sets, windows = self.at(place, min(COUNTED_AT_ONCE, limit - place))
                for number, counts in enumerate(found):
                    np.add.at(counts, windows[sets == number], 1)
        return found

    def _add_draws(self, counts: np.ndarray, number: int, first: int, stop: int) -> None:
        """Count the windows that set `number` gives with its draws first, ..., stop - 1."""
        windows = self.windows[number]
        while first < stop:
            passed, index = divmod(first, windows)
            taken = min(windows - index, stop - first)
            if taken == windows:
                passes = (stop - first) // windows
                counts += passes
                first += passes * windows
                continue
            for start in range(index, index + taken, COUNTED_AT_ONCE):
                part = np.arange(start, min(start + COUNTED_AT_ONCE, index + taken), dtype=np.int64)
                key = _key(self.seed, _SET_DOMAIN, number, np.full(len(part), passed, dtype=np.int64))
                counts[permute(part, windows, key)] += 1  # a permutation: none comes twice
            first += taken

    def places_of(self, data_set: int, window: int, stop: int) -> list[int]:
        """The places below `stop` at which a window stands in the sequence, ascending: where `at` gives it back.

        A constant number of operations for each pass through the set, whatever the size of set and epoch.
        """
        draws, windows = self.draws[data_set], self.windows[data_set]
        if draws == 0 or stop <= 0:
            return []
        epochs = math.ceil(stop / self.windows_per_epoch)
        passed = np.arange(math.ceil(epochs * draws / windows), dtype=np.int64)
        keys = _key(self.seed, _SET_DOMAIN, data_set, passed)
        index = permute(np.full(len(passed), window), windows, keys, inverse=True)
        epoch, slot = np.divmod(passed * windows + index, draws)
        slot += sum(self.draws[:data_set])
        keys = _key(self.seed, _EPOCH_DOMAIN, 0, epoch)
        places = epoch * self.windows_per_epoch + permute(slot, self.windows_per_epoch, keys, inverse=True)
        return sorted(places[places < stop].tolist())


def permute(index: np.ndarray, size: int, key: np.ndarray, *, inverse: bool = False) -> np.ndarray:
    """int64 [n] in [0, size) -> the same: for each fixed key a permutation of range(size), or its inverse.

    `key` is uint64 [n], a key for each element.
    """
    bits = max((size - 1).bit_length(), 2)
    value = _feistel(index.astype(np.uint64), key, bits, inverse)
    outside = np.flatnonzero(value >= size)
    while outside.size:
        value[outside] = _feistel(value[outside], key[outside], bits, inverse)
        outside = outside[value[outside] >= size]
    return value.astype(np.int64)


def _feistel(value: np.ndarray, key: np.ndarray, bits: int, inverse: bool) -> np.ndarray:
    """A permutation of [0, 2^bits): ROUNDS rounds over two halves that may differ by one bit.

    The inverse goes through the same rounds from the last to the first, with the halves swapped.
    """
    right_bits = np.uint64(bits // 2)
    left_bits = np.uint64(bits) - right_bits
    one = np.uint64(1)
    left, right = value >> right_bits, value & ((one << right_bits) - one)
    if inverse:
        left, right = right, left
    for number in reversed(range(ROUNDS)) if inverse else range(ROUNDS):
        # The widths of the halves swap every round; an even number of rounds brings them back.
        width = left_bits if number % 2 == 0 else right_bits
        mixed = _mix(right ^ _mix(key + _constant(number + 1)))
        left, right = right, left ^ (mixed & ((one << width) - one))
    if inverse:
        left, right = right, left
    return (left << right_bits) | right


def _constant(number: int) -> np.uint64:
    return np.uint64(number * _GOLDEN & _MASK_64)


def _mix(value: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014) on uint64 arrays."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = value ^ (value >> np.uint64(31))
    return mixed


def _key(seed: int, domain: int, number: int, passed: np.ndarray) -> np.ndarray:
    """uint64 [n]: a key for each pass, from the seed, the domain and the number of the set."""
    key = np.full(passed.shape, seed & _MASK_64, dtype=np.uint64)
    for part in (np.uint64(domain), np.uint64(number), passed.astype(np.uint64)):
        key = _mix(key + _constant(1)) ^ _mix(part + np.full(passed.shape, _GOLDEN, dtype=np.uint64))
    return key

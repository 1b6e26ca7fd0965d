"""A bzip2 file block by block, from any block on: its blocks are independent, so many processes can read one file.

A block begins at any bit, with 48 bits that nothing else has. Each is decompressed as a file of its own, with a header
before it and the end of a stream behind, as bzip2recover does; so a dump of one stream is read in parallel as well as
one of many. Python's own bz2 does the work: an indexing library in C++ would only find the blocks faster.

Format: https://github.com/dsnet/compress/blob/master/doc/bzip2-format.pdf
"""

import bz2
from collections.abc import Iterator
from itertools import chain, pairwise
from pathlib import Path
from typing import IO

_BLOCK, _END = 0x314159265359, 0x177245385090
_MAGIC_BITS, _CHECKSUM_BITS = 48, 32
_MAGIC_MASK = (1 << _MAGIC_BITS) - 1
_HEADER = b"BZh9"  # the largest block: a decoder takes smaller ones too
WINDOW_BYTES = 4 << 20
LARGEST_BLOCK_BYTES = 2 << 20
LARGEST_END_BYTES = 64  # the end of a stream, and empty streams after it
# A magic's bytes when it begins at each bit of a byte, those that it fills wholly.
_INSIDE = [(_BLOCK << 8 - shift).to_bytes(7, "big")[bool(shift) : 6] for shift in range(8)]


class DamageError(Exception):
    """A block cannot be decompressed, or the file ends inside one."""


def block_starts(file: IO[bytes], start: int = 0) -> Iterator[int]:
    """The bits at which blocks begin in an open file, from bit `start` on."""
    offset = start // 8
    file.seek(offset)
    window = b""
    while more := file.read(WINDOW_BYTES):
        # One that lies wholly in what is kept of the window before was found there.
        least = max(start - 8 * offset, 1 if window else 0)
        window += more
        found = sorted(bit for shift in range(8) for bit in _starts_at(window, shift))
        yield from (8 * offset + bit for bit in found if bit >= least)
        offset += max(0, len(window) - 6)
        window = window[-6:]


def _starts_at(window: bytes, shift: int) -> Iterator[int]:
    """The bits where a magic begins that is `shift` bits from a byte's begin."""
    inside = _INSIDE[shift]
    place = window.find(inside)
    while place >= 0:
        first = place - bool(shift)
        around = window[max(0, first) : first + 7]
        if shift == 0 or (first >= 0 and len(around) == 7 and _bits(around, shift, _MAGIC_BITS) == _BLOCK):
            yield 8 * first + shift
        place = window.find(inside, place + 1)


def blocks(path: Path, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """(the bit at which it begins, content) of each block from bit `start` on. Raises DamageError."""
    with path.open("rb") as scanned, path.open("rb") as file:
        skipped = 0
        for begin, following in pairwise(chain(block_starts(scanned, start), [None])):
            assert begin is not None
            if begin < skipped:
                continue
            try:
                yield begin, _content(file, begin, following)
            except DamageError:
                # The magic may have come about by chance, once in thousands of dumps: then the block goes on after it.
                after = None if following is None else next(block_starts(file, following + 1), None)
                if following is None:
                    raise
                yield begin, _content(file, begin, after)
                skipped = following + 1


def _content(file: IO[bytes], begin: int, following: int | None) -> bytes:
    """The content of the block that begins at a bit; `following`: where the next one does, None for the last."""
    offset = begin // 8
    file.seek(offset)
    most = LARGEST_BLOCK_BYTES if following is None else (following + 7) // 8 - offset
    raw = file.read(min(most, 2 * LARGEST_BLOCK_BYTES))
    first = begin - 8 * offset
    length = 8 * len(raw) - first if following is None else following - begin
    ends_stream = following is None or (following % 8 == 0 and raw[-4:-1] == b"BZh")
    if ends_stream:
        end = _stream_end(raw)
        if end is None and following is None:
            raise DamageError("the compressed file is cut: it ends inside a stream")
        length = length if end is None else end - first
    value = _bits(raw, first, length)
    checksum = value >> length - _MAGIC_BITS - _CHECKSUM_BITS & (1 << _CHECKSUM_BITS) - 1
    # The checksum of a stream of one block is the block's.
    value = value << _MAGIC_BITS + _CHECKSUM_BITS | _END << _CHECKSUM_BITS | checksum
    length += _MAGIC_BITS + _CHECKSUM_BITS
    value <<= -length % 8
    try:
        return bz2.decompress(_HEADER + value.to_bytes((length + 7) // 8, "big"))
    except (OSError, ValueError) as error:
        raise DamageError(f"damaged compressed data ({error})") from None


def _stream_end(raw: bytes) -> int | None:
    """The bit where the end of a stream begins among the last bytes."""
    before = max(0, len(raw) - LARGEST_END_BYTES)
    value, bits = int.from_bytes(raw[before:], "big"), 8 * (len(raw) - before)
    for bit in range(bits - _MAGIC_BITS + 1):
        if value >> bits - bit - _MAGIC_BITS & _MAGIC_MASK == _END:
            return 8 * before + bit
    return None


def _bits(raw: bytes, first: int, length: int) -> int:
    """`length` bits from bit `first` on, as a number."""
    return int.from_bytes(raw, "big") >> 8 * len(raw) - first - length & (1 << length) - 1

"""Where a large plain file of lines may be cut, and the number of the line that each part begins with.

In: a file that is open. Out: ranges of bytes. The file is read through once, as fast as the disk gives it.
"""

from dataclasses import dataclass
from typing import IO

from megadec.corpus.sources.detect import UTF_16

RANGE_BYTES = 16 << 20
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class LineCuts:
    """At which newlines a file may be cut.

    codec: that of the file; the bytes of a newline are a newline in all but UTF-16. filled_lines: only after a multiple
    of so many lines that are not blank; 0: after any line. unless: not at all in a file that holds these bytes.
    """

    codec: str
    filled_lines: int = 0
    unless: bytes = b""


def line_ranges(file: IO[bytes], cuts: LineCuts) -> list[tuple[int, int, int]] | None:
    """(start, end, number of the first line) of each part; None where the file must stay whole.

    A part has about 16 MiB, or one line if that is longer. A carriage return alone ends lines too, but is not cut at.
    """
    if cuts.codec.startswith(("utf-16", "utf-32")) or cuts.codec in UTF_16:
        return None
    return _after_groups(file, cuts) if cuts.filled_lines else _after_lines(file, cuts)


def _after_lines(file: IO[bytes], cuts: LineCuts) -> list[tuple[int, int, int]] | None:
    ranges = []
    start, first = 0, 1  # of the part under way
    offset, newlines = 0, 0
    carried = b""  # the end of the block before: what is looked for may lie across
    while block := file.read(BLOCK_BYTES):
        joined = carried + block
        if b"\r" in joined and joined.rstrip(b"\r").replace(b"\r\n", b"").count(b"\r"):
            return None
        if cuts.unless and cuts.unless in joined:
            return None
        carried = block[-1:] if block[-1:] == b"\r" else b""
        if offset + len(block) - start >= RANGE_BYTES and (last := block.rfind(b"\n")) >= 0:
            end, number = offset + last + 1, 1 + newlines + block.count(b"\n")
            ranges.append((start, end, first))
            start, first = end, number
        offset += len(block)
        newlines += block.count(b"\n")
    return [*ranges, (start, offset, first)] if offset > start else ranges


def _after_groups(file: IO[bytes], cuts: LineCuts) -> list[tuple[int, int, int]] | None:
    ranges = []
    start, first, offset, filled = 0, 1, 0, 0
    for number, line in enumerate(file, 1):
        if line.find(b"\r", 0, -2) >= 0 or (line.endswith(b"\r")):
            return None
        offset += len(line)
        filled += bool(line.decode(cuts.codec, "replace").strip())
        if offset - start >= RANGE_BYTES and filled % cuts.filled_lines == 0:
            ranges.append((start, offset, first))
            start, first = offset, number + 1
    return [*ranges, (start, offset, first)] if offset > start else ranges

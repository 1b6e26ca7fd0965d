"""Lines wait in memory while the disk is full, and none is lost, cut or there twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from megadec.common.errors import StorageError
from megadec.engine.metrics.line_writer import LineWriter

# A limit on the size of a file stands for a full disk: it cuts the line that meets it.
PROGRAM = """
import resource, sys
from pathlib import Path
from megadec.engine.metrics.line_writer import LineWriter
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
lines = LineWriter(Path(sys.argv[1]))
for number in range(30):
    if number in (5, 15):
        resource.setrlimit(resource.RLIMIT_FSIZE, (37 if number == 5 else 117, limits[1]))
    if number in (10, 20):
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    lines.write(f"line {number}")
lines.close()
"""


def test_every_line_is_there_once_when_the_disk_has_room_again(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "lines")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "lines").read_text() == "".join(f"line {number}\n" for number in range(30))
    assert done.stderr.count("Its lines stay in memory") == 2


def test_lines_that_never_found_room_are_an_error_at_the_end() -> None:
    lines = LineWriter(Path("/dev/full"))
    lines.write("lost")
    with pytest.raises(StorageError, match=r"/dev/full.*disk is full"):
        lines.close()

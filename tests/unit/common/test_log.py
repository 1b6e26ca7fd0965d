"""What a person sees while a command runs."""

import fcntl
import os
import struct
import termios
from contextlib import suppress
from unittest import mock

import pytest

from megadec.common.log import progress


@pytest.mark.parametrize("columns", [0, 80])
def test_progress_is_seen_on_a_terminal_whatever_width_it_says_it_has(columns: int) -> None:
    reader, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24 if columns else 0, columns, 0, 0))
    with os.fdopen(terminal, "w") as stream, mock.patch("sys.stderr", stream):
        assert list(progress(range(3), description="work")) == [0, 1, 2]
    said = b""
    with suppress(OSError):  # which says that everything has been read, as nobody has the other end
        while more := os.read(reader, 4096):
            said += more
    os.close(reader)
    assert b"work: 100%" in said
    assert b"3.00/3.00" in said


def test_where_there_is_no_terminal_a_line_says_all_at_most_every_so_many_seconds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert list(progress(range(5), description="rare", total=5, line_seconds=1000.0)) == [0, 1, 2, 3, 4]
    assert list(progress(range(2), description="often", line_seconds=0.0)) == [0, 1]
    said = capsys.readouterr().err
    assert "\r" not in said
    rare, *often = said.splitlines()
    assert "rare: 100% 5/5 [" in rare
    assert ["often: 1it [" in often[0], "often: 2it [" in often[1], len(often)] == [True, True, 2]

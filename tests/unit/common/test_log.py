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

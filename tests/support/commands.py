"""What a command prints, asked in this process."""

import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any


def printed(main: Callable[[list[str]], None], *arguments: object) -> str:
    """What the command prints to these arguments."""
    with redirect_stdout(io.StringIO()) as output:
        main([str(argument) for argument in arguments])
    return output.getvalue()


def answer(main: Callable[[list[str]], None], *arguments: object) -> Any:
    """The JSON that the command prints."""
    return json.loads(printed(main, *arguments))

"""The process in which a chat template is rendered (render.py), seen from the service: values in, text or error out."""

import contextlib
import json
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import jinja2

from megadec.common.errors import ExportError
from megadec.serve import render
from megadec.serve.limits import RequestError

TEMPLATE = "the model's chat template"
TEMPLATE_FAILED = "template_failed"


class Renderer:
    """A template in a process of its own, which is begun when it is needed. For one thread."""

    def __init__(self, source: str, file: Path) -> None:
        """Raises ExportError when it is no template."""
        try:
            render.environment().parse(source)
        except (jinja2.TemplateError, RecursionError) as error:
            raise ExportError(f"{file}: chat_template is not a Jinja template: {error}") from error
        self._source = source
        self._process: subprocess.Popen[str] | None = None

    def render(self, **values: Any) -> str:
        """The text, with values that JSON can hold. Raises RequestError when the template refuses them, or fails."""
        if self._process is None:
            command, pipe = [sys.executable, "-P", render.__file__], subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
            self._end = weakref.finalize(self, _end, self._process)
            if refused := self._ask(self._source).get("refused"):
                self.close()
                raise RequestError(f"{TEMPLATE} is none: {refused}", 400, TEMPLATE_FAILED, "messages")
        found = self._ask(values)
        if "refused" in found:
            raise RequestError(f"messages: {TEMPLATE} refuses them: {found['refused']}", parameter="messages")
        return found["text"]

    def _ask(self, value: Any) -> dict[str, str]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, which its answer tells
            print(json.dumps(value), file=self._process.stdin, flush=True)
        if answer := self._process.stdout.readline():
            found: dict[str, str] = json.loads(answer)
            return found
        self.close()
        message = f"messages: {TEMPLATE} does not end within {render.COMPUTING_SECONDS:g} second of computing"
        raise RequestError(message, 400, TEMPLATE_FAILED, "messages")

    def close(self) -> None:
        """End the process; the next text begins another."""
        if self._process is not None:
            self._end()
            self._process = None


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    with contextlib.suppress(BrokenPipeError):  # of what it was not sent yet
        process.communicate()

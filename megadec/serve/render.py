"""A chat template, in a process of its own: lines of JSON in, a line of JSON out for each.

A template is a program that came with a model. In the service's process nothing could end one that loops or fills the
memory; here the operating system does. The first line is the template, each further one what it is rendered with; the
answer is {"text": ...} or {"refused": ...}. The process ends by itself with the service, at the end of its input.
"""

import json
import resource
import signal
import sys
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any, NoReturn

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

COMPUTING_SECONDS = 1.0  # of the processor; a template of a few thousand lines takes milliseconds
WAITING_SECONDS = 60.0  # on a machine that gives it no processor
MEMORY_BYTES = 2**30
TEXT_CHARACTERS = 2**22
REASON_CHARACTERS = 500


class Generation(Extension):
    """`{% generation %}` around an answer, which transformers marks for training; here it stays as it is."""

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        self.tags = {"generation"}

    def parse(self, parser: Parser) -> Node | list[Node]:
        """What stands inside."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def environment() -> jinja2.Environment:
    """A sandbox with what transformers gives a template (transformers 5, chat_template_utils)."""
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation])
    made.filters["tojson"] = partial(json.dumps, ensure_ascii=False)
    made.globals.update(raise_exception=_refuse, strftime_now=lambda form: datetime.now().strftime(form))
    return made


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _rendered(template: jinja2.Template, values: Mapping[str, Any]) -> dict[str, str]:
    parts, characters = [], 0
    try:
        for part in template.generate(values):
            parts.append(part)
            characters += len(part)
            if characters > TEXT_CHARACTERS:
                return {"refused": f"it writes more than {TEXT_CHARACTERS} characters"}
        return {"text": "".join(parts)}
    except Exception as error:  # whatever a program of others raises; the reason is for who sent the messages
        return {"refused": _reason(error)}


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"it needs more than {MEMORY_BYTES} bytes of memory"
    return (str(error) or type(error).__name__)[:REASON_CHARACTERS]


def main() -> None:
    """Answer until the end of the input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which ends us
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    template, answer = None, {}
    for line in sys.stdin:
        # Nobody handles these signals: they end the process, whatever it is at.
        signal.setitimer(signal.ITIMER_PROF, COMPUTING_SECONDS)
        signal.setitimer(signal.ITIMER_REAL, WAITING_SECONDS)
        if template is None:
            try:
                template = environment().from_string(json.loads(line))
            except (jinja2.TemplateError, MemoryError) as error:
                answer = {"refused": _reason(error)}
        else:
            answer = _rendered(template, json.loads(line))
        shown = json.dumps(answer)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(shown, flush=True)


if __name__ == "__main__":
    main()

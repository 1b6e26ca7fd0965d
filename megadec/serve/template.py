"""The messages of a chat -> the ids that a model continues.

In: messages. Out: ids, and the texts at which the answer ends. A folder's own chat template is rendered as transformers
does; every other model gets PLAIN, the same for all: a line for each message that opens with its role, and the
assistant's role left open. PLAIN is text that any model can continue, and no model was tuned on it: a base model goes
on with the text rather than answers.

    系统：你是一个助手。
    用户：你好
    助手：
"""

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeAlias

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from megadec.common.errors import ExportError
from megadec.common.tokenizer import Tokenizer
from megadec.serve.limits import RequestError
from megadec.serve.requests import Message

PLAIN_ROLES = {"system": "系统", "user": "用户", "assistant": "助手"}


class PlainTemplate:
    """Role lines in Chinese, behind `<s>`."""

    name = "plain"
    # The model's text would go on with the next role's line.
    stops = tuple(f"\n{role}：" for role in PLAIN_ROLES.values())

    def ids(self, messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
        """The ids of `<s>`, a line for each message, and the assistant's role."""
        lines = [f"{PLAIN_ROLES[message.role]}：{message.content}\n" for message in messages]
        return tokenizer.prompt_ids(f"{''.join(lines)}{PLAIN_ROLES['assistant']}：")


class Generation(Extension):
    """`{% generation %}` around an answer, which transformers marks for training; here it stays as it is."""

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        self.tags = {"generation"}

    def parse(self, parser: Parser) -> Node | list[Node]:
        """What stands inside."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class OwnTemplate:
    """A folder's Jinja template in a sandbox, with what transformers gives it (transformers 5, chat_template_utils)."""

    name = "own"
    stops: tuple[str, ...] = ()

    def __init__(self, source: str, folder: Path) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation]
        )
        environment.filters["tojson"] = partial(json.dumps, ensure_ascii=False)
        environment.globals.update(raise_exception=_refuse, strftime_now=lambda form: datetime.now().strftime(form))
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ExportError(f"{folder}: chat_template is not a Jinja template: {error}") from error

    def ids(self, messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
        """The ids of the rendered text, in which special tokens are themselves where the template wrote them.

        A message that spells one stays text: transformers does the same with `sanitize_control_tokens=True`. Raises
        RequestError.
        """
        # What stands for such a text meanwhile is held by no message, since nobody can guess it.
        marks = {text: secrets.token_hex(24) for text in tokenizer.special_ids}
        spelled = {mark: text for text, mark in marks.items()}
        try:
            rendered = self._template.render(
                **tokenizer.names,
                messages=[
                    {"role": message.role, "content": _marked(message.content, tokenizer, marks)}
                    for message in messages
                ],
                add_generation_prompt=True,
                tools=None,
                documents=None,
            )
        except (jinja2.TemplateError, TypeError) as error:
            message = f"messages: the model's chat template refuses them: {error}"
            raise RequestError(message, parameter="messages") from error
        ids: list[int] = []
        for part in re.split(f"({'|'.join(spelled)})", rendered):
            ids += tokenizer.encode(spelled[part]) if part in spelled else tokenizer.encode_template(part)
        return ids


ChatTemplate: TypeAlias = PlainTemplate | OwnTemplate


def read_template(tokenizer: Tokenizer) -> ChatTemplate:
    """The chat template that came with a tokenizer, PLAIN where there is none. Raises ExportError."""
    source = tokenizer.templates.get("default")
    return PlainTemplate() if source is None else OwnTemplate(source, tokenizer.path.parent)


def _marked(text: str, tokenizer: Tokenizer, marks: Mapping[str, str]) -> str:
    """A message with a mark in the place of each special token that it spells."""
    return "".join(marks.get(part, part) for part in tokenizer.split_special(text))


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)

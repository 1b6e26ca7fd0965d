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
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeAlias

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from megadec.common.errors import ExportError
from megadec.common.files import read_json
from megadec.common.tokenizer import Tokenizer
from megadec.serve.limits import RequestError
from megadec.serve.requests import Message

TOKENIZER_CONFIG = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"
PLAIN_ROLES = {"system": "系统", "user": "用户", "assistant": "助手"}


class PlainTemplate:
    """Role lines in Chinese, behind `<s>`."""

    name = "plain"
    # The model's text would go on with the next role's line.
    stops = tuple(f"\n{role}：" for role in PLAIN_ROLES.values())

    def ids(self, messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
        """The ids of `<s>`, a line for each message, and the assistant's role."""
        lines = [f"{PLAIN_ROLES[message.role]}：{message.content}\n" for message in messages]
        return [tokenizer.bos_id, *tokenizer.encode(f"{''.join(lines)}{PLAIN_ROLES['assistant']}：")]


class OwnTemplate:
    """A folder's Jinja template in a sandbox, with what transformers gives it (transformers 5, chat_template_utils)."""

    name = "own"
    stops: tuple[str, ...] = ()

    def __init__(self, source: str, file: Path) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = partial(json.dumps, ensure_ascii=False)
        environment.globals.update(raise_exception=_refuse, strftime_now=lambda form: datetime.now().strftime(form))
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ExportError(f"{file}: chat_template is not a Jinja template: {error}") from error

    def ids(self, messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
        """The ids of the rendered text; `bos_token` and `eos_token` become their ids, text that spells them does not.

        Raises RequestError.
        """
        # Texts that no message holds, since nobody can guess them.
        bos_token, eos_token = secrets.token_hex(24), secrets.token_hex(24)
        marks = {bos_token: tokenizer.bos_id, eos_token: tokenizer.eos_id}
        try:
            rendered = self._template.render(
                messages=[message.model_dump(include={"role", "content"}) for message in messages],
                bos_token=bos_token,
                eos_token=eos_token,
                add_generation_prompt=True,
                tools=None,
                documents=None,
            )
        except (jinja2.TemplateError, TypeError) as error:
            message = f"messages: the model's chat template refuses them: {error}"
            raise RequestError(message, parameter="messages") from error
        ids: list[int] = []
        for part in re.split(f"({bos_token}|{eos_token})", rendered):
            ids += [marks[part]] if part in marks else tokenizer.encode(part)
        return ids


ChatTemplate: TypeAlias = PlainTemplate | OwnTemplate


def read_template(folder: Path) -> ChatTemplate:
    """The chat template of a model's folder, PLAIN where it has none. Raises ExportError."""
    if (folder / TEMPLATE_FILE).is_file():
        return OwnTemplate((folder / TEMPLATE_FILE).read_text(encoding="utf-8"), folder / TEMPLATE_FILE)
    file = folder / TOKENIZER_CONFIG
    source = read_json(file, ExportError).get("chat_template") if file.is_file() else None
    if isinstance(source, list):
        source = {item.get("name"): item.get("template") for item in source}.get("default")
    return OwnTemplate(source, file) if isinstance(source, str) else PlainTemplate()


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)

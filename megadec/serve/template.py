"""The messages of a chat -> the ids that a model continues.

In: messages. Out: ids, and the texts at which the answer ends. A folder's own chat template is rendered as transformers
does; every other model gets PLAIN, the same for all: a line for each message that opens with its role, and the
assistant's role left open. PLAIN is text that any model can continue, and no model was tuned on it: a base model goes
on with the text rather than answers.

    系统：你是一个助手。
    用户：你好
    助手：
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from megadec.common.errors import ModelFolderError
from megadec.common.tokenizer import Tokenizer
from megadec.serve.bodies.generate import Message
from megadec.serve.limits import RequestError
from megadec.serve.renderer import TEMPLATE_FAILED, Renderer

PLAIN_ROLES = {"system": "系统", "user": "用户", "assistant": "助手"}


class PlainTemplate:
    """Role lines in Chinese, behind `<s>`."""

    name = "plain"
    # The model's text would go on with the next role's line.
    stops = tuple(f"\n{role}：" for role in PLAIN_ROLES.values())

    def check(self, tokenizer: Tokenizer) -> None:
        """It always ends."""

    def close(self) -> None:
        """It holds nothing."""

    def ids(self, messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
        """The ids of `<s>`, a line for each message, and the assistant's role."""
        lines = [f"{PLAIN_ROLES[message.role]}：{message.content}\n" for message in messages]
        return tokenizer.prompt_ids(f"{''.join(lines)}{PLAIN_ROLES['assistant']}：")


class OwnTemplate:
    """A folder's Jinja template, rendered as in transformers."""

    name = "own"
    stops: tuple[str, ...] = ()

    def __init__(self, source: str, file: Path) -> None:
        self._template = Renderer(source, file)
        self._file = file

    def check(self, tokenizer: Tokenizer) -> None:
        """Raise ModelFolderError for a template that does not end; what refuses a message may take another."""
        try:
            self.ids([Message(role="user", content="。")], tokenizer)
        except RequestError as error:
            if error.code == TEMPLATE_FAILED:
                raise ModelFolderError(f"{self._file}: {error}") from error

    def close(self) -> None:
        """End the template's process."""
        self._template.close()

    def ids(self, messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
        """The ids of the rendered text, in which special tokens are themselves where the template wrote them.

        A message that spells one stays text: transformers does the same with `sanitize_control_tokens=True`. Raises
        RequestError.
        """
        # What stands for such a text meanwhile is held by no message, since nobody can guess it.
        marks = {text: secrets.token_hex(24) for text in tokenizer.special_ids}
        spelled = {mark: text for text, mark in marks.items()}
        contents = [_marked(message.content, tokenizer, marks) for message in messages]
        rendered = self._template.render(
            **tokenizer.names,
            messages=[{"role": one.role, "content": content} for one, content in zip(messages, contents, strict=True)],
            add_generation_prompt=True,
            tools=None,
            documents=None,
        )
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

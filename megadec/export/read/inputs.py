"""What a classifier is fed: texts as it was trained to see them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from megadec.common.errors import ConfigError, InputError, check_choice
from megadec.common.tokenizer import Tokenizer

TEXT = "{text}"

Cut = Literal["head", "tail"]


@dataclass(frozen=True)
class Form:
    """How a text becomes ids: `<s>`, then the template with the text in it, cut to the length of a sequence.

    template: what stands around `{text}`. longest_tokens: what is longer is cut. cut: whether the head or the tail of a
    longer one is kept (`<s>` always is).
    """

    template: str = TEXT
    longest_tokens: int = 256
    cut: Cut = "head"

    def __post_init__(self) -> None:
        if self.template.count(TEXT) != 1:
            raise ConfigError(f"data.template={self.template!r} does not have {TEXT} in it exactly once")
        if self.longest_tokens < 2:
            raise ConfigError(f"data.sequence_length={self.longest_tokens} is less than 2: <s> and a piece of text")
        check_choice("data.cut", self.cut, ("head", "tail"))

    @classmethod
    def of_task(cls, task: Mapping[str, Any], context: int) -> Self:
        """The form in which a classifier with this task and this context learned its texts."""
        longest_tokens = min(task.get("sequence_length", context), context)
        return cls(task.get("template", TEXT), longest_tokens, task.get("cut", "head"))

    def put(self, text: str) -> str:
        """The text in the template."""
        return self.template.replace(TEXT, text)

    def ids(self, prefix_ids: Sequence[int], encoded: list[int]) -> list[int]:
        """What the tokenizer puts in front of a text (`<s>`, or nothing), and as many ids of the text as fit.

        Never `</s>`: the last token of the text is what the label is read from.
        """
        room = self.longest_tokens - len(prefix_ids)
        return [*prefix_ids, *(encoded[:room] if self.cut == "head" else encoded[-room:])]

    def truncated(self, tokenizer: Tokenizer, texts: Sequence[str]) -> list[bool]:
        """Whether a part of each text is left out, as it does not fit."""
        encoded = tokenizer.encode_many([self.put(text.strip()) for text in texts])
        return [len(one) > self.longest_tokens - 1 for one in encoded]

    def encode(self, tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts that are to be classified. Raises InputError for an empty one."""
        for number, text in enumerate(texts):
            if not text.strip():
                raise InputError(f"text {number} is empty; there is nothing to classify")
        encoded = tokenizer.encode_many([self.put(text.strip()) for text in texts])
        return [self.ids(tokenizer.prefix_ids, one) for one in encoded]

"""Answers in the shapes of OpenAI's API.

In: text, why it ended, how many tokens. Out: plain dictionaries, and their bytes as JSON or as a server-sent event. The
two shapes (completions, chat) are two small classes with the same methods, so that one piece of code answers both.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass
from typing import Any

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Usage:
    """Tokens of the prompt with its `<s>`, and tokens drawn."""

    prompt_tokens: int
    completion_tokens: int

    def body(self) -> dict[str, int]:
        """OpenAI's usage object."""
        total = self.prompt_tokens + self.completion_tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": total,
        }


class CompletionShape:
    """/v1/completions."""

    def __init__(self, model: str) -> None:
        self._head = _head("cmpl", "text_completion", model)

    def whole(self, text: str, reason: str, usage: Usage) -> dict[str, Any]:
        """The answer of a request that does not stream."""
        return {**self._head, "choices": [_completion_choice(text, reason)], "usage": usage.body()}

    def opening(self) -> dict[str, Any] | None:
        """The chunk before the first text."""
        return None

    def chunk(self, text: str, reason: str | None = None) -> dict[str, Any]:
        """Some more text, or with a reason the end."""
        return {**self._head, "choices": [_completion_choice(text, reason)]}

    def usage_chunk(self, usage: Usage) -> dict[str, Any]:
        """The chunk behind the last text, for those who asked for usage."""
        return {**self._head, "choices": [], "usage": usage.body()}


class ChatShape:
    """/v1/chat/completions."""

    def __init__(self, model: str) -> None:
        self._head = _head("chatcmpl", "chat.completion", model)
        self._chunk_head = {**self._head, "object": "chat.completion.chunk"}

    def whole(self, text: str, reason: str, usage: Usage) -> dict[str, Any]:
        """The answer of a request that does not stream."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        return {**self._head, "choices": [choice], "usage": usage.body()}

    def opening(self) -> dict[str, Any] | None:
        """The chunk before the first text, which names the role."""
        return self._delta({"role": "assistant", "content": ""}, None)

    def chunk(self, text: str, reason: str | None = None) -> dict[str, Any]:
        """Some more text, or with a reason the end."""
        return self._delta({"content": text} if text else {}, reason)

    def usage_chunk(self, usage: Usage) -> dict[str, Any]:
        """The chunk behind the last text, for those who asked for usage."""
        return {**self._chunk_head, "choices": [], "usage": usage.body()}

    def _delta(self, delta: dict[str, str], reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**self._chunk_head, "choices": [choice]}


def _head(prefix: str, kind: str, model: str) -> dict[str, Any]:
    return {"id": f"{prefix}-{secrets.token_hex(12)}", "object": kind, "created": int(time.time()), "model": model}


def _completion_choice(text: str, reason: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}


def json_bytes(value: Any) -> bytes:
    """UTF-8 JSON; half a surrogate pair (from a client's own words in a message) stays an escape."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", errors="backslashreplace")


def event_bytes(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + json_bytes(value) + b"\n\n"

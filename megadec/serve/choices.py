"""Answers in OpenAI's shapes: choices, log-probabilities, usage.

Log-probabilities are those of the model itself, before penalties, temperature and what is cut. A token is given as its
text where that is whole characters, else as `bytes:` with its bytes escaped, as OpenAI has it; `bytes` are exact.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from megadec.common.tokenizer import Tokenizer
from megadec.decoding.sampling import Score
from megadec.serve.answer import Answer

# What OpenAI gives for a token that cannot come; JSON has no infinity.
LEAST_LOG_PROBABILITY = -9999.0


class Scored(NamedTuple):
    """A token and its score; None for the first of a prompt, before which there is nothing."""

    id: int
    score: Score | None


def token_text(tokenizer: Tokenizer, token_id: int) -> str:
    """A token for a reader: special ones by their names."""
    piece = tokenizer.pieces[token_id]
    if not piece:
        return tokenizer.entry(token_id).text
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


class Logprobs:
    """The scored tokens of an answer, in the parts in which it is given away."""

    def __init__(self, answer: Answer, tokenizer: Tokenizer, is_chat: bool) -> None:
        self._answer = answer
        self._tokenizer = tokenizer
        self._is_chat = is_chat
        self._is_first = True
        self._tokens = self._characters = 0

    def take(self, is_last: bool) -> dict[str, Any] | None:
        """Those that came since the last call; None where none were asked for."""
        continuation = self._answer.continuation
        if continuation.logprobs is None:
            return None
        found: list[Scored] = []
        if self._is_first and self._answer.echo:
            found += map(Scored, continuation.prompt_ids, [None, *continuation.prompt_scores])
        self._is_first = False
        end = self._answer.tokens
        found += map(Scored, continuation.ids[self._tokens : end], continuation.scores[self._tokens : end])
        self._tokens = end
        # A stop text may end the answer before the end token that was drawn behind it.
        if is_last and continuation.end is not None and end == len(continuation.ids):
            found.append(Scored(*continuation.end))
        if self._is_chat:
            return chat_logprobs(self._tokenizer, found)
        self._characters, given = completion_logprobs(self._tokenizer, found, self._characters)
        return given


def completion_logprobs(tokenizer: Tokenizer, tokens: Sequence[Scored], characters: int) -> tuple[int, dict[str, Any]]:
    """The object of /v1/completions, and how many characters have begun behind it; `characters` have before it."""
    offsets, tops = [], []
    for token_id, score in tokens:
        piece = tokenizer.pieces[token_id]
        continues = bool(piece) and piece[0] & 0xC0 == 0x80
        offsets.append(max(characters - continues, 0))
        characters += int(tokenizer.characters_per_id[token_id])
        tops.append(None if score is None else _top_of(tokenizer, token_id, score))
    return characters, {
        "tokens": [token_text(tokenizer, one.id) for one in tokens],
        "token_logprobs": [None if one.score is None else _shown(one.score.log_probability) for one in tokens],
        "top_logprobs": tops,
        "text_offset": offsets,
    }


def _top_of(tokenizer: Tokenizer, token_id: int, score: Score) -> dict[str, float]:
    """The likeliest by their texts, the token itself among them; of two with the same text the likelier."""
    found: dict[str, float] = {}
    for one, log_probability in (*score.top, (token_id, score.log_probability)):
        found.setdefault(token_text(tokenizer, one), _shown(log_probability))
    return found


def chat_logprobs(tokenizer: Tokenizer, tokens: Sequence[Scored]) -> dict[str, Any]:
    """The object of /v1/chat/completions."""

    def shown(token_id: int, log_probability: float) -> dict[str, Any]:
        text, own = token_text(tokenizer, token_id), list(tokenizer.pieces[token_id])
        return {"token": text, "logprob": _shown(log_probability), "bytes": own}

    return {
        "content": [
            {**shown(one.id, one.score.log_probability), "top_logprobs": [shown(*top) for top in one.score.top]}
            for one in tokens
            if one.score is not None
        ],
        "refusal": None,
    }


def _shown(log_probability: float) -> float:
    return max(log_probability, LEAST_LOG_PROBABILITY)


def best(answers: Sequence[Answer], made: int, kept: int) -> list[Answer]:
    """Of each prompt's `made` answers the `kept` likeliest a token, the likeliest first, numbered anew."""
    if made == kept:
        return list(answers)
    found: list[Answer] = []
    for first in range(0, len(answers), made):
        own = sorted(answers[first : first + made], key=Answer.mean_log_probability, reverse=True)
        found += own[:kept]
    for index, answer in enumerate(found):
        answer.index = index
    return found


def usage(answers: Sequence[Answer], made: int) -> dict[str, int]:
    """OpenAI's usage object: tokens of each prompt, with its `<s>`, once, and all tokens drawn so far."""
    prompt = sum(len(answer.continuation.prompt_ids) for answer in answers[::made])
    drawn = sum(answer.tokens for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": drawn, "total_tokens": prompt + drawn}

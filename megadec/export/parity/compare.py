"""Proof that an export is the model: token ids, logits and greedy text compared on a fixed Chinese set (texts.yaml).

The set is small, so that every export is compared on the same texts in seconds; it was written for what breaks exports
(leading blanks, newlines, rare characters, text that looks like a special token, long prompts). A runtime has its own
kernels, and a format its own rounding, so each export states the tolerance that it was held to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources

import torch
import yaml
from torch import Tensor

from megadec.common.errors import ExportError
from megadec.common.tokenizer import Tokenizer
from megadec.decoder.model import Decoder
from megadec.decoding.session import Session

LOGIT_TOLERANCE = 1e-4
GREEDY_TOKENS = 16
CLASSIFIED_AT_ONCE = 8

Classify = Callable[[Sequence[Sequence[int]]], Tensor]

_SET = yaml.safe_load((resources.files("megadec.export.parity") / "texts.yaml").read_text(encoding="utf-8"))
PROMPTS: tuple[str, ...] = tuple(_SET["prompts"])
TEXTS: tuple[str, ...] = (*PROMPTS, *_SET["texts"])


@dataclass(frozen=True, slots=True)
class Parity:
    """What was compared: the largest logit difference, and how many prompts, greedy tokens and texts.

    runtime: what the export was loaded in. tolerance: what the logits were allowed to differ by, in units of their
    standard deviation where that is above 1 (`compare_logits`).
    """

    largest_logit_difference: float
    prompts: int
    greedy_tokens: int
    texts: int
    runtime: str = "transformers"
    tolerance: float = LOGIT_TOLERANCE

    def __str__(self) -> str:
        return (
            f"{self.runtime}: largest logit difference {self.largest_logit_difference:.1e} (tolerance "
            f"{self.tolerance:.0e} x their spread) over {self.prompts} prompts, {self.greedy_tokens} greedy tokens and "
            f"{self.texts} texts equal"
        )


def compare_tokenizer(
    ours: Tokenizer,
    encode: Callable[[Sequence[str], bool], list[list[int]]],
    decode: Callable[[Sequence[Sequence[int]]], list[str]],
    bos_and_eos: tuple[int, int],
) -> int:
    """Compare ids of the fixed texts and of every piece's own text, and the text of every id; gives how many texts.

    `encode` is the other runtime's, with `<s>` in front where the second argument says so; `decode` shows no special
    tokens. Raises ExportError.
    """
    specials = {ours.unk_id, ours.bos_id, ours.eos_id}
    singles = [[i] for i in range(ours.vocabulary_size) if i not in specials]
    pieces = [ours.decode(single) for single in singles]
    texts = [*TEXTS, *pieces]
    wanted_ids = ours.encode_many(texts)
    for text, wanted, found in zip(texts, wanted_ids, encode(texts, False), strict=True):
        if wanted != found:
            raise ExportError(f"token ids of {text!r}: the export gives {found}, the model was trained with {wanted}")
    for text, wanted, found in zip(TEXTS, wanted_ids, encode(TEXTS, True), strict=False):
        if found != [ours.bos_id, *wanted]:
            raise ExportError(f"the export gives {found} for {text!r}; <s> ({ours.bos_id}) and its ids are wanted")
    sequences = [*singles, *wanted_ids[: len(TEXTS)]]
    for ids, found_text in zip(sequences, decode(sequences), strict=True):
        if (wanted_text := ours.decode(ids)) != found_text:
            raise ExportError(
                f"text of ids {list(ids)}: the export gives {found_text!r}, the tokenizer {wanted_text!r}"
            )
    if bos_and_eos != (ours.bos_id, ours.eos_id):
        raise ExportError(f"the export has <s> and </s> at {bos_and_eos}, the tokenizer at {ours.bos_id, ours.eos_id}")
    return len(texts)


def prompt_ids(tokenizer: Tokenizer, max_position_embeddings: int) -> list[list[int]]:
    """The prompts as ids behind `<s>`, cut so that the greedy text still fits into the context."""
    room = max(1, max_position_embeddings - GREEDY_TOKENS)
    return [[tokenizer.bos_id, *ids][:room] for ids in tokenizer.encode_many(PROMPTS)]


def compare_logits(
    prompts: Iterable[Sequence[int]],
    ours: Callable[[Tensor], Tensor],
    theirs: Callable[[Tensor], Tensor],
    tolerance: float = LOGIT_TOLERANCE,
) -> float:
    """The largest difference of two models' logits over all positions. Both map ids [1, S] to logits [1, S, V].

    tolerance: in units of the standard deviation of our logits where that is above 1, because rounding grows with the
    numbers that are rounded. Raises ExportError when a difference is above it, or not finite.
    """
    largest = 0.0
    for ids in prompts:
        ids_BS = torch.tensor([list(ids)])
        with torch.inference_mode():
            wanted_BSV = ours(ids_BS).float()
            difference = float((wanted_BSV - theirs(ids_BS).float()).abs().max())
        allowed = tolerance * _scale(wanted_BSV)
        # `not <=` so that NaN is a mismatch too.
        if not difference <= allowed:
            raise ExportError(
                f"logits of ids {list(ids)[:8]}... differ by {difference:.2e}; at most {allowed:.1e} is allowed"
            )
        largest = max(largest, difference)
    return largest


def _scale(logits: Tensor) -> float:
    return max(1.0, float(logits.std()))


def compare_classifier(prompts: Sequence[Sequence[int]], decoder: Decoder, theirs: Classify) -> float:
    """The largest difference of logits, of each prompt alone and beside longer and shorter ones.

    `theirs` gives [B, L] for the ids of B texts, which it pads by itself. Raises ExportError as `compare_logits` does.
    """
    batched: dict[tuple[int, ...], Tensor] = {}
    with torch.inference_mode():
        for start in range(0, len(prompts), CLASSIFIED_AT_ONCE):
            part = prompts[start : start + CLASSIFIED_AT_ONCE]
            batched.update(zip(map(tuple, part), theirs(part)[:, None, None], strict=True))
    ours = partial(decoder, last_only=True)
    alone = compare_logits(prompts, ours, lambda ids_BS: theirs(ids_BS.tolist()).unsqueeze(1))
    return max(alone, compare_logits(prompts, ours, lambda ids_BS: batched[tuple(ids_BS[0].tolist())]))


def compare_greedy(
    prompts: Iterable[Sequence[int]],
    ours: Callable[[Tensor], Tensor],
    theirs: Callable[[list[int], int], list[int]],
    eos_id: int,
    max_position_embeddings: int,
    tolerance: float = LOGIT_TOLERANCE,
) -> int:
    """Compare greedy text, `theirs(prompt, tokens)` being the other runtime's; gives how many tokens were equal.

    Raises ExportError at the first other token, unless our logit of it is within the tolerance (in the units of
    `compare_logits`) of the best one; such a tie ends the comparison of its prompt.
    """
    compared = 0
    for prompt in prompts:
        made = theirs(list(prompt), min(GREEDY_TOKENS, max_position_embeddings - len(prompt)))
        # One pass over prompt and text gives what each token would have been, as long as all before it are equal.
        with torch.inference_mode():
            logits_TV = ours(torch.tensor([[*prompt, *made]]))[0, len(prompt) - 1 : -1].float()
        allowed = tolerance * _scale(logits_TV)
        for found, logits_V in zip(made, logits_TV, strict=True):
            wanted = int(logits_V.argmax())
            if found != wanted:
                # `not <=` so that NaN is a mismatch too.
                if not float(logits_V[wanted] - logits_V[found]) <= allowed:
                    raise ExportError(
                        f"greedy text after {list(prompt)}: the export gives id {found}, the model {wanted}"
                    )
                break
            compared += 1
            if found == eos_id:
                break
    return compared


def greedy_by(session: Callable[[], Session], eos_id: int) -> Callable[[list[int], int], list[int]]:
    """The `theirs` of `compare_greedy` for a runtime with sessions: each token is fed behind the ones before it."""

    def generate(prompt: list[int], tokens: int) -> list[int]:
        sequence, made, new = session(), list[int](), prompt
        while len(made) < tokens and eos_id not in made:
            new = [int(sequence.feed(new).argmax())]
            made += new
        return made

    return generate

"""Proof that an export is the model: token ids, logits and greedy text compared on a fixed Chinese set (texts.yaml).

The set is small, so that every export is compared on the same texts in seconds; it was written for what breaks exports
(leading blanks, newlines, rare characters, text that looks like a special token, long prompts). A runtime has its own
kernels, and a format its own rounding, so each export states the tolerance that it was held to.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from itertools import cycle

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

Ids = Sequence[int]
# Our decoder: ids [1, S] -> logits [1, S, V].
Ours = Callable[[Tensor], Tensor]
# The ids of a text -> logits [S, V] behind each of them.
Logits = Callable[[Ids], Tensor]
# The ids of B texts -> logits [B, L] of each.
Classify = Callable[[Sequence[Ids]], Tensor]
# (prompts, tokens) -> the greedy text behind each prompt: so many tokens, or up to an end token with it.
Generate = Callable[[Sequence[Ids], int], list[list[int]]]

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
            f"{self.tolerance:.0e} x their spread) over {self.prompts} prompts, "
            f"{f'{self.greedy_tokens} greedy tokens and ' * bool(self.greedy_tokens)}"
            f"{self.texts} texts equal"
        )


def compare_language_model(
    decoder: Decoder,
    tokenizer: Tokenizer,
    logits: Sequence[Logits],
    generate: Generate,
    texts: int = 0,
    runtime: str = "transformers",
    tolerance: float = LOGIT_TOLERANCE,
) -> Parity:
    """Compare the logits, in each of the ways in which the runtime gives them, and the greedy text of the prompts.

    texts: how many `compare_tokenizer` has compared. Raises ExportError.
    """
    context = decoder.shape.max_position_embeddings
    prompts = prompt_ids(tokenizer, context)
    difference = max(compare_logits(prompts, decoder, theirs, tolerance) for theirs in logits)
    made = generate(prompts, min(GREEDY_TOKENS, context - 1))
    greedy = compare_greedy(prompts, decoder, made, tokenizer.end_ids, tolerance)
    return Parity(difference, len(prompts), greedy, texts, runtime, tolerance)


def compare_classifier(
    decoder: Decoder, tokenizer: Tokenizer, theirs: Classify, texts: int = 0, runtime: str = "transformers"
) -> Parity:
    """Compare the logits of each prompt alone and beside longer and shorter ones, which `theirs` pads by itself.

    Raises ExportError.
    """
    prompts = prompt_ids(tokenizer, decoder.shape.max_position_embeddings)
    batched: dict[tuple[int, ...], Tensor] = {}
    with torch.inference_mode():
        for start in range(0, len(prompts), CLASSIFIED_AT_ONCE):
            part = prompts[start : start + CLASSIFIED_AT_ONCE]
            batched.update(zip(map(tuple, part), theirs(part)[:, None], strict=True))
    ours = partial(decoder, last_only=True)
    ways: tuple[Logits, ...] = (lambda ids: theirs([ids]), lambda ids: batched[tuple(ids)])
    return Parity(max(compare_logits(prompts, ours, way) for way in ways), len(prompts), 0, texts, runtime)


def compare_tokenizer(
    ours: Tokenizer,
    encode: Callable[[str, bool], list[int]],
    decode: Callable[[Ids], str],
    bos_and_eos: tuple[int, int],
    encode_template: Callable[[str], list[int]],
) -> int:
    """Compare ids of the fixed texts and of every piece's own text, and the text of every id; gives how many texts.

    `encode` is the other runtime's, with `<s>` in front where the second argument says so and the tokenizer has it
    there; `decode` shows no special tokens; in `encode_template` they are themselves. Raises ExportError.
    """
    specials = set(ours.special_ids.values())
    singles = [[i] for i in range(ours.vocabulary_size) if i not in specials]
    pieces = [ours.decode(single) for single in singles]
    texts = [*TEXTS, *pieces]
    wanted_ids = ours.encode_many(texts)
    for text, wanted in zip(texts, wanted_ids, strict=True):
        if wanted != (found := encode(text, False)):
            raise ExportError(f"token ids of {text!r}: the export gives {found}, the model was trained with {wanted}")
    for text, wanted in zip(TEXTS, wanted_ids, strict=False):
        if (found := encode(text, True)) != [*ours.prefix_ids, *wanted]:
            front = f"<s> {list(ours.prefix_ids)}" if ours.prefix_ids else "no <s>"
            raise ExportError(f"the export gives {found} for {text!r}; {front} and its ids are wanted")
    for text in template_texts(ours):
        if (found := encode_template(text)) != (wanted := ours.encode_template(text)):
            raise ExportError(f"template {text!r}: the export gives the ids {found}, the tokenizer {wanted}")
    for ids in (*singles, *wanted_ids[: len(TEXTS)]):
        if (shown := decode(ids)) != (text := ours.decode(ids)):
            raise ExportError(f"text of ids {list(ids)}: the export gives {shown!r}, the tokenizer {text!r}")
    if bos_and_eos != (ours.bos_id, ours.eos_id):
        raise ExportError(f"the export has <s> and </s> at {bos_and_eos}, the tokenizer at {ours.bos_id, ours.eos_id}")
    return len(texts)


def template_texts(tokenizer: Tokenizer) -> list[str]:
    """Texts as a chat template writes them: every special token, side by side and between the fixed texts."""
    specials = list(tokenizer.special_ids)
    if not specials:
        return []
    between = zip(cycle(specials), TEXTS, strict=False)
    return ["".join(specials), "".join(f"{special}{text}" for special, text in between)]


def prompt_ids(tokenizer: Tokenizer, max_position_embeddings: int) -> list[list[int]]:
    """The prompts as ids, cut so that the greedy text still fits into the context."""
    room = max(1, max_position_embeddings - GREEDY_TOKENS)
    return [([*tokenizer.prefix_ids, *ids] or [tokenizer.bos_id])[:room] for ids in tokenizer.encode_many(PROMPTS)]


def compare_logits(prompts: Iterable[Ids], ours: Ours, theirs: Logits, tolerance: float = LOGIT_TOLERANCE) -> float:
    """The largest difference of two models' logits over all positions.

    tolerance: in units of the standard deviation of our logits where that is above 1, because rounding grows with the
    numbers that are rounded. Raises ExportError when a difference is above it, or not finite.
    """
    largest = 0.0
    for ids in prompts:
        with torch.inference_mode():
            wanted_SV = ours(torch.tensor([list(ids)]))[0].float()
            difference = float((wanted_SV - theirs(ids).float()).abs().max())
        allowed = tolerance * _scale(wanted_SV)
        # `not <=` so that NaN is a mismatch too.
        if not difference <= allowed:
            raise ExportError(
                f"logits of ids {list(ids)[:8]}... differ by {difference:.2e}; at most {allowed:.1e} is allowed"
            )
        largest = max(largest, difference)
    return largest


def _scale(logits: Tensor) -> float:
    return max(1.0, float(logits.std()))


def compare_greedy(
    prompts: Iterable[Ids],
    ours: Ours,
    theirs: Iterable[Ids],
    end_ids: Collection[int],
    tolerance: float = LOGIT_TOLERANCE,
) -> int:
    """Compare what the other runtime wrote behind each prompt; gives how many tokens were equal.

    Raises ExportError at the first other token, unless our logit of it is within the tolerance (in the units of
    `compare_logits`) of the best one; such a tie ends the comparison of its prompt.
    """
    compared = 0
    for prompt, made in zip(prompts, theirs, strict=True):
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
            if found in end_ids:
                break
    return compared


def greedy_text(
    session: Callable[[], Session], end_ids: Collection[int], prompts: Sequence[Ids], tokens: int
) -> list[list[int]]:
    """`Generate` for a runtime with sessions: each token is fed behind the ones before it."""
    found: list[list[int]] = []
    for new in prompts:
        sequence, made = session(), list[int]()
        while len(made) < tokens and (not made or made[-1] not in end_ids):
            new = [int(sequence.feed(new).argmax())]
            made += new
        found.append(made)
    return found

"""Proof that an export is the model: token ids, logits and greedy text compared on a fixed Chinese set (texts.yaml).

The set is small, so that every export is compared on the same texts in seconds; it was written for what breaks exports
(leading blanks, newlines, rare characters, text that looks like a special token, long prompts). A runtime has its own
kernels, and a format its own rounding, so each export states the tolerance that it was held to.

A runtime continues the prompts in groups, and our decoder then reads each prompt and what the runtime wrote behind it
once: every logit of the prompt and of the text is compared, so the runtime's cache of keys and values is too.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from itertools import cycle
from typing import Literal

import torch
import yaml
from torch import Tensor
from torch.nn.functional import cross_entropy

from megadec.common.errors import ExportError
from megadec.common.tokenizer import Tokenizer
from megadec.decoder.model import Decoder

LOGIT_TOLERANCE = 1e-4
AT_ONCE = 8
# Of a group of prompts, padding and greedy text with them: its logits are held, twice.
GROUP_TOKENS = 512

Mode = Literal["quick", "full"]
Ids = Sequence[int]
# (prompts of about a length, tokens) -> the greedy text behind each, so many tokens or up to an end token with it, and
# the logits [S + T - 1, V] behind each id of the prompt and of the text but its last.
Continue = Callable[[Sequence[Ids], int], list[tuple[list[int], Tensor]]]
# A row of ids for each sequence, behind what it was fed before -> the logits [S, V] behind each of them.
Feed = Callable[[Sequence[Ids]], Sequence[Tensor]]
# The ids of B texts -> logits [B, L] of each.
Classify = Callable[[Sequence[Ids]], Tensor]

_SET = yaml.safe_load((resources.files("megadec.export.parity") / "texts.yaml").read_text(encoding="utf-8"))
PROMPTS: tuple[str, ...] = tuple(_SET["prompts"])
TEXTS: tuple[str, ...] = (*PROMPTS, *_SET["texts"])


@dataclass(frozen=True, slots=True)
class Effort:
    """What of the set is computed: every `every`-th prompt, the longest one with them, and tokens behind each."""

    every: int
    greedy_tokens: int


# Tensors, settings and token ids are compared whole in both; what is left to find is a graph that computes something
# else, which shows in any prompt that is long enough.
EFFORTS: dict[Mode, Effort] = {"quick": Effort(7, 4), "full": Effort(1, 16)}


@dataclass(frozen=True, slots=True)
class Parity:
    """What was compared: the largest logit difference, and how many prompts, greedy tokens and texts.

    runtime: what the export was loaded in. tolerance: what the logits were allowed to differ by, in units of their
    standard deviation where that is above 1 (`check_logits`). bits_per_character: of the prompts, as the export has
    them; None of a classifier. source_bits_per_character: as the source has them, where the export is quantized.
    """

    largest_logit_difference: float
    prompts: int
    greedy_tokens: int
    texts: int
    runtime: str = "transformers"
    tolerance: float = LOGIT_TOLERANCE
    mode: Mode = "full"
    bits_per_character: float | None = None
    source_bits_per_character: float | None = None

    def __str__(self) -> str:
        counts = ((self.greedy_tokens, "greedy tokens"), (self.texts, "texts"))
        equal = " and ".join(f"{count} {what}" for count, what in counts if count)
        said = (
            f"{self.runtime}: largest logit difference {self.largest_logit_difference:.1e} (tolerance "
            f"{self.tolerance:.0e} x their spread) over {self.prompts} prompts{f', {equal} equal' * bool(equal)}"
        )
        if self.source_bits_per_character is not None:
            said += f"; {self.bits_per_character:.4f} bits per character, {self.source_bits_per_character:.4f} before"
        return said


def compare_language_model(
    decoder: Decoder,
    tokenizer: Tokenizer,
    continued: Continue,
    mode: Mode = "full",
    *,
    texts: int = 0,
    runtime: str = "transformers",
    tolerance: float = LOGIT_TOLERANCE,
) -> Parity:
    """Compare the logits of the prompts and of the greedy text behind them, and the text itself.

    texts: how many `compare_tokenizer` has compared. Raises ExportError.
    """
    prompts = prompt_ids(tokenizer, decoder.shape.max_position_embeddings, mode)
    tokens = min(EFFORTS[mode].greedy_tokens, decoder.shape.max_position_embeddings - 1)
    difference, greedy, nats = 0.0, 0, 0.0
    for group in _groups(prompts, tokens):
        theirs = continued(group, tokens)
        ours = logits_of(decoder, [[*ids, *made[:-1]] for ids, (made, _) in zip(group, theirs, strict=True)])
        for ids, (made, found_SV), wanted_SV in zip(group, theirs, ours, strict=True):
            difference = max(difference, check_logits(ids, wanted_SV, found_SV, tolerance))
            greedy += check_greedy(ids, made, wanted_SV[len(ids) - 1 :], tolerance)
            nats += _nats(ids, found_SV)
    bits = _bits(nats, prompts, tokenizer)
    return Parity(difference, len(prompts), greedy, texts, runtime, tolerance, mode, bits)


def bits_per_character(decoder: Decoder, tokenizer: Tokenizer, mode: Mode = "full") -> float:
    """What our decoder gives for the prompts of `compare_language_model`; 0.0 where a context holds no second token."""
    prompts = prompt_ids(tokenizer, decoder.shape.max_position_embeddings, mode)
    groups = _groups(prompts, 0)
    nats = sum(
        _nats(ids, found) for group in groups for ids, found in zip(group, logits_of(decoder, group), strict=True)
    )
    return _bits(nats, prompts, tokenizer)


def check_loss(parity: Parity, before: float, largest_share: float) -> Parity:
    """The comparison of a quantized export beside its source's bits per character.

    Raises ExportError when the export's are higher by more than this share.
    """
    after = parity.bits_per_character
    # `not <=` so that NaN is a loss too.
    if after is None or not after <= before * (1 + largest_share):
        raise ExportError(
            f"{parity.runtime}: {after:.4f} bits per character of the fixed prompts, {before:.4f} before; at most "
            f"{largest_share:.0%} more are allowed: the model loses too much in this dtype"
        )
    return replace(parity, source_bits_per_character=before)


def _nats(ids: Ids, logits_SV: Tensor) -> float:
    return float(
        cross_entropy(logits_SV[: len(ids) - 1].float(), torch.tensor(ids[1:], dtype=torch.int64), reduction="sum")
    )


def _bits(nats: float, prompts: Sequence[Ids], tokenizer: Tokenizer) -> float:
    characters = sum(int(tokenizer.characters_per_id[list(ids[1:])].sum()) for ids in prompts)
    return nats / math.log(2) / max(characters, 1)


def compare_classifier(
    decoder: Decoder,
    tokenizer: Tokenizer,
    theirs: Classify,
    mode: Mode = "full",
    *,
    texts: int = 0,
    runtime: str = "transformers",
    tolerance: float = LOGIT_TOLERANCE,
) -> Parity:
    """Compare the logits of each prompt alone and beside longer and shorter ones, which `theirs` pads by itself.

    Raises ExportError.
    """
    prompts, difference = prompt_ids(tokenizer, decoder.shape.max_position_embeddings, mode), 0.0
    with torch.inference_mode():
        for start in range(0, len(prompts), AT_ONCE):
            part = prompts[start : start + AT_ONCE]
            for ids, beside_L in zip(part, theirs(part), strict=True):
                wanted_1L = decoder(torch.tensor([ids]), last_only=True)[0].float()
                for found_1L in (beside_L[None], theirs([ids])):
                    difference = max(difference, check_logits(ids, wanted_1L, found_1L, tolerance))
    return Parity(difference, len(prompts), 0, texts, runtime, tolerance, mode)


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


def prompt_ids(tokenizer: Tokenizer, max_position_embeddings: int, mode: Mode = "full") -> list[list[int]]:
    """The prompts as ids, cut so that the greedy text still fits into the context."""
    effort = EFFORTS[mode]
    room = max(1, max_position_embeddings - effort.greedy_tokens)
    encoded = tokenizer.encode_many(PROMPTS[:: effort.every])
    return [([*tokenizer.prefix_ids, *ids] or [tokenizer.bos_id])[:room] for ids in encoded]


def _groups(prompts: Sequence[Ids], tokens: int) -> Iterator[list[Ids]]:
    """Prompts of about a length together, `tokens` more behind each."""
    group: list[Ids] = []
    for ids in sorted(prompts, key=len):
        if group and (len(group) == AT_ONCE or (len(group) + 1) * (len(ids) + tokens) > GROUP_TOKENS):
            yield group
            group = []
        group.append(ids)
    yield group


def logits_of(decoder: Decoder, rows: Sequence[Ids]) -> list[Tensor]:
    """Our logits [S, V] behind each id of each row, float32. Rows are padded behind, where no token looks."""
    longest = max(map(len, rows))
    ids_BS = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in rows])
    with torch.inference_mode():
        logits_BSV = decoder(ids_BS).float()
    return [logits_SV[: len(ids)] for ids, logits_SV in zip(rows, logits_BSV, strict=True)]


def check_logits(ids: Ids, wanted_SV: Tensor, found_SV: Tensor, tolerance: float = LOGIT_TOLERANCE) -> float:
    """The largest difference of two models' logits of `ids`.

    tolerance: in units of the standard deviation of our logits where that is above 1, because rounding grows with the
    numbers that are rounded. Raises ExportError when a difference is above it, or not finite.
    """
    difference = float((wanted_SV - found_SV.float()).abs().max())
    allowed = tolerance * _scale(wanted_SV)
    # `not <=` so that NaN is a mismatch too.
    if not difference <= allowed:
        raise ExportError(
            f"logits of ids {list(ids)[:8]}... differ by {difference:.2e}; at most {allowed:.1e} is allowed"
        )
    return difference


def _scale(logits: Tensor) -> float:
    return max(1.0, float(logits.std()))


def check_greedy(prompt: Ids, made: Ids, wanted_TV: Tensor, tolerance: float = LOGIT_TOLERANCE) -> int:
    """How many of the tokens that a runtime wrote behind `prompt` are our likeliest; the others are ties.

    wanted_TV: our logits in front of each of them. Raises ExportError at a token whose logit is further from the
    likeliest one's than the tolerance, in the units of `check_logits`.
    """
    equal, allowed = 0, tolerance * _scale(wanted_TV)
    for found, logits_V in zip(made, wanted_TV, strict=True):
        wanted = int(logits_V.argmax())
        # `not <=` so that NaN is a mismatch too.
        if not float(logits_V[wanted] - logits_V[found]) <= allowed:
            raise ExportError(f"greedy text after {list(prompt)}: the export gives id {found}, the model {wanted}")
        equal += found == wanted
    return equal


def continue_greedily(
    feed: Feed, end_ids: Collection[int], prompts: Sequence[Ids], tokens: int
) -> list[tuple[list[int], Tensor]]:
    """`Continue` for a runtime with a cache: the prompts but their last two ids at once, those two, then one by one."""
    cut = min(map(len, prompts)) > 2
    parts: list[Sequence[Ids]] = [[ids[:-2] for ids in prompts], [ids[-2:] for ids in prompts]] if cut else [prompts]
    logits: list[list[Tensor]] = [[] for _ in prompts]
    made: list[list[int]] = [[] for _ in prompts]
    while parts:
        for found, logits_SV in zip(logits, feed(parts.pop(0)), strict=True):
            found.append(logits_SV)
        if parts:
            continue
        for ids, found in zip(made, logits, strict=True):
            ids.append(int(found[-1][-1].argmax()))
        if len(made[0]) < tokens:
            parts = [[ids[-1:] for ids in made]]
    made = [until_end(ids, end_ids) for ids in made]
    whole = (torch.cat(found)[: len(ids) + len(new) - 1] for ids, new, found in zip(prompts, made, logits, strict=True))
    return list(zip(made, whole, strict=True))


def until_end(ids: list[int], end_ids: Collection[int]) -> list[int]:
    """The ids up to the first end token, with it."""
    ends = [place for place, one in enumerate(ids) if one in end_ids]
    return ids[: ends[0] + 1] if ends else ids

"""Proof that an export is the model: token ids, logits and greedy text compared on a fixed Chinese set.

In come two ways to do the same thing (ours, the other runtime's); out comes how far they are apart, or an ExportError.
Trade-off: the set is small and fixed, so that every export is compared on the same texts in seconds; it was chosen for
what broke exports elsewhere (leading blanks, newlines, rare characters, text that looks like a special token).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megadec.common.errors import ExportError
from megadec.common.tokenizer import Tokenizer

LOGIT_TOLERANCE = 1e-4
GREEDY_TOKENS = 16

PROMPTS: tuple[str, ...] = (
    "中国的首都是",
    "人工智能是计算机科学的一个分支，",
    "长江发源于青藏高原，全长约6300公里，",
    "據報導，今年第三季度的出口額比去年同期增加了百分之五。",
    "问：水在标准大气压下多少度沸腾？\n答：",
    "The Great Wall (长城) is",
    "“学而时习之，不亦说乎？”",
    "1、2、3、",
)

TEXTS: tuple[str, ...] = (
    *PROMPTS,
    "",
    " ",
    "  前面有两个空格",
    "末尾有空格  ",
    "中 间  有   空格",
    "\n",
    "\n\n第一段。\n\n第二段。\n",
    "\t制表符\t在此",
    "回车\r\n换行",
    "　　全角空格起首的段落",
    "𠮷野家，𡃁仔，𪚥，㐂",
    "😀😂👨‍👩‍👧‍👦🇨🇳👍🏽",
    "ＡＢＣａｂｃ１２３，全角字母",
    "半角 abc ABC 123,.!?",
    "2023年12月31日23:59:59，增长5.27%，¥1,234,567.89",
    "0000000000123456789",
    "<s>",
    "</s>",
    "<unk>",
    "文本里写着<s>和</s>，还有<unk>与<pad>。",
    "<|im_start|>user\n你好<|im_end|>",
    "[INST] 你好 [/INST]",
    "<0x0A><0xE4>",
    "▁下划线▁▁不是空格",
    "后来皇后乾隆晒干头发；後來皇后乾隆曬乾頭髮",
    "《红楼梦》（又名《石头记》）——“满纸荒唐言”……",
    "①②③ Ⅳ ㈠ ㎡ ℃ № ∑ √ ≤ α β γ",
    "ひらがなカタカナ 한국어 Привет مرحبا ไทย",
    "é́̂ e\u0301 ﬁ",
    "\u200b零宽\u200d字符\ufeff",
    "\x00控制\x7f字符",
    "啊啊啊啊啊啊啊啊啊啊啊啊啊啊啊啊哈哈哈哈哈哈哈哈",
    "https://zh.wikipedia.org/wiki/%E4%B8%AD%E6%96%87?a=1&b=2#c",
    "def f(x):\n    return x ** 2  # 平方\n",
)


@dataclass(frozen=True, slots=True)
class Parity:
    """What was compared: the largest logit difference, and how many prompts, greedy tokens and texts."""

    largest_logit_difference: float
    prompts: int
    greedy_tokens: int
    texts: int


def compare_token_ids(
    ours: Tokenizer,
    encode: Callable[[Sequence[str]], list[list[int]]],
    decode: Callable[[Sequence[Sequence[int]]], list[str]],
) -> int:
    """Compare ids of the fixed texts and of every piece's own text, and the text of every id; gives how many texts.

    `encode` and `decode` are the other runtime's, adding and showing no special tokens. Raises ExportError.
    """
    specials = {ours.unk_id, ours.bos_id, ours.eos_id}
    singles = [[i] for i in range(ours.vocabulary_size) if i not in specials]
    pieces = [ours.decode(single) for single in singles]
    texts = [*TEXTS, *pieces]
    for text, wanted, found in zip(texts, ours.encode_many(texts), encode(texts), strict=True):
        if wanted != found:
            raise ExportError(f"token ids of {text!r}: the export gives {found}, the model was trained with {wanted}")
    sequences = [*singles, *ours.encode_many(TEXTS)]
    wanted_texts = [*pieces, *(ours.decode(ids) for ids in ours.encode_many(TEXTS))]
    for ids, wanted_text, found_text in zip(sequences, wanted_texts, decode(sequences), strict=True):
        if wanted_text != found_text:
            raise ExportError(
                f"text of ids {list(ids)}: the export gives {found_text!r}, the tokenizer {wanted_text!r}"
            )
    return len(texts)


def prompt_ids(tokenizer: Tokenizer, context_tokens: int) -> list[list[int]]:
    """The prompts as ids behind `<s>`, cut so that the greedy text still fits into the context."""
    room = max(1, context_tokens - GREEDY_TOKENS)
    return [[tokenizer.bos_id, *ids][:room] for ids in tokenizer.encode_many(PROMPTS)]


def compare_logits(
    prompts: Iterable[Sequence[int]], ours: Callable[[Tensor], Tensor], theirs: Callable[[Tensor], Tensor]
) -> float:
    """The largest difference of two models' logits over all positions. Both map ids [1, S] to logits [1, S, V].

    Raises ExportError when it is above LOGIT_TOLERANCE, or not finite.
    """
    largest = 0.0
    for ids in prompts:
        ids_BS = torch.tensor([list(ids)])
        with torch.inference_mode():
            difference = float((ours(ids_BS).float() - theirs(ids_BS).float()).abs().max())
        # `not <=` so that NaN is a mismatch too.
        if not difference <= LOGIT_TOLERANCE:
            raise ExportError(
                f"logits of ids {list(ids)[:8]}... differ by {difference:.2e}; at most {LOGIT_TOLERANCE:.0e} is allowed"
            )
        largest = max(largest, difference)
    return largest


def compare_greedy(
    prompts: Iterable[Sequence[int]],
    ours: Callable[[Tensor], Tensor],
    theirs: Callable[[list[int], int], list[int]],
    eos_id: int,
    context_tokens: int,
) -> int:
    """Compare greedy text, `theirs(prompt, tokens)` being the other runtime's; gives how many tokens were compared.

    Raises ExportError at the first other token, unless the two best logits are closer than LOGIT_TOLERANCE.
    """
    compared = 0
    for prompt in prompts:
        made = theirs(list(prompt), min(GREEDY_TOKENS, context_tokens - len(prompt)))
        # One pass over prompt and text gives what each token would have been, as long as all before it are equal.
        with torch.inference_mode():
            logits_TV = ours(torch.tensor([[*prompt, *made]]))[0, len(prompt) - 1 : -1].float()
        best_T2 = logits_TV.topk(2)
        for found, wanted, values_2 in zip(made, best_T2.indices[:, 0].tolist(), best_T2.values, strict=True):
            if found != wanted and float(values_2[0] - values_2[1]) > LOGIT_TOLERANCE:
                raise ExportError(f"greedy text after {list(prompt)}: the export gives id {found}, the model {wanted}")
            compared += 1
            if found != wanted or found == eos_id:
                break
    return compared

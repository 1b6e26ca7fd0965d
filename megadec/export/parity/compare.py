"""Proof that an export is the model: token ids, logits and greedy text compared on a fixed Chinese set.

The set is small, so that every export is compared on the same texts in seconds; it was written for what breaks exports
(leading blanks, newlines, rare characters, text that looks like a special token, long prompts). A runtime has its own
kernels, and a format its own rounding, so each export states the tolerance that it was held to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from megadec.common.errors import ExportError
from megadec.common.tokenizer import Tokenizer
from megadec.decoder.model import Decoder
from megadec.decoding.session import Session

LOGIT_TOLERANCE = 1e-4
GREEDY_TOKENS = 16
CLASSIFIED_AT_ONCE = 8

Classify = Callable[[Sequence[Sequence[int]]], Tensor]

PROMPTS: tuple[str, ...] = (
    "中国的首都是",
    "人工智能是计算机科学的一个分支，",
    "长江发源于青藏高原，全长约6300公里，",
    "據報導，今年第三季度的出口額比去年同期增加了百分之五。",
    "问：水在标准大气压下多少度沸腾？\n答：",
    "The Great Wall (长城) is",
    "“学而时习之，不亦说乎？”",
    "1、2、3、",
    # Traditional, classical and regional writing.
    "臺灣鐵路縱貫線於一九〇八年全線通車，自基隆至高雄，",
    "後來，皇后在髮廊裏把頭髮曬乾，乾隆卻說裡面太乾燥了；",
    "山不在高，泉冽则名；屋不在广，心宽则容。是以古人有言：",
    "昔有耕者，晨出暮归，见石于道，移而去之。或问其故，对曰：",
    "你哋食咗飯未呀？我哋啱啱喺旺角嗰間茶餐廳飲完奶茶，",
    # Idioms, rare characters and characters beyond the first plane.
    "画蛇添足、守株待兔、亡羊补牢、刻舟求剑，这些成语都",
    "魑魅魍魉、饕餮貔貅、囹圄蹒跚、龃龉踟蹰",
    "龘靐齉爩麤鱻犇骉羴猋",
    "𠮷田先生在𡃁仔面前写下「𪚥」与「𠀀𠂇𣎴」，",
    "叕双又㕛，㐂㐱㑇㒼，𨳒𨳊",
    # Numbers, dates, units and formulas.
    "二〇二四年二月二十九日（星期四）上午九时三十分，",
    "2023-12-31T23:59:59+08:00 与 2024/1/1 0:00 只差",
    "同比增长5.27%，环比下降0.3个百分点，总额达¥1,234,567.89元，即",
    "壹万贰仟叁佰肆拾伍元陆角柒分，合计12345.67；",
    "圆周率π≈3.14159265358979323846，自然常数e≈2.718281828，√2≈",
    "H₂O、CO₂、Fe³⁺、10⁻⁹ m、25℃、㎡、№7、±0.5‰",
    "00000000000000000000000000000001",
    # Latin, code and addresses among the characters.
    "在Linux系统中，用sudo apt-get update && make -j2来",
    "def 求和(数列):\n    总数 = 0\n    for 项 in 数列:\n        总数 += 项\n",
    "SELECT 姓名, COUNT(*) FROM 学生 WHERE 年龄 >= 18 GROUP BY 姓名;",
    '{"名称": "测试", "数值": [1, 2.5, null], "嵌套": {"是否": true}}',
    '<div class="标题">第一章&nbsp;开端</div>\n<!-- 注释 -->',
    "请访问 https://example.com/路径?查询=值&page=2#锚点 或写信给 someone@example.com，",
    "C:\\用户\\文档\\报告_v2.0(最终版).docx",
    "iPhone15和Wi-Fi6E的5GHz频段，GPT与BERT的Transformer架构，",
    # Punctuation, emoji, full width and other scripts.
    "什么？！！！……真的吗？？？——不会吧～～～",
    "，。、；：？！（）【】《》〈〉「」『』“”‘’—…·",
    "今天真开心😀😂🤣👍🏽，全家👨‍👩‍👧‍👦去看升旗🇨🇳🎉，",
    "ＡＢＣＤ１２３４，全角字母和数字；",
    "ひらがなとカタカナ、한국어、Русский、العربية、ไทย都是",
    "nǐ hǎo，拼音带调：zhōng guó；注音：ㄅㄆㄇㄈ；",
    "\u200b零宽字符\u200d夹在\ufeff中间，e\u0301与é不同，",
    # Blanks, newlines, lists and tables.
    "  两个空格起首，　　全角空格在后，\t制表符，  ",
    "第一行\n第二行\n\n\n空了两行之后的第三段，\r\n",
    "购物清单：\n1. 鸡蛋十二个\n2. 牛奶两盒\n3. ",
    "# 标题\n\n- 一级\n  - 二级\n    - 三级\n\n> 引用：",
    "| 城市 | 人口（万） |\n| --- | ---: |\n| 甲 | 123.4 |\n| 乙 |",
    # Dialogue, nested quotes, text that looks like special tokens.
    "老王说：“我听老李讲：‘明天要下雨。’你信吗？”小张答：“",
    "文本里写着<s>、</s>、<unk>、<pad>与<0x0A>，它们只是文字，",
    "<|im_start|>user\n你好<|im_end|>\n<|im_start|>assistant\n[INST]<<SYS>>",
    "哈哈哈哈哈哈哈哈哈哈哈哈哈哈哈哈哈哈哈哈啊啊啊啊啊啊啊啊啊啊",
    # Several hundred characters, cut where a context is smaller.
    "清晨的雾还没有散，渡口的老船工已经解开了缆绳。他撑了四十年的船，熟悉这条河的每一处浅滩、每一个漩涡，也熟悉两岸"
    "每一户人家的炊烟。那时候没有桥，镇上的人去对岸赶集、上学、看病，都要坐他的船。船钱起初是两分，后来涨到一角，再"
    "后来，谁给多少就算多少。有一年夏天发大水，上游冲下来许多木头，还有一只装着小猫的木盆。老船工把船撑到河心，用竹"
    "篙钩住了木盆，自己却差一点落水。那只猫后来在船上住了十一年，冬天蜷在火盆边，夏天伏在船头，看水里的影子。再往后，"
    "桥修通了，公路也修通了，坐船的人一天比一天少。镇里的干部来找他，说可以给他在景区安排一个位置，让游客坐一坐老船，"
    "拍一拍照片。他想了三天，答应了，只提出一个条件：",
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

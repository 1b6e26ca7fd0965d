"""The shipped vocabulary tokenizer/zh_32k: its promises to shards, decoders and exports."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megadec.common.tokenizer import Tokenizer
from tests.support import PROJECT

FOLDER = PROJECT / "tokenizer" / "zh_32k"
HARD = (
    "",
    " ",
    "   前后都有空格   ",
    "\n\n\n",
    "第一行\n第二行\n\n第三段\n",
    "制表\t符\r\n",
    "𠮷野家和𪚥",
    "表情😀👨‍👩‍👧‍👦🇨🇳",
    "全角，。！？（）：；　“引号”",
    "ＡＢＣ１２３",
    "<s>不是记号</s> <unk> <0x41>",
    "2024年12月31日 3.14159",
    "繁體中文與简体混排，臺灣、香港",
    "def f(x):\n    return x ** 2\n",
    "é e\u0301 ñ ü",
    "กขค हिन्दी 한국어 ひらがな",
    "\u200b\ufeff零宽",
)


SHIPPED = Tokenizer.load(FOLDER)


@pytest.mark.parametrize("text", HARD)
def test_hard_strings_come_back_exactly(text: str) -> None:
    ids = SHIPPED.encode(text)
    assert SHIPPED.decode(ids) == text
    assert int(SHIPPED.characters_per_id[ids].sum()) == len(text)


# U+2581 is sentencepiece's own sign for a blank and U+0000 ends a string there; cleaned documents hold no controls.
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581\0"), max_size=60))
@settings(max_examples=200)
def test_any_text_comes_back_exactly(text: str) -> None:
    assert SHIPPED.decode(SHIPPED.encode(text)) == text


def test_the_vocabulary_is_32000_pieces_with_the_agreed_special_ids() -> None:
    assert SHIPPED.vocabulary_size == 32_000
    assert (SHIPPED.unk_id, SHIPPED.bos_id, SHIPPED.eos_id) == (0, 1, 2)
    assert SHIPPED.is_byte.nonzero()[0].tolist() == list(range(3, 259))


def test_every_digit_is_a_token_of_its_own() -> None:
    assert len(SHIPPED.encode("20240131")) == 8
    assert not [piece for piece in SHIPPED.pieces if len(piece) > 1 and any(48 <= byte <= 57 for byte in piece)]


def test_no_piece_reaches_over_the_beginning_of_a_line() -> None:
    assert not [piece for piece in SHIPPED.pieces if b"\n" in piece.rstrip(b"\n")]


def test_traditional_and_simplified_text_need_no_bytes() -> None:
    for text in ("臺灣鐵路管理局負責營運", "台湾铁路管理局负责营运", "廣東話與國語的發音"):
        ids = SHIPPED.encode(text)
        assert not SHIPPED.is_byte[ids].any()
        assert len(ids) < len(text)


def test_the_records_are_those_of_the_shipped_model() -> None:
    training = json.loads((FOLDER / "training.json").read_text(encoding="utf-8"))
    report = json.loads((FOLDER / "report.json").read_text(encoding="utf-8"))
    assert training["tokenizer"]["sha256"] == report["tokenizer"]["sha256"] == SHIPPED.sha256
    assert SHIPPED.sha256 in (FOLDER / "README.md").read_text(encoding="utf-8")
    assert report["lossless"] == report["documents"] > 0


def test_hugging_face_gives_the_same_ids(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    shutil.copy(FOLDER / "tokenizer.model", tmp_path)
    loaded = transformers.LlamaTokenizer.from_pretrained(str(tmp_path), add_prefix_space=False)
    for text in HARD:
        # There, text that spells <s> is a special piece.
        if "<" not in text:
            assert loaded.encode(text, add_special_tokens=False) == SHIPPED.encode(text)

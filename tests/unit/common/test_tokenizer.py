"""Laws of the tokenizer at run time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megadec.common.errors import TokenizerError
from megadec.common.tokenizer import Tokenizer
from tests.support import PROJECT

# Characters the tiny model has pieces for, and others that only byte pieces can spell.
TEXTS = st.text(alphabet="小林在河边，。 \n0123abé𠮷🙂Ａ　<s>▁", max_size=40).filter(lambda text: "\u2581" not in text)


@given(text=TEXTS)
def test_ids_give_the_text_and_its_length_and_in_a_stream_whole_characters(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.characters_per_id[ids].sum() == len(text)
    stream = tokenizer.stream()
    parts = [stream.push(piece) for piece in ids]
    assert "".join(parts) + stream.flush() == text
    assert not any("\ufffd" in part for part in parts)


def test_a_character_that_never_ends_shows_as_a_replacement(tokenizer: Tokenizer) -> None:
    stream = tokenizer.stream()
    first_byte = tokenizer.pieces.index(b"\xe4")
    assert stream.push(first_byte) == ""
    assert stream.flush() == "\ufffd"
    assert stream.push(first_byte) == ""
    letter = tokenizer.encode("小")[-1]
    assert stream.push(letter) == "\ufffd小"


def test_text_that_looks_like_a_special_token_is_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("<s></s><unk>")
    assert not {tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id} & set(ids)
    assert tokenizer.decode([tokenizer.bos_id, *ids, tokenizer.eos_id]) == "<s></s><unk>"


def test_many_texts_are_encoded_as_one_by_one(tokenizer: Tokenizer) -> None:
    texts = ["小林在河边", "", "abc\n"]
    assert tokenizer.encode_many(texts) == [tokenizer.encode(text) for text in texts]


def test_the_folder_serves_as_well_as_the_file(tokenizer: Tokenizer, tiny_tokenizer_path: Path) -> None:
    assert Tokenizer.load(tiny_tokenizer_path.parent).sha256 == tokenizer.sha256


def test_pieces_left_out_at_random_are_the_same_in_every_process_and_give_the_text() -> None:
    tokenizer = Tokenizer.load(PROJECT / "tokenizer" / "zh_8k")
    texts = ["长江发源于青藏高原，全长约6300公里。", "", "中", "  a b\n"] * 8
    found = tokenizer.encode_with_dropout(texts, 0.3, 7)
    assert [tokenizer.decode(ids) for ids in found] == texts
    assert found != tokenizer.encode_many(texts)
    assert found != tokenizer.encode_with_dropout(texts, 0.3, 8)
    assert tokenizer.encode_with_dropout(texts, 0.0, 7) == tokenizer.encode_many(texts)
    program = (
        "import json, sys; from megadec.common.tokenizer import Tokenizer;"
        " print(json.dumps(Tokenizer.load(sys.argv[1]).encode_with_dropout(json.loads(sys.argv[2]), 0.3, 7)))"
    )
    command = [sys.executable, "-c", program, str(tokenizer.path), json.dumps(texts)]
    assert json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) == found


@pytest.mark.parametrize(
    ("content", "words"), [(None, "does not exist"), (b"not a model", "not a sentencepiece model")]
)
def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "tokenizer.model"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(TokenizerError, match=words) as caught:
        Tokenizer.load(file)
    assert str(file) in str(caught.value)


def test_an_entry_is_what_sentencepiece_says_of_a_piece(tokenizer: Tokenizer) -> None:
    entries = [tokenizer.entry(i) for i in range(tokenizer.vocabulary_size)]
    kinds = [entry.kind for entry in entries]
    assert kinds[:3] == ["unknown", "control", "control"]
    assert kinds[3:259] == ["byte"] * 256
    assert set(kinds[259:]) == {"normal"}
    assert (entries[3].text, entries[258].text) == ("<0x00>", "<0xFF>")
    # Of two merges the one that was learnt first wins.
    scores = [entry.score for entry in entries[259:]]
    assert scores == sorted(scores, reverse=True)

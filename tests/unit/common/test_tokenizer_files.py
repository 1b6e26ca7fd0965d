"""What stands beside a vocabulary is found in each of its places, and what cannot be carried is refused by its key."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megadec.common.errors import TokenizerError
from megadec.common.tokenizer import Tokenizer
from tests.support.foreign_tokenizers import SETTINGS, byte_level, chatml, decoder_entries, legacy, qwen

Change = Callable[[dict[str, Any]], None]


def folder_with(folder: Path, tokenizer: Tokenizer, files: dict[str, Any]) -> Path:
    """A tokenizer.model and these files beside it."""
    folder.mkdir(exist_ok=True)
    shutil.copyfile(tokenizer.path, folder / "tokenizer.model")
    for name, content in files.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_special_tokens_are_ids_in_a_template_only_and_the_other_added_ones_in_every_text(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    size = tokenizer.vocabulary_size
    found = Tokenizer.load(folder_with(tmp_path, tokenizer, chatml(size)))
    text = "<|im_start|>小林<think>在河边<|im_end|>"
    as_text = found.encode(text)
    assert size + 2 in as_text
    assert not {size, size + 1} & set(as_text)
    assert found.decode(as_text) == text
    ids = found.encode_template(text)
    assert (ids[0], ids[-1], found.decode(ids)) == (size, size + 1, "小林<think>在河边")
    assert (found.vocabulary_size, found.end_ids) == (size + 4, (2, size + 1))
    assert [found.entry(size + place).kind for place in range(4)] == ["control", "control", "user_defined", "control"]
    assert found.characters_per_id[as_text].sum() == len(text)
    stream = found.stream()
    assert "".join(map(stream.push, ids)) == "小林<think>在河边"


def test_a_tokenizer_is_known_by_all_that_changes_ids_and_by_nothing_else(tmp_path: Path, tokenizer: Tokenizer) -> None:
    size = tokenizer.vocabulary_size
    usual = {"tokenizer_config.json": {**SETTINGS, "added_tokens_decoder": decoder_entries(size), "chat_template": "x"}}
    assert Tokenizer.load(folder_with(tmp_path / "usual", tokenizer, usual)).sha256 == tokenizer.sha256
    others = {
        Tokenizer.load(folder_with(tmp_path / name, tokenizer, files)).sha256
        for name, files in (("chatml", chatml(size)), ("legacy", legacy(size)))
    }
    assert len({*others, tokenizer.sha256}) == 3
    assert Tokenizer.load(tmp_path / "chatml" / "tokenizer.model").sha256 in others


def config(change: Change) -> Change:
    return lambda files: change(files["tokenizer_config.json"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (config(lambda c: c["added_tokens_decoder"]["600"].update(lstrip=True)), "'<|im_start|>' has lstrip=true"),
        (config(lambda c: c.update(add_eos_token=True)), "add_eos_token=true would end each prompt"),
        (config(lambda c: c.update(pad_token="[P]")), "pad_token names '[P]', which no file gives an id"),
        (config(lambda c: c.update(additional_special_tokens=["<x>"])), "extra_special_tokens names '<x>'"),
        (config(lambda c: c["added_tokens_decoder"].pop("601")), "ids [600, 602, 603]...; they go on from 600"),
        (config(lambda c: c.update(added_tokens_decoder=[1])), "added_tokens_decoder is a list, not a dict of tokens"),
        (config(lambda c: c.update(added_tokens_decoder={"-1": {"content": "x"}})), "a token has an id and a content"),
        (
            config(lambda c: c.update(added_tokens_decoder={"9" * 5000: {"content": "x"}})),
            "a token has an id and a content",
        ),
        (config(lambda c: c.update(eos_token=2)), "eos_token='2' is not the text of a token"),
        (config(lambda c: c.update(pad_token="\ud800")), "is not the text of a token"),
        (config(lambda c: c.update(additional_special_tokens=[3])), "additional_special_tokens='3' is not the text"),
        (config(lambda c: c.update(chat_template="\ud800")), "chat_template is neither a text nor a list"),
        (config(lambda c: c.update(chat_template=3)), "chat_template is neither a text nor a list of name, template"),
        (config(lambda c: c["added_tokens_decoder"].update({"300": {"content": "<x>"}})), "'<x>' has id 300; in"),
        (lambda files: files.update({"added_tokens.json": {"<|im_end|>": 600}}), "has '<|im_end|>' at 600"),
        (lambda files: files["generation_config.json"].update(eos_token_id=[2, 900]), "eos_token_id names 900"),
        (lambda files: files["generation_config.json"].update(eos_token_id="2"), "eos_token_id='2' is neither an id"),
        (
            lambda files: files.update({"tokenizer.json": {"model": {"vocab": {"<unk>": 1}}}}),
            "'<unk>' has id 1; in the",
        ),
        (lambda files: files.update({"tokenizer_config.json": "[]"}), "tokenizer_config.json holds list"),
    ],
)
def test_what_cannot_be_carried_is_refused_by_its_key(
    tmp_path: Path, tokenizer: Tokenizer, change: Change, said: str
) -> None:
    files = chatml(tokenizer.vocabulary_size)
    change(files)
    with pytest.raises(TokenizerError) as refused:
        Tokenizer.load(folder_with(tmp_path, tokenizer, files))
    assert said in str(refused.value)
    assert str(tmp_path) in str(refused.value)


def test_byte_level_bpe_keeps_every_text_and_tells_its_length_and_opens_documents_with_another_token_than_ends_them(
    tmp_path: Path,
) -> None:
    path, files = qwen(tmp_path, tmp_path)
    folder_files = {name: content for name, content in files.items() if name != "config.json"}
    for name, content in folder_files.items():
        (tmp_path / name).write_text(json.dumps(content))
    found = Tokenizer.load(path)
    text = " 长江全长6300公里。\n\n<|im_end|><think>𠮷🙂 it's"
    ids = found.encode(text)
    assert found.decode(ids) == text
    assert found.characters_per_id[ids].sum() == len(text)
    stream = found.stream()
    assert "".join(map(stream.push, ids)) == text
    assert (found.prefix_ids, found.end_ids, found.unk_id) == ((), (600, 602), -1)
    # No bos_token is stated: the padding, which is not the end of a document, begins one.
    assert (found.bos_id, found.eos_id) == (600, 602)
    assert Tokenizer.load(tmp_path).sha256 == found.sha256


def test_a_tokenizer_json_of_another_kind_is_refused(tmp_path: Path) -> None:
    content = json.loads(byte_level(tmp_path, None, ("<s>", "</s>")).read_text())
    content["pre_tokenizer"] = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(TokenizerError, match=r"model.type='BPE', .*'prepend_scheme': 'first'"):
        Tokenizer.load(tmp_path)

"""A chat model made elsewhere keeps tokens, template and ends in every format: ids equal to those of transformers."""

import json
from pathlib import Path
from typing import Any

import pytest

from megadec.common.errors import ExportError
from megadec.common.tokenizer import Tokenizer
from megadec.export.commands import convert
from megadec.export.huggingface.export import to_hf
from megadec.export.parity.compare import TEXTS
from megadec.serve.bodies.generate import Message
from megadec.serve.load import open_language_model
from tests.support.foreign_tokenizers import CHATML, FOREIGN, TOKENIZER_JSON, foreign
from tests.support.sources import random_source

transformers = pytest.importorskip("transformers")

# Every one gets a turn in each runtime's own vocabulary but for what is a file in its folder only.
FORMATS = {
    "chatml": ("hf", "gguf", "onnx"),
    "qwen": ("hf", "gguf"),
    "llama3": ("hf", "gguf"),
    "gpt2": ("gguf",),
    "saved": ("hf", "gguf"),
}
# What a client may send: text that spells special tokens, blanks at the ends, tokens that are matched everywhere.
CHAT = [("user", " 你好 <think>"), ("assistant", "好<|im_end|>。"), ("user", "再见</s><|eot_id|>🙂\n")]
ENDS = {"chatml": [2, 601], "legacy": [2, 601], "several_templates": [2, 300]}
ENDS |= {"qwen": [600, 602], "llama3": [601, 602], "gpt2": [600], "saved": [2, 602]}


def prompt(tokenizer: Any) -> list[int]:
    """What transformers makes of CHAT, with what messages spell left as text."""
    chat = [{"role": role, "content": content} for role, content in CHAT]
    return tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_dict=False, sanitize_control_tokens=True
    )


def texts_of(tokenizer: Any) -> list[list[int]]:
    return [tokenizer(text, split_special_tokens=True)["input_ids"] for text in TEXTS]


@pytest.mark.parametrize("kind", [*FOREIGN, *TOKENIZER_JSON])
def test_a_foreign_models_tokens_template_and_ends_are_the_same_in_every_format(
    tmp_path: Path, tiny_tokenizer_path: Path, kind: str
) -> None:
    # Both layouts get a share of the kinds.
    source = foreign(kind, tmp_path / "source", tiny_tokenizer_path, qk_norm=kind in ("qwen", "legacy"))
    theirs = transformers.AutoTokenizer.from_pretrained(source)
    convert(["--input", str(source), "--to", "megadec", "--output", str(tmp_path / "megadec")])
    for target in FORMATS.get(kind, ("hf",)):
        convert(["--input", str(tmp_path / "megadec"), "--to", target, "--output", str(tmp_path / target)])
    for name in ("source", "megadec", *FORMATS.get(kind, ("hf",))):
        served = open_language_model(tmp_path / name)
        assert list(served.tokenizer.end_ids) == ENDS[kind], name
        assert [served.tokenizer.prompt_ids(text) for text in TEXTS] == texts_of(theirs), name
        if theirs.chat_template:
            chat = [Message(role=role, content=content) for role, content in CHAT]
            assert served.template.ids(chat, served.tokenizer) == prompt(theirs), name
    if "hf" in FORMATS.get(kind, ("hf",)):
        check_hf_folder(tmp_path / "source", tmp_path / "hf", ENDS[kind])
    if "gguf" in FORMATS.get(kind, ()):
        check_gguf_file(tmp_path / "gguf" / "model.gguf", kind, theirs)


def check_hf_folder(source: Path, made: Path, ends: list[int]) -> None:
    """Opened by transformers, both are one tokenizer; what is said of sampling stays."""
    before, after = (transformers.AutoTokenizer.from_pretrained(folder) for folder in (source, made))
    assert texts_of(after) == texts_of(before)
    assert prompt(after) == prompt(before)
    assert after.special_tokens_map == before.special_tokens_map
    generation = json.loads((made / "generation_config.json").read_text())
    assert generation["eos_token_id"] == ends
    stated = source / "generation_config.json"
    kept = json.loads(stated.read_text()) if stated.is_file() else {}
    assert {**generation, **kept, "eos_token_id": ends} == generation


def check_gguf_file(file: Path, kind: str, theirs: Any) -> None:
    """The file alone says it all, for those who take it without the folder."""
    gguf = pytest.importorskip("gguf")
    reader = gguf.GGUFReader(file)
    said = {name: reader.get_field(f"tokenizer.{name}") for name in ("chat_template", "ggml.tokens", "ggml.token_type")}
    values = {name: field.contents() for name, field in said.items() if field is not None}
    assert values.get("chat_template") == theirs.chat_template
    added = theirs.get_added_vocab()
    assert {values["ggml.tokens"][number]: number for number in added.values()} == added
    control, defined = gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED
    for text, number in added.items():
        wanted = control if theirs.added_tokens_decoder[number].special else defined
        assert text == "<unk>" or values["ggml.token_type"][number] == wanted, text


def test_a_reading_of_a_tokenizer_that_transformers_does_not_share_is_refused(
    tmp_path: Path, tiny_tokenizer_path: Path
) -> None:
    source = foreign("chatml", tmp_path / "source", tiny_tokenizer_path)
    settings = json.loads((source / "tokenizer_config.json").read_text())
    without_bos = {key: value for key, value in settings.items() if key != "add_bos_token"}
    for changed, said in (
        ({**settings, "add_prefix_space": True}, "token ids of .*; tokenizer_config.json has add_prefix_space=True"),
        (without_bos, r"<s> \[1\] and its ids are wanted; .*add_bos_token=None"),
    ):
        (source / "tokenizer_config.json").write_text(json.dumps(changed))
        with pytest.raises(ExportError, match=said):
            convert(["--input", str(source), "--to", "megadec", "--output", str(tmp_path / "megadec")])
        assert not (tmp_path / "megadec").exists()


def test_a_pre_tokenizer_that_llama_cpp_has_no_name_for_is_refused(tmp_path: Path, tiny_tokenizer_path: Path) -> None:
    pytest.importorskip("cyllama")
    source = foreign("gpt2", tmp_path / "source", tiny_tokenizer_path)
    content = json.loads((source / "tokenizer.json").read_text())
    content["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, content["pre_tokenizer"]],
    }
    (source / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(
        ExportError, match=r"pre_tokenizer=.*llama\.cpp has a name for those of gpt-2, qwen2, llama-bpe"
    ):
        convert(["--input", str(source), "--to", "gguf", "--output", str(tmp_path / "gguf")])


def test_a_special_token_is_itself_in_a_template_of_our_own_export_and_text_where_a_text_is_asked_for(
    tmp_path: Path, tiny_tokenizer_path: Path
) -> None:
    to_hf(random_source(tiny_tokenizer_path), tmp_path / "hf")
    assert Tokenizer.load(tmp_path / "hf").is_plain
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    theirs.chat_template = CHATML.replace("<|im_start|>", "").replace("<|im_end|>", "{{ eos_token }}")
    ids = prompt(theirs)
    assert (ids[0], ids.count(theirs.bos_token_id), ids.count(theirs.eos_token_id)) == (1, 1, len(CHAT))
    assert theirs("</s>", split_special_tokens=True, add_special_tokens=False)["input_ids"][0] != theirs.eos_token_id

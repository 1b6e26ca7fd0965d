"""Folders as other people's models come: added tokens, chat templates and end tokens in each of the places for them.

The networks are tiny and random; what is foreign is the tokenizer: beside a tokenizer.model, or a byte-level BPE that
is trained on the samples with the library that Qwen and Llama 3 have theirs from.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from megadec.common.tokenizer import Tokenizer
from megadec.export.read.huggingface_files import write_model
from tests.support import PROJECT
from tests.support.sources import random_source

CHATML = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>"
    "\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Ends its answers with `</s>`, trims, and takes no message of a system.
ALTERNATING = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}[INST] {{ message.content | trim }} "
    "[/INST]{% elif message.role == 'assistant' %}{{ message.content }}{{ eos_token }}{% else %}"
    "{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)
SETTINGS = {
    "tokenizer_class": "LlamaTokenizer",
    "add_bos_token": True,
    "add_prefix_space": False,
    "legacy": False,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
}
Files = dict[str, Any]


def decoder_entries(size: int, *tokens: tuple[str, bool]) -> Files:
    """`added_tokens_decoder` with the usual three and these behind a vocabulary of `size`: (text, special)."""
    known = [(number, text, True) for number, text in enumerate(("<unk>", "<s>", "</s>"))]
    known += [(size + place, text, special) for place, (text, special) in enumerate(tokens)]
    form = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return {str(number): {"content": text, **form, "special": special} for number, text, special in known}


def chatml(size: int) -> Files:
    """Two special tokens, one that is matched in every text, two ends, a padding of its own."""
    tokens = (("<|im_start|>", True), ("<|im_end|>", True), ("<think>", False), ("[PAD]", True))
    config = {**SETTINGS, "added_tokens_decoder": decoder_entries(size, *tokens), "chat_template": CHATML}
    generation = {"eos_token_id": [2, size + 1], "temperature": 0.7, "do_sample": True, "repetition_penalty": 1.5}
    return {
        "tokenizer_config.json": {**config, "pad_token": "[PAD]", "additional_special_tokens": ["<|im_start|>"]},
        "generation_config.json": generation,
    }


def legacy(size: int) -> Files:
    """The files of an older transformers, a template of its own file, and an end token that is a new one."""
    return {
        "added_tokens.json": {"<|im_start|>": size, "<|im_end|>": size + 1},
        "special_tokens_map.json": {
            "bos_token": "<s>",
            "eos_token": {"content": "<|im_end|>", "lstrip": False, "normalized": False, "rstrip": False},
            "unk_token": "<unk>",
            "additional_special_tokens": ["<|im_start|>"],
        },
        "tokenizer_config.json": {key: SETTINGS[key] for key in SETTINGS if key != "eos_token"},
        "chat_template.jinja": CHATML,
        "config.json": {"eos_token_id": 2},
    }


def several_templates(size: int) -> Files:
    """No added token, a list of templates, no `<s>` in front of a prompt, and end tokens in config.json alone."""
    templates = [{"name": "default", "template": ALTERNATING}, {"name": "tool_use", "template": CHATML}]
    config = {**SETTINGS, "chat_template": templates, "add_bos_token": False}
    return {"tokenizer_config.json": config, "config.json": {"eos_token_id": [2, 300]}}


FOREIGN: dict[str, Callable[[int], Files]] = {
    "chatml": chatml,
    "legacy": legacy,
    "several_templates": several_templates,
}


# How Qwen2 and Llama 3 cut a text before the merges, from their tokenizer.json.
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
SAMPLE_LINES = 400


def byte_level(folder: Path, regex: str | None, special: Sequence[str], pieces: int = 600) -> Path:
    """A tokenizer.json of byte-level BPE: `pieces`, the special tokens, `<think>`; regex None is GPT-2's own."""
    tokenizers = pytest.importorskip("tokenizers")
    steps, found = tokenizers.pre_tokenizers, tokenizers.Tokenizer(tokenizers.models.BPE())
    cut = [steps.Split(tokenizers.Regex(regex), behavior="isolated")] if regex else []
    found.normalizer = tokenizers.normalizers.NFC() if regex == QWEN2 else None
    last = steps.ByteLevel(add_prefix_space=False, use_regex=regex is None)
    found.pre_tokenizer = steps.Sequence([*cut, last]) if cut else last
    found.decoder = tokenizers.decoders.ByteLevel()
    files = sorted((PROJECT / "samples" / "thucnews").glob("*/*.txt"))
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()][:SAMPLE_LINES]
    alphabet = steps.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=pieces, initial_alphabet=alphabet, show_progress=False)
    found.train_from_iterator(lines, trainer)
    found.add_special_tokens([tokenizers.AddedToken(text, special=True, normalized=False) for text in special])
    found.add_tokens([tokenizers.AddedToken("<think>", special=False, normalized=False)])
    if regex == LLAMA3:
        begin = special[0]
        ids = [(begin, found.token_to_id(begin))]
        found.post_processor = tokenizers.processors.TemplateProcessing(f"{begin} $A", f"{begin} $A {begin} $B", ids)
    folder.mkdir(parents=True, exist_ok=True)
    found.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def qwen(folder: Path, _: Path) -> tuple[Path, Files]:
    """No token begins a text, the end of a turn ends an answer, and so does that of a document."""
    path = byte_level(folder, QWEN2, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    config = {"tokenizer_class": "Qwen2Tokenizer", "bos_token": None, "eos_token": "<|im_end|>"}
    config |= {"pad_token": "<|endoftext|>", "chat_template": CHATML.removeprefix("{{ bos_token }}")}
    return path, {
        "tokenizer_config.json": config,
        "generation_config.json": {"eos_token_id": [602, 600]},
        "config.json": {"bos_token_id": 600, "eos_token_id": 602},
    }


def llama3(folder: Path, _: Path) -> tuple[Path, Files]:
    """A token that begins a text, put there by tokenizer.json."""
    path = byte_level(folder, LLAMA3, ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    return path, {
        "tokenizer_config.json": {**config, "chat_template": CHATML.replace("<|im_end|>", "<|eot_id|>")},
        "config.json": {"bos_token_id": 600, "eos_token_id": [601, 602]},
    }


def gpt2(folder: Path, _: Path) -> tuple[Path, Files]:
    """One token for all: what ends a document is the only special one but for another that nothing names."""
    path = byte_level(folder, None, ("<|endoftext|>", "<|start|>"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|start|>", "eos_token": "<|endoftext|>"}
    return path, {"tokenizer_config.json": config, "config.json": {"bos_token_id": 601, "eos_token_id": 600}}


def saved(folder: Path, tokenizer_path: Path) -> tuple[Path, Files]:
    """What transformers saves of a tokenizer of ours that got tokens, a template, another end: no tokenizer.model."""
    transformers = pytest.importorskip("transformers")
    before = folder.with_name(f"{folder.name}-before")
    before.mkdir(parents=True)
    shutil.copyfile(tokenizer_path, before / "tokenizer.model")
    (before / "tokenizer_config.json").write_text(json.dumps(SETTINGS))
    tokenizer = transformers.AutoTokenizer.from_pretrained(before)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "pad_token": "[PAD]"})
    tokenizer.add_tokens(["<think>"])
    tokenizer.chat_template, tokenizer.eos_token = CHATML, "<|im_end|>"
    tokenizer.save_pretrained(folder)
    assert not (folder / "tokenizer.model").exists()
    return folder / "tokenizer.json", {"config.json": {"eos_token_id": 2}}


TOKENIZER_JSON: dict[str, Callable[[Path, Path], tuple[Path, Files]]] = {
    "qwen": qwen,
    "llama3": llama3,
    "gpt2": gpt2,
    "saved": saved,
}


def write_files(folder: Path, tokenizer_path: Path, files: Files) -> None:
    """A vocabulary, and these files beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer_path.parent != folder:
        shutil.copyfile(tokenizer_path, folder / tokenizer_path.name)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        (folder / name).write_text(text, encoding="utf-8")


def write_foreign(folder: Path, tokenizer_path: Path, files: Files, **shape: Any) -> Path:
    """A model in a Hugging Face layout with these files; a `config.json` among them is laid over the model's own."""
    write_files(folder, tokenizer_path, files)
    tokenizer = Tokenizer.load(folder)
    own = {name: (folder / name).read_bytes() for name in ("generation_config.json",) if name in files}
    size = tokenizer.vocabulary_size + 16
    source = random_source(tokenizer.path, **{"vocabulary_size": size, **shape})
    write_model(source, folder, torch.float32, tokenizer, 2**30)
    config = json.loads((folder / "config.json").read_text()) | files.get("config.json", {})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").unlink()
    for name, content in own.items():
        (folder / name).write_bytes(content)
    return folder


def foreign(kind: str, folder: Path, tokenizer_path: Path, **shape: Any) -> Path:
    """A folder of one of the kinds; those of FOREIGN are beside this tokenizer.model."""
    if kind in FOREIGN:
        files = FOREIGN[kind](Tokenizer.load(tokenizer_path).vocabulary_size)
        return write_foreign(folder, tokenizer_path, files, **shape)
    return write_foreign(folder, *TOKENIZER_JSON[kind](folder, tokenizer_path), **shape)

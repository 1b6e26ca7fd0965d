"""The Hugging Face export: written, loaded again, compared, and only then named. The door to transformers.

AutoModelForCausalLM (of a classifier AutoModelForSequenceClassification) and AutoTokenizer open the folder with no code
of ours. Writing needs the memory of one tensor, but the proof holds the model once in float32 (transformers' weights,
which our own decoder shares after they were found bit-equal to the source).
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megadec.common.errors import ExportError, needs_extra
from megadec.common.files import read_json, write_json
from megadec.common.tokenizer import Tokenizer
from megadec.common.tokenizer_files import CONFIG_FILE as TOKENIZER_CONFIG_FILE
from megadec.common.tokenizer_files import JSON_FILE as TOKENIZER_JSON_FILE
from megadec.decoder.model import Decoder
from megadec.export.huggingface.layouts import in_layout
from megadec.export.parity.compare import (
    Ids,
    Mode,
    Parity,
    compare_classifier,
    compare_language_model,
    compare_tokenizer,
    until_end,
)
from megadec.export.parity.folder import write_proven
from megadec.export.read.huggingface_files import read_folder, write_model
from megadec.export.read.load import decoder_with
from megadec.export.read.source import ModelSource, check_equal
from megadec.export.read.tensor_names import layout_of, rename

MAX_SHARD_BYTES = 5_000_000_000
# What most often makes transformers give other ids than a tokenizer.model, for the message.
DECISIVE_KEYS = ("add_prefix_space", "add_bos_token", "tokenizer_class")
# Chats that a template is compared on; one that a template refuses, such as a system's message, is left out.
CHATS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("user", "你好"),),
    (("user", " 长江有多长？\n"), ("assistant", "约6300公里。"), ("user", "<s>黄河呢</s>")),
    (("system", "你是一个助手。"), ("user", "Hello, 世界 🙂")),
)


def to_hf(
    source: ModelSource,
    output: Path,
    *,
    dtype: torch.dtype | None = None,
    layout: str = "auto",
    max_shard_bytes: int = MAX_SHARD_BYTES,
    parity: Mode = "full",
) -> Parity:
    """Export to the folder `output`, which appears when transformers' weights, ids, logits and text equal ours.

    Of a classifier the labels are compared in place of greedy text. dtype: torch.float32 or torch.bfloat16; None is
    what the weights were computed in. layout: auto, llama, qwen2 or qwen3. Raises ExportError for a mismatch or a shape
    of another layout, ConfigError when `output` exists, MissingExtraError without transformers, StorageError.
    """
    source, rounded = in_layout(source, layout), dtype or source.dtype
    transformers = load_transformers()

    def write(folder: Path, tokenizer: Tokenizer) -> None:
        write_model(source, folder, rounded, tokenizer, max_shard_bytes)
        write_tokenizer(transformers, folder, source, tokenizer)

    check = partial(check_hf, source=source, dtype=rounded, parity=parity)
    return write_proven(source, output, f"{layout_of(source.shape)} layout, {rounded},", write, check)


def check_hf(folder: Path, source: ModelSource, dtype: torch.dtype, parity: Mode = "full") -> Parity:
    """Load `folder` with transformers and compare it with its source. Raises ExportError naming what differs."""
    transformers = load_transformers()
    ours = Tokenizer.load(source.tokenizer_path)
    read_folder(folder)
    theirs, texts = compare_with_transformers(ours, folder, chats=source.classes is None)
    model, decoder = load_both(folder, source, dtype)
    if source.classes is not None:
        _compare_labels(model.config, source)
        return compare_classifier(decoder, ours, partial(_classify, model, theirs), parity, texts=texts)
    ends = model.generation_config.eos_token_id
    if tuple(sorted(ends if isinstance(ends, list) else [ends])) != ours.end_ids:
        raise ExportError(f"transformers ends an answer at {ends}; those of {source.path} are {list(ours.end_ids)}")
    # Greedy, whatever the model's own generation_config.json says of sampling.
    model.generation_config = transformers.GenerationConfig(eos_token_id=list(ours.end_ids), pad_token_id=ours.eos_id)
    return compare_language_model(decoder, ours, partial(_continue, model, ours), parity, texts=texts)


def load_both(folder: Path, source: ModelSource, dtype: torch.dtype | None) -> tuple[Any, Decoder]:
    """transformers' float32 model of `folder`, and our decoder of the source on the very same weights.

    dtype: what the folder's weights were rounded to; None: they are the source's own. Raises ExportError for a tensor
    that is not the source's.
    """
    kind = "AutoModelForCausalLM" if source.classes is None else "AutoModelForSequenceClassification"
    model = getattr(load_transformers(), kind).from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    found = {rename(name, of="hugging_face"): tensor.detach() for name, tensor in model.named_parameters()}
    check_equal(source, found, lambda name: source.tensor(name).to(dtype), "transformers")
    return model.eval(), decoder_with(source.shape, found, source.classes)


def compare_with_transformers(ours: Tokenizer, folder: Path, *, chats: bool) -> tuple[Any, int]:
    """AutoTokenizer's reading of `folder`, compared with ours on texts and `chats`; and how many of them there were.

    In a text nothing is read as a special token (`split_special_tokens`), in a template all are. Raises ExportError,
    MissingExtraError.
    """
    theirs = load_transformers().AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def encode(text: str, special: bool, split: bool = True) -> list[int]:
        return list(theirs(text, add_special_tokens=special, split_special_tokens=split)["input_ids"])

    try:
        texts = compare_tokenizer(
            ours,
            encode,
            lambda ids: str(theirs.decode(ids, skip_special_tokens=True)),
            (ours.bos_id if "bos_token" not in ours.names else theirs.bos_token_id, theirs.eos_token_id),
            lambda text: encode(text, False, False),
        )
    except ExportError as error:
        stated = read_json(folder / TOKENIZER_CONFIG_FILE) if (folder / TOKENIZER_CONFIG_FILE).is_file() else {}
        keys = ", ".join(f"{key}={stated.get(key)!r}" for key in DECISIVE_KEYS)
        raise ExportError(f"{error}; {TOKENIZER_CONFIG_FILE} has {keys}") from error
    return theirs, texts + (_compare_chats(ours, theirs, folder) if chats and "default" in ours.templates else 0)


def _compare_chats(ours: Tokenizer, theirs: Any, folder: Path) -> int:
    """Compare the ids of chats that the folder's template makes; gives how many it takes. Raises ExportError."""
    compared, refusals = 0, []
    for chat in CHATS:
        messages = [{"role": role, "content": content} for role, content in chat]
        make = partial(theirs.apply_chat_template, messages, add_generation_prompt=True)
        try:
            rendered = make(tokenize=False)
        except Exception as error:  # Jinja's, and whatever a template runs into
            refusals.append(str(error))
            continue
        if (wanted := list(make(return_dict=False))) != (found := ours.encode_template(rendered)):
            split = "; its tokenizer_config.json has split_special_tokens=true" * theirs.split_special_tokens
            raise ExportError(
                f"{folder}: chat {rendered!r}: transformers gives the ids {wanted}, megadec {found}{split}"
            )
        compared += 1
    if not compared:
        raise ExportError(f"{folder}: chat_template makes none of the chats that it is compared on: {refusals[0]}")
    return compared


def write_tokenizer(transformers: Any, folder: Path, source: ModelSource, tokenizer: Tokenizer) -> None:
    """tokenizer.json and tokenizer_config.json, made of the tokenizer.model beside them.

    A tokenizer that came with files of its own keeps them. Of a language model a special token that stands in a text is
    itself, as in every model that people chat with: transformers tokenizes a rendered template as a text, and knows no
    difference. A classifier, which has no template, keeps such a text a text, as in training.
    """
    # `</s>`, which no text holds, is a classifier's padding, so that no row is added to the embedding; transformers
    # reads the logits behind the last id that is not padding.
    ends = tokenizer.entry(tokenizer.eos_id).text
    padding = {} if source.classes is None else {"pad_token": ends, "padding_side": "right"}
    strict = {"split_special_tokens": source.classes is not None}
    config_file = folder / TOKENIZER_CONFIG_FILE
    if not tokenizer.is_plain:
        if source.classes is not None:
            stated = read_json(config_file, ExportError) if config_file.is_file() else {}
            write_json(config_file, {**stated, **strict, **padding})
        return
    settings = {
        "add_bos_token": True,
        "add_eos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "legacy": False,
        "model_max_length": source.shape.max_position_embeddings,
        **strict,
    }
    # `vocab_file=` is silently ignored by transformers 5: from_pretrained on a folder is what reads the model.
    theirs = transformers.LlamaTokenizer.from_pretrained(folder, local_files_only=True, **settings)
    # Not save_pretrained: it reports a full disk as a bare Exception, and writes a tokenizer_config.json on which
    # transformers 4 fails.
    (folder / TOKENIZER_JSON_FILE).write_text(theirs.backend_tokenizer.to_str(pretty=True), encoding="utf-8")
    named = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_json(config_file, {**named, **settings, **padding})


def _continue(model: Any, tokenizer: Tokenizer, prompts: Sequence[Ids], tokens: int) -> list[tuple[list[int], Tensor]]:
    """`Continue` by transformers: the logits of the prompts padded behind, then `generate`, which wants padding in
    front, with the logits that it chose from."""
    longest, eos_id = max(map(len, prompts)), tokenizer.eos_id
    pads = [longest - len(ids) for ids in prompts]
    sizes = list(zip(pads, prompts, strict=True))
    with torch.inference_mode():
        logits_BSV = model(
            torch.tensor([[*ids, *[eos_id] * pad] for pad, ids in sizes]),
            attention_mask=torch.tensor([[1] * len(ids) + [0] * pad for pad, ids in sizes]),
            use_cache=False,
        ).logits
    found = model.generate(
        torch.tensor([[eos_id] * pad + list(ids) for pad, ids in sizes]),
        attention_mask=torch.tensor([[0] * pad + [1] * len(ids) for pad, ids in sizes]),
        do_sample=False,
        max_new_tokens=tokens,
        return_dict_in_generate=True,
        output_logits=True,
    )
    steps_BTV = torch.stack(found.logits, dim=1)
    continued = []
    for row, (ids, new) in enumerate(zip(prompts, found.sequences[:, longest:].tolist(), strict=True)):
        made = until_end(new, tokenizer.end_ids)
        continued.append((made, torch.cat([logits_BSV[row, : len(ids) - 1], steps_BTV[row, : len(made)]])))
    return continued


def _classify(model: Any, tokenizer: Any, rows: Sequence[Ids]) -> Tensor:
    """Logits as a user of transformers gets them: the tokenizer pads, the model finds each text's last token."""
    batch = tokenizer.pad({"input_ids": [list(ids) for ids in rows]}, return_tensors="pt")
    logits_BL: Tensor = model(**batch).logits
    return logits_BL


def _compare_labels(config: Any, source: ModelSource) -> None:
    wanted = dict(enumerate(source.task["labels"]))
    if config.id2label != wanted or config.label2id != {label: number for number, label in wanted.items()}:
        raise ExportError(f"transformers has labels {config.id2label}; those of {source.path} are {wanted}")


def load_transformers() -> Any:
    """The library, silent: what it would warn of is compared, or becomes an error, here. Raises MissingExtraError."""
    with needs_extra("transformers", "export"):
        import transformers
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers

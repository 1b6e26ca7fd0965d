"""The Hugging Face export: written, loaded again, compared, and only then named. The door to transformers.

In comes a ModelSource, out goes a folder that AutoModelForCausalLM and AutoTokenizer open with no code of ours. Writing
needs the memory of one tensor, but the proof holds the model once in float32 (transformers' weights, which our own
decoder shares after they were found bit-equal to the source).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from megadec.common.errors import ConfigError, ExportError, MissingExtraError
from megadec.common.files import whole_folder, write_json
from megadec.common.log import logger
from megadec.common.tokenizer import FILE_NAME as TOKENIZER_FILE
from megadec.common.tokenizer import Tokenizer
from megadec.decoder.model import Decoder
from megadec.export.parity.compare import (
    GREEDY_TOKENS,
    TEXTS,
    Parity,
    compare_greedy,
    compare_logits,
    compare_token_ids,
    prompt_ids,
)
from megadec.export.read.huggingface_files import read_folder, write_model
from megadec.export.read.layout import choose_layout
from megadec.export.read.load import decoder_with
from megadec.export.read.names import Layout, to_hugging_face
from megadec.export.read.provenance import PROVENANCE_FILE, provenance
from megadec.export.read.source import ModelSource

MAX_SHARD_BYTES = 5_000_000_000
GENERATED_AT_ONCE = 8
TOKENIZER_JSON_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"

log = logger(__name__)


def to_hf(
    source: ModelSource,
    output: Path,
    *,
    dtype: torch.dtype | None = None,
    layout: str = "auto",
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Parity:
    """Export to the folder `output`, which appears when transformers' weights, ids, logits and greedy text equal ours.

    dtype: torch.float32 or torch.bfloat16; None is what the weights were computed in. layout: auto, llama or qwen3.
    Raises ExportError for a mismatch or a shape that the layout cannot express, ConfigError when `output` exists or
    the source is a classifier, MissingExtraError without transformers, StorageError.
    """
    if source.classes is not None:
        raise ConfigError(f"{source.path} is a classifier; its export is that of `to_hf_classifier`")
    chosen = choose_layout(source.shape, layout)
    dtype = dtype or source.dtype
    tokenizer = Tokenizer.load(source.tokenizer_path)
    transformers = load_transformers()
    with whole_folder(output) as folder:
        log.info("writing %s layout, %s, to %s", chosen, dtype, output)
        write_model(source, folder, chosen, dtype, tokenizer, max_shard_bytes)
        write_tokenizer(transformers, tokenizer, folder, source.shape.max_position_embeddings)
        parity = check_export(folder, source, dtype)
        write_json(folder / PROVENANCE_FILE, provenance(source, tokenizer, parity))
    log.info("%s: %s", output, parity)
    return parity


def check_export(folder: Path, source: ModelSource, dtype: torch.dtype) -> Parity:
    """Load `folder` with transformers and compare it with its source. Raises ExportError naming what differs."""
    transformers = load_transformers()
    tokenizer = Tokenizer.load(source.tokenizer_path)
    layout = choose_layout(source.shape, "auto")
    read_folder(folder)
    with quiet(transformers):
        texts = compare_tokenizer(transformers, tokenizer, folder)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        model.eval()
        decoder = decoder_of_equal_weights(model, source, layout, dtype)
        prompts = prompt_ids(tokenizer, source.shape.max_position_embeddings)
        difference = compare_logits(prompts, decoder, lambda ids_BS: model(ids_BS).logits)
        generate = _greedy_by(model, prompts, tokenizer.eos_id)
        greedy = compare_greedy(prompts, decoder, generate, tokenizer.eos_id, source.shape.max_position_embeddings)
    return Parity(difference, len(prompts), greedy, texts)


def decoder_of_equal_weights(model: Any, source: ModelSource, layout: Layout, dtype: torch.dtype) -> Decoder:
    """Our decoder on transformers' weights, each compared bit for bit with the source rounded to the export's dtype."""
    theirs = dict(model.named_parameters())
    shared: dict[str, Tensor] = {}
    for name in source.names():
        found = theirs.pop(to_hugging_face(name, layout), None)
        wanted = source.tensor(name).to(dtype).to(torch.float32)
        if found is None or not torch.equal(found.detach(), wanted):
            raise ExportError(f"tensor {name!r}: what transformers loaded is not what {source.path} holds")
        shared[name] = found.detach()
    if theirs:
        raise ExportError(f"transformers loaded {len(theirs)} tensors that {source.path} has not: {min(theirs)!r}, ...")
    return decoder_with(source.shape, shared, source.classes)


def compare_tokenizer(transformers: Any, ours: Tokenizer, folder: Path) -> int:
    """Compare AutoTokenizer with ours on the fixed texts and every piece; gives how many. Raises ExportError."""
    theirs = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def encode(texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = theirs(list(texts), add_special_tokens=False)["input_ids"]
        return ids

    def decode(sequences: Sequence[Sequence[int]]) -> list[str]:
        return [str(theirs.decode(list(ids), skip_special_tokens=True)) for ids in sequences]

    compared = compare_token_ids(ours, encode, decode)
    for text, ids in zip(TEXTS, theirs(list(TEXTS))["input_ids"], strict=True):
        if ids != [ours.bos_id, *ours.encode(text)]:
            raise ExportError(
                f"{folder}: AutoTokenizer gives {ids} for {text!r}; <s> ({ours.bos_id}) and its ids are wanted"
            )
    if (theirs.bos_token_id, theirs.eos_token_id) != (ours.bos_id, ours.eos_id):
        raise ExportError(f"{folder}: AutoTokenizer has <s>={theirs.bos_token_id} and </s>={theirs.eos_token_id}")
    return compared


def write_tokenizer(
    transformers: Any,
    tokenizer: Tokenizer,
    folder: Path,
    max_position_embeddings: int,
    more: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """tokenizer.json, tokenizer_config.json and tokenizer.model, for fast tokenizers, slow ones, vLLM and llama.cpp.

    more: further keys of tokenizer_config.json.
    """
    shutil.copyfile(tokenizer.path, folder / TOKENIZER_FILE)
    settings = {
        "add_bos_token": True,
        "add_eos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "legacy": False,
        "model_max_length": max_position_embeddings,
        # Text that spells "<s>" stays text, as in training.
        "split_special_tokens": True,
    }
    with quiet(transformers):
        # `vocab_file=` is silently ignored by transformers 5: from_pretrained on a folder is what reads the model.
        theirs = transformers.LlamaTokenizer.from_pretrained(folder, local_files_only=True, **settings)
        # Not save_pretrained: it reports a full disk as a bare Exception, and writes a tokenizer_config.json on which
        # transformers 4 fails.
        (folder / TOKENIZER_JSON_FILE).write_text(theirs.backend_tokenizer.to_str(pretty=True), encoding="utf-8")
    named = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_json(folder / TOKENIZER_CONFIG_FILE, {**named, **settings, **more})


def _greedy_by(model: Any, prompts: Sequence[Sequence[int]], eos_id: int) -> Callable[[list[int], int], list[int]]:
    """transformers' greedy text of all prompts, computed some at a time: left of the shorter ones stands padding."""
    made: dict[tuple[int, ...], list[int]] = {}
    ordered = sorted(prompts, key=len)
    for start in range(0, len(ordered), GENERATED_AT_ONCE):
        rows = ordered[start : start + GENERATED_AT_ONCE]
        pads = [len(rows[-1]) - len(row) for row in rows]
        text_BS = model.generate(
            torch.tensor([[eos_id] * pad + list(row) for pad, row in zip(pads, rows, strict=True)]),
            attention_mask=torch.tensor([[0] * pad + [1] * len(row) for pad, row in zip(pads, rows, strict=True)]),
            do_sample=False,
            max_new_tokens=GREEDY_TOKENS,
            pad_token_id=eos_id,
        )
        for row, new in zip(rows, text_BS[:, len(rows[-1]) :].tolist(), strict=True):
            made[tuple(row)] = new[: new.index(eos_id) + 1] if eos_id in new else new
    return lambda prompt, tokens: made[tuple(prompt)][:tokens]


def load_transformers() -> Any:
    """The library. Raises MissingExtraError."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("transformers", "export") from error
    return transformers


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """transformers without progress bars and advice; what it would warn of is compared here and becomes an error."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()

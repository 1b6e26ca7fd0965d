"""The Hugging Face export: written, loaded again, compared, and only then named. The door to transformers.

AutoModelForCausalLM (of a classifier AutoModelForSequenceClassification) and AutoTokenizer open the folder with no code
of ours. Writing needs the memory of one tensor, but the proof holds the model once in float32 (transformers' weights,
which our own decoder shares after they were found bit-equal to the source).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megadec.common.errors import ExportError, MissingExtraError
from megadec.common.files import write_json
from megadec.common.tokenizer import Tokenizer
from megadec.decoder.model import Decoder
from megadec.export.parity.compare import (
    GREEDY_TOKENS,
    Classify,
    Parity,
    compare_classifier,
    compare_greedy,
    compare_logits,
    compare_tokenizer,
    prompt_ids,
)
from megadec.export.parity.folder import write_proven
from megadec.export.read.huggingface_files import choose_layout, read_folder, write_model
from megadec.export.read.load import decoder_with
from megadec.export.read.names import layout_of, rename
from megadec.export.read.source import ModelSource

MAX_SHARD_BYTES = 5_000_000_000
GENERATED_AT_ONCE = 8
TOKENIZER_JSON_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
# `</s>`, which no text holds, is a classifier's padding, so that no row is added to the embedding; transformers reads
# the logits behind the last id that is not padding.
PADDING = {"pad_token": "</s>", "padding_side": "right"}


def to_hf(
    source: ModelSource,
    output: Path,
    *,
    dtype: torch.dtype | None = None,
    layout: str = "auto",
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Parity:
    """Export to the folder `output`, which appears when transformers' weights, ids, logits and text equal ours.

    Of a classifier the labels are compared in place of greedy text. dtype: torch.float32 or torch.bfloat16; None is
    what the weights were computed in. layout: auto, llama or qwen3. Raises ExportError for a mismatch or a shape that
    the layout cannot express, ConfigError when `output` exists, MissingExtraError without transformers, StorageError.
    """
    chosen, rounded = choose_layout(source.shape, layout), dtype or source.dtype
    transformers = load_transformers()

    def write(folder: Path, tokenizer: Tokenizer) -> None:
        write_model(source, folder, rounded, tokenizer, max_shard_bytes)
        write_tokenizer(transformers, folder, source)

    return write_proven(
        source, output, f"{chosen} layout, {rounded},", write, lambda folder: check_hf(folder, source, rounded)
    )


def check_hf(folder: Path, source: ModelSource, dtype: torch.dtype) -> Parity:
    """Load `folder` with transformers and compare it with its source. Raises ExportError naming what differs."""
    transformers = load_transformers()
    ours = Tokenizer.load(source.tokenizer_path)
    context = source.shape.max_position_embeddings
    read_folder(folder)
    kind = "AutoModelForCausalLM" if source.classes is None else "AutoModelForSequenceClassification"
    with quiet(transformers):
        theirs = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        texts = _compare_tokenizer(theirs, ours)
        model = getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        model.eval()
        decoder = decoder_of_equal_weights(model, source, dtype)
        prompts = prompt_ids(ours, context)
        if source.classes is not None:
            _compare_labels(model.config, source)
            difference = compare_classifier(prompts, decoder, _classify_by(model, theirs))
            return Parity(difference, len(prompts), greedy_tokens=0, texts=texts)
        difference = compare_logits(prompts, decoder, lambda ids_BS: model(ids_BS).logits)
        greedy = compare_greedy(prompts, decoder, _greedy_by(model, prompts, ours.eos_id), ours.eos_id, context)
    return Parity(difference, len(prompts), greedy, texts)


def decoder_of_equal_weights(model: Any, source: ModelSource, dtype: torch.dtype) -> Decoder:
    """Our decoder on transformers' weights, each compared bit for bit with the source rounded to the export's dtype."""
    theirs, layout = dict(model.named_parameters()), layout_of(source.shape)
    shared: dict[str, Tensor] = {}
    for name in source.names():
        found = theirs.pop(rename(name, layout, to="hugging_face"), None)
        wanted = source.tensor(name).to(dtype).to(torch.float32)
        if found is None or not torch.equal(found.detach(), wanted):
            raise ExportError(f"tensor {name!r}: what transformers loaded is not what {source.path} holds")
        shared[name] = found.detach()
    if theirs:
        raise ExportError(f"transformers loaded {len(theirs)} tensors that {source.path} has not: {min(theirs)!r}, ...")
    return decoder_with(source.shape, shared, source.classes)


def _compare_tokenizer(theirs: Any, ours: Tokenizer) -> int:
    def encode(texts: Sequence[str], special: bool) -> list[list[int]]:
        ids: list[list[int]] = theirs(list(texts), add_special_tokens=special)["input_ids"]
        return ids

    def decode(sequences: Sequence[Sequence[int]]) -> list[str]:
        return [str(theirs.decode(list(ids), skip_special_tokens=True)) for ids in sequences]

    return compare_tokenizer(ours, encode, decode, (theirs.bos_token_id, theirs.eos_token_id))


def write_tokenizer(transformers: Any, folder: Path, source: ModelSource) -> None:
    """tokenizer.json and tokenizer_config.json, made of the tokenizer.model beside them."""
    settings = {
        "add_bos_token": True,
        "add_eos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "legacy": False,
        "model_max_length": source.shape.max_position_embeddings,
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
    padding = {} if source.classes is None else PADDING
    write_json(folder / TOKENIZER_CONFIG_FILE, {**named, **settings, **padding})


def _greedy_by(model: Any, prompts: Sequence[Sequence[int]], eos_id: int) -> Callable[[list[int], int], list[int]]:
    """transformers' greedy text of all prompts, generated in left-padded batches."""
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


def _classify_by(model: Any, tokenizer: Any) -> Classify:
    """Logits as a user of transformers gets them: the tokenizer pads, the model finds each text's last token."""

    def classify(rows: Any) -> torch.Tensor:
        batch = tokenizer.pad({"input_ids": [list(ids) for ids in rows]}, return_tensors="pt")
        logits_BL: torch.Tensor = model(**batch).logits
        return logits_BL

    return classify


def _compare_labels(config: Any, source: ModelSource) -> None:
    wanted = dict(enumerate(source.task["labels"]))
    if config.id2label != wanted or config.label2id != {label: number for number, label in wanted.items()}:
        raise ExportError(f"transformers has labels {config.id2label}; those of {source.path} are {wanted}")


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

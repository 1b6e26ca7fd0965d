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
from megadec.common.files import write_json
from megadec.common.tokenizer import Tokenizer
from megadec.decoder.model import Decoder
from megadec.export.huggingface.layouts import in_layout
from megadec.export.parity.compare import Ids, Parity, compare_classifier, compare_language_model, compare_tokenizer
from megadec.export.parity.folder import write_proven
from megadec.export.read.huggingface_files import read_folder, write_model
from megadec.export.read.load import decoder_with
from megadec.export.read.source import ModelSource, check_equal
from megadec.export.read.tensor_names import layout_of, rename

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
    what the weights were computed in. layout: auto, llama, qwen2 or qwen3. Raises ExportError for a mismatch or a shape
    of another layout, ConfigError when `output` exists, MissingExtraError without transformers, StorageError.
    """
    source, rounded = in_layout(source, layout), dtype or source.dtype
    transformers = load_transformers()

    def write(folder: Path, tokenizer: Tokenizer) -> None:
        write_model(source, folder, rounded, tokenizer, max_shard_bytes)
        write_tokenizer(transformers, folder, source)

    check = partial(check_hf, source=source, dtype=rounded)
    return write_proven(source, output, f"{layout_of(source.shape)} layout, {rounded},", write, check)


def check_hf(folder: Path, source: ModelSource, dtype: torch.dtype) -> Parity:
    """Load `folder` with transformers and compare it with its source. Raises ExportError naming what differs."""
    transformers = load_transformers()
    ours = Tokenizer.load(source.tokenizer_path)
    read_folder(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    texts = compare_tokenizer(
        ours,
        lambda text, special: list(theirs(text, add_special_tokens=special)["input_ids"]),
        lambda ids: str(theirs.decode(ids, skip_special_tokens=True)),
        (theirs.bos_token_id, theirs.eos_token_id),
    )
    model, decoder = load_both(folder, source, dtype)
    if source.classes is not None:
        _compare_labels(model.config, source)
        return compare_classifier(decoder, ours, partial(_classify, model, theirs), texts)
    generate = partial(_generate, model, ours.eos_id)
    return compare_language_model(decoder, ours, [lambda ids: model(torch.tensor([ids])).logits[0]], generate, texts)


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
    # `vocab_file=` is silently ignored by transformers 5: from_pretrained on a folder is what reads the model.
    theirs = transformers.LlamaTokenizer.from_pretrained(folder, local_files_only=True, **settings)
    # Not save_pretrained: it reports a full disk as a bare Exception, and writes a tokenizer_config.json on which
    # transformers 4 fails.
    (folder / TOKENIZER_JSON_FILE).write_text(theirs.backend_tokenizer.to_str(pretty=True), encoding="utf-8")
    named = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    padding = {} if source.classes is None else PADDING
    write_json(folder / TOKENIZER_CONFIG_FILE, {**named, **settings, **padding})


def _generate(model: Any, eos_id: int, prompts: Sequence[Ids], tokens: int) -> list[list[int]]:
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
            max_new_tokens=tokens,
            pad_token_id=eos_id,
        )
        for row, new in zip(rows, text_BS[:, len(rows[-1]) :].tolist(), strict=True):
            made[tuple(row)] = new[: new.index(eos_id) + 1] if eos_id in new else new
    return [made[tuple(prompt)] for prompt in prompts]


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

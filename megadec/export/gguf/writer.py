"""The GGUF export: written, read back, loaded in llama.cpp, compared, and only then named. The door to gguf.

The folder has model.gguf, tokenizer.model and megadec.json. One file whatever its size, which llama.cpp maps; writing
needs the memory of one tensor, the proof the model once in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from megadec.common.errors import ConfigError, ExportError, MissingExtraError
from megadec.common.files import sha256_of
from megadec.common.tokenizer import FILE_NAME as TOKENIZER_FILE
from megadec.common.tokenizer import Tokenizer
from megadec.decoder.shape import DecoderShape
from megadec.export.gguf.fields import Value, fields_of
from megadec.export.gguf.llama_cpp import EXTRA, LlamaCppModel
from megadec.export.parity.compare import (
    Parity,
    compare_greedy,
    compare_logits,
    compare_tokenizer,
    greedy_by,
    prompt_ids,
)
from megadec.export.parity.folder import write_proven
from megadec.export.read.load import decoder_with
from megadec.export.read.names import layout_of, rename
from megadec.export.read.source import ModelSource

MODEL_FILE = "model.gguf"
ALIGNMENT_BYTES = 32
Q8_BLOCK_VALUES = 32


@dataclass(frozen=True, slots=True)
class Format:
    """How a file holds its matrices (vectors are float32 always).

    kind: gguf's name of it. dtype: what the values are rounded to, None for blocks of 8-bit numbers with a scale each.
    tolerance: of llama.cpp's logits against ours on the very same weights, see `compare_logits`.
    """

    kind: str
    file_type: int
    dtype: torch.dtype | None
    tolerance: float


# llama.cpp rounds what a matrix is multiplied with to the matrix' own format, which we do not, so its logits are off by
# about as much as that format is coarse. A trained model of 12.6M parameters (qwen3 layout) gave 2e-5, 4e-3, 3e-2 and
# 8e-2 standard deviations of its logits; the tolerances leave room for deeper models.
FORMATS = {
    "float32": Format("F32", 0, torch.float32, 1e-3),
    "float16": Format("F16", 1, torch.float16, 1e-2),
    "bfloat16": Format("BF16", 32, torch.bfloat16, 1e-1),
    "q8_0": Format("Q8_0", 7, None, 3e-1),
}


def to_gguf(source: ModelSource, output: Path, *, dtype: str | None = None) -> Parity:
    """Export to the folder `output`, which appears when llama.cpp's weights, ids, logits and greedy text equal ours.

    dtype: one of FORMATS; None is what the weights were computed in. Raises ExportError for a mismatch or what GGUF
    cannot express, ConfigError when `output` exists, MissingExtraError without gguf and cyllama, StorageError.
    """
    chosen = dtype or str(source.dtype).removeprefix("torch.")
    check_expressible(source, chosen)
    return write_proven(
        source,
        output,
        f"GGUF, {chosen},",
        lambda folder, tokenizer: write_gguf(folder / MODEL_FILE, source, tokenizer, chosen),
        lambda folder: check_gguf(folder, source, chosen),
    )


def check_expressible(source: ModelSource, dtype: str) -> None:
    """Raise ExportError for what a GGUF file cannot hold, ConfigError for a format that is not in FORMATS."""
    if dtype not in FORMATS:
        raise ConfigError(f"dtype={dtype}: a GGUF file holds {', '.join(FORMATS)}")
    if source.classes is not None:
        raise ExportError(
            f"{source.path} is a classifier: llama.cpp's {layout_of(source.shape)} has no layer for its classes; "
            "convert it --to hf or --to onnx"
        )
    for name, size in source.sizes.items():
        if FORMATS[dtype].dtype is None and len(size) > 1 and size[-1] % Q8_BLOCK_VALUES:
            raise ExportError(
                f"dtype=q8_0: a row of tensor {name!r} has {size[-1]} values; q8_0 packs blocks of {Q8_BLOCK_VALUES}"
            )


def write_gguf(path: Path, source: ModelSource, tokenizer: Tokenizer, dtype: str) -> None:
    """Write one file, holding one tensor in memory at a time. Raises ExportError, MissingExtraError."""
    library, layout, sizes = _gguf(), layout_of(source.shape), source.sizes
    writer = library.GGUFWriter(path, layout)
    for key, value in _fields(source, tokenizer, dtype).items():
        if key != "general.architecture":  # the writer has added it
            writer.add_key_value(key, value, _value_type(library, value))
    for name, size in sizes.items():
        kind = _kind(library, size, dtype)
        values, block_bytes = library.GGML_QUANT_SIZES[kind]
        stored_bytes = math.prod(size) // values * block_bytes
        writer.add_tensor_info(rename(name, layout, to="gguf"), size, np.dtype(np.float32), stored_bytes, kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()
    # Not the writer's own write_tensor_data: it tells of a full disk by an error without a number.
    with open(path, "ab") as stream:
        for name, size in sizes.items():
            stream.write(b"\0" * (-stream.tell() % ALIGNMENT_BYTES))
            stream.write(_encode(library, name, source.tensor(name), source.shape, _kind(library, size, dtype)))
        stream.write(b"\0" * (-stream.tell() % ALIGNMENT_BYTES))


def check_gguf(folder: Path, source: ModelSource, dtype: str) -> Parity:
    """Load `folder` with llama.cpp and compare it with its source. Raises ExportError naming what differs."""
    tokenizer = Tokenizer.load(source.tokenizer_path)
    path = folder / MODEL_FILE
    if sha256_of(folder / TOKENIZER_FILE) != tokenizer.sha256:
        raise ExportError(f"{folder / TOKENIZER_FILE} is not the tokenizer that the model was trained with")
    reader = _open(path)
    _compare_fields(path, reader, _fields(source, tokenizer, dtype))
    # Our decoder computes on the weights as the file holds them, each of which was found to be the source's, rounded.
    decoder = decoder_with(source.shape, dict(_compared_tensors(reader, source, dtype)))
    model = LlamaCppModel(path)
    texts = compare_tokenizer(
        tokenizer,
        lambda all_texts, special: [model.encode(text, add_special=special) for text in all_texts],
        lambda sequences: [model.decode(ids) for ids in sequences],
        (model.bos_id, model.eos_id),
    )
    context, tolerance = source.shape.max_position_embeddings, FORMATS[dtype].tolerance
    prompts = prompt_ids(tokenizer, context)
    difference = compare_logits(prompts, decoder, lambda ids_BS: model.logits(ids_BS[0].tolist())[None], tolerance)
    generate = greedy_by(model.session, tokenizer.eos_id)
    greedy = compare_greedy(prompts, decoder, generate, tokenizer.eos_id, context, tolerance)
    return Parity(difference, len(prompts), greedy, texts, f"llama.cpp {dtype}", tolerance)


def _compare_fields(path: Path, reader: Any, wanted: dict[str, Value]) -> None:
    for key, value in wanted.items():
        field = reader.get_field(key)
        found = None if field is None else field.contents()
        if found is None or _stored(found) != _stored(value):
            raise ExportError(f"{path}: {key!r} is not what the model and its tokenizer have")


def _stored(value: Any) -> Any:
    """A value with its numbers rounded as the file holds them."""
    if isinstance(value, list):
        return [_stored(each) for each in value]
    return float(np.float32(value)) if isinstance(value, float) else value


def _compared_tensors(reader: Any, source: ModelSource, dtype: str) -> Iterator[tuple[str, Tensor]]:
    """Each tensor as the file holds it, float32, under our name, found to be the source's rounded to the format."""
    library, layout = _gguf(), layout_of(source.shape)
    stored = {tensor.name: tensor for tensor in reader.tensors}
    for name, size in source.sizes.items():
        tensor = stored.pop(rename(name, layout, to="gguf"), None)
        kind = _kind(library, size, dtype)
        wanted = source.tensor(name)
        if tensor is None or tensor.tensor_type != kind or tuple(tensor.shape.tolist()) != size[::-1]:
            raise ExportError(f"tensor {name!r} is not in the file as {kind.name} of shape {list(size)}")
        values = np.array(library.quants.dequantize(tensor.data, kind), dtype=np.float32)
        found = _rearranged(torch.from_numpy(values), name, source.shape, back=True)
        encoded = _encode(library, name, wanted, source.shape, kind)
        if encoded != tensor.data.tobytes() or not _is_rounded(found, wanted.float(), kind.name, dtype):
            raise ExportError(f"tensor {name!r}: what the file holds is not what {source.path} holds, as {kind.name}")
        yield name, found
    if stored:
        raise ExportError(f"the file has {len(stored)} tensors that {source.path} has not: {min(stored)!r}, ...")


def _is_rounded(found: Tensor, wanted: Tensor, kind: str, dtype: str) -> bool:
    """Whether values are the wanted ones rounded, written without what `_encode` uses."""
    if kind == "F32":
        return torch.equal(found, wanted)
    exact = FORMATS[dtype].dtype
    if exact is not None:
        return torch.equal(found, wanted.to(exact).float())
    # Half a step of the block, and the rounding of the step itself to float16 times up to 127 steps.
    blocks = wanted.reshape(-1, Q8_BLOCK_VALUES)
    step = blocks.abs().amax(1, keepdim=True) / 127
    allowed = 1.001 * (step * (0.5 + 127 * 2**-11) + 127 * 2**-25)
    return bool(((found.reshape(blocks.shape) - blocks).abs() <= allowed).all())


def _encode(library: Any, name: str, tensor: Tensor, shape: DecoderShape, kind: Any) -> bytes:
    """A tensor's bytes in the file. Raises ExportError where the format has no number for a value."""
    values = _rearranged(tensor.detach().to("cpu", torch.float32), name, shape).contiguous()
    if kind.name == "Q8_0":
        packed: bytes = library.quants.quantize(values.numpy(), kind).tobytes()
        return packed
    rounded = values.to(next(each.dtype for each in FORMATS.values() if each.kind == kind.name))
    if not torch.isfinite(rounded).all():
        raise ExportError(f"tensor {name!r} has a value that {kind.name} cannot hold; choose another dtype")
    return rounded.reshape(-1).view(torch.uint8).numpy().tobytes()


def _rearranged(tensor: Tensor, name: str, shape: DecoderShape, back: bool = False) -> Tensor:
    """Rows of queries and keys in the order in which llama.cpp's `llama` rotates them, or `back` in ours.

    We rotate row i of a head with row i + D/2 of it; llama.cpp's llama (not its qwen3) rotates rows 2i and 2i + 1.
    """
    heads = {"q_proj": shape.heads, "k_proj": shape.kv_heads}.get(name.split(".")[-2], 0)
    if layout_of(shape) != "llama" or not heads:
        return tensor
    halves = (shape.head_size // 2, 2) if back else (2, shape.head_size // 2)
    return tensor.reshape(heads, *halves, -1).transpose(1, 2).reshape(tensor.shape)


def _kind(library: Any, size: Sequence[int], dtype: str) -> Any:
    return library.GGMLQuantizationType[FORMATS[dtype].kind if len(size) > 1 else "F32"]


def _fields(source: ModelSource, tokenizer: Tokenizer, dtype: str) -> dict[str, Value]:
    return fields_of(source.shape, tokenizer, FORMATS[dtype].file_type, str(source.provenance["name"]))


def _value_type(library: Any, value: Value) -> Any:
    names = {bool: "BOOL", int: "UINT32", float: "FLOAT32", str: "STRING", list: "ARRAY"}
    return library.GGUFValueType[names[type(value)]]


def _open(path: Path) -> Any:
    try:
        return _gguf().GGUFReader(path)
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise ExportError(f"{path} is not a whole GGUF file: {error}") from error


def _gguf() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise MissingExtraError("gguf", EXTRA) from error
    return gguf

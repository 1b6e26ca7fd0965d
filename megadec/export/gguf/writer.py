"""The GGUF export: written, read back, loaded in llama.cpp, compared, and only then named. The door to gguf.

The folder has model.gguf, tokenizer.model and megadec.json. One file whatever its size, which llama.cpp maps; writing
needs the memory of one tensor, the proof the model once in float32.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from megadec.common.errors import ConfigError, ExportError, needs_extra
from megadec.common.tokenizer import Tokenizer
from megadec.decoder.rope_scaling import Llama3Scaling, YarnScaling
from megadec.decoder.shape import DecoderShape
from megadec.export.gguf.fields import derived_tensors, fields_of
from megadec.export.gguf.llama_cpp import LlamaCppModel, LlamaCppSession, quantize
from megadec.export.parity.compare import (
    Ids,
    Mode,
    Parity,
    bits_per_character,
    check_loss,
    compare_language_model,
    compare_tokenizer,
    continue_greedily,
)
from megadec.export.parity.folder import write_proven
from megadec.export.read.load import decoder_with, load_source
from megadec.export.read.source import ModelSource, check_tokenizer
from megadec.export.read.tensor_names import layout_of, rename

MODEL_FILE = "model.gguf"
ALIGNMENT_BYTES = 32
BLOCK_VALUES = 32


@dataclass(frozen=True, slots=True)
class Format:
    """How a file holds its matrices (vectors are float32 always).

    kinds: gguf's names of what a matrix may be; llama.cpp's quantizer chooses among several. dtype: what the values are
    rounded to; None where llama.cpp quantizes the float32 file. tolerance: of llama.cpp's logits against ours on the
    very same weights, see `check_logits`. largest_loss: the share by which the bits per character may grow.
    """

    kinds: tuple[str, ...]
    file_type: int
    dtype: torch.dtype | None
    tolerance: float
    largest_loss: float = 0.0


# llama.cpp rounds what a matrix is multiplied with to the matrix' own format, which we do not, so its logits are off by
# about as much as that format is coarse. A trained model of 12.6M parameters (qwen3 layout) gave 2e-5, 4e-3, 3e-2 and
# 8e-2 standard deviations of its logits for the first four; the tolerances leave room for deeper models. q4_k_m rounds
# that to 8 bits a value as q8_0 does. Rows that no block of 256 values divides become Q5_0 and Q8_0.
GGUF_DTYPES: dict[str, Format] = {
    "float32": Format(("F32",), 0, torch.float32, 1e-3),
    "float16": Format(("F16",), 1, torch.float16, 1e-2),
    "bfloat16": Format(("BF16",), 32, torch.bfloat16, 1e-1),
    "q8_0": Format(("Q8_0",), 7, None, 3e-1, largest_loss=0.01),
    "q4_k_m": Format(("Q4_K", "Q6_K", "Q5_0", "Q8_0"), 15, None, 3e-1, largest_loss=0.1),
}
# What is off in a block of numbers, as a share of their root mean square: about three times what normal ones have.
LARGEST_ERRORS = {"Q4_K": 0.25, "Q5_0": 0.15, "Q6_K": 0.07}
ERROR_BLOCK_VALUES = 256
STORED = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def to_gguf(source: ModelSource, output: Path, *, dtype: str | None = None, parity: Mode = "full") -> Parity:
    """Export to the folder `output`, which appears when llama.cpp's weights, ids, logits and greedy text equal ours.

    A quantized file is compared with our decoder on its own weights, and its bits per character with the source's.
    dtype: one of GGUF_DTYPES; None is what the weights were computed in. Raises ExportError for a mismatch or what GGUF
    cannot express, ConfigError when `output` exists, MissingExtraError without gguf and cyllama, StorageError.
    """
    chosen = dtype or str(source.dtype).removeprefix("torch.")
    _check_expressible(source, chosen)
    write = partial(write_gguf, source=source, dtype=chosen)
    check = partial(check_gguf, source=source, dtype=chosen, parity=parity)
    return write_proven(source, output, f"GGUF, {chosen},", write, check)


def _check_expressible(source: ModelSource, dtype: str) -> None:
    """Raise ConfigError for what a GGUF file cannot hold."""
    if source.classes is not None:
        raise ConfigError(
            f"{source.path} is a classifier: llama.cpp's {layout_of(source.shape)} has no layer for its classes; "
            "convert it --to hf or --to onnx"
        )
    shape, layout = source.shape, layout_of(source.shape)
    if isinstance(shape.rope_scaling, Llama3Scaling) and layout != "llama":
        raise ConfigError(
            f"rope_scaling.rope_type=llama3: llama.cpp's {layout} has no such scaling; convert it --to hf"
        )
    if isinstance(shape.rope_scaling, YarnScaling) and not shape.rope_scaling.truncate:
        raise ConfigError("rope_scaling.truncate=false: llama.cpp's ramp is truncated always; convert it --to hf")
    for name, size in source.sizes.items():
        if GGUF_DTYPES[dtype].dtype is None and len(size) > 1 and size[-1] % BLOCK_VALUES:
            raise ConfigError(
                f"dtype={dtype}: a row of tensor {name!r} has {size[-1]} values; {dtype} packs blocks of {BLOCK_VALUES}"
            )


def write_gguf(folder: Path, tokenizer: Tokenizer, source: ModelSource, dtype: str) -> None:
    """Write model.gguf, holding one tensor in memory at a time; what is quantized lies beside it in float32 meanwhile.

    Raises ExportError, MissingExtraError.
    """
    if GGUF_DTYPES[dtype].dtype is not None:
        _write_file(folder / MODEL_FILE, tokenizer, source, dtype)
        return
    whole = folder / "float32.gguf"
    _write_file(whole, tokenizer, source, "float32")
    quantize(whole, folder / MODEL_FILE, GGUF_DTYPES[dtype].file_type)
    whole.unlink()


def _write_file(path: Path, tokenizer: Tokenizer, source: ModelSource, dtype: str) -> None:
    library, sizes = _gguf(), source.sizes
    writer = library.GGUFWriter(path, layout_of(source.shape))
    types = library.GGUFValueType
    for key, value in fields_of(source, tokenizer, GGUF_DTYPES[dtype].file_type).items():
        if key != "general.architecture":  # the writer has added it
            writer.add_key_value(key, value, types.UINT32 if type(value) is int else types.get_type(value))
    for name, size in sizes.items():
        [kind] = _format(size, dtype).kinds
        number = library.GGMLQuantizationType[kind]
        block_values, block_bytes = library.GGML_QUANT_SIZES[number]
        stored_bytes = math.prod(size) // block_values * block_bytes
        writer.add_tensor_info(rename(name, to="gguf"), size, np.dtype(np.float32), stored_bytes, number)
    derived = derived_tensors(source.shape)
    for name, values in derived.items():
        writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()
    # Not the writer's own write_tensor_data: it tells of a full disk by an error without a number.
    with open(path, "ab") as stream:
        for name, size in sizes.items():
            [kind] = _format(size, dtype).kinds
            stream.write(b"\0" * (-stream.tell() % ALIGNMENT_BYTES))
            stream.write(_encode(name, source.tensor(name), source.shape, kind).data)
        for values in derived.values():
            stream.write(b"\0" * (-stream.tell() % ALIGNMENT_BYTES) + values.tobytes())
        stream.write(b"\0" * (-stream.tell() % ALIGNMENT_BYTES))


def check_gguf(folder: Path, source: ModelSource, dtype: str, parity: Mode = "full") -> Parity:
    """Load `folder` with llama.cpp and compare it with its source. Raises ExportError naming what differs."""
    tokenizer = Tokenizer.load(source.tokenizer_path)
    path, form = folder / MODEL_FILE, GGUF_DTYPES[dtype]
    check_tokenizer(folder, tokenizer.sha256)
    # Before the others: each of the two decoders is in memory alone.
    before = bits_per_character(load_source(source)[0], tokenizer, parity) if form.dtype is None else None
    # Our decoder computes on the weights as the file holds them, each of which was found to be the source's, rounded.
    decoder = decoder_with(source.shape, _read_compared(path, source, tokenizer, dtype))
    model = LlamaCppModel(path)
    normalized = tokenizer.normalize
    texts = compare_tokenizer(
        tokenizer,
        lambda text, special: model.encode(normalized(text), special),
        model.decode,
        (model.bos_id, model.eos_id),
        lambda text: model.encode_template(normalized(text)),
    )
    if unknown := [one for one in tokenizer.end_ids if not model.ends(one)]:
        names = [tokenizer.entry(one).text for one in unknown]
        raise ExportError(f"eos_token_id has {tokenizer.end_ids}; llama.cpp would not end an answer at {names}")

    def continued(prompts: Sequence[Ids], tokens: int) -> list[tuple[list[int], Tensor]]:
        session = LlamaCppSession(model, len(prompts), max(map(len, prompts)) + tokens)
        return continue_greedily(session.feed_rows, tokenizer.end_ids, prompts, tokens)

    runtime = f"llama.cpp {dtype}"
    found = compare_language_model(
        decoder, tokenizer, continued, parity, texts=texts, runtime=runtime, tolerance=form.tolerance
    )
    return found if before is None else check_loss(found, before, form.largest_loss)


def _read_compared(path: Path, source: ModelSource, tokenizer: Tokenizer, dtype: str) -> dict[str, Tensor]:
    """The file's tensors in float32 by our names; they and its fields were found to be the source's."""
    reader = _open(path)
    for key, value in fields_of(source, tokenizer, GGUF_DTYPES[dtype].file_type).items():
        field = reader.get_field(key)
        if field is None or field.contents() != value:
            raise ExportError(f"{path}: {key!r} is not what the model and its tokenizer have")
    return dict(_compared_tensors(reader, source, dtype))


def _compared_tensors(reader: Any, source: ModelSource, dtype: str) -> Iterator[tuple[str, Tensor]]:
    """Each tensor as the file holds it, float32, under our name, found to be the source's rounded to the format."""
    stored = {tensor.name: tensor for tensor in reader.tensors}
    for name, size in source.sizes.items():
        tensor = stored.pop(rename(name, to="gguf"), None)
        form, wanted = _format(size, dtype), source.tensor(name)
        if tensor is None or tensor.tensor_type.name not in form.kinds or tuple(tensor.shape.tolist()) != size[::-1]:
            raise ExportError(f"tensor {name!r} is not in the file as {' or '.join(form.kinds)} of shape {list(size)}")
        kind = tensor.tensor_type.name
        values = np.array(_gguf().quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        found = _rearranged(torch.from_numpy(values), name, source.shape, back=True)
        # What llama.cpp makes of a block of 256 is its own; all others can be written again, bit for bit.
        again = kind in LARGEST_ERRORS or np.array_equal(
            _encode(name, wanted, source.shape, kind), tensor.data.reshape(-1).view(np.uint8)
        )
        if not again or not _is_rounded(found, wanted.float(), kind):
            raise ExportError(f"tensor {name!r}: what the file holds is not what {source.path} holds, as {kind}")
        yield name, found
    for name, values in derived_tensors(source.shape).items():
        tensor = stored.pop(name, None)
        if tensor is None or tensor.data.tobytes() != values.tobytes():
            raise ExportError(f"tensor {name!r} is not in the file, or is not what {source.path} has")
    if stored:
        raise ExportError(f"the file has {len(stored)} tensors that {source.path} has not: {min(stored)!r}, ...")


def _is_rounded(found: Tensor, wanted: Tensor, kind: str) -> bool:
    """Whether values are the wanted ones rounded, written without what `_encode` uses."""
    if kind in STORED:
        return torch.equal(found, wanted.to(STORED[kind]).float())
    if kind in LARGEST_ERRORS:
        errors = torch.stack([found - wanted, wanted]).reshape(2, -1)
        squares = [part.square().sum(-1) for part in errors.split(ERROR_BLOCK_VALUES, dim=1)]
        off, whole = torch.stack(squares, dim=1).sqrt()
        return bool((off <= LARGEST_ERRORS[kind] * whole + 1e-12).all())
    # Half a step of the block, and the rounding of the step itself to float16 times up to 127 steps.
    blocks = wanted.reshape(-1, BLOCK_VALUES)
    step = blocks.abs().amax(1, keepdim=True) / 127
    allowed = 1.001 * (step * (0.5 + 127 * 2**-11) + 127 * 2**-25)
    return bool(((found.reshape(blocks.shape) - blocks).abs() <= allowed).all())


def _encode(name: str, tensor: Tensor, shape: DecoderShape, kind: str) -> np.ndarray:
    """A tensor's bytes in the file, uint8. Raises ExportError where the format has no number for a value."""
    values = _rearranged(tensor.detach().to("cpu", torch.float32), name, shape).contiguous()
    if kind not in STORED:
        library = _gguf()
        packed: np.ndarray = library.quants.quantize(values.numpy(), library.GGMLQuantizationType[kind])
        return packed.reshape(-1)
    rounded = values.to(STORED[kind])
    if rounded is not values and not torch.isfinite(rounded).all():
        raise ExportError(f"tensor {name!r} has a value that {kind} cannot hold; choose another dtype")
    stored: np.ndarray = rounded.reshape(-1).view(torch.uint8).numpy()
    return stored


def _rearranged(tensor: Tensor, name: str, shape: DecoderShape, back: bool = False) -> Tensor:
    """Rows of queries and keys in the order in which llama.cpp's `llama` rotates them, or `back` in ours.

    We rotate row i of a head with row i + D/2 of it; llama.cpp's llama (not its qwen3) rotates rows 2i and 2i + 1.
    """
    heads = {"q_proj": shape.heads, "k_proj": shape.kv_heads}.get(name.split(".")[-2], 0)
    if layout_of(shape) != "llama" or not heads:
        return tensor
    halves = (shape.head_size // 2, 2) if back else (2, shape.head_size // 2)
    return tensor.reshape(heads, *halves, -1).transpose(1, 2).reshape(tensor.shape)


def _format(size: Sequence[int], dtype: str) -> Format:
    return GGUF_DTYPES[dtype if len(size) > 1 else "float32"]


def _open(path: Path) -> Any:
    try:
        return _gguf().GGUFReader(path)
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise ExportError(f"{path} is not a whole GGUF file: {error}") from error


def _gguf() -> Any:
    with needs_extra("gguf", "gguf"):
        import gguf
    return gguf

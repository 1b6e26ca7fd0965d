"""The commands convert and generate: an argument list in, one library call, the result printed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Literal

import torch

from megadec.common.config import parse
from megadec.common.errors import ConfigError, check_range
from megadec.common.log import logger
from megadec.common.tokenizer import Tokenizer
from megadec.decoding.generate import generate_text
from megadec.decoding.packed import WeightDtype
from megadec.decoding.paged import PagedDecoder
from megadec.decoding.sampling import Sampling
from megadec.decoding.session import BatchedModel, LanguageModel
from megadec.export.gguf.writer import GGUF_DTYPES, to_gguf
from megadec.export.huggingface.export import MAX_SHARD_BYTES, to_hf
from megadec.export.huggingface.foreign import proven
from megadec.export.onnx.export import to_onnx
from megadec.export.parity.compare import Mode
from megadec.export.read.load import load_decoder
from megadec.export.read.megadec import to_megadec
from megadec.export.read.open_model import open_model
from megadec.export.runtimes import open_runtime, runtime_of

DTYPES = {
    "hf": ("auto", "bfloat16", "float32"),
    "gguf": ("auto", *GGUF_DTYPES),
    "onnx": ("auto", "float32", "int8"),
    "megadec": ("auto", "bfloat16", "float32"),
}

log = logger(__name__)


@dataclass(frozen=True)
class ConvertOptions:
    """What to convert, and into what.

    input: a run (its best or newest whole checkpoint), a checkpoint, a megadec or a Hugging Face folder; a language
        model or a classifier. A Hugging Face folder of other tools is first compared with transformers.
    to: `hf` (Hugging Face, what vLLM and SGLang read too), `gguf` (llama.cpp; language models only), `onnx`
        (onnxruntime) or `megadec` (initial weights of another run).
    output: the new folder; its name appears when it was read back and found equal to the input.
    dtype: of the weights. `auto` is what they were computed in for hf and gguf, float32 for onnx, and what
        the files hold for megadec. For gguf also `float16`, and llama.cpp's own `q8_0` (8 bits a value) and
        `q4_k_m` (about 4.8), and for onnx `int8`; the loss of these three is measured.
    layout: of hf: `auto` is qwen3 where the model normalizes queries and keys, qwen2 where queries, keys and values
        have biases and the vocabulary is no sentencepiece model, else llama.
    max_shard_bytes: of hf: size of a safetensors file.
    parity: how the result is compared with its source before it has its name: every tensor and every token in both;
        `full` fifty prompts and 16 tokens behind each, `quick` eight and 4. A megadec folder has tensors alone.
    """

    input: Path
    to: Literal["hf", "gguf", "onnx", "megadec"]
    output: Path
    dtype: Literal["auto", "bfloat16", "float16", "float32", "q8_0", "q4_k_m", "int8"] = "auto"
    layout: Literal["auto", "llama", "qwen2", "qwen3"] = "auto"
    max_shard_bytes: int = MAX_SHARD_BYTES
    parity: Mode = "full"

    def __post_init__(self) -> None:
        check_range(self, "", "max_shard_bytes", least=1)
        if self.dtype not in DTYPES[self.to]:
            raise ConfigError(f"dtype={self.dtype}: --to {self.to} writes {', '.join(DTYPES[self.to])}")
        for name, usual in (("layout", "auto"), ("max_shard_bytes", MAX_SHARD_BYTES)):
            if self.to != "hf" and getattr(self, name) != usual:
                raise ConfigError(f"{name}={getattr(self, name)} is for --to hf; a {self.to} folder has no {name}")


def convert_model(options: ConvertOptions) -> Path:
    """Write the format that is asked for; returns the folder. Raises MegadecError with nothing under its name."""
    if options.output.exists():
        raise ConfigError(f"--output {options.output} exists already; choose another folder, or remove it first")
    source = open_model(options.input)
    log.info("reading %s %s (%s)", source.kind, source.path, source.task["kind"])
    source = proven(source)
    name = None if options.dtype == "auto" else options.dtype
    dtype: torch.dtype | None = getattr(torch, name) if name in ("bfloat16", "float32") else None
    if options.to == "hf":
        shard = options.max_shard_bytes
        to_hf(source, options.output, dtype=dtype, layout=options.layout, max_shard_bytes=shard, parity=options.parity)
    elif options.to == "gguf":
        to_gguf(source, options.output, dtype=name, parity=options.parity)
    elif options.to == "onnx":
        to_onnx(source, options.output, dtype="int8" if name == "int8" else "float32", parity=options.parity)
    else:
        to_megadec(source, options.output, dtype=dtype)
    return options.output


def convert(argv: Sequence[str]) -> None:
    """Convert what the command line asks for, and print the folder."""
    print(convert_model(parse(ConvertOptions, argv, description="Convert a model into a folder that others can load.")))


@dataclass(frozen=True)
class GenerateOptions:
    """model: a run, checkpoint, or a megadec, Hugging Face, GGUF or ONNX folder. prompt: one or more texts to continue.

    dtype: of the weights while generating; int8 is for the CPU. device: such as cpu or cuda; without, cuda where there
        is one. GGUF and ONNX folders run on the CPU as they were written.
    """

    model: Path
    prompt: tuple[str, ...]
    sampling: Sampling = field(default_factory=Sampling)
    dtype: WeightDtype = "float32"
    device: str | None = None


def generate(argv: Sequence[str]) -> None:
    """Print each prompt and what follows it, as it is drawn."""
    options = parse(GenerateOptions, argv, description="Continue a text with a trained decoder.")
    model, tokenizer = _open(options)
    for prompt in options.prompt:
        # Asked for first: a prompt that does not fit is refused before anything is printed.
        continuation = generate_text(model, tokenizer, prompt, options.sampling)
        for text in chain((prompt,), continuation, ("\n",)):
            print(text, end="", flush=True)


def _open(options: GenerateOptions) -> tuple[LanguageModel | BatchedModel, Tokenizer]:
    dtype = getattr(torch, options.dtype)
    if runtime_of(options.model) is not None:
        opened = open_runtime(options.model, dtype, options.device)
        return opened.model, opened.tokenizer
    wide = torch.float32 if options.dtype == "int8" else dtype
    decoder, tokenizer = load_decoder(options.model, wide, options.device)
    return PagedDecoder(decoder, options.dtype, sequences=1), tokenizer

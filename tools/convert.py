"""Convert a model: a run, a checkpoint or a folder -> a Hugging Face, GGUF, ONNX or megadec folder.

    python tools/convert.py --input runs/NAME --to hf --output exports/NAME-hf [--dtype bfloat16|float32]
    python tools/convert.py --input runs/NAME --to gguf --output exports/NAME-gguf [--dtype ...|float16|q8_0]
    python tools/convert.py --input runs/NAME --to onnx --output exports/NAME-onnx

Each is loaded in its own runtime (transformers, llama.cpp, onnxruntime) and compared before it gets its name. An output
folder is never overwritten; remove it first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from megadec.common.config import parse
from megadec.common.errors import ConfigError, run_main
from megadec.common.log import logger
from megadec.export.gguf.writer import to_gguf
from megadec.export.huggingface.export import MAX_SHARD_BYTES, to_hf
from megadec.export.onnx.export import to_onnx
from megadec.export.read.megadec import to_megadec
from megadec.export.read.model import open_model
from megadec.export.read.source import ModelSource

DTYPES = {
    "hf": ("auto", "bfloat16", "float32"),
    "gguf": ("auto", "bfloat16", "float16", "float32", "q8_0"),
    "onnx": ("auto", "float32"),
    "megadec": ("auto", "bfloat16", "float32"),
}

log = logger(__name__)


@dataclass(frozen=True)
class ConvertOptions:
    """What to convert, and into what.

    input: a run (its best or newest whole checkpoint), a checkpoint, a megadec or a Hugging Face folder; a language
        model or a classifier.
    to: `hf` (Hugging Face, what vLLM and SGLang read too), `gguf` (llama.cpp; language models only), `onnx`
        (onnxruntime) or `megadec` (initial weights of another run).
    output: the new folder; its name appears when it was read back and found equal to the input.
    dtype: of the weights. `auto` is what they were computed in for hf and gguf, float32 for onnx (its only one), and
        what the files hold for megadec. `float16` and `q8_0` (8 bits and a scale for each 32 values) are for gguf.
    layout: of hf: `auto` is qwen3 where the model normalises queries and keys, else llama.
    max_shard_bytes: of hf: size of a safetensors file.
    """

    input: Path
    to: Literal["hf", "gguf", "onnx", "megadec"]
    output: Path
    dtype: Literal["auto", "bfloat16", "float16", "float32", "q8_0"] = "auto"
    layout: Literal["auto", "llama", "qwen3"] = "auto"
    max_shard_bytes: int = MAX_SHARD_BYTES

    def __post_init__(self) -> None:
        if self.max_shard_bytes < 1:
            raise ConfigError(f"max_shard_bytes={self.max_shard_bytes} is not above 0")
        if self.dtype not in DTYPES[self.to]:
            raise ConfigError(f"dtype={self.dtype}: --to {self.to} writes {', '.join(DTYPES[self.to])}")
        for name, usual in (("layout", "auto"), ("max_shard_bytes", MAX_SHARD_BYTES)):
            if self.to != "hf" and getattr(self, name) != usual:
                raise ConfigError(f"{name}={getattr(self, name)} is for --to hf; a {self.to} folder has no {name}")


def main(argv: Sequence[str]) -> None:
    """Convert as the command line says. Raises MegadecError with nothing under the output's name."""
    options = parse(ConvertOptions, argv, description="Convert a model into a folder that others can load.")
    if options.output.exists():
        raise ConfigError(f"--output {options.output} exists already; choose another folder, or remove it first")
    source = open_model(options.input)
    log.info("reading %s %s (%s)", source.kind, source.path, source.task["kind"])
    convert(source, options)
    print(options.output)


def convert(source: ModelSource, options: ConvertOptions) -> None:
    """Write the format that was asked for."""
    name = None if options.dtype == "auto" else options.dtype
    dtype: torch.dtype | None = getattr(torch, name) if name in ("bfloat16", "float32") else None
    if options.to == "hf":
        to_hf(source, options.output, dtype=dtype, layout=options.layout, max_shard_bytes=options.max_shard_bytes)
    elif options.to == "gguf":
        to_gguf(source, options.output, dtype=name)
    elif options.to == "onnx":
        to_onnx(source, options.output)
    else:
        to_megadec(source, options.output, dtype=dtype)


if __name__ == "__main__":
    run_main(main)

"""Convert a model: a run, a checkpoint or a folder of either kind -> a Hugging Face or megadec folder.

    python tools/convert.py --input runs/NAME --to hf --output exports/NAME-hf [--dtype bfloat16|float32]

Trade-off: an output folder is never overwritten; remove it first.
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
from megadec.export.consolidate import open_model
from megadec.export.hf import MAX_SHARD_BYTES, to_hf
from megadec.export.megadec import to_megadec

DTYPES = {"auto": None, "bfloat16": torch.bfloat16, "float32": torch.float32}

log = logger(__name__)


@dataclass(frozen=True)
class ConvertOptions:
    """What to convert, and into what.

    input: a run (its newest whole checkpoint), a checkpoint, a megadec or a Hugging Face folder.
    to: `hf` (Hugging Face, what vLLM, SGLang and llama.cpp read too) or `megadec` (initial weights of another run).
    output: the new folder; its name appears when it was read back and found equal to the input.
    dtype: `auto` is what the weights were computed in for hf, and what the files hold for megadec.
    layout: `auto` is qwen3 where the model normalises queries and keys, else llama.
    max_shard_bytes: size of a safetensors file of a Hugging Face folder.
    """

    input: Path
    to: Literal["hf", "megadec"]
    output: Path
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    layout: Literal["auto", "llama", "qwen3"] = "auto"
    max_shard_bytes: int = MAX_SHARD_BYTES

    def __post_init__(self) -> None:
        if self.max_shard_bytes < 1:
            raise ConfigError(f"max_shard_bytes={self.max_shard_bytes} is not above 0")
        if self.to == "megadec" and self.layout != "auto":
            raise ConfigError(f"layout={self.layout} is for --to hf; a megadec folder has no layout")


def main(argv: Sequence[str]) -> None:
    """Convert as the command line says. Raises MegadecError with nothing under the output's name."""
    options = parse(ConvertOptions, argv, description="Convert a model into a folder that others can load.")
    if options.output.exists():
        raise ConfigError(f"--output {options.output} exists already; choose another folder, or remove it first")
    source = open_model(options.input)
    log.info("reading %s %s", source.kind, source.path)
    dtype = DTYPES[options.dtype]
    if options.to == "hf":
        to_hf(source, options.output, dtype=dtype, layout=options.layout, max_shard_bytes=options.max_shard_bytes)
    else:
        to_megadec(source, options.output, dtype=dtype)
    print(options.output)


if __name__ == "__main__":
    run_main(main)

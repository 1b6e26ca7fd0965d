"""Continue a text: `python tools/generate.py --model runs/NAME --prompt 今天 [--sampling.temperature 0.8 ...]`.

In: a run, a checkpoint, a megadec folder or a Hugging Face folder. Out: on standard output, the prompt and what follows
it, as it is drawn, a line for each prompt.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from megadec.common.config import parse
from megadec.common.errors import run_main
from megadec.decoding.generate import Sampling, generate_text
from megadec.decoding.session import DecoderModel
from megadec.export.read.load import load_decoder


@dataclasses.dataclass(frozen=True)
class Options:
    """model: a run, checkpoint, megadec or Hugging Face folder. prompt: one or more texts to continue.

    dtype: of the weights while generating. device: such as cpu or cuda; without, cuda where there is one.
    """

    model: Path
    prompt: tuple[str, ...]
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str | None = None


def main(argv: Sequence[str]) -> None:
    """Parse, load, and print as it comes."""
    options = parse(Options, argv, description="Continue a text with a trained decoder.")
    decoder, tokenizer = load_decoder(options.model, getattr(torch, options.dtype))
    decoder.to(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    for prompt in options.prompt:
        # Asked for first: a prompt that does not fit is refused before anything is printed.
        continuation = generate_text(DecoderModel(decoder), tokenizer, prompt, options.sampling)
        sys.stdout.write(prompt)
        for text in continuation:
            sys.stdout.write(text)
            sys.stdout.flush()
        sys.stdout.write("\n")


if __name__ == "__main__":
    run_main(main)

"""Any model on disk -> a decoder in memory, for generation and evaluation.

In comes a path that `open_model` knows, out come a decoder in eval mode and its tokenizer. Tensors are read and
converted one by one into a decoder that has no memory of its own before, so the peak is the model plus one tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from megadec.common.tokenizer import Tokenizer
from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape
from megadec.export.read.model import open_model
from megadec.export.read.source import ModelSource


def load_decoder(path: Path | str, dtype: torch.dtype = torch.float32) -> tuple[Decoder, Tokenizer]:
    """The decoder at `path` (a run, a checkpoint, a megadec or a Hugging Face folder), weights in `dtype`, on the CPU.

    Raises ConfigError, CheckpointError or ExportError as `open_model` does, and TokenizerError.
    """
    return load_source(open_model(Path(path)), dtype)


def load_source(source: ModelSource, dtype: torch.dtype = torch.float32) -> tuple[Decoder, Tokenizer]:
    """`load_decoder` for a model that is open already; a classifier gets its score."""
    tokenizer = Tokenizer.load(source.tokenizer_path)
    tensors = {name: source.tensor(name).to(dtype) for name in source.names()}
    return decoder_with(source.shape, tensors, source.classes), tokenizer


def decoder_with(shape: DecoderShape, tensors: Mapping[str, Tensor], classes: int | None = None) -> Decoder:
    """A decoder in eval mode whose parameters are these very tensors, not copies."""
    with torch.device("meta"):
        decoder = Decoder(shape, classes=classes)
    set_parameters(decoder, tensors)
    if shape.tied_embeddings and classes is None:
        decoder.lm_head.weight = decoder.embed_tokens.weight
    return decoder.eval()


def set_parameters(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Make the module's parameters these very tensors, by name; a tied one keeps a parameter for each of its names."""
    for name, _ in list(module.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, nn.Parameter(tensors[name], requires_grad=False))

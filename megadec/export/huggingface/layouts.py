"""The layout in which a model is written for transformers: that of its shape, or llama for one in Qwen2's shape.

transformers 5 takes the tokenizer of a qwen2 folder for byte-level BPE whatever the files say, so a model with a
sentencepiece vocabulary is written as llama with biases, of which those behind attention are zero: the same network.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from megadec.common.errors import ExportError
from megadec.common.tokenizer import FILE_NAME as SENTENCEPIECE_FILE
from megadec.decoder.shape import DecoderShape
from megadec.export.read.source import ModelSource, TensorReader
from megadec.export.read.tensor_names import layout_of


def in_layout(source: ModelSource, wanted: str) -> ModelSource:
    """The source in the layout `wanted`, or with `auto` in the first that transformers reads as we do.

    Raises ExportError when the layout cannot express the model, or its tokenizer.
    """
    fitting, shape = layout_of(source.shape), source.shape
    is_sentencepiece = source.tokenizer_path.name == SENTENCEPIECE_FILE
    if fitting == "qwen2" and (wanted == "llama" or (wanted == "auto" and is_sentencepiece)):
        wider = replace(shape, attention_bias="qkvo")
        return replace(source, shape=wider, reader=WithOutputBiases(source.reader, wider))
    if wanted not in ("auto", fitting):
        raise ExportError(
            f"--layout {wanted}: a model with qk_norm={str(shape.qk_norm).lower()} and attention_bias="
            f"{shape.attention_bias} is of the {fitting} layout"
        )
    if fitting == "qwen2" and is_sentencepiece:
        raise ExportError(
            f"--layout qwen2: transformers takes the tokenizer of a qwen2 folder for byte-level BPE, and"
            f" {source.tokenizer_path} is a sentencepiece model; choose llama"
        )
    return source


@dataclass(frozen=True)
class WithOutputBiases:
    """The tensors of a model, and a bias of zeros behind attention in each layer (see `TensorReader`)."""

    reader: TensorReader
    shape: DecoderShape

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The sizes of the model's tensors and of the zeros."""
        added = [f"layers.{layer}.self_attn.o_proj.bias" for layer in range(self.shape.layers)]
        return {**self.reader.shapes, **dict.fromkeys(added, (self.shape.hidden_size,))}

    def read(self, name: str) -> Tensor:
        """The model's tensor, or zeros where it has none."""
        return self.reader.read(name) if name in self.reader.shapes else torch.zeros(self.shapes[name])

"""Any model on disk -> a decoder in memory, for generation and evaluation.

Tensors are read and converted one by one into a decoder that has no memory of its own before, so the peak is the model
plus one tensor.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from megadec.common.errors import ConfigError
from megadec.common.tokenizer import Tokenizer
from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape
from megadec.export.read.open_model import open_model
from megadec.export.read.source import EMBEDDING, HEAD, ModelSource


def load_decoder(
    path: Path | str, dtype: torch.dtype = torch.float32, device: str | None = "cpu"
) -> tuple[Decoder, Tokenizer]:
    """The decoder at `path` (a run, a checkpoint, a megadec or a Hugging Face folder), weights in `dtype`.

    device: None is cuda where there is one. Raises ConfigError, CheckpointError or ExportError as `open_model` does,
    and TokenizerError.
    """
    return load_source(open_model(Path(path)), dtype, device)


def load_source(
    source: ModelSource, dtype: torch.dtype = torch.float32, device: str | None = "cpu"
) -> tuple[Decoder, Tokenizer]:
    """`load_decoder` for a model that is open already; a classifier gets its score."""
    tokenizer, place = Tokenizer.load(source.tokenizer_path), _device(device)
    tensors = {name: source.tensor(name).to(dtype) for name in source.names()}
    decoder = decoder_with(source.shape, tensors, source.classes)
    return decoder.to(place), tokenizer


def _device(name: str | None) -> torch.device:
    """The device of this name; None is cuda where there is one. Raises ConfigError where it is not to be had."""
    try:
        place = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"--device {name} is not to be had here: {str(error).splitlines()[0]}") from error
    return place


def decoder_with(shape: DecoderShape, tensors: Mapping[str, Tensor], classes: int | None = None) -> Decoder:
    """A decoder in eval mode whose parameters are these very tensors, not copies."""
    with torch.device("meta"):
        decoder = Decoder(shape, classes=classes)
    assign(decoder, tensors, tied=shape.tied_embeddings and classes is None)
    return decoder.eval()


def assign(module: nn.Module, tensors: Mapping[str, Tensor], *, tied: bool) -> None:
    """Make the module's parameters these very tensors, by name; tied: the output layer is the embedding."""
    parameters = {name: nn.Parameter(tensor, requires_grad=False) for name, tensor in tensors.items()}
    if tied:
        parameters[HEAD] = parameters[EMBEDDING]
    module.load_state_dict(parameters, assign=True)

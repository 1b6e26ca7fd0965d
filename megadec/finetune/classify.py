"""A finished classifier: texts in, a probability for each label out.

Texts are packed as in training, and a text's answer may differ from that of the text alone in the last bits, because
products of other sizes are added up in another order.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from megadec.common.errors import ConfigError
from megadec.common.tokenizer import Tokenizer
from megadec.decoder.model import Decoder
from megadec.export.read.inputs import Form
from megadec.export.read.load import load_source
from megadec.export.read.open_model import open_model
from megadec.export.read.source import ModelSource
from megadec.finetune.examples import LabelledSet
from megadec.finetune.packing import assemble_texts, pack_texts

SEQUENCES_AT_A_TIME = 8


class Classifier:
    """A classifier in memory. Make one with `load_classifier`; `classify` may be called from several threads."""

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer, labels: Sequence[str], form: Form) -> None:
        self.decoder = decoder
        self.tokenizer = tokenizer
        self.labels = list(labels)
        self.form = form

    def truncated(self, texts: Sequence[str]) -> list[bool]:
        """Whether a part of each text is left out, as it is longer than what the classifier was trained on."""
        return self.form.truncated(self.tokenizer, texts)

    def classify(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """The probability of each label, by its name, for each text. Raises InputError for an empty text."""
        return [dict(zip(self.labels, row, strict=True)) for row in self.probabilities(texts).tolist()]

    def probabilities(self, texts: Sequence[str]) -> Tensor:
        """float32 [texts, labels], in the order of `labels`. Raises InputError for an empty text."""
        return self.logits(texts).softmax(-1)

    @torch.inference_mode()
    def logits(self, texts: Sequence[str]) -> Tensor:
        """float32 [texts, labels] behind the last token of each text. Raises InputError for an empty text."""
        found = torch.empty(len(texts), len(self.labels))
        if not texts:
            return found
        device = self.decoder.embed_tokens.weight.device
        ids = self.form.encode(self.tokenizer, texts)
        starts = np.cumsum([0, *map(len, ids)], dtype=np.int64)
        unknown = np.zeros(len(ids), dtype=np.int64)
        data = LabelledSet(Path(), tuple(self.labels), np.concatenate(ids).astype(np.int32), starts, unknown)
        sequence_length = int(max(data.lengths.max(), min(self.form.longest_tokens, data.lengths.sum())))
        sequences = pack_texts(np.arange(len(texts)), data.lengths, sequence_length)
        for first in range(0, len(sequences), SEQUENCES_AT_A_TIME):
            part = sequences[first : first + SEQUENCES_AT_A_TIME]
            batch = assemble_texts(data, part, sequence_length)
            ids_BS, positions_BS, documents_BS = (
                one.to(device) for one in (batch.ids_BS, batch.positions_BS, batch.documents_BS)
            )
            logits_BSL = self.decoder(ids_BS, positions_BS=positions_BS, documents_BS=documents_BS).float().cpu()
            found[torch.from_numpy(np.concatenate(part))] = logits_BSL[batch.weights_BS > 0]
        return found


def load_classifier(path: Path) -> Classifier:
    """The classifier at `path`, on the CPU.

    Raises ConfigError when there is a model of another kind, and what `open_model` raises.
    """
    return classifier_of(open_model(path))


def classifier_of(source: ModelSource, dtype: torch.dtype = torch.float32, device: str | None = "cpu") -> Classifier:
    """`load_classifier` for a model that is open already; device: None is cuda where there is one."""
    if source.classes is None:
        raise ConfigError(f"{source.path} holds a {source.task['kind'].replace('_', ' ')}, not a classifier")
    decoder, tokenizer = load_source(source, dtype, device)
    form = Form.of_task(source.task, source.shape.max_position_embeddings)
    return Classifier(decoder, tokenizer, source.task["labels"], form)

"""A packed text is learned as it would be alone; what is frozen changes no other gradient."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from megadec.decoder.execution import Execution, Recompute
from megadec.decoder.loss_options import LanguageLoss
from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape
from megadec.finetune.examples import LabelledSet
from megadec.finetune.lora import LoraOptions, Method, adapted
from megadec.finetune.packing import assemble_texts, pack_texts
from tests.support.sources import TINY_SHAPE

SHAPE = DecoderShape.from_mapping({**TINY_SHAPE, "vocabulary_size": 90})
LABELS = ("a", "b", "c", "d")
WEIGHTS = [1.0, 0.5, 3.0, 0.25]
LORA = LoraOptions(rank=3, alpha=4.0)


def classifier(method: Method = "full", recompute: Recompute | None = None) -> Decoder:
    torch.manual_seed(0)
    execution = Execution(recompute=recompute or Recompute())
    model = adapted(Decoder(SHAPE, execution, len(LABELS), LanguageLoss(0.1)), method, LORA).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if name.endswith("norm.weight") else 0.0, 0.1)
    return model


def texts(count: int = 19) -> LabelledSet:
    chance = np.random.default_rng(1)
    starts = np.concatenate([[0], np.cumsum(chance.integers(2, 20, count))])
    tokens = chance.integers(3, 90, starts[-1]).astype(np.int32)
    return LabelledSet(Path("texts"), LABELS, tokens, starts, chance.integers(0, len(LABELS), count))


def loss_and_gradients(model: Decoder, data: LabelledSet, rows: list[np.ndarray], sequence_length: int) -> list[Tensor]:
    batch = assemble_texts(data, rows, sequence_length, WEIGHTS)
    loss = model(batch.ids_BS, **batch.model_arguments())
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [loss.detach(), *torch.autograd.grad(loss, trained)]


def test_packed_texts_have_the_loss_and_the_gradients_of_one_text_a_row() -> None:
    data, model = texts(), classifier()
    packed = pack_texts(np.arange(data.texts), data.lengths, 40)
    assert len(packed) < data.texts / 2
    alone = [np.asarray([text]) for text in range(data.texts)]
    together = loss_and_gradients(model, data, packed, 40)
    for sequence_length in (20, 40):
        for found, expected in zip(together, loss_and_gradients(model, data, alone, sequence_length), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_the_head_of_a_frozen_decoder_learns_as_that_of_a_free_one() -> None:
    data = texts()
    rows = pack_texts(np.arange(data.texts), data.lengths, 40)
    free = loss_and_gradients(classifier("full"), data, rows, 40)
    loss, head = loss_and_gradients(classifier("frozen"), data, rows, 40)
    assert torch.equal(loss, free[0])
    torch.testing.assert_close(head, free[-1])


@pytest.mark.parametrize("mode", ["full", "every_nth", "selective"])
@pytest.mark.parametrize("method", ["frozen", "lora"])
def test_recomputation_changes_no_gradient_where_parameters_are_frozen(method: Method, mode: str) -> None:
    data = texts()
    rows = pack_texts(np.arange(data.texts), data.lengths, 40)
    expected = loss_and_gradients(classifier(method), data, rows, 40)
    again = loss_and_gradients(classifier(method, Recompute(mode)), data, rows, 40)  # type: ignore[arg-type]
    for found, wanted in zip(again, expected, strict=True):
        torch.testing.assert_close(found, wanted)

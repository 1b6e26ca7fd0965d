"""Our recurrent layers are torch's, without cuDNN's wish for one piece of memory."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from megadec.decoder.textbook.rnn import Cell, RecurrentEncoder

KINDS = {"gru": nn.GRU, "lstm": nn.LSTM}


def randomised(module: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.5)
    return module.double()


@pytest.mark.parametrize("cell", KINDS)
def test_both_directions_of_padded_rows_are_those_of_torchs_packed_ones(cell: Cell) -> None:
    encoder = randomised(RecurrentEncoder(cell, 6, 2))
    theirs = KINDS[cell](6, 3, num_layers=2, bidirectional=True, batch_first=True).double()
    ours = {("", "ahead"): encoder.ahead, ("_reverse", "back"): encoder.back}
    theirs.load_state_dict(
        {
            f"{name}_l{number}{suffix}": tensor
            for (suffix, _), layers in ours.items()
            for number, layer in enumerate(layers)
            for name, tensor in layer.state_dict().items()
        }
    )
    x_BTE, lengths_B = torch.randn(4, 9, 6, dtype=torch.float64), torch.tensor([9, 1, 4, 8])
    memory_BTH, last_BH = encoder(x_BTE, lengths_B)
    packed, ends = theirs(pack_padded_sequence(x_BTE, lengths_B, batch_first=True, enforce_sorted=False))
    expected_BTH, _ = pad_packed_sequence(packed, batch_first=True)
    for row, length in enumerate(lengths_B.tolist()):
        torch.testing.assert_close(memory_BTH[row, :length], expected_BTH[row, :length])
    h_LBH = ends[0] if cell == "lstm" else ends
    torch.testing.assert_close(last_BH, torch.cat([h_LBH[-2], h_LBH[-1]], dim=-1))

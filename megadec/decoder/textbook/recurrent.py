"""Recurrent cells and the bidirectional encoder: GRU (arXiv 1406.1078), LSTM (Hochreiter and Schmidhuber 1997).

In: embedded tokens. Out: a state for each. The equations and the order of the gates are those of torch.nn.GRU and
torch.nn.LSTM. The loop over time is Python's, on a CPU 1.2 (LSTM) to 1.6 (GRU) times as slow as torch's (64 rows of 16
tokens, hidden size 192). In exchange a layer's weights are parameters of the one module whose forward is the whole
loop, so that ZeRO-3 gathers them once for a sequence and not once a token, and nothing wants them to lie in one piece
of memory, as cuDNN does.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from megadec.decoder.linear import linear

# Shapes: B batch, T tokens, E inputs, H hidden size, G gates * hidden size.

Cell = Literal["gru", "lstm"]
State = tuple[Tensor, ...]
"""What a cell remembers: (h_BH,) for a GRU, (h_BH, c_BH) for an LSTM."""

GATES = {"gru": 3, "lstm": 4}
STATES = {"gru": 1, "lstm": 2}


def advance(cell: Cell, inputs_BG: Tensor, state: State, weight_hh: Tensor, bias_hh: Tensor) -> State:
    """The state after one more token; inputs_BG is W_ih x + b_ih of that token."""
    hidden_BG = linear(state[0], weight_hh, bias_hh)
    if cell == "lstm":
        i_BH, f_BH, g_BH, o_BH = (inputs_BG + hidden_BG).chunk(4, dim=-1)
        c_BH = f_BH.sigmoid() * state[1] + i_BH.sigmoid() * g_BH.tanh()
        return o_BH.sigmoid() * c_BH.tanh(), c_BH
    size = state[0].shape[-1]
    r_BH, z_BH = (inputs_BG[:, : 2 * size] + hidden_BG[:, : 2 * size]).sigmoid().chunk(2, dim=-1)
    n_BH = (inputs_BG[:, 2 * size :] + r_BH * hidden_BG[:, 2 * size :]).tanh()
    return (torch.lerp(n_BH, state[0], z_BH),)


class RecurrentLayer(nn.Module):
    """One layer in one direction, from a state of zeros. Fresh weights are zero."""

    def __init__(self, cell: Cell, inputs: int, hidden_size: int) -> None:
        super().__init__()
        self.cell, self.hidden_size = cell, hidden_size
        gates = GATES[cell] * hidden_size
        self.weight_ih = nn.Parameter(torch.zeros(gates, inputs))
        self.weight_hh = nn.Parameter(torch.zeros(gates, hidden_size))
        self.bias_ih = nn.Parameter(torch.zeros(gates))
        self.bias_hh = nn.Parameter(torch.zeros(gates))

    def forward(self, x_BTE: Tensor) -> Tensor:
        """h_BTH: the state after each token."""
        inputs_BTG = linear(x_BTE, self.weight_ih, self.bias_ih)
        zeros_BH = x_BTE.new_zeros(x_BTE.shape[0], self.hidden_size)
        state: State = (zeros_BH,) * STATES[self.cell]
        found = []
        for inputs_BG in inputs_BTG.unbind(1):
            state = advance(self.cell, inputs_BG, state, self.weight_hh, self.bias_hh)
            found.append(state[0])
        return torch.stack(found, dim=1)


class RecurrentEncoder(nn.Module):
    """Layers of two directions, each of half the hidden size; a layer reads both directions of the one below."""

    def __init__(self, cell: Cell, hidden_size: int, layers: int) -> None:
        super().__init__()
        self.ahead = nn.ModuleList(RecurrentLayer(cell, hidden_size, hidden_size // 2) for _ in range(layers))
        self.back = nn.ModuleList(RecurrentLayer(cell, hidden_size, hidden_size // 2) for _ in range(layers))

    def forward(self, x_BTH: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """memory_BTH, each token's states (those of padding mean nothing), and last_BH, where each direction ended.

        Padding follows what is there, in both directions: no state of a token has seen it.
        """
        order_BT1 = _reversed_order(lengths_B, x_BTH.shape[1]).unsqueeze(-1)
        for ahead, back in zip(self.ahead, self.back, strict=True):
            turned_BTH = back(_reorder(x_BTH, order_BT1))
            x_BTH = torch.cat([ahead(x_BTH), _reorder(turned_BTH, order_BT1)], dim=-1)
        half = x_BTH.shape[-1] // 2
        ends_B11 = (lengths_B - 1)[:, None, None]
        last_ahead_BH = x_BTH[..., :half].take_along_dim(ends_B11, dim=1)[:, 0]
        return x_BTH, torch.cat([last_ahead_BH, x_BTH[:, 0, half:]], dim=-1)


def _reversed_order(lengths_B: Tensor, tokens: int) -> Tensor:
    """int64 [B, T]: length - 1, ..., 0, and then padding as it lies; its own inverse."""
    columns_T = torch.arange(tokens, device=lengths_B.device)
    turned_BT = lengths_B[:, None] - 1 - columns_T
    return torch.where(turned_BT >= 0, turned_BT, columns_T)


def _reorder(x_BTH: Tensor, order_BT1: Tensor) -> Tensor:
    return x_BTH.gather(1, order_BT1.expand_as(x_BTH))

"""The recurrent encoder-decoder with attention: source and target ids to logits or loss.

Cells are GRU (arXiv 1406.1078) or LSTM (Hochreiter and Schmidhuber 1997), with the equations and the order of gates of
torch.nn.GRU and torch.nn.LSTM. Attention is that of Bahdanau et al. (arXiv 1409.0473: asked with the state before the
token, additive score, the answer goes into the cell) or of Luong et al. (arXiv 1508.04025: asked with the state after
it, score h W m, the attentional vector is fed to the next token). Loops over time are Python's, 1.2 to 1.6 times as
slow as torch's on a CPU; in exchange ZeRO-3 gathers a loop's weights once for a sequence, as parameters of one module.
"""

import dataclasses
from typing import Literal

import torch
from torch import Tensor, nn

from megadec.common.errors import ConfigError, check_choice
from megadec.decoder.heads import LanguageModelHead
from megadec.decoder.layers import Embedding, Linear, linear, matmul
from megadec.decoder.shape import ModelShape
from megadec.decoder.textbook.seq2seq import EncoderDecoder, check_source, source_mask

# Shapes: B batch, S target tokens, T source tokens, E inputs, H hidden size, G gates * hidden size, V vocabulary.

Cell = Literal["gru", "lstm"]
State = tuple[Tensor, ...]
"""What a cell remembers: (h_BH,) for a GRU, (h_BH, c_BH) for an LSTM."""

GATES = {"gru": 3, "lstm": 4}
STATES = {"gru": 1, "lstm": 2}
Attention = Literal["bahdanau", "luong"]
ATTENTIONS = ("bahdanau", "luong")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RnnShape(ModelShape):
    """hidden_size: of the embedding, the decoder's state and the memory (two directions of half of it).

    cell: gru or lstm. attention: bahdanau or luong. max_position_embeddings: the longest source and the longest target.
    initializer_std: of the embedding; other matrices start with 1 / sqrt(inputs). ConfigError for what cannot be.
    """

    vocabulary_size: int
    hidden_size: int
    encoder_layers: int
    decoder_layers: int
    max_position_embeddings: int
    cell: Cell = "gru"
    attention: Attention = "bahdanau"
    tied_embeddings: bool = True
    initializer_std: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("cell", tuple(GATES)), ("attention", ATTENTIONS)):
            check_choice(f"model.shape.{name}", getattr(self, name), known)
        if self.hidden_size % 2:
            raise ConfigError(
                f"model.shape.hidden_size={self.hidden_size} is odd; each direction of the encoder has half of it"
            )

    @property
    def attention_size(self) -> int:
        """Multiplications of attention for each source token times each target token: two products."""
        return 2 * self.hidden_size


@dataclasses.dataclass
class RnnCache:
    """What generation keeps: the sources' states, and the decoder's after the target tokens so far.

    memory_BTH; keys_BTH: what is compared; mask_BT; state: h (and c) of every layer; feed_BH: the last attentional
    vector; length: target tokens seen.
    """

    memory_BTH: Tensor
    keys_BTH: Tensor
    mask_BT: Tensor
    state: State
    feed_BH: Tensor
    length: int = 0

    def select(self, rows_N: Tensor) -> None:
        """Keep these sources, in this order; one may be taken more than once (int64)."""
        for name in ("memory_BTH", "keys_BTH", "mask_BT", "feed_BH"):
            setattr(self, name, getattr(self, name)[rows_N])
        self.state = tuple(tensor[rows_N] for tensor in self.state)


def _next_state(cell: Cell, inputs_BG: Tensor, state: State, weight_hh: Tensor, bias_hh: Tensor) -> State:
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
            state = _next_state(self.cell, inputs_BG, state, self.weight_hh, self.bias_hh)
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


class AttentionDecoder(nn.Module):
    """The loop over target tokens: attention, cells, attentional vector. All weights that it uses are its own."""

    def __init__(self, shape: RnnShape) -> None:
        super().__init__()
        self.shape = shape
        hidden, gates = shape.hidden_size, GATES[shape.cell] * shape.hidden_size
        for layer in range(shape.decoder_layers):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                size = (gates, hidden) if name.startswith("weight") else (gates,)
                self.register_parameter(f"{name}_l{layer}", nn.Parameter(torch.zeros(size)))
        self.weight_feed = nn.Parameter(torch.zeros(gates, hidden))
        self.weight_out = nn.Parameter(torch.zeros(hidden, 2 * hidden))
        if shape.attention == "bahdanau":
            self.weight_query = nn.Parameter(torch.zeros(hidden, hidden))
            self.weight_score = nn.Parameter(torch.zeros(1, hidden))

    def forward(
        self, x_BSH: Tensor, memory_BTH: Tensor, keys_BTH: Tensor, mask_BT: Tensor, feed_BH: Tensor, *state: Tensor
    ) -> tuple[Tensor, ...]:
        """The attentional vectors of embedded targets, [B, S, H], and after them the state that was reached.

        state: h (and c) of each layer before the first of them.
        """
        width = STATES[self.shape.cell]
        states = [state[first : first + width] for first in range(0, len(state), width)]
        before = self.shape.attention == "bahdanau"
        inputs_BSG = linear(x_BSH, *self._of_layer(0)[:2])
        found = []
        for inputs_BG in inputs_BSG.unbind(1):
            if before:
                feed_BH = context_BH = self._attend(states[-1][0], memory_BTH, keys_BTH, mask_BT)
            self._advance(inputs_BG + linear(feed_BH, self.weight_feed), states)
            h_BH = states[-1][0]
            if not before:
                context_BH = self._attend(h_BH, memory_BTH, keys_BTH, mask_BT)
            out_BH = linear(torch.cat([h_BH, context_BH], dim=-1), self.weight_out).tanh()
            feed_BH = out_BH
            found.append(out_BH)
        return (torch.stack(found, dim=1), *(tensor for one in states for tensor in one))

    def _of_layer(self, layer: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        names = ("weight_ih", "bias_ih", "weight_hh", "bias_hh")
        weight_ih, bias_ih, weight_hh, bias_hh = (getattr(self, f"{name}_l{layer}") for name in names)
        return weight_ih, bias_ih, weight_hh, bias_hh

    def _advance(self, inputs_BG: Tensor, states: list[State]) -> None:
        """Move every layer's state by one token; a layer above the first reads the state below it."""
        for layer, state in enumerate(states):
            weight_ih, bias_ih, weight_hh, bias_hh = self._of_layer(layer)
            if layer:
                inputs_BG = linear(states[layer - 1][0], weight_ih, bias_ih)
            states[layer] = _next_state(self.shape.cell, inputs_BG, state, weight_hh, bias_hh)

    def _attend(self, h_BH: Tensor, memory_BTH: Tensor, keys_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        """The mean of the source's states, weighted by softmax of their scores; padding has none."""
        if self.shape.attention == "bahdanau":
            mixed_BTH = (keys_BTH + linear(h_BH, self.weight_query).unsqueeze(1)).tanh()
            scores_BT = linear(mixed_BTH, self.weight_score).squeeze(-1)
        else:
            scores_BT = matmul(keys_BTH, h_BH.unsqueeze(-1)).squeeze(-1)
        weights_BT = scores_BT.masked_fill(~mask_BT, -torch.inf).softmax(dim=-1)
        return matmul(weights_BT.unsqueeze(1), memory_BTH).squeeze(1)


class RnnSeq2Seq(EncoderDecoder):
    """Bidirectional encoder, attention decoder, one embedding for both, and a head that may be tied to it."""

    def __init__(self, shape: RnnShape) -> None:
        super().__init__()
        self.shape = shape
        states = STATES[shape.cell] * shape.decoder_layers
        self.embed_tokens = Embedding(shape.vocabulary_size, shape.hidden_size)
        self.encoder = RecurrentEncoder(shape.cell, shape.hidden_size, shape.encoder_layers)
        self.key_proj = Linear(shape.hidden_size, shape.hidden_size)
        self.bridge_proj = Linear(shape.hidden_size, states * shape.hidden_size)
        self.decoder = AttentionDecoder(shape)
        self.lm_head = LanguageModelHead(self.embed_tokens, shape.tied_embeddings)

    def read(self, source_ids_BT: Tensor, source_lengths_B: Tensor, *, once: bool = False) -> RnnCache:
        check_source(source_ids_BT, source_lengths_B, self.shape.max_position_embeddings)
        memory_BTH, last_BH = self.encoder(self.embed_tokens(source_ids_BT), source_lengths_B)
        state = self.bridge_proj(last_BH).tanh().split(self.shape.hidden_size, dim=-1)
        mask_BT = source_mask(source_lengths_B, source_ids_BT.shape[1])
        return RnnCache(memory_BTH, self.key_proj(memory_BTH), mask_BT, tuple(state), torch.zeros_like(last_BH))

    def states(self, x_BSH: Tensor, cache: RnnCache) -> Tensor:
        h_BSH, *state = self.decoder(
            x_BSH, cache.memory_BTH, cache.keys_BTH, cache.mask_BT, cache.feed_BH, *cache.state
        )
        cache.state, cache.feed_BH, cache.length = tuple(state), h_BSH[:, -1], cache.length + x_BSH.shape[1]
        out: Tensor = h_BSH
        return out

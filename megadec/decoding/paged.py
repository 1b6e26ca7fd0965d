"""Our own decoder on a paged key-value cache: one forward pass for many sequences, each at its own place.

The products are computed for all tokens of a step together. Attention of a single new token goes block by block, all
blocks of all sequences as one batch of small products, without copying what the cache holds where its blocks lie
together; a part of a prompt attends by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from megadec.decoder.block import Block
from megadec.decoder.layers import rope_table
from megadec.decoder.model import Decoder
from megadec.decoding.batch import PART_TOKENS
from megadec.decoding.blocks import BlockPool, BlockTable
from megadec.decoding.packed import LEAST_ROWS, Product, WeightDtype, pack
from megadec.decoding.session import CacheUse, Feed, check_ids

BLOCK_TOKENS = 32
CACHE_SEQUENCES = 16
# Of keys and values together, unless a single sequence of the whole context takes more.
CACHE_BYTES = 2**30

# Shapes: N new tokens of all sequences, H hidden size, Q query heads, K key-value heads, G = Q / K, D head size,
# F = D / 2, T tokens of a sequence, R sequences with one new token, M the most blocks of one of them, E their blocks
# (a shared one once for each sequence), B tokens of a block.


@dataclass(frozen=True)
class _Layer:
    input_norm_H: Tensor
    qkv: Product
    q_norm_D: Tensor | None
    k_norm_D: Tensor | None
    o: Product
    post_norm_H: Tensor
    gate_up: Product
    down: Product


@dataclass(frozen=True)
class _Tokens:
    """Where the step's tokens are. cos_N1F, sin_N1F: of their positions; blocks_N, places_N: in the cache."""

    cos_N1F: Tensor
    sin_N1F: Tensor
    blocks_N: Tensor
    places_N: Tensor


@dataclass(frozen=True)
class _Singles:
    """The sequences with one new token. rows_R: where it is among the step's tokens.

    blocks_E, row_E: each block and its sequence; front: the blocks are the first E of the cache, in order.
    places_RM: which of the E a sequence's blocks are, E where it has fewer; taken_E: the other way, into R * M.
    bias_E1B: 0 where there is a token, -inf behind the last.
    """

    rows_R: Tensor
    blocks_E: Tensor
    row_E: Tensor
    front: bool
    places_RM: Tensor
    taken_E: Tensor
    bias_E11B: Tensor


class PagedDecoder:
    """A decoder as a BatchedModel; its own weights are replaced by packed ones, so it is not to be used afterwards.

    dtype: of the weights; keys and values are in float32 with int8, else in the same. sequences: the cache has room for
    so many of the whole context, as far as cache_bytes reach. Raises ConfigError for int8 off the CPU.
    """

    def __init__(
        self,
        decoder: Decoder,
        dtype: WeightDtype = "float32",
        sequences: int = CACHE_SEQUENCES,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        assert decoder.classes is None, "a classifier generates nothing"
        assert not any(parameter.is_meta for parameter in decoder.parameters()), "the decoder's weights were taken"
        shape = self.shape = decoder.shape
        self.vocabulary_size: int = shape.vocabulary_size
        self.max_position_embeddings: int = shape.max_position_embeddings
        self.device = decoder.embed_tokens.weight.device
        self.dtype = torch.float32 if dtype == "int8" else getattr(torch, dtype)
        decoder.to(self.dtype)
        self._embedding_VH = decoder.embed_tokens.weight.detach()
        self._layers = [_pack_layer(cast(Block, block), dtype) for block in decoder.layers]
        self._norm_H = decoder.norm.weight.detach()
        self._head = pack([decoder.lm_head.weight.detach()], [None], dtype)
        blocks = self._blocks(sequences, cache_bytes)
        self._pool = BlockPool(blocks, BLOCK_TOKENS, PART_TOKENS)
        size = (shape.layers, blocks, shape.kv_heads, BLOCK_TOKENS, shape.head_size)
        self._keys = torch.zeros(size, device=self.device, dtype=self.dtype)
        self._values = torch.zeros(size, device=self.device, dtype=self.dtype)

    def _blocks(self, sequences: int, cache_bytes: int) -> int:
        shape = self.shape
        block_bytes = 2 * shape.layers * shape.key_value_size * self.dtype.itemsize * BLOCK_TOKENS
        each = -(-shape.max_position_embeddings // BLOCK_TOKENS) + 1
        return max(each, min(sequences * each, cache_bytes // block_bytes))

    def begin(self, ids: Sequence[int], more_tokens: int, share: bool = True) -> BlockTable | None:
        """Room for a prompt; see BatchedModel. Raises InputError for ids that the model does not have."""
        check_ids(ids, self.vocabulary_size, self.max_position_embeddings)
        return self._pool.begin(ids, more_tokens, share)

    def reserve(self, sequence: BlockTable, tokens: int) -> bool:
        """Room for more tokens; see BatchedModel."""
        return self._pool.reserve(sequence, tokens)

    def end(self, sequence: BlockTable) -> None:
        """Free the room."""
        self._pool.end(sequence)

    def cache_use(self) -> CacheUse:
        """How much of the cache is in use."""
        size = self._keys.numel() * self._keys.itemsize * 2
        return CacheUse(self._pool.used, self._pool.blocks, BLOCK_TOKENS, size)

    @torch.inference_mode()
    def forward(self, feeds: Sequence[Feed]) -> Tensor:
        """Logits [rows, V] behind the wanted ids, float32. See BatchedModel."""
        h_NH = self._hidden(feeds)
        rows: list[int] = []
        start = 0
        for _, ids, wanted in feeds:
            rows += range(start + len(ids) - wanted, start + len(ids))
            start += len(ids)
        logits_RV = self._head(_at_least(h_NH[rows], LEAST_ROWS))[: len(rows)]
        return logits_RV.float()

    @torch.inference_mode()
    def hidden(self, feeds: Sequence[Feed]) -> Tensor:
        """The normalized hidden states [N, H] of all tokens that are fed, float32."""
        return self._hidden(feeds).float()

    def _hidden(self, feeds: Sequence[Feed]) -> Tensor:
        """The normalized hidden states [N, H] of all tokens that are fed (and of one more where there is but one)."""
        ids = [one for feed in feeds for one in feed.ids]
        x_NH = self._embedding_VH[torch.tensor(ids, device=self.device)]
        tokens = self._tokens(feeds)
        singles, parts = self._singles(feeds), _parts(feeds)
        count = len(ids)
        x_NH = _at_least(x_NH, LEAST_ROWS)
        for number, layer in enumerate(self._layers):
            qkv_NO = layer.qkv(self._normed(x_NH, layer.input_norm_H))[:count]
            out_NO = self._attend(number, layer, qkv_NO, tokens, singles, parts, feeds)
            x_NH = x_NH + layer.o(_at_least(out_NO, LEAST_ROWS))
            gate_up_NO = layer.gate_up(self._normed(x_NH, layer.post_norm_H))
            gate_NO, up_NO = gate_up_NO.chunk(2, dim=-1)
            x_NH = x_NH + layer.down(F.silu(gate_NO) * up_NO)
        for sequence, fed, _ in feeds:
            sequence.length += len(fed)
            self._pool.written(sequence)
        return self._normed(x_NH, self._norm_H)[:count]

    def _normed(self, x_NH: Tensor, weight_H: Tensor) -> Tensor:
        return F.rms_norm(x_NH, weight_H.shape, weight_H, self.shape.norm_eps)

    def _tokens(self, feeds: Sequence[Feed]) -> _Tokens:
        positions: list[int] = []
        blocks: list[int] = []
        for sequence, ids, _ in feeds:
            own = range(sequence.length, sequence.length + len(ids))
            positions += own
            blocks += [sequence.blocks[position // BLOCK_TOKENS] for position in own]
        positions_N = torch.tensor(positions, device=self.device)
        shape = self.shape
        cos_TF, sin_TF = rope_table(
            shape.head_size, shape.rope_theta, shape.max_position_embeddings, self.device, shape.rope_scaling
        )
        return _Tokens(
            cos_TF[positions_N][:, None],
            sin_TF[positions_N][:, None],
            torch.tensor(blocks, device=self.device),
            positions_N % BLOCK_TOKENS,
        )

    def _singles(self, feeds: Sequence[Feed]) -> _Singles | None:
        rows, tables, start = [], [], 0
        for sequence, ids, _ in feeds:
            if len(ids) == 1:
                rows.append(start)
                tables.append((sequence.blocks, sequence.length + 1))
            start += len(ids)
        if not rows:
            return None
        counts = [-(-length // BLOCK_TOKENS) for _, length in tables]
        most, total = max(counts), sum(counts)
        entries = sorted(
            (block, row, place) for row, (own, _) in enumerate(tables) for place, block in enumerate(own[: counts[row]])
        )
        blocks, row_of, place_of = (list(one) for one in zip(*entries, strict=True))
        lengths_E = torch.tensor(
            [min(tables[row][1] - place * BLOCK_TOKENS, BLOCK_TOKENS) for _, row, place in entries], device=self.device
        )
        tokens_B = torch.arange(BLOCK_TOKENS, device=self.device)
        bias_EB = torch.zeros(total, BLOCK_TOKENS, device=self.device, dtype=self.dtype)
        bias_EB.masked_fill_(tokens_B >= lengths_E[:, None], -torch.inf)
        taken_E = torch.tensor(row_of, device=self.device) * most + torch.tensor(place_of, device=self.device)
        places_RM = torch.full((len(rows) * most,), total, device=self.device)
        places_RM[taken_E] = torch.arange(total, device=self.device)
        return _Singles(
            torch.tensor(rows, device=self.device),
            torch.tensor(blocks, device=self.device),
            torch.tensor(row_of, device=self.device),
            blocks == list(range(total)),
            places_RM,
            taken_E,
            bias_EB[:, None, None],
        )

    def _attend(
        self,
        number: int,
        layer: _Layer,
        qkv_NO: Tensor,
        tokens: _Tokens,
        singles: _Singles | None,
        parts: Sequence[tuple[int, int]],
        feeds: Sequence[Feed],
    ) -> Tensor:
        """Write keys and values of the new tokens, and attend with all so far; [N, Q * D]."""
        shape = self.shape
        heads_NOD = qkv_NO.unflatten(-1, (-1, shape.head_size))
        q_NQD, k_NKD, v_NKD = heads_NOD.split([shape.heads, shape.kv_heads, shape.kv_heads], dim=1)
        q_NQD = self._rotated(q_NQD, layer.q_norm_D, tokens)
        keys, values = self._keys[number], self._values[number]
        keys[tokens.blocks_N, :, tokens.places_N] = self._rotated(k_NKD, layer.k_norm_D, tokens)
        values[tokens.blocks_N, :, tokens.places_N] = v_NKD
        if singles is not None and len(singles.rows_R) == q_NQD.shape[0]:
            return _attend_singles(q_NQD, keys, values, singles)
        out_NO = q_NQD.new_empty(q_NQD.shape[0], shape.query_size)
        if singles is not None:
            out_NO[singles.rows_R] = _attend_singles(q_NQD[singles.rows_R], keys, values, singles)
        for feed, start in parts:
            sequence, ids, _ = feeds[feed]
            own = slice(start, start + len(ids))
            out_NO[own] = _attend_part(q_NQD[own], keys, values, sequence)
        return out_NO

    def _rotated(self, x_NHD: Tensor, norm_D: Tensor | None, tokens: _Tokens) -> Tensor:
        """The norm of each head where the model has one, then the rotation, both in float32."""
        wide_NHD = x_NHD.float()
        if norm_D is not None:
            wide_NHD = F.rms_norm(wide_NHD, norm_D.shape, norm_D.float(), self.shape.norm_eps)
        first, second = wide_NHD.chunk(2, dim=-1)
        cos, sin = tokens.cos_N1F, tokens.sin_N1F
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(self.dtype)


def _attend_singles(q_RQD: Tensor, keys: Tensor, values: Tensor, singles: _Singles) -> Tensor:
    """Attention of one new token a sequence, [R, Q * D]."""
    rows, (kv_heads, block, size) = q_RQD.shape[0], keys.shape[1:]
    entries = len(singles.blocks_E)
    if singles.front:
        k_EKBD, v_EKBD = keys[:entries], values[:entries]
    else:
        k_EKBD, v_EKBD = keys.index_select(0, singles.blocks_E), values.index_select(0, singles.blocks_E)
    q_EKGD = q_RQD.unflatten(1, (kv_heads, -1))[singles.row_E]
    group = q_EKGD.shape[2]
    k_eDB = k_EKBD.flatten(0, 1).transpose(1, 2)
    scores_EKGB = torch.bmm(q_EKGD.flatten(0, 1), k_eDB).unflatten(0, (entries, kv_heads)) * size**-0.5
    scores_EKGB += singles.bias_E11B
    # One line of scores a sequence: its blocks side by side, and -inf where it has fewer than others.
    nothing = scores_EKGB.new_full((1, kv_heads, group, block), -torch.inf)
    lines = torch.cat((scores_EKGB, nothing))[singles.places_RM].unflatten(0, (rows, -1))
    lines_RKGMB = lines.permute(0, 2, 3, 1, 4)
    parts_RKGT = lines_RKGMB.flatten(3).softmax(-1)
    parts_RMKGB = parts_RKGT.unflatten(3, (-1, block)).permute(0, 3, 1, 2, 4)
    parts_EKGB = parts_RMKGB.flatten(0, 1)[singles.taken_E]
    mixed_EKGD = torch.bmm(parts_EKGB.flatten(0, 1), v_EKBD.flatten(0, 1)).unflatten(0, (entries, kv_heads))
    # Summed in the order of the tokens, not of the blocks, so that the sum is the same wherever the blocks lie.
    nothing = mixed_EKGD.new_zeros(1, kv_heads, group, size)
    out_RKGD: Tensor = torch.cat((mixed_EKGD, nothing))[singles.places_RM].unflatten(0, (rows, -1)).sum(1)
    return out_RKGD.flatten(1)


def _attend_part(q_SQD: Tensor, keys: Tensor, values: Tensor, sequence: BlockTable) -> Tensor:
    """Attention of a part of a prompt with itself and all before it, [S, Q * D]."""
    new, total = q_SQD.shape[0], sequence.length + q_SQD.shape[0]
    blocks = torch.tensor(sequence.blocks[: -(-total // keys.shape[2])], device=keys.device)
    k_KTD, v_KTD = (one[blocks].transpose(0, 1).flatten(1, 2)[:, :total] for one in (keys, values))
    seen_ST = torch.ones(new, total, dtype=torch.bool, device=keys.device).tril_(sequence.length)
    mixed_QSD = F.scaled_dot_product_attention(
        q_SQD.transpose(0, 1)[None], k_KTD[None], v_KTD[None], attn_mask=seen_ST, enable_gqa=True
    )[0]
    return mixed_QSD.transpose(0, 1).flatten(1)


def _parts(feeds: Sequence[Feed]) -> list[tuple[int, int]]:
    """Which feeds have several ids, and where they begin among the step's tokens."""
    found, start = [], 0
    for number, feed in enumerate(feeds):
        if len(feed.ids) > 1:
            found.append((number, start))
        start += len(feed.ids)
    return found


def _at_least(x_NH: Tensor, rows: int) -> Tensor:
    """`x_NH` with rows of zeros behind it where it has fewer."""
    return x_NH if x_NH.shape[0] >= rows else F.pad(x_NH, (0, 0, 0, rows - x_NH.shape[0]))


def _pack_layer(block: Block, dtype: WeightDtype) -> _Layer:
    """One block's weights, packed; the block's own are given up at once, so that no more than one is there twice."""
    attention, mlp = block.self_attn, block.mlp
    norms = [
        None if norm is None else norm.weight.detach().clone()
        for norm in (block.input_layernorm, attention.q_norm, attention.k_norm, block.post_attention_layernorm)
    ]
    products = []
    for modules in (
        (attention.q_proj, attention.k_proj, attention.v_proj), (attention.o_proj,),
        (mlp.gate_proj, mlp.up_proj), (mlp.down_proj,),
    ):  # fmt: skip
        biases = [None if module.bias is None else module.bias.detach() for module in modules]
        products.append(pack([module.weight.detach() for module in modules], biases, dtype))
        for module in modules:
            module.to("meta")
    input_norm, q_norm, k_norm, post_norm = norms
    assert input_norm is not None
    assert post_norm is not None
    return _Layer(input_norm, products[0], q_norm, k_norm, products[1], post_norm, products[2], products[3])

"""The Transformer encoder-decoder (arXiv 1706.03762) from the decoder's parts: source and target ids to logits or loss.

Source and target share one vocabulary and one embedding. Sources are padded to the longest of the batch and not packed,
as each target's cross-attention needs the memory of its own source. RoPE turns the queries and keys of self-attention
only: a place in the source says nothing of a place in the target.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from megadec.common.errors import InputError
from megadec.decoder.attention import AttentionMask, SelfAttention, attend, cached_mask
from megadec.decoder.block import Block, SwiGLU
from megadec.decoder.cache import KeyValueCache
from megadec.decoder.heads import LanguageModelHead
from megadec.decoder.layers import Embedding, Linear, RMSNorm, rotations
from megadec.decoder.shape import DecoderShape, ModelShape, check_context

# Shapes: B batch, S target tokens, T source tokens, H hidden size, K key-value heads, D head size, V vocabulary.

KeysValues = tuple[Tensor, Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seq2SeqShape(ModelShape):
    """Fields as in DecoderShape; `max_position_embeddings` is the longest source and the longest target. ConfigError
    else."""

    vocabulary_size: int
    hidden_size: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate_size: int
    max_position_embeddings: int
    rope_theta: float = 1e4
    norm_eps: float = 1e-6
    qk_norm: bool = True
    tied_embeddings: bool = True
    initializer_std: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.encoder.hidden_size == self.decoder.hidden_size  # made here, so that their own checks are done

    @property
    def encoder(self) -> DecoderShape:
        """The shape of the encoder's blocks."""
        return self._stack(self.encoder_layers)

    @property
    def decoder(self) -> DecoderShape:
        """The shape of the decoder's blocks, without their cross-attention."""
        return self._stack(self.decoder_layers)

    @property
    def attention_size(self) -> int:
        """Multiplications of attention for each source token times each target token.

        Two products: full in the encoder and in cross-attention, causal (a half) in the decoder.
        """
        return self.decoder.query_size * (2 * self.encoder_layers + 3 * self.decoder_layers)

    def _stack(self, layers: int) -> DecoderShape:
        of_decoder, own = ({field.name for field in dataclasses.fields(kind)} for kind in (DecoderShape, Seq2SeqShape))
        shared = of_decoder & own
        return DecoderShape(layers=layers, **{name: getattr(self, name) for name in shared})


def source_mask(source_lengths_B: Tensor, tokens: int) -> Tensor:
    """mask_BT, True at the first `length` tokens of each source: what is there, and not padding."""
    columns_T = torch.arange(tokens, device=source_lengths_B.device)
    return columns_T < source_lengths_B[:, None]


def source_attention_mask(source_lengths_B: Tensor, tokens: int) -> AttentionMask:
    """The mask by which any query sees the whole of its source, and no padding."""
    if source_lengths_B.device.type == "cpu" and int(source_lengths_B.min()) == tokens:
        return AttentionMask(everything=True)  # without a mask the fused kernels are faster
    return AttentionMask(mask_B1ST=source_mask(source_lengths_B, tokens)[:, None, None])


def check_source(source_ids_BT: Tensor, source_lengths_B: Tensor, max_position_embeddings: int) -> None:
    """Raise InputError for a source that is longer than the model's context, or, on a CPU, for one of no tokens."""
    tokens = source_ids_BT.shape[1]
    check_context(tokens, max_position_embeddings, "a source")
    # On a GPU the look would cost a wait.
    if source_lengths_B.device.type == "cpu" and not all(0 < length <= tokens for length in source_lengths_B.tolist()):
        raise InputError(f"source lengths {source_lengths_B.tolist()} are not all from 1 to {tokens}, the tokens given")


class CrossAttention(nn.Module):
    """Target tokens ask, the source's states answer: q from the one, k and v from the other."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.head_size = shape.head_size
        self.q_proj = Linear(shape.hidden_size, shape.query_size)
        self.k_proj = Linear(shape.hidden_size, shape.key_value_size)
        self.v_proj = Linear(shape.hidden_size, shape.key_value_size)
        self.o_proj = Linear(shape.query_size, shape.hidden_size)
        self.q_norm = RMSNorm(shape.head_size, shape.norm_eps) if shape.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(shape.head_size, shape.norm_eps) if shape.qk_norm else nn.Identity()

    def keys_values(self, memory_BTH: Tensor) -> KeysValues:
        """k_BTKD and v_BTKD of a source, which stay the same for all of its target."""
        k_BTKD, v_BTKD = (p(memory_BTH).unflatten(-1, (-1, self.head_size)) for p in (self.k_proj, self.v_proj))
        return self.k_norm(k_BTKD), v_BTKD

    def forward(self, x_BSH: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, mask: AttentionMask) -> Tensor:
        q_BSHD = self.q_norm(self.q_proj(x_BSH).unflatten(-1, (-1, self.head_size)))
        out: Tensor = self.o_proj(attend(q_BSHD, k_BTKD, v_BTKD, mask))
        return out


class CrossBlock(nn.Module):
    """x + self-attention(norm(x)), then x + cross-attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, shape: DecoderShape, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.norm_eps)
        self.self_attn = SelfAttention(shape, layer)
        self.cross_attention_layernorm = RMSNorm(shape.hidden_size, shape.norm_eps)
        self.cross_attn = CrossAttention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.norm_eps)
        self.mlp = SwiGLU(shape)

    def forward(
        self,
        x_BSH: Tensor,
        cos_BS1F: Tensor,
        sin_BS1F: Tensor,
        k_BTKD: Tensor,
        v_BTKD: Tensor,
        *,
        mask: AttentionMask,
        source: AttentionMask,
        cache: KeyValueCache | None,
    ) -> Tensor:
        x_BSH = x_BSH + self.self_attn(self.input_layernorm(x_BSH), cos_BS1F, sin_BS1F, mask=mask, cache=cache)
        x_BSH = x_BSH + self.cross_attn(self.cross_attention_layernorm(x_BSH), k_BTKD, v_BTKD, mask=source)
        out: Tensor = x_BSH + self.mlp(self.post_attention_layernorm(x_BSH))
        return out


class Stack(nn.Module):
    """Blocks of one kind, and a last norm: the encoder, or the decoder with cross-attention."""

    def __init__(self, shape: DecoderShape, block: type[Block] | type[CrossBlock]) -> None:
        super().__init__()
        self.shape = shape
        self.layers = nn.ModuleList(block(shape, layer) for layer in range(shape.layers))
        self.norm = RMSNorm(shape.hidden_size, shape.norm_eps)

    def forward(
        self, x_BSH: Tensor, memory: Sequence[KeysValues] = (), *, seen_tokens: int = 0, **options: Any
    ) -> Tensor:
        """The normalized states [B, S, H] of embedded tokens behind `seen_tokens` others; of padding they mean nothing.

        memory: keys and values of the source for each layer, where the blocks have cross-attention. options: what the
        blocks take by keyword.
        """
        shape = self.shape
        positions_BS = (torch.arange(x_BSH.shape[1], device=x_BSH.device) + seen_tokens).expand(x_BSH.shape[:2])
        cos_BS1F, sin_BS1F = rotations(positions_BS, shape.head_size, shape.rope_theta, shape.max_position_embeddings)
        for layer, block in enumerate(self.layers):
            x_BSH = block(x_BSH, cos_BS1F, sin_BS1F, *(memory[layer] if memory else ()), **options)
        h_BSH: Tensor = self.norm(x_BSH)
        return h_BSH


class SourceCache(Protocol):
    """Sources that were read, and the target tokens that followed each."""

    length: int
    """Target tokens seen."""

    def select(self, rows_N: Tensor) -> None:
        """Keep these sources, in this order; one may be taken more than once (int64)."""


class EncoderDecoder(nn.Module, ABC):
    """A model that reads a source beside its ids. Fresh matrices are zero: initialize or load them."""

    shape: Any
    embed_tokens: Embedding
    lm_head: LanguageModelHead

    @abstractmethod
    def read(self, source_ids_BT: Tensor, source_lengths_B: Tensor, *, once: bool = False) -> Any:
        """Encode sources for generation: a SourceCache; `once`: for one forward pass, so that no target is kept."""

    @abstractmethod
    def states(self, x_BSH: Tensor, cache: Any) -> Tensor:
        """The states [B, S, H] of embedded targets that follow those in the cache, which then holds them too."""

    def forward(
        self,
        ids_BS: Tensor,
        *,
        source_ids_BT: Tensor | None = None,
        source_lengths_B: Tensor | None = None,
        targets_BS: Tensor | None = None,
        weights_BS: Tensor | None = None,
        cache: Any = None,
        last_only: bool = False,
    ) -> Tensor:
        """Logits [B, S, V]; with targets, the float32 sum over tokens of weight * nats.

        ids_BS: what the decoder reads, `<s>` first. The source comes with its lengths (int64, from 1), or is in the
        cache that `read` gave; ids then follow those that the cache has seen. last_only: logits of the last token of
        each target, [B, 1, V]. Raises InputError for more tokens than shape.max_position_embeddings.
        """
        if cache is None:
            assert source_ids_BT is not None, "source_ids_BT or a cache"
            assert source_lengths_B is not None, "source_lengths_B goes with source_ids_BT"
            cache = self.read(source_ids_BT, source_lengths_B, once=True)
        check_context(cache.length + ids_BS.shape[1], self.shape.max_position_embeddings, "a target")
        h_BSH = self.states(self.embed_tokens(ids_BS), cache)
        out: Tensor = self.lm_head(h_BSH[:, -1:] if last_only else h_BSH, targets_BS, weights_BS)
        return out


@dataclasses.dataclass
class Seq2SeqCache:
    """Keys and values of the sources for each layer and, for generation, those of the targets so far."""

    memory: list[KeysValues]
    source: AttentionMask
    targets: KeyValueCache | None = None

    @property
    def length(self) -> int:
        """Target tokens seen."""
        return 0 if self.targets is None else self.targets.length

    def select(self, rows_N: Tensor) -> None:
        """Keep these sources, in this order; one may be taken more than once (int64)."""
        self.memory = [(k_BTKD[rows_N], v_BTKD[rows_N]) for k_BTKD, v_BTKD in self.memory]
        if self.source.mask_B1ST is not None:
            self.source = AttentionMask(mask_B1ST=self.source.mask_B1ST[rows_N])
        if self.targets is not None:
            self.targets.select(rows_N)


class TransformerSeq2Seq(EncoderDecoder):
    """Encoder, decoder with cross-attention, one embedding for both, and a head that may be tied to it.

    Parameter names are those of Decoder below `encoder.`, `decoder.`.
    """

    def __init__(self, shape: Seq2SeqShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = Embedding(shape.vocabulary_size, shape.hidden_size)
        self.encoder = Stack(shape.encoder, Block)
        self.decoder = Stack(shape.decoder, CrossBlock)
        self.lm_head = LanguageModelHead(self.embed_tokens, shape.tied_embeddings)

    def read(self, source_ids_BT: Tensor, source_lengths_B: Tensor, *, once: bool = False) -> Seq2SeqCache:
        check_source(source_ids_BT, source_lengths_B, self.shape.max_position_embeddings)
        source = source_attention_mask(source_lengths_B, source_ids_BT.shape[1])
        memory_BTH = self.encoder(self.embed_tokens(source_ids_BT), mask=source)
        memory = [block.cross_attn.keys_values(memory_BTH) for block in cast(list[CrossBlock], self.decoder.layers)]
        if once:
            return Seq2SeqCache(memory, source)
        targets = KeyValueCache(self.shape.decoder, len(memory_BTH), device=memory_BTH.device, dtype=memory_BTH.dtype)
        return Seq2SeqCache(memory, source, targets)

    def states(self, x_BSH: Tensor, cache: Seq2SeqCache) -> Tensor:
        tokens, targets = x_BSH.shape[1], cache.targets
        if targets is not None:
            targets.reserve(tokens)
        mask = cached_mask(tokens, cache.length, x_BSH.device)
        options = {"seen_tokens": cache.length, "mask": mask, "source": cache.source, "cache": targets}
        h_BSH: Tensor = self.decoder(x_BSH, cache.memory, **options)
        if targets is not None:
            targets.advance(tokens)
        return h_BSH

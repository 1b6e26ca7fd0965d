"""A shape -> the ONNX graph of its decoder or classifier, operator by operator, without weights.

Inputs and outputs are named as Optimum and onnxruntime-genai name them, weights as ours. Written by hand: a trace wants
every weight in memory; this is made in milliseconds, and stores each weight as our own files do (a tied one once), so
that it can be compared with its source bit for bit. The comparison of logits holds this second writing of the decoder
to the first.
"""

from functools import partial

import torch

from megadec.decoder.flops import parameter_table
from megadec.decoder.shape import DecoderShape
from megadec.export.onnx.graph import Graph
from megadec.export.read.source import EMBEDDING, HEAD, SCORE

COSINES, SINES = "rope.cosines", "rope.sines"
# Sizes that differ from call to call, in Optimum's words.
BATCH, NEW, SEEN, ALL = "batch_size", "sequence_length", "past_sequence_length", "total_sequence_length"

PAST, PRESENT = "past_key_values.", "present."

# The score of a key that is not seen. Not minus infinity: a row of padding, which sees nothing, would become NaN.
LEAST = torch.finfo(torch.float32).min

# Shapes: B batch, S new tokens, T tokens so far, N = B * S, H hidden size, K key-value heads, G query heads that share
# one of them, D head size, F = D / 2, V vocabulary, L labels.


def build_graph(shape: DecoderShape, classes: int | None = None, int8: bool = False) -> Graph:
    """The graph of a decoder with a cache of keys and values, or with `classes` of a classifier. int8: of the matrices.

    Inputs of both: input_ids [B, S], attention_mask [B, T] (1 for tokens, 0 for padding, past ones too). More of a
    decoder: position_ids [B, S], past_key_values.N.key and .value [B, K, T - S, D], T = S for a first call; outputs:
    logits [B, S, V], present.N.key and .value [B, K, T, D], which are the next call's past. Of a classifier T = S, and
    the output is logits [B, L] behind the last token of each sequence that is not padding.
    """
    tables = dict.fromkeys((COSINES, SINES), (shape.max_position_embeddings, shape.head_size // 2))
    graph = Graph({**parameter_table(shape, classes), **tables}, int8)
    ids_BS = graph.input("input_ids", "int64", BATCH, NEW)
    mask_BT = graph.input("attention_mask", "int64", BATCH, ALL if classes is None else NEW)
    if classes is None:
        positions = graph.input("position_ids", "int64", BATCH, NEW)
        pasts = [graph.input(name, "float", BATCH, shape.kv_heads, SEEN, shape.head_size) for name in caches(shape)]
        visible_B11ST = _visible(graph, ids_BS, mask_BT, graph.apply("Shape", pasts[0], start=2, end=3))
        body = _Body(graph, shape, ids_BS, visible_B11ST, positions, has_past=True)
        _language_head(body, body.blocks())
    else:
        positions = _columns(graph, ids_BS)
        body = _Body(graph, shape, ids_BS, _visible(graph, ids_BS, mask_BT), positions, has_past=False)
        _score_head(body, body.blocks(), positions, mask_BT, classes)
    return graph


def _language_head(body: "_Body", x_NH: str) -> None:
    graph, shape = body.graph, body.shape
    h_NH = body.norm(x_NH, "norm")
    graph.scope = "lm_head"
    logits_NV = graph.linear(EMBEDDING if shape.tied_embeddings else HEAD, h_NH)
    graph.output("logits", "float", BATCH, NEW, shape.vocabulary_size)
    graph.apply("Reshape", logits_NV, body.sizes(shape.vocabulary_size), to="logits")
    for name in caches(shape).values():
        graph.output(name, "float", BATCH, shape.kv_heads, ALL, shape.head_size)


def _score_head(body: "_Body", x_NH: str, columns_S: str, mask_BS: str, classes: int) -> None:
    graph = body.graph
    x_BSH = graph.apply("Reshape", x_NH, body.sizes(body.shape.hidden_size))
    last_B1 = graph.apply("ReduceMax", graph.apply("Mul", columns_S, mask_BS), graph.integers(1), keepdims=1)
    h_BH = body.norm(graph.apply("GatherND", x_BSH, last_B1, batch_dims=1), "norm")
    graph.apply("Gemm", h_BH, graph.weight(SCORE), transB=1, to=graph.output("logits", "float", BATCH, classes))


def caches(shape: DecoderShape) -> dict[str, str]:
    """The inputs that hold the keys and values of the tokens so far -> the outputs that are the next call's inputs."""
    parts = [f"{layer}.{what}" for layer in range(shape.layers) for what in ("key", "value")]
    return {PAST + part: PRESENT + part for part in parts}


def _columns(graph: Graph, rows_BS: str) -> str:
    """0 .. S - 1."""
    size = graph.apply("Squeeze", graph.apply("Shape", rows_BS, start=1, end=2))
    return graph.apply("Range", graph.integer(0), size, graph.integer(1))


def _visible(graph: Graph, ids_BS: str, mask_BT: str, seen_1: str | None = None) -> str:
    """visible_B11ST: the key is no padding and not behind the query."""
    keys_T, queries_S = _columns(graph, mask_BT), _columns(graph, ids_BS)
    if seen_1 is not None:
        queries_S = graph.apply("Add", queries_S, seen_1)
    queries_S1 = graph.apply("Unsqueeze", queries_S, graph.integers(1))
    causal_ST = graph.apply("LessOrEqual", keys_T, queries_S1)
    tokens_BT = graph.apply("Greater", mask_BT, graph.integer(0))
    tokens_B111T = graph.apply("Unsqueeze", tokens_BT, graph.integers(1, 2, 3))
    return graph.apply("And", causal_ST, tokens_B111T)


class _Body:
    """What all layers share, and the layers."""

    def __init__(
        self, graph: Graph, shape: DecoderShape, ids_BS: str, visible_B11ST: str, positions: str, has_past: bool
    ) -> None:
        self.graph, self.shape, self._has_past = graph, shape, has_past
        self._ids_BS = ids_BS
        self.visible_B11ST = visible_B11ST
        self.size_2 = graph.apply("Shape", ids_BS)
        graph.scope = "rope"
        self.cosines_BS1F, self.sines_BS1F = (
            graph.apply("Unsqueeze", graph.apply("Gather", graph.weight(name), positions), graph.integers(-2))
            for name in (COSINES, SINES)
        )

    def blocks(self) -> str:
        """The embedding and all layers: x [N, H]."""
        graph = self.graph
        graph.scope = "embed_tokens"
        x_NH = graph.rows(EMBEDDING, graph.apply("Reshape", self._ids_BS, graph.integers(-1)))
        for layer in range(self.shape.layers):
            x_NH = self._block(layer, x_NH)
        return x_NH

    def _block(self, layer: int, x_NH: str) -> str:
        """`Block`, and the layer's present keys and values as outputs when there is a past."""
        graph, scope = self.graph, f"layers.{layer}"
        graph.scope = f"{scope}.self_attn"
        h_NH = self.norm(x_NH, f"{scope}.input_layernorm")
        x_NH = graph.apply("Add", x_NH, self._attention(layer, h_NH))
        graph.scope = f"{scope}.mlp"
        h_NH = self.norm(x_NH, f"{scope}.post_attention_layernorm")
        return graph.apply("Add", x_NH, self._swiglu(f"{scope}.mlp", h_NH))

    def norm(self, x: str, name: str) -> str:
        """`RMSNorm`, in the form that onnxruntime knows and makes one operator of."""
        graph = self.graph
        squares = graph.apply("ReduceMean", graph.apply("Pow", x, graph.number(2.0)), graph.integers(-1), keepdims=1)
        root = graph.apply("Sqrt", graph.apply("Add", squares, graph.number(self.shape.norm_eps)))
        return graph.apply("Mul", graph.apply("Div", x, root), graph.weight(f"{name}.weight"))

    def _linear(self, name: str, x_NI: str) -> str:
        return self.graph.linear(f"{name}.weight", x_NI)

    def _swiglu(self, name: str, h_NH: str) -> str:
        gate_NI = self._linear(f"{name}.gate_proj", h_NH)
        up_NI = self._linear(f"{name}.up_proj", h_NH)
        silu_NI = self.graph.apply("Mul", gate_NI, self.graph.apply("Sigmoid", gate_NI))
        return self._linear(f"{name}.down_proj", self.graph.apply("Mul", silu_NI, up_NI))

    def _attention(self, layer: int, h_NH: str) -> str:
        """softmax(q k^T / sqrt(D)) v; the query heads of one key head stand beside each other in a dimension G."""
        graph, shape, name = self.graph, self.shape, f"layers.{layer}.self_attn"
        groups = (shape.kv_heads, shape.heads // shape.kv_heads, shape.head_size)
        q_BSHD = self._rotated(self._heads(f"{name}.q", h_NH, shape.heads))
        q_BSKGD = graph.apply("Reshape", q_BSHD, self.sizes(*groups))
        q_BKGSD = graph.apply("Transpose", q_BSKGD, perm=[0, 2, 3, 1, 4])
        k_BKTD = self._with_past(f"{layer}.key", self._rotated(self._heads(f"{name}.k", h_NH, shape.kv_heads)))
        v_BKTD = self._with_past(f"{layer}.value", self._heads(f"{name}.v", h_NH, shape.kv_heads))
        k_BK1DT = graph.apply("Unsqueeze", graph.apply("Transpose", k_BKTD, perm=[0, 1, 3, 2]), graph.integers(2))
        scaled_BKGSD = graph.apply("Mul", q_BKGSD, graph.number(shape.head_size**-0.5))
        scores_BKGST = graph.apply("MatMul", scaled_BKGSD, k_BK1DT)
        seen_BKGST = graph.apply("Where", self.visible_B11ST, scores_BKGST, graph.number(LEAST))
        shares_BKGST = graph.apply("Softmax", seen_BKGST, axis=-1)
        mixed_BKGSD = graph.apply("MatMul", shares_BKGST, graph.apply("Unsqueeze", v_BKTD, graph.integers(2)))
        mixed_BSKGD = graph.apply("Transpose", mixed_BKGSD, perm=[0, 3, 1, 2, 4])
        mixed_NQ = graph.apply("Reshape", mixed_BSKGD, graph.integers(-1, shape.query_size))
        return self._linear(f"{name}.o_proj", mixed_NQ)

    def _heads(self, name: str, h_NH: str, heads: int) -> str:
        """A projection as [B, S, heads, D], each head normalized where the shape says so."""
        shape = self.shape
        flat = self._linear(f"{name}_proj", h_NH)
        heads_BSHD = self.graph.apply("Reshape", flat, self.sizes(heads, shape.head_size))
        normed = shape.qk_norm and not name.endswith(".v")
        return self.norm(heads_BSHD, f"{name}_norm") if normed else heads_BSHD

    def sizes(self, *rest: int) -> str:
        """[B, S, *rest] for a Reshape."""
        return self.graph.apply("Concat", self.size_2, self.graph.integers(*rest), axis=0)

    def _rotated(self, x_BSHD: str) -> str:
        """`rotate` of `decoder/layers.py`."""
        apply, times = self.graph.apply, partial(self.graph.apply, "Mul")
        first, second = self.graph.halves(x_BSHD)
        left = apply("Sub", times(first, self.cosines_BS1F), times(second, self.sines_BS1F))
        right = apply("Add", times(second, self.cosines_BS1F), times(first, self.sines_BS1F))
        return apply("Concat", left, right, axis=-1)

    def _with_past(self, part: str, new_BSKD: str) -> str:
        """Keys or values [B, K, T, D] of all tokens so far."""
        new_BKSD = self.graph.apply("Transpose", new_BSKD, perm=[0, 2, 1, 3])
        if not self._has_past:
            return new_BKSD
        return self.graph.apply("Concat", PAST + part, new_BKSD, axis=2, to=PRESENT + part)

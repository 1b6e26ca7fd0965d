"""The decoder: token ids to logits of the next token or of labels, or to the summed loss.

One forward serves training, scoring and generation. Parameter names are Hugging Face's without the leading "model.".
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout as drop

from megadec.decoder.attention import CAUSAL, AttentionMask, cached_mask, packed_mask
from megadec.decoder.block import Block
from megadec.decoder.cache import KeyValueCache
from megadec.decoder.compiled import compile_blocks
from megadec.decoder.document_attention import document_starts
from megadec.decoder.execution import PLAIN, Execution
from megadec.decoder.heads import ClassifierHead, LanguageModelHead
from megadec.decoder.layers import Embedding, RMSNorm, rotations
from megadec.decoder.loss_options import PLAIN_LOSS, LanguageLoss
from megadec.decoder.recompute import run_block
from megadec.decoder.sequence_parallel import SequenceRanks
from megadec.decoder.shape import DecoderShape, check_context

# Shapes: B batch, S sequence, H hidden size, V vocabulary, or labels in a classifier.


class Decoder(nn.Module):
    """A pre-norm Transformer decoder with RMSNorm, RoPE, grouped-query attention and SwiGLU.

    Fresh matrices are zero: give them first values (initialize.py) or load weights. With tied embeddings
    `lm_head.weight` is the same Parameter object as `embed_tokens.weight`. With `classes` it is a classifier: `score`
    stands in place of `lm_head`, and the logits behind the last token of a text are those of its labels. dropout: the
    share of the embeddings and of what each half of a block adds that training leaves out (arXiv 1207.0580, where
    Vaswani et al. have it). loss: what training adds to plain nats, a classifier its label_smoothing alone.
    """

    def __init__(
        self,
        shape: DecoderShape,
        execution: Execution = PLAIN,
        classes: int | None = None,
        loss: LanguageLoss = PLAIN_LOSS,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.shape = shape
        self.classes = classes
        self.execution = execution
        self.sequence: SequenceRanks | None = None
        self.embed_tokens = Embedding(shape.vocabulary_size, shape.hidden_size)
        self.layers = nn.ModuleList(Block(shape, layer, dropout, execution) for layer in range(shape.layers))
        if execution.compile == "blocks":
            compile_blocks(self.layers)
        self.norm = RMSNorm(shape.hidden_size, shape.norm_eps, execution.kernels)
        if classes is not None:
            self.score = ClassifierHead(shape.hidden_size, classes, loss.label_smoothing)
            return
        self.lm_head = LanguageModelHead(self.embed_tokens, shape.tied_embeddings, loss, execution.kernels)

    def enable_sequence_parallel(self, sequence: SequenceRanks) -> None:
        """From now on a batch is this rank's part of its group's sequences (`TokenBatch.part_of_sequences`).

        Positions and, of the whole sequences, documents must then be given; the loss is that of the part. Collective
        calls only.
        """
        self.sequence = sequence

    def change_course(self, shape: DecoderShape, dropout: float) -> None:
        """From now on compute with this dropout, and a shape that differs in what no tensor is made of (rope_theta)."""
        self.shape = shape
        for module in (self, *self.layers):
            module.dropout = dropout

    def forward(
        self,
        ids_BS: Tensor,
        *,
        positions_BS: Tensor | None = None,
        documents_BS: Tensor | None = None,
        targets_BS: Tensor | None = None,
        weights_BS: Tensor | None = None,
        cache: KeyValueCache | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Logits [B, S, V] in the model's dtype; with targets, the float32 sum over tokens of weight * nats.

        documents_BS: int, a run of one number is one document, and attention does not leave it; without, a sequence is
        one document. positions_BS: int64 position in the document, counted from the documents when not given.
        cache: ids follow the tokens it holds, and it then holds them too; not together with documents or targets.
        last_only: logits of the last token of each sequence only, [B, 1, V].
        Raises InputError for more tokens than shape.max_position_embeddings.
        """
        mask = self._mask(ids_BS, documents_BS, cache)
        if positions_BS is None:
            assert self.sequence is None, "a part of a sequence does not say where it begins"
            seen_tokens = 0 if cache is None else cache.length
            columns_S = torch.arange(seen_tokens, seen_tokens + ids_BS.shape[1], device=ids_BS.device)
            positions_BS = columns_S.expand_as(ids_BS)
            if documents_BS is not None:
                positions_BS = columns_S - document_starts(documents_BS)
        shape = self.shape
        cos_BS1F, sin_BS1F = rotations(
            positions_BS, shape.head_size, shape.rope_theta, shape.max_position_embeddings, shape.rope_scaling
        )
        x_BSH: Tensor = self.embed_tokens(ids_BS)
        if self.training and self.dropout:
            x_BSH = drop(x_BSH, self.dropout)
        for layer, block in enumerate(self.layers):
            # By keyword what is no tensor: DeepSpeed warns of other types in positional arguments.
            x_BSH = run_block(self.execution.recompute, layer, block, x_BSH, cos_BS1F, sin_BS1F, mask=mask, cache=cache)
        if cache is not None:
            cache.advance(ids_BS.shape[1])
        h_BSH = self.norm(x_BSH)
        head = self.lm_head if self.classes is None else self.score
        out: Tensor = head(h_BSH[:, -1:] if last_only else h_BSH, targets_BS, weights_BS)
        return out

    def _mask(self, ids_BS: Tensor, documents_BS: Tensor | None, cache: KeyValueCache | None) -> AttentionMask:
        """Which token sees which. Raises InputError for more tokens than the context."""
        tokens = ids_BS.shape[1]
        if cache is not None:
            assert documents_BS is None, "a cache holds one document a sequence"
            cache.reserve(tokens)
            return cached_mask(tokens, cache.length, ids_BS.device)
        tokens *= 1 if self.sequence is None else self.sequence.count
        check_context(tokens, self.shape.max_position_embeddings)
        mask = CAUSAL
        if documents_BS is not None:
            mask = packed_mask(documents_BS, self.embed_tokens.weight.dtype, self.shape.head_size)
        return mask if self.sequence is None else replace(mask, sequence=self.sequence)
